"""How each kind of model server is started: a preset and a place in, a plan out. Nothing is started here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.core.preset import Preset
from supervisor.errors import CannotStart


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
class Plan:
    """What to run and where it will answer.

    `env` is added to the supervisor's own environment. `address` is "unix:/run/…/18.sock" or "tcp:127.0.0.1:40123".
    `fork` is what the forkserver may be given instead of running `argv`; None where only running it will do.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    address: str
    fork: Mapping[str, Any] | None = None


def plan(preset: Preset, place: Place) -> Plan:
    """How to start a model server for `preset`, writing its settings file if it needs one. Raises CannotStart."""
    # Each backend's module needs Place and Plan from this one.
    from supervisor.backends import command, llama_cpp_python

    if preset.backend == "llama-cpp-python":
        return llama_cpp_python.plan(preset, place)
    if preset.backend == "command":
        return command.plan(preset, place)
    raise CannotStart(
        f"cannot start {preset.name}: backend {preset.backend!r} is not part of this version; "
        "use llama-cpp-python, or backend: command with the program's own command line"
    )


def want_forkserver(presets: Iterable[Preset]) -> bool:
    """True if one of them can be started by it."""
    from supervisor.backends import llama_cpp_python

    return any(llama_cpp_python.can_be_forked(preset) for preset in presets)
