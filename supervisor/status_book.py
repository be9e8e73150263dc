"""The status object: what the fleet tells of itself, with what the shell alone knows.

A model at rest is put into words once, until something of it changes; who knows what was told before is told the rest.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from supervisor import __version__, protocol
from supervisor.configuration import Configuration
from supervisor.core.cgroups import unenforced
from supervisor.core.fleet_state import Model
from supervisor.core.secrets import without_secrets
from supervisor.core.status import Known, Picture, at_rest, model_status, overview
from supervisor.protocol import Message

if TYPE_CHECKING:
    from supervisor.daemon import Daemon

MOST_NOTICES = 50
MOST_DIGITS = 18  # Python refuses to read thousands
STEADY_SECONDS = 0.01  # two clocks are never read at once; by more, the wall clock was set


@dataclass(slots=True)
class _Told:
    """A model as it has been told since the answer of that `number`; `seen`: what was known of it if it was at rest."""

    encoded: msgspec.Raw
    number: int
    seen: Known | None


class StatusBook:
    """Of one `daemon`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._offset = 0.0  # turns monotonic times into Unix seconds
        self._told: dict[str, _Told] = {}
        self._number = 0
        self._epoch = secrets.token_hex(8)  # another one for each program, and each set of models
        self._configuration: Configuration | None = None
        self._offered: frozenset[str] | None = None
        self._handled = -1  # events
        self._at_work: list[str] = []
        self._picture: Picture = {}  # of the fleet as a whole

    def told(self, known: str | None) -> Message:
        """The fields of the answer to "status": see protocol.py."""
        configuration = self._daemon.configured.running
        self._keep_steady()
        self._look(configuration)
        epoch, _, number = (known or "").rpartition("-")
        is_number = number.isascii() and number.isdecimal() and len(number) <= MOST_DIGITS
        since = int(number) if epoch == self._epoch and is_number and int(number) <= self._number else None
        told = self._told.values() if since is None else [each for each in self._told.values() if each.number > since]
        status = {**self._overview(configuration), "models": [each.encoded for each in told]}
        answer: Message = {"status": status, "as_of": f"{self._epoch}-{self._number}"}
        return answer if since is None else answer | {"since": known}

    def _keep_steady(self) -> None:
        offset = time.time() - time.monotonic()
        if abs(offset - self._offset) > STEADY_SECONDS:
            self._offset = offset
            self._configuration = None

    def _look(self, configuration: Configuration) -> None:
        """Put into words what is another than it was."""
        loop, offered = self._daemon.loop, self._daemon.cgroups.offered
        keeps = configuration is self._configuration and offered == self._offered
        self._configuration, self._offered = configuration, None if offered is None else frozenset(offered)
        if keeps and loop.handled == self._handled:
            self._look_at(self._at_work, keeps)
            return
        self._handled = loop.handled
        self._picture = overview(loop.fleet, self._offset)
        if self._told.keys() != loop.fleet.models.keys():
            self._epoch, self._told = secrets.token_hex(8), {}
        self._look_at(sorted(loop.fleet.models), keeps)
        self._at_work = [name for name, told in self._told.items() if told.seen is None]

    def _look_at(self, names: list[str], keeps: bool) -> None:
        assert self._configuration is not None
        number, incomplete = self._number + 1, self._configuration.incomplete
        for name in names:
            model, before = self._daemon.loop.fleet.models[name], self._told.get(name)
            seen = at_rest(model) if name not in incomplete else None
            if before is not None and keeps and seen is not None and seen == before.seen:
                continue
            encoded = protocol.piece(self._of_model(model, self._configuration))
            if before is None or bytes(encoded) != bytes(before.encoded):
                self._told[name] = _Told(encoded, number, seen)
                self._number = number
            else:
                before.seen = seen

    def _of_model(self, model: Model, configuration: Configuration) -> Message:
        daemon, name = self._daemon, model.name
        told = model_status(daemon.loop.fleet, model, self._offset)
        origin = configuration.origins.get(name)
        incomplete = configuration.presets.get(name) if name in configuration.incomplete else None
        return {
            **told,
            **(vars(origin) if origin else {"file": None, "line": None, "source": None}),
            **self._running_facts(told),
            "incomplete": incomplete and daemon.memory.why_not_whole(incomplete),
            "unenforced": unenforced(model.preset, self._offered),
        }

    def _running_facts(self, model: Message) -> Message:
        """Where a model's server answers and how it was started; None where it does not run, or was forked."""
        launch, children = model["launch"], self._daemon.children
        argv = None if launch is None else children.argv(launch)
        if argv is None:
            return {"address": None, "args": None}
        args = None if model["backend"] == "llama-cpp-python" else without_secrets(argv)
        return {"address": children.address(launch), "args": args}

    def _overview(self, configuration: Configuration) -> Message:
        daemon = self._daemon
        return {
            "version": __version__,
            "pid": os.getpid(),
            "since": daemon.started,
            "listen": _readable(daemon.listener.address),
            "url": _readable(daemon.listener.url),
            "config": _readable(str(configuration.path)),
            "models_dir": _readable(str(configuration.models_dir)),
            "state_dir": _readable(str(daemon.state_dir)),
            "notices": [vars(notice) for notice in configuration.notices[:MOST_NOTICES]],
            "problems": [vars(problem) for problem in daemon.configured.wrong[:MOST_NOTICES]],
            **daemon.configured.needs(configuration),
            "keys": daemon.admission.sources(),
            "autoload": configuration.config.autoload,
            "controllers": None if self._offered is None else sorted(self._offered),
            "fallback": configuration.config.fallback,
            "revision": daemon.facts.revision(configuration),
            **self._picture,
        }


def _readable(path: str) -> str:
    """A path as text that can be shown anywhere: its bytes need not be UTF-8."""
    return os.fsencode(path).decode(errors="replace")
