"""What each control request does: it becomes an event for the core, or a look at what the shell keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from supervisor import protocol
from supervisor.announcements import Announcements, Record
from supervisor.control import Connection
from supervisor.core.events import AskDropped, Asked, Goal, LeaseAsked, LeaseEnded
from supervisor.core.preset import Preset
from supervisor.core.refusals import Refusal
from supervisor.errors import ConfigurationError, Refused
from supervisor.facts import Facts
from supervisor.logs import LogBook, LogLine
from supervisor.loop import Loop
from supervisor.preset_files import Handler
from supervisor.protocol import Message

MAX_WHO = 200

# Told whether to change nothing and only say what would change, and whom to tell that, or what is wrong.
Reload = Callable[[bool, Callable[[Message | ConfigurationError], None]], None]
# Told what is known already.
Status = Callable[[str | None], Message]


def invalid(message: str) -> Refused:
    """A malformed request on the control socket."""
    return Refused(f"cannot answer control request: {message}", status=400, error_type="invalid_request_error")


class Operations:
    """Handles the requests of all connections and answers them, at once or when the core decides. `last_number` is that
    of the last lease or request."""

    def __init__(
        self,
        loop: Loop,
        announcements: Announcements,
        logbook: LogBook,
        *,
        status: Status,
        facts: Callable[[], Facts],
        reload: Reload,
        autoload: Callable[[], bool],
        lacks: Callable[[Preset], bool],
        reexec: Callable[[int], None],
        files: Mapping[str, Handler],
    ) -> None:
        """`lacks` tells whether a preset's program is not there, or its file is incomplete."""
        self._loop = loop
        self._announcements = announcements
        self._logbook = logbook
        self._status = status
        self._facts = facts
        self._reload = reload
        self._autoload = autoload
        self._lacks = lacks
        self._reexec = reexec
        self._files = files
        self.last_number = 0
        self._waiting: dict[int, Connection] = {}
        self._handlers: dict[str, Callable[[Connection, Message], None]] = {
            "lease": self._lease,
            "release": self._release,
            "status": self._tell_status,
            "facts": self._tell_facts,
            "load": self._ask,
            "unload": self._ask,
            "restart": self._ask,
            "reset": self._ask,
            "reload": self._reload_presets,
            "reexec": self._ask_for_reexec,
            "events": self._events,
            "logs": self._logs,
            **dict.fromkeys(files, self._ask_files),
        }

    @property
    def due(self) -> set[int]:
        """The numbers of what is still to be answered."""
        return set(self._waiting)

    def take_over(self, connections: Iterable[Connection], last_number: int) -> None:
        """Go on with those who wait for another program's answer."""
        self.last_number = last_number
        for each in connections:
            if each.claim is not None and not each.granted:
                self._waiting[each.claim] = each
            if each.asking is not None:
                self._waiting[each.asking] = each

    def handle(self, connection: Connection, message: Message) -> None:
        """Take one request."""
        op = message.get("op")
        handler = self._handlers.get(op) if isinstance(op, str) else None
        try:
            if handler is None:
                raise invalid(f"unknown op {op!r}; known are {', '.join(self._handlers)}")
            if connection.busy and op != "release":
                raise invalid(f"{op!r} came before the answer to the request before it")
            handler(connection, message)
        except Refused as error:
            connection.refuse(error)

    def gone(self, connection: Connection) -> None:
        """A client hung up: whatever it held or waited for is free."""
        if connection.claim is not None:
            self._end_lease(connection, served=False)
        if connection.asking is not None:
            self._waiting.pop(connection.asking, None)
            self._loop.deliver(AskDropped(connection.asking))

    def granted(self, lease: int, grant: Message) -> None:
        """The core granted a lease."""
        if (connection := self._waiting.pop(lease, None)) is not None:
            connection.granted = True
            connection.send(protocol.ok(lease=grant))

    def refused(self, number: int, refusal: Refusal) -> None:
        """The core refused a lease, or what an operator asked."""
        connection = self._waiting.pop(number, None)
        if connection is None:
            return
        connection.claim = connection.asking = None
        connection.refuse(
            Refused(refusal.message, status=refusal.status, error_type=refusal.type, retry_after=refusal.retry_after)
        )

    def answered(self, ask: int, model: Message) -> None:
        """What an operator asked for is done."""
        if (connection := self._waiting.pop(ask, None)) is not None:
            connection.asking = None
            connection.send(protocol.ok(model=model))

    def _lease(self, connection: Connection, message: Message) -> None:
        if connection.claim is not None:
            raise invalid("'lease' while the connection holds one; release it first, or open another connection")
        model = _field(message, "model", str, None)
        timeout = _field(message, "timeout", float, None)
        avoid = _field(message, "avoid", int, None)
        autoload = _field(message, "autoload", bool, self._autoload())
        who = _field(message, "who", str, "")[:MAX_WHO] or None
        connection.claim, connection.granted = self._number(connection), False
        self._loop.deliver(LeaseAsked(connection.claim, model, autoload, timeout, avoid, who, self._is_futile(model)))

    def _release(self, connection: Connection, message: Message) -> None:
        if connection.claim is not None:
            figures = _field(message, "figures", dict, {})
            self._end_lease(connection, served=figures.get("ended") == "complete")

    def _end_lease(self, connection: Connection, served: bool) -> None:
        lease, connection.claim, connection.granted = connection.claim, None, False
        assert lease is not None
        self._waiting.pop(lease, None)
        self._loop.deliver(LeaseEnded(lease, served))

    def _ask(self, connection: Connection, message: Message) -> None:
        model = _field(message, "model", str, None)
        if not model:
            raise invalid(f"{message['op']!r} needs a model")
        wait, strict = _field(message, "wait", bool, False), _field(message, "strict", bool, False)
        connection.asking = self._number(connection)
        self._loop.deliver(Asked(connection.asking, Goal(message["op"]), model, wait, strict, self._is_futile(model)))

    def _is_futile(self, name: str | None) -> bool:
        """Whether what a model needs that is not running is not there: others must not make room for it."""
        fleet = self._loop.fleet
        model = fleet.resolve(name or fleet.policy.fallback or "")
        return model is not None and not model.has_process and self._lacks(model.preset)

    def _reload_presets(self, connection: Connection, message: Message) -> None:
        dry_run = _field(message, "dry_run", bool, False)
        number = connection.asking = self._number(connection)
        self._reload(dry_run, lambda changes: self._reloaded(number, changes))

    def _reloaded(self, number: int, changes: Message | ConfigurationError) -> None:
        connection = self._waiting.pop(number, None)
        if connection is None:
            return
        connection.asking = None
        if isinstance(changes, ConfigurationError):
            connection.refuse(
                Refused(
                    "cannot reload: the configuration has errors; the running one is kept",
                    status=400,
                    error_type="invalid_request_error",
                    problems=changes.problems,
                )
            )
        else:
            connection.send(protocol.ok(changes=changes))

    def _ask_files(self, connection: Connection, message: Message) -> None:
        number = connection.asking = self._number(connection)
        try:
            self._files[message["op"]](message, lambda answer: self.answer(number, answer))
        except Refused as error:
            self.answer(number, error)

    def _ask_for_reexec(self, connection: Connection, _: Message) -> None:
        number = connection.asking = self._number(connection)
        try:
            self._reexec(number)
        except Refused as error:
            self.answer(number, error)

    def _number(self, connection: Connection) -> int:
        """A new number, for what the connection waits for."""
        self.last_number += 1
        self._waiting[self.last_number] = connection
        return self.last_number

    def answer(self, number: int, answer: Message | Refused) -> None:
        """Tell whoever asked that, if it is still there."""
        if (connection := self._waiting.pop(number, None)) is None:
            return
        connection.asking = None
        if isinstance(answer, Refused):
            connection.refuse(answer)
        else:
            connection.send(protocol.ok(**answer))

    def _tell_status(self, connection: Connection, message: Message) -> None:
        connection.send(protocol.ok(**self._status(_field(message, "known", str, None))))

    def _tell_facts(self, connection: Connection, _: Message) -> None:
        told = [{"facts": {"model": name, **facts}} for name, facts in self._facts().items()]
        connection.send(protocol.ok(), *told, {"end": True})

    def _events(self, connection: Connection, message: Message) -> None:
        since, follow = _field(message, "since", int, 0), _field(message, "follow", bool, False)
        connection.send(protocol.ok())
        for record in self._announcements.since(since):
            connection.send(event_message(record))
        connection.follows_events = follow
        if not follow:
            connection.send({"end": True})

    def _logs(self, connection: Connection, message: Message) -> None:
        name = self._log_name(_field(message, "model", str, ""))
        count, follow = _field(message, "lines", int, 100), _field(message, "follow", bool, False)
        after = _field(message, "after", int, 0)
        connection.send(protocol.ok())
        for line in self._logbook.tail(name, count, after):
            connection.send(line_message(line))
        if follow:
            connection.follows_log = name
        else:
            connection.send({"end": True})

    def _log_name(self, name: str) -> str:
        if name == protocol.WEB:
            return name
        model = self._loop.fleet.resolve(name)
        if model is None:
            raise Refused(f"model is not found: '{name}'", status=404, error_type="not_found_error")
        return model.preset.name


def event_message(record: Record) -> Message:
    """A record as the followers of "events" receive it."""
    return {"event": record}


def line_message(line: LogLine) -> Message:
    """A line as the followers of "logs" receive it."""
    told = {"at": line.at, "launch": line.launch, "pid": line.pid, "text": line.text}
    return {"line": {**told, "instance": line.instance, "number": line.number}}


def _field(message: Message, name: str, kind: type, default: Any) -> Any:
    """A field of the right type, or its default where it is absent or null."""
    value = message.get(name)
    if value is None:
        return default
    if kind is float and isinstance(value, int) and abs(value) < 2**53:
        value = value if isinstance(value, bool) else float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)) or not _is_sound(value):
        raise invalid(f"{name!r} is {str(value)[:80]!r}, which is no {kind.__name__}")
    return value


def _is_sound(value: object) -> bool:
    """False for what JSON in Python's reading may hold but nothing else can take: NaN, infinities, half a character."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or not any("\ud800" <= char <= "\udfff" for char in value)
