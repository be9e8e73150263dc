"""The measurements, one a module: each takes a router that runs and returns what was read in one turn."""
