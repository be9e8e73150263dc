"""The supervisor of llama-router: forks, watches and restarts model servers and decides which of them run."""

__version__ = "0.1.0"
