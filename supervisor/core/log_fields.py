"""What the journal is told of a line beside its text: the fields that `journalctl MODEL=qwen` selects by.

Names and meanings that systemd knows are its own, systemd.journal-fields(7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.core.commands import Announce
from supervisor.core.reasons import Kind
from supervisor.core.states import State

IDENTIFIER = "llama-router"
PRIORITIES = {"error": 3, "warning": 4, "info": 6}  # syslog(3)
MAX_TEXT = 48 * 1024  # journald.conf(5) cuts lines there too; a datagram holds several times as much

# Made once with systemd-id128 new; docs/logs.md lists them, and people search by them.
READY = "63615ac61b3d4f70bf78e67e5b3048dd"
FAILED = "326ca2bc99f542b9829d835bdba1a5d7"
EVICTED = "599060d7c31849da9639aa9187e2314e"
OUT_OF_MEMORY = "4285f30e5d4149c59f10dcf8325ab1eb"

Fields = Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """One line of the log, `text` as a terminal shows it. `name` is whose output it is: a model's, "@web", or None for
    what llama-router says itself. `at` is Unix seconds."""

    text: str
    at: float
    level: str = "info"
    fields: Fields = field(default_factory=dict)
    name: str | None = None


def of_line(model: str, instance: str, launch: int) -> Fields:
    """The fields of a line that a model server wrote."""
    return {"MODEL": model, "INSTANCE": instance, "LAUNCH": str(launch)}


def of_event(event: Announce) -> Fields:
    """The fields of something that happened."""
    known = {
        "MODEL": event.model,
        "INSTANCE": event.instance,
        "LAUNCH": event.launch and str(event.launch),
        "MODEL_STATE": event.state and event.state.value,
        "REASON": event.reason and event.reason.kind.value,
        "MESSAGE_ID": _message_id(event),
    }
    return {name: value for name, value in known.items() if value}


def datagram(entry: Entry) -> bytes:
    """The entry in systemd's Native Journal Protocol: NAME=VALUE lines, or with a length where the value has lines."""
    text = entry.text.removeprefix(f"{IDENTIFIER}: ")
    fields = {
        "MESSAGE": printable(text, also="\t\n"),
        "PRIORITY": str(PRIORITIES[entry.level]),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        **entry.fields,
    }
    return b"".join(_field(name, value.encode(errors="replace")[:MAX_TEXT]) for name, value in fields.items())


def printable(text: str, also: str = "\t") -> str:
    """Without control characters, which a server could use to drive the terminal it is shown on: `journalctl -o cat`
    passes them on, and without -o hides the whole line as a "blob"."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in also else "\N{REPLACEMENT CHARACTER}" for char in text)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)


def _message_id(event: Announce) -> str | None:
    """Of the end of a run, or its beginning; None for all else, such as a change of mind on the way."""
    if event.kind != "state" or event.state is event.before or event.state is State.STOPPING:
        return None
    if event.state is State.READY:
        return READY
    if event.before in (State.BACKOFF, State.FAILED) or event.reason is None:
        return None
    by_kind = {Kind.OUT_OF_MEMORY: OUT_OF_MEMORY, Kind.EVICTED: EVICTED}
    return by_kind.get(event.reason.kind, FAILED if event.state is State.FAILED else None)
