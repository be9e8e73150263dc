"""The supervisor's answers as checked values, so that what prints them need not doubt them.

Only what the command line shows is taken; unknown keys are left alone. Everything raises ProtocolError for a missing
or mistyped field: the other side of the socket is not the llama-router this client belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from supervisor.cli import checked
from supervisor.core.need import Bytes
from supervisor.core.reload_words import Outcome, Told
from supervisor.errors import Problem
from supervisor.protocol import Message


@dataclass(frozen=True)
class Reason:
    """Why a model's last run ended. `at` is a Unix time in seconds."""

    text: str
    at: float
    last_lines: tuple[str, ...]


@dataclass(frozen=True)
class Instance:
    """One replica of a model, or the web tier as "@web". Times are Unix seconds; `progress` is 0 to 1. One that is
    `sleeping` has put its model away until it is asked; with progress, it loads it again. `stopped_by` says why one is
    stopped that did not end so."""

    name: str
    state: str
    draining: bool
    reason: Reason | None
    stopped_by: str | None
    message: str | None
    sleeping: bool
    progress: float | None
    pid: int | None
    launch: int | None
    since: float
    in_flight: int
    served: int
    restarts: int
    next_start: float | None

    @property
    def ready(self) -> bool:
        """True when it answers requests."""
        return self.state == "ready"


@dataclass(frozen=True)
class Memory:
    """Bytes by device: what all replicas together need, how that is known, and what those that run use."""

    need: Bytes
    source: str
    parts: str
    used: Bytes


@dataclass(frozen=True)
class Model(Instance):
    """One preset: what it has in common with its foremost replica, and what is the model's own.

    `replicas` is empty where the supervisor tells of none. `waiting_for` says why the oldest of those who wait does,
    `incomplete` which file of it is not all there, `unenforced` what its preset asks in vain.
    """

    aliases: tuple[str, ...]
    description: str | None
    backend: str | None
    file: str | None
    line: int | None
    waiting: int
    waiting_since: float | None
    waiting_for: str | None
    memory: Memory | None
    incomplete: str | None
    unenforced: str | None
    replicas: tuple[Instance, ...]


@dataclass(frozen=True)
class Waiter:
    """A request in the queue: who asked, if that is known, since when (Unix seconds) it waits, and why."""

    model: str
    who: str | None
    since: float
    why: str


@dataclass(frozen=True)
class Room:
    """What may be loaded: `max_models` (0: no limit), and bytes by device, `planned` for what is loaded."""

    max_models: int
    budget: Bytes
    planned: Bytes


@dataclass(frozen=True)
class Status:
    """All that `status` shows; `web` is None while there is none, `room` where the supervisor does not tell.

    `queue` has those who have waited longest, oldest first; `waiting` counts all. `controllers` are those of the
    cgroups that models have, None where they have none. `needs_restart` and `needs_reexec` are as those of Told;
    `problems` keep the files of the configuration from being used.
    """

    version: str
    pid: int
    state: str
    since: float
    listen: str
    config: str
    needs_restart: tuple[str, ...]
    needs_reexec: tuple[str, ...]
    problems: tuple[Problem, ...]
    controllers: tuple[str, ...] | None
    counts: dict[str, int]
    room: Room | None
    queue: tuple[Waiter, ...]
    web: Model | None
    models: tuple[Model, ...]

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(model.waiting for model in self.models)

    def find(self, name: str) -> Model | None:
        """The model of that name or alias; "@web" is the web tier."""
        if self.web is not None and name == self.web.name:
            return self.web
        named = [model for model in self.models if model.name == name]
        aliased = [model for model in self.models if name in model.aliases]
        return next(iter(named + aliased), None)

    def names(self) -> list[str]:
        """Everything `find` knows."""
        return [name for model in self.models for name in (model.name, *model.aliases)]


@dataclass(frozen=True)
class Event:
    """One thing that happened. `at` is a Unix time in seconds."""

    seq: int
    at: float
    text: str


@dataclass(frozen=True)
class LogLine:
    """A line of a model server's log; `launch` tells its runs apart, `pid` is the process of this one."""

    at: float
    launch: int | None
    pid: int | None
    text: str


def status(answer: Message) -> Status:
    """The answer of op "status"."""
    body = checked.table(answer, "status")
    return Status(
        version=checked.text(body, "version"),
        pid=checked.whole(body, "pid"),
        state=checked.text(body, "state"),
        since=checked.number(body, "since"),
        listen=checked.text(body, "listen"),
        config=checked.text(body, "config"),
        needs_restart=checked.or_none(body, "needs_restart", checked.texts) or (),
        needs_reexec=checked.or_none(body, "needs_reexec", checked.texts) or (),
        problems=tuple(map(_problem, checked.or_none(body, "problems", checked.tables) or ())),
        controllers=checked.or_none(body, "controllers", checked.texts),
        counts={state: checked.whole(checked.table(body, "counts"), state) for state in checked.table(body, "counts")},
        room=_room(body) if body.get("memory") is not None else None,
        queue=tuple(map(_waiter, checked.or_none(body, "queue", checked.tables) or ())),
        web=checked.or_none(body, "web", lambda message, key: _model(checked.table(message, key))),
        models=tuple(map(_model, checked.tables(body, "models"))),
    )


