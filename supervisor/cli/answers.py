"""The supervisor's answers as checked values, so that what prints them need not doubt them.

Only what the command line shows is taken; unknown keys are left alone. Everything raises ProtocolError for a missing
or mistyped field: the other side of the socket is not the llama-router this client belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from supervisor.errors import ProtocolError
from supervisor.protocol import Message

T = TypeVar("T")


@dataclass(frozen=True)
class Reason:
    """Why a model's last run ended. `at` is a Unix time in seconds."""

    text: str
    at: float
    last_lines: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """One preset, or the web tier as "@web". Times are Unix seconds; `progress` is 0 to 1."""

    name: str
    aliases: tuple[str, ...]
    description: str | None
    backend: str | None
    state: str
    draining: bool
    reason: Reason | None
    message: str | None
    progress: float | None
    pid: int | None
    launch: int | None
    since: float
    in_flight: int
    waiting: int
    served: int
    restarts: int
    next_start: float | None
    file: str | None
    line: int | None

    @property
    def ready(self) -> bool:
        """True when it answers requests."""
        return self.state == "ready"


@dataclass(frozen=True)
class Status:
    """All that `status` shows; `web` is None while there is none."""

    version: str
    pid: int
    state: str
    since: float
    listen: str
    config: str
    counts: dict[str, int]
    web: Model | None
    models: tuple[Model, ...]

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
    """A line of a model server's log; `launch` tells its runs apart."""

    at: float
    launch: int | None
    text: str


@dataclass(frozen=True)
class Changes:
    """What a reload did, as model names; `unchanged` is a number of models."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int


def field(message: Message, key: str) -> Any:
    """What `message` must have under `key`. Raises ProtocolError when it has not."""
    try:
        return message[key]
    except KeyError:
        raise ProtocolError(f"cannot read the supervisor's answer: it has no {key!r}") from None


def status(answer: Message) -> Status:
    """The answer of op "status"."""
    body = _table(answer, "status")
    return Status(
        version=_text(body, "version"),
        pid=_whole(body, "pid"),
        state=_text(body, "state"),
        since=_number(body, "since"),
        listen=_text(body, "listen"),
        config=_text(body, "config"),
        counts={state: _whole(_table(body, "counts"), state) for state in _table(body, "counts")},
        web=_or_none(body, "web", lambda message, key: _model(_table(message, key))),
        models=tuple(_model(_checked(dict, item, "models")) for item in _list(body, "models")),
    )


def model(answer: Message) -> Model:
    """The answer of the ops "load", "unload", "restart" and "reset"."""
    return _model(_table(answer, "model"))


def event(message: Message) -> Event:
    """One message of the stream of "events"."""
    body = _table(message, "event")
    return Event(seq=_whole(body, "seq"), at=_number(body, "at"), text=_text(body, "text"))


def log_line(message: Message) -> LogLine:
    """One message of the stream of "logs"."""
    body = _table(message, "line")
    return LogLine(at=_number(body, "at"), launch=_or_none(body, "launch", _whole), text=_text(body, "text"))


def changes(answer: Message) -> Changes:
    """The answer of op "reload"."""
    body = _table(answer, "changes")
    return Changes(
        added=_texts(body, "added"),
        changed=_texts(body, "changed"),
        removed=_texts(body, "removed"),
        unchanged=_whole(body, "unchanged"),
    )


def _model(body: Message) -> Model:
    return Model(
        name=_text(body, "name"),
        aliases=_texts(body, "aliases") if "aliases" in body else (),
        description=_or_none(body, "description", _text),
        backend=_or_none(body, "backend", _text),
        state=_text(body, "state"),
        draining=body.get("draining") is True,
        reason=_or_none(body, "reason", lambda message, key: _reason(_table(message, key))),
        message=_or_none(body, "message", _text),
        progress=_or_none(body, "progress", _number),
        pid=_or_none(body, "pid", _whole),
        launch=_or_none(body, "launch", _whole),
        since=_number(body, "since"),
        in_flight=_or_none(body, "in_flight", _whole) or 0,
        waiting=_or_none(body, "waiting", _whole) or 0,
        served=_or_none(body, "served", _whole) or 0,
        restarts=_or_none(body, "restarts", _whole) or 0,
        next_start=_or_none(body, "next_start", _number),
        file=_or_none(body, "file", _text),
        line=_or_none(body, "line", _whole),
    )


def _reason(body: Message) -> Reason:
    return Reason(text=_text(body, "text"), at=_number(body, "at"), last_lines=_texts(body, "last_lines"))


def _or_none(message: Message, key: str, take: Callable[[Message, str], T]) -> T | None:
    return None if message.get(key) is None else take(message, key)


def _text(message: Message, key: str) -> str:
    return _checked(str, field(message, key), key)


def _texts(message: Message, key: str) -> tuple[str, ...]:
    return tuple(_checked(str, item, key) for item in _list(message, key))


def _list(message: Message, key: str) -> list[Any]:
    return _checked(list, field(message, key), key)


def _table(message: Message, key: str) -> Message:
    return _checked(dict, field(message, key), key)


def _whole(message: Message, key: str) -> int:
    value = field(message, key)
    if isinstance(value, bool):
        raise _mistyped(value, key)
    return _checked(int, value, key)


def _number(message: Message, key: str) -> float:
    value = field(message, key)
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _mistyped(value, key)
    return number


def _checked(kind: type[T], value: Any, key: str) -> T:
    if not isinstance(value, kind):
        raise _mistyped(value, key)
    return value


def _mistyped(value: Any, key: str) -> ProtocolError:
    return ProtocolError(f"cannot read the supervisor's answer: {key!r} is {str(value)[:80]!r}")
