"""`llama-router run`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import click

from supervisor import __version__, directories
from supervisor.cli.options import path_option, runtime_dir, runtime_dir_option
from supervisor.cli.terminal import say
from supervisor.errors import EX_TEMPFAIL, ConfigurationError

# What a start takes beside the waiting for programs, with room to spare.
START_SECONDS = 60.0


@click.command("run", epilog="Example: llama-router run --config ./config.yaml --listen 127.0.0.1:9000")
@path_option(
    "--config",
    metavar="FILE",
    text="The configuration file; else $LLAMA_ROUTER_CONFIG, ~/.config or /etc/llama-router/config.yaml.",
)
@click.option("--listen", metavar="ADDRESS", help="Host and port, or the path of a UNIX socket; replaces the file's.")
@path_option(
    "--state-dir",
    metavar="DIR",
    text="Directory for what is kept between runs; else ~/.local/state or, for root, /var/lib/llama-router.",
)
@runtime_dir_option
def command(config: Path | None, listen: str | None, state_dir: Path | None) -> int:
    """Run the supervisor until SIGTERM or Ctrl-C."""
    gc.disable()  # until the loop runs: nearly all that is made here stays, and looking at it takes a tenth of the time
    # These bring pydantic and the whole daemon, which no client command should wait for.
    from supervisor import daemon, exposure, handover, listener, presets_dir, systemd
    from supervisor.memory import Memory

    given = handover.given(os.environ)
    if given is not None and given[0] == handover.CHECK:
        given[1].restored()
        say(f"{handover.ACCEPTED}{__version__}")
        return 0
    passed = listener.passed(os.environ)  # before anything is started that could inherit it

    chosen = directories.for_daemon(os.environ, runtime=runtime_dir(), state=state_dir, config=config)
    hashes = exposure.take_keys()
    memory = Memory(chosen.state, waiting=lambda seconds: systemd.extend_start(seconds + START_SECONDS))
    if given is not None:
        return daemon.take_over(given[1], chosen, listen, memory)
    try:
        configuration = presets_dir.load(chosen.config, memory)
    except ConfigurationError as error:
        if memory.gave_up:
            error.exit_code = EX_TEMPFAIL
        error.problems += directories.unwritten(os.environ, config)
        raise
    return daemon.run(configuration, chosen, listen, memory, hashes, passed)