def model(answer: Message) -> Model:
    """The answer of the ops "load", "unload", "restart" and "reset"."""
    return _model(checked.table(answer, "model"))


def event(message: Message) -> Event:
    """One message of the stream of "events"."""
    body = checked.table(message, "event")
    return Event(seq=checked.whole(body, "seq"), at=checked.number(body, "at"), text=checked.text(body, "text"))


def log_line(message: Message) -> LogLine:
    """One message of the stream of "logs"."""
    body = checked.table(message, "line")
    return LogLine(
        at=checked.number(body, "at"),
        launch=checked.or_none(body, "launch", checked.whole),
        pid=checked.or_none(body, "pid", checked.whole),
        text=checked.text(body, "text"),
    )


def _problem(item: Message) -> Problem:
    return Problem(
        file=checked.text(item, "file"),
        line=checked.or_none(item, "line", checked.whole),
        field=checked.or_none(item, "field", checked.text),
        message=checked.text(item, "message"),
    )


def changes(answer: Message) -> Told:
    """The answer of op "reload"."""
    body = checked.table(answer, "changes")
    outcomes = checked.or_none(body, "outcomes", checked.table) or {}
    return Told(
        added=checked.texts(body, "added"),
        changed=checked.texts(body, "changed"),
        adjusted=checked.or_none(body, "adjusted", checked.texts) or (),
        removed=checked.texts(body, "removed"),
        unchanged=checked.whole(body, "unchanged"),
        outcomes={name: _outcome(checked.table(outcomes, name)) for name in outcomes},
        settings=checked.or_none(body, "settings", checked.texts) or (),
        needs_restart=checked.or_none(body, "needs_restart", checked.texts) or (),
        needs_reexec=checked.or_none(body, "needs_reexec", checked.texts) or (),
    )


def _outcome(body: Message) -> Outcome:
    return Outcome(when=checked.text(body, "when"), in_flight=checked.whole(body, "in_flight"))


def _room(body: Message) -> Room:
    memory = checked.table(body, "memory")
    return Room(
        max_models=checked.or_none(body, "max_models", checked.whole) or 0,
        budget=checked.sizes(memory, "budget"),
        planned=checked.sizes(memory, "planned"),
    )


def _waiter(body: Message) -> Waiter:
    return Waiter(
        model=checked.text(body, "model"),
        who=checked.or_none(body, "who", checked.text),
        since=checked.number(body, "since"),
        why=checked.text(body, "why"),
    )


def _model(body: Message) -> Model:
    return Model(
        **_facts(body),
        aliases=checked.or_none(body, "aliases", checked.texts) or (),
        description=checked.or_none(body, "description", checked.text),
        backend=checked.or_none(body, "backend", checked.text),
        file=checked.or_none(body, "file", checked.text),
        line=checked.or_none(body, "line", checked.whole),
        waiting=checked.or_none(body, "waiting", checked.whole) or 0,
        waiting_since=checked.or_none(body, "waiting_since", checked.number),
        waiting_for=checked.or_none(body, "waiting_for", checked.text),
        memory=checked.or_none(body, "memory", lambda message, key: _memory(checked.table(message, key))),
        incomplete=checked.or_none(body, "incomplete", checked.text),
        unenforced=checked.or_none(body, "unenforced", checked.text),
        replicas=tuple(Instance(**_facts(each)) for each in checked.or_none(body, "replicas", checked.tables) or ()),
    )


def _facts(body: Message) -> dict[str, Any]:
    """The fields of an Instance."""
    return {
        "name": checked.text(body, "name"),
        "state": checked.text(body, "state"),
        "draining": body.get("draining") is True,
        "reason": checked.or_none(body, "reason", lambda message, key: _reason(checked.table(message, key))),
        "stopped_by": checked.or_none(body, "stopped_by", checked.text),
        "message": checked.or_none(body, "message", checked.text),
        "sleeping": body.get("sleeping") is True,
        "progress": checked.or_none(body, "progress", checked.number),
        "pid": checked.or_none(body, "pid", checked.whole),
        "launch": checked.or_none(body, "launch", checked.whole),
        "since": checked.number(body, "since"),
        "in_flight": checked.or_none(body, "in_flight", checked.whole) or 0,
        "served": checked.or_none(body, "served", checked.whole) or 0,
        "restarts": checked.or_none(body, "restarts", checked.whole) or 0,
        "next_start": checked.or_none(body, "next_start", checked.number),
    }


def _memory(body: Message) -> Memory:
    return Memory(
        need=checked.sizes(body, "need"),
        source=checked.text(body, "source"),
        parts=checked.or_none(body, "parts", checked.text) or "",
        used=checked.sizes(body, "used"),
    )


def _reason(body: Message) -> Reason:
    return Reason(
        text=checked.text(body, "text"), at=checked.number(body, "at"), last_lines=checked.texts(body, "last_lines")
    )
