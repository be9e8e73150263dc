"""Which state directory a command means that works on its files, whether or not a llama-router runs."""

from __future__ import annotations

import os
from pathlib import Path

from supervisor import directories
from supervisor.cli import checked
from supervisor.cli.asking import connect
from supervisor.cli.options import path_option
from supervisor.cli.terminal import explain
from supervisor.errors import CannotCreate, NotRunning
from supervisor.protocol import Message

state_dir_option = path_option(
    "--state-dir", metavar="DIR", text="Its directory; else that of the running llama-router, or as for run."
)


def running() -> Message | None:
    """The status object of the llama-router that commands talk to; None if none runs."""
    try:
        with connect() as client:
            return checked.table(client.call("status"), "status")
    except NotRunning:
        return None


def chosen(state_dir: Path | None, status: Message | None) -> Path:
    """(1) The option. (2) What the llama-router that runs uses. (3) What one would use that is started so."""
    if state_dir is None and status is not None:  # (2)
        told = Path(checked.text(status, "state_dir"))
        if not told.is_dir():
            raise CannotCreate(f"cannot find {told}, where the running llama-router keeps its state; use --state-dir")
        return told
    return directories.for_daemon(os.environ, state=state_dir).state  # (1) (3)


def explain_guess(state_dir: Path | None, status: Message | None) -> None:
    """Say so where (3) was a guess."""
    if status is None and state_dir is None:
        explain("No llama-router answers here. One started with this directory takes it; for another's, be its user.")
