"""How each kind of model server is started: a preset and a place in, a plan out. Nothing is started here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from supervisor.core import facts
from supervisor.core.events import Notified
from supervisor.core.preset import Preset
from supervisor.core.quantities import shown
from supervisor.core.reasons import EndReason
from supervisor.core.secrets import without_secrets

if TYPE_CHECKING:
    from supervisor.backends.llama_server_binary import Binary


@dataclass(frozen=True)
class Place:
    """Where one launch may put things.

    `socket` is the UNIX socket the model server is to listen on, `settings` a file that may be written for it (mode
    0600), and `port` picks a free loopback TCP port.
    """

    socket: Path
    settings: Path
    port: Callable[[], int]


@dataclass(frozen=True)
class Dialect:
    """How a program tells things that knows no sd_notify(3).

    `notice` is what a line of its log tells of a launch (None: it is for people), `explained` the end of a run with
    what its last lines make clear of it. `farewell` is written to its standard input before it gets a SIGTERM.
    """

    notice: Callable[[int, str], Notified | None]
    explained: Callable[[EndReason], EndReason]
    farewell: bytes


@dataclass(frozen=True)
class Plan:
    """What to run and where it will answer.

    `env` is added to the supervisor's own environment, of which the variables in `without` are left out. `address` is
    "unix:/run/…/18.sock" or "tcp:127.0.0.1:40123".
    `fork` is what the forkserver may be given instead of running `argv`; None where only running it will do.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    address: str
    fork: Mapping[str, Any] | None = None
    without: frozenset[str] = frozenset()
    dialect: Dialect | None = None


class Known(Protocol):
    """What was found out before, so that a plan waits for nothing: the program of a preset, for which it raises
    CannotStart, and whether a model says how an input's vectors become one."""

    def binary(self, preset: Preset) -> Binary: ...

    def names_pooling(self, path: str) -> bool: ...


def plan(preset: Preset, place: Place, known: Known) -> Plan:
    """How to start a model server for `preset`, writing its settings file if it needs one. Raises CannotStart."""
    # Each backend's module needs Place and Plan from this one.
    from supervisor.backends import command, llama_cpp_python, llama_server

    match preset.backend:
        case "llama-cpp-python":
            return llama_cpp_python.plan(preset, place)
        case "llama-server":
            return llama_server.plan(preset, place, known)
        case "command":
            return command.plan(preset, place)


def dialect_of(preset: Preset) -> Dialect | None:
    """How the server of a preset talks, if not by sd_notify(3)."""
    from supervisor.backends import llama_server

    return llama_server.DIALECT if preset.backend == "llama-server" else None


def problems(preset: Preset, program: Callable[[Preset], Binary | None]) -> list[tuple[tuple[str, ...], str]]:
    """What only the backend's program can say of a preset, each with the keys it belongs to.

    `program` finds it, or raises CannotStart; None if nothing is known of it.
    """
    from supervisor.backends import llama_server

    return llama_server.problems(preset, program) if preset.backend == "llama-server" else []


def missing_program(preset: Preset) -> str | None:
    """Why there is no program to start for `preset`; None if there is one, found as execvpe(3) finds it."""
    program = {"llama-server": preset.binary or "llama-server", "command": "".join(preset.command[:1])}.get(
        preset.backend
    )
    search = preset.env.get("PATH", os.environ.get("PATH"))
    if program is None or shutil.which(program, path=search):
        return None
    why = "it is not on PATH"
    if "/" in program:
        why = "it can't be executed" if os.path.lexists(program) else "No such file or directory"
    return f"cannot run {shown(program, 200)}: {why}"


def shown_args(preset: Preset) -> list[str]:
    """The command line of a server of `preset` for people to look at: without secrets, {port} and {socket} left open.

    For llama-cpp-python, whose servers are forked and read a file, these are the settings in it.
    """
    from supervisor.backends import llama_cpp_python

    if preset.backend == "llama-cpp-python":
        return facts.settings_args(preset.backend, llama_cpp_python.settings(preset))
    if preset.backend == "command":
        return without_secrets(preset.command)
    return facts.llama_server_args(preset)


def want_forkserver(presets: Iterable[Preset]) -> bool:
    """True if one of them can be started by it."""
    from supervisor.backends import llama_cpp_python

    return any(llama_cpp_python.can_be_forked(preset) for preset in presets)
