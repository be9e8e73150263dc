"""The routers that are measured, each as its own documentation says it is run."""
