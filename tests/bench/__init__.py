"""The benchmark, `make bench`: routers side by side on this machine, in one run."""
