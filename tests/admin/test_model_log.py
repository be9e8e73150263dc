"""A model's log as pages show it: lines made harmless, followed, and downloaded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor
from hypothesis import given
from hypothesis import strategies as st
from test_dashboard import asking
from web_tier import WebTier, read_until

from admin.dashboard.log import MAX_BYTES, MOST_LINES, Pending
from admin.log_text import MAX_CHARACTERS, clean
from supervisor.errors import Refused
from supervisor.protocol import Message


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
        ("\x1b(Bascii\x1b7", "ascii"),
        ("10 %\r20 %\r30 %", "30 %"),
        ("done\r", "done"),
        ("a\tb", "a\tb"),
        ("bell\x07 zero\x00", "bell\ufffd zero\ufffd"),
        ("evil\u202egpj.exe\u2066", "evil\ufffdgpj.exe\ufffd"),
        ("\u3000全角\xa0x", "\u3000全角\xa0x"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("half \ud800", "half \ufffd"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_lines_are_text(raw: str, shown: str) -> None:
    assert clean(raw) == shown


def test_long_lines_are_cut() -> None:
    assert clean("x" * 2**20) == "x" * MAX_CHARACTERS + f"… ({2**20 - MAX_CHARACTERS} more characters)"


@given(st.text())
def test_no_line_can_break_the_stream(raw: str) -> None:
    pending = Pending()
    pending.add((1, 0.0, 1, "m", clean(raw)))
    fields = pending.take().decode().split("\n")
    assert [field.partition(":")[0] for field in fields] == ["id", "event", "data", "", ""]
    assert not {"\x1b", "\x07", "\u202e"} & set(clean(raw))


def test_a_slow_browser_misses_lines_and_is_told() -> None:
    pending = Pending()
    for number in range(1, MOST_LINES + 11):
        pending.add((number, 0.0, 1, "m", "x"))
    told = []
    while pending.changed.is_set():
        told.append(json.loads(pending.take().decode().partition("data: ")[2]))
    assert [each["skipped"] for each in told] == [10] + [0] * (len(told) - 1)
    assert [line[0] for each in told for line in each["lines"]] == list(range(11, MOST_LINES + 11))


def test_a_slow_browser_holds_few_bytes() -> None:
    pending = Pending()
    pending.add((1, 0.0, 1, "m", "first", None))
    for number in range(2, 202):
        pending.add((number, 0.0, 1, "m", clean("\N{GRINNING FACE}" * MAX_CHARACTERS), None))
    event = pending.take()
    told = json.loads(event.partition(b"data: ")[2])
    assert MAX_BYTES * 0.9 < len(event) < MAX_BYTES + 100
    assert (pending.take(), pending.changed.is_set()) == (b"", False)
    numbers = [number for number, *_ in told["lines"]]
    assert numbers == list(range(told["skipped"] + 1, 202))
    pending.add((202, 0.0, 1, "m", "there is room again", None))
    assert json.loads(pending.take().partition(b"data: ")[2])["skipped"] == 0


def line(number: int, words: str, **fields: Any) -> Message:
    return {"line": {"at": 0.5, "launch": 3, "pid": 47, "text": words, "instance": "m", "number": number, **fields}}


def test_the_log_as_text(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.streams["logs"] = [line(1, "\x1b[1mone"), line(2, "<b>"), {"end": True}]
    answer = web.request("GET", "/ui/model-log/a/b%20c?lines=7&download=1")
    assert supervisor.of("logs") == [{"op": "logs", "model": "a/b c", "lines": 7}]
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a-b-c.log.txt"
    assert answer.body.decode() == "1970-01-01T00:00:00.500+00:00 m[47] one\n1970-01-01T00:00:00.500+00:00 m[47] <b>\n"


@pytest.mark.parametrize(
    ("query", "header", "after"),
    [
        ("", "", 0),
        ("&after=17", "", 17),
        ("&after=17", "Last-Event-ID: 1800000000000000\r\n", 1800000000000000),
        *((f"&after={odd}", "", 0) for odd in ("-1", "x", "99999999999999999999")),
    ],
)
def test_the_log_as_events(web: WebTier, supervisor: FakeSupervisor, query: str, header: str, after: int) -> None:
    supervisor.streams["logs"] = [line(8, "one"), line(9, "two", instance="m#2")]
    with web.connect() as browser:
        browser.sendall(asking(web, f"/ui/model-log/m?follow=1&lines=500{query}", header))
        received = read_until(browser, b"two")
        assert b"\r\nContent-Type: text/event-stream\r\n" in received
        assert b'[8,0.5,3,"m","one",47]' in received
        assert b'[9,0.5,3,"m#2","two",47]' in received
    assert supervisor.of("logs") == [{"op": "logs", "model": "m", "lines": 500, "after": after, "follow": True}]
    supervisor.wait_for("hangup")


def test_a_log_that_is_not_there(web: WebTier, supervisor: FakeSupervisor) -> None:
    def refuse(_: Message) -> Message:
        raise Refused("model is not found: 'm'", status=404, error_type="not_found_error")

    supervisor.answers["logs"] = refuse
    assert web.request("GET", "/ui/model-log/m?follow=1").status == 404
    assert web.request("GET", "/ui/model-log/m").status == 404
