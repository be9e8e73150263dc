"""What the running llama-router would make of a configuration file, as far as it can be asked."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from supervisor.cli import answers
from supervisor.cli.options import runtime_dir
from supervisor.client import SOCKET_NAME, Client
from supervisor.core.reload_words import Told
from supervisor.directories import CONFIG_FILE, SYSTEM_CONFIG, SYSTEM_RUNTIME, for_client
from supervisor.errors import NotRunning, Problem, ProtocolError, Refused
from supervisor.protocol import Message

ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Comparison:
    """`told` is what a reload would change, and `controllers` those of the cgroups that models have, if they have any.
    Where that is not known, `notice` says why, if need be with `problems`."""

    told: Told | None = None
    controllers: tuple[str, ...] | None = None
    notice: str | None = None
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> Message:
        """For `check --json`."""
        return {
            "changes": asdict(self.told) if self.told is not None else None,
            "notice": self.notice,
            "problems": [vars(problem) for problem in self.problems],
        }


def compare(config: Path) -> Comparison | None:
    """Ask the llama-router of the chosen runtime directory, for ANSWER_SECONDS an answer. None if there is none."""
    directory = _directory(config)
    try:
        os.stat(directory / SOCKET_NAME)  # noqa: PTH116  # Path.exists hides, or raises, PermissionError by version
        with Client(directory, timeout=ANSWER_SECONDS) as client:
            return _compared(client, config)
    except PermissionError:
        return Comparison(notice=f"cannot ask llama-router at {directory}: permission denied; not compared with it")
    except OSError:
        return None
    except NotRunning as error:
        return _unreachable(directory, error)
    except (ProtocolError, Refused) as error:
        return Comparison(notice=f"{error}; not compared with it")


def config_in_use() -> Path | None:
    """The configuration of the llama-router that commands talk to; None if none answers."""
    directory = for_client(os.environ, runtime_dir())
    try:
        os.stat(directory / SOCKET_NAME)  # noqa: PTH116  # as above
        with Client(directory, timeout=ANSWER_SECONDS) as client:
            used = answers.status(client.call("status")).config
    except (OSError, NotRunning, ProtocolError, Refused):
        return None
    return Path(used) if used else None


def _compared(client: Client, config: Path) -> Comparison:
    status = answers.status(client.call("status"))
    if not _same(config, status.config):
        return Comparison(notice=f"llama-router runs with another configuration, {status.config}; not compared with it")
    try:
        return Comparison(answers.changes(client.call("reload", dry_run=True)), status.controllers)
    except Refused as error:
        if not error.problems:
            raise
        notice = "llama-router, which may run as another user, can't use it and would go on as it is:"
        return Comparison(notice=notice, problems=tuple(error.problems))


def _unreachable(directory: Path, error: NotRunning) -> Comparison | None:
    """A socket that nobody listens on is left over from one that was killed."""
    match error.__context__:
        case ConnectionRefusedError() | FileNotFoundError():
            return None
        case PermissionError():
            return Comparison(notice=f"cannot ask llama-router at {directory}: permission denied; not compared with it")
        case _:
            return Comparison(notice=f"{error}; not compared with it")


def _directory(config: Path) -> Path:
    """Where clients look; for the system's configuration, the system's llama-router, which others may not look into."""
    chosen = for_client(os.environ, runtime_dir())
    named = runtime_dir() is not None or os.environ.get("LLAMA_ROUTER_RUNTIME_DIR")
    if named or os.path.lexists(chosen / SOCKET_NAME) or config != SYSTEM_CONFIG / CONFIG_FILE:
        return chosen
    return SYSTEM_RUNTIME


def _same(config: Path, used: str) -> bool:
    try:
        return os.path.samefile(config, used)  # noqa: PTH121
    except OSError:
        return str(config) == used
