"""What the journal is told beside the text, and how that is written down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import log_fields
from supervisor.core.commands import Announce
from supervisor.core.log_fields import Entry, datagram, of_event
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State

ROOT = Path(__file__).resolve().parents[2]
IDS = {name: getattr(log_fields, name) for name in ("READY", "FAILED", "EVICTED", "OUT_OF_MEMORY")}


def read(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What journald reads of a datagram."""
    while data:
        name, separator, data = re.split(rb"([=\n])", data, maxsplit=1)
        if separator == b"=":
            value, _, data = data.partition(b"\n")
        else:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[8 + size :].removeprefix(b"\n")
        yield name.decode(), value


@pytest.mark.parametrize(
    ("before", "to", "kind", "name"),
    [
        ("starting", "ready", None, "READY"),
        ("ready", "ready", None, None),
        ("stopped", "starting", None, None),
        ("backoff", "starting", None, None),
        ("starting", "failed", Kind.EXITED, "FAILED"),
        ("starting", "failed", Kind.CANNOT_START, "FAILED"),
        ("ready", "failed", Kind.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        ("ready", "backoff", Kind.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        ("starting", "stopped", Kind.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        ("ready", "backoff", Kind.KILLED, None),
        ("ready", "stopping", Kind.EVICTED, None),
        ("stopping", "stopped", Kind.EVICTED, "EVICTED"),
        ("stopping", "stopped", Kind.REQUESTED, None),
        ("failed", "stopped", Kind.OUT_OF_MEMORY, None),
        ("backoff", "stopped", Kind.OUT_OF_MEMORY, None),
    ],
)
def test_which_events_have_an_id(before: str, to: str, kind: Kind | None, name: str | None) -> None:
    reason = EndReason(kind) if kind else None
    event = Announce("state", "m", "m: …", "m#2", before=State(before), state=State(to), reason=reason, launch=7)
    fields = of_event(event)
    assert fields.get("MESSAGE_ID") == (IDS[name] if name else None)
    assert (fields["MODEL"], fields["INSTANCE"], fields["LAUNCH"], fields["MODEL_STATE"]) == ("m", "m#2", "7", to)
    assert fields.get("REASON") == (kind.value if kind else None)


def test_an_event_of_no_model_has_no_fields() -> None:
    assert of_event(Announce("reload", None, "configuration reloaded: …")) == {}


@pytest.mark.parametrize("name", IDS)
def test_ids_are_of_128_bits_and_documented(name: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", IDS[name])
    assert IDS[name] in (ROOT / "docs" / "logs.md").read_text()


@pytest.mark.parametrize("kind", Kind)
def test_reasons_are_documented(kind: Kind) -> None:
    assert f"`{kind.value}`" in (ROOT / "docs" / "logs.md").read_text()


def test_a_line_of_the_supervisor() -> None:
    entry = Entry("llama-router: qwen: ready", 0.0, "error", {"MODEL": "qwen"})
    assert datagram(entry) == b"MESSAGE=qwen: ready\nPRIORITY=3\nSYSLOG_IDENTIFIER=llama-router\nMODEL=qwen\n"


@given(st.text(), st.dictionaries(st.sampled_from(["MODEL", "REASON"]), st.text(min_size=1)))
def test_whatever_is_said_can_be_read_and_drives_no_terminal(text: str, fields: dict[str, str]) -> None:
    entry = Entry(text, 0.0, fields=fields)
    found = dict(read(datagram(entry)))
    message = found["MESSAGE"].decode()
    assert message.replace("\n", "").replace("\t", "").isprintable()
    assert message.count("\n") == text.removeprefix("llama-router: ").count("\n")
    assert {name: found[name] for name in fields} == {k: v.encode(errors="replace") for k, v in fields.items()}
    assert found["SYSLOG_IDENTIFIER"] == b"llama-router"


def test_a_line_without_end_is_cut() -> None:
    assert len(datagram(replace(Entry("", 0.0), text="x" * 10**7))) < 64 * 1024
