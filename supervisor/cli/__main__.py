"""`python -m supervisor.cli` is llama-router without its installed script."""

from supervisor.cli import main

main()
