"""What model servers write: kept, passed on, bounded, and never waited for."""

from __future__ import annotations

import os
import pty
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from harness import Supervisor, refused
from observed import DEADLINE, bytes_used

from supervisor.logs import MAX_LINE, LogBook, Source

AT_ONCE = 1.0
MIB = 1024 * 1024

FLOODS = {
    "lines": r"a line of usual length, as a server would write it\n",
    "empty lines": r"\n",
    "short lines": r"x\n",
    "one endless line": "x",
    "binary": r"\x00\xff\xfe\x80\x0a",
    "carriage returns": r"progress\r",
    "escape sequences": r"\x1b[2J\x07",
}


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS)
def test_a_flood_starves_nobody_and_fills_nothing(supervisor: Supervisor, text: str) -> None:
    supervisor.load("m", "listen={socket}", "notify=READY=1", f"flood-for-ever={text}")
    supervisor.load("other")
    supervisor.eventually(lambda: len(supervisor.logs("m")) > 100, "the flood is on")
    before = bytes_used(supervisor.pid)
    for _ in range(3):
        start = time.monotonic()
        supervisor.lease("other").grant()
        assert time.monotonic() - start < AT_ONCE
        supervisor.call("restart", model="other", wait=True)
    assert bytes_used(supervisor.pid) - before < 30 * MIB
    start = time.monotonic()
    supervisor.call("unload", model="m", wait=True)
    assert time.monotonic() - start < AT_ONCE


def test_the_log_of_a_model(supervisor: Supervisor) -> None:
    supervisor.load("m", "say=one", "mutter=tw", "mutter=o", "say=", "say=three\r", "listen={socket}", "notify=READY=1")
    supervisor.watch("m").state("stopped")
    assert supervisor.logs("m") == ["one", "two", "three"]
    assert supervisor.logs("m", lines=2) == ["two", "three"]
    assert supervisor.logs("m", lines=0) == supervisor.logs("m", lines=-1) == []


def test_both_streams_are_one_log(supervisor: Supervisor) -> None:
    supervisor.add("m", command=["sh", "-c", "echo one; echo two >&2; echo three; exit 65", "{socket}"])
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert supervisor.logs("m") == ["one", "two", "three"]


def test_a_follower_gets_each_line_once(supervisor: Supervisor) -> None:
    gate = supervisor.gate("more")
    supervisor.add("m", "say=before", gate.step, "say=after", gate.step, aliases=["also m"])
    supervisor.call("load", model="m")
    visitor = gate.visitor()
    supervisor.eventually(lambda: bool(supervisor.logs("m")), "the first line is read")
    stream = supervisor.client().stream("logs", model="also m", follow=True)
    first = next(stream)["line"]
    visitor.go()
    second = next(stream)["line"]
    assert (first["text"], second["text"]) == ("before", "after")
    assert first["launch"] == second["launch"] == supervisor.model("m")["launch"]
    assert first["at"] < second["at"]


def test_nothing_said_before_the_end_is_lost(supervisor: Supervisor) -> None:
    """More than a pipe holds, in the very last moment."""
    supervisor.add(
        "m", r"flood=900:0123456789012345678901234567890123456789012345678901234567890123456789\n", "exit=65"
    )
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert len(supervisor.logs("m")) == 900
    supervisor.add("m", r"flood=65530:x", "say=", "say=last", "exit=65")
    with refused():
        supervisor.load("m")
    assert supervisor.model("m")["reason"]["last_lines"][-1].endswith("last")


def test_only_the_last_lines_are_kept(supervisor: Supervisor) -> None:
    supervisor.add("m", r"flood=5000:x\n", "say=the end", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    lines = supervisor.logs("m", lines=10**9)
    assert (len(lines), lines[-1]) == (1000, "the end")


def test_long_lines_are_cut_into_pieces(supervisor: Supervisor) -> None:
    supervisor.add("m", "flood=10000:x", "say=.", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    lines = supervisor.logs("m")
    assert "".join(lines) == "x" * 10000 + "."
    assert len(lines) > 2


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 3 * MAX_LINE, 3 * MAX_LINE + 1])
@pytest.mark.parametrize("step", [MAX_LINE // 2, MAX_LINE])
def test_the_newline_of_a_line_that_was_cut_is_no_line(length: int, step: int) -> None:
    """However much of it each read finds."""
    read_end, write_end = os.pipe()
    found: list[str] = []
    book = LogBook(lambda: 0.0, lambda lines: found.extend(line.text for line in lines))
    source = Source("m", 1, 2, read_end, "m")
    text = b"x" * length + b"\n\nend\n"
    for at in range(0, len(text), step):
        os.write(write_end, text[at : at + step])
        assert book.read(source)
    os.close(write_end)
    assert not book.read(source)
    os.close(read_end)
    assert "".join(found[:-2]) == "x" * length
    assert [len(each) for each in found[:-3]] == [MAX_LINE] * (len(found) - 3)
    assert all(found[:-2])
    assert found[-2:] == ["", "end"]


def test_a_line_is_cut_between_characters(supervisor: Supervisor) -> None:
    supervisor.add("m", r"flood=5000:\xe2\x82\xac", "exit=65")
    with refused():
        supervisor.load("m")
    assert "m | €€€" in supervisor.log.read_text()


def test_what_is_no_text_is_shown_all_the_same(supervisor: Supervisor) -> None:
    supervisor.add("m", r"flood=1:\xff\x00\x1b[31m\n", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert supervisor.logs("m") == ["\ufffd\0\x1b[31m"]
    assert b"\x1b" not in supervisor.log.read_bytes()


def test_a_server_may_close_its_output_and_live(supervisor: Supervisor) -> None:
    supervisor.load("m", "say=bye", "close-output", "listen={socket}", "notify=READY=1", "serve")
    assert supervisor.model("m")["state"] == "ready"
    assert supervisor.logs("m") == ["bye"]
    assert supervisor.cpu_seconds_in(0.3) < 0.05


def test_names_that_come_and_go_leave_no_logs(supervisor: Supervisor) -> None:
    supervisor.add("m", "say=old", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    supervisor.remove("m")
    supervisor.add("m")
    assert supervisor.logs("m") == []


def test_the_web_tier_has_a_log_too(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors()
    supervisor.replace_web_tier("say=hello", "notify=READY=1", "pause")
    supervisor.start(until="READY=1")
    assert supervisor.logs("@web") == ["hello"]


def test_a_stuck_pipe_at_stderr_holds_up_nothing(supervisors: type[Supervisor]) -> None:
    """Lines are lost, told as such once somebody reads again, and models are not."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    supervisor = supervisors().start(stderr=theirs)
    os.close(theirs)
    supervisor.add("m", "listen={socket}", "notify=READY=1", r"flood-for-ever=a line like any other\n")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("ready")
    supervisor.load("n")
    supervisor.call("unload", model="m", wait=True)
    with suppress(BlockingIOError):
        while os.read(ours, 65536):
            pass
    supervisor.call("restart", model="n", wait=True)
    assert b" log lines are lost: nobody read them" in os.read(ours, 65536)
    os.close(ours)
    supervisor.call("restart", model="n", wait=True)


def test_a_stuck_terminal_holds_up_nothing(supervisors: type[Supervisor]) -> None:
    ours, theirs = pty.openpty()
    supervisor = supervisors().start(stderr=theirs)
    os.close(theirs)
    supervisor.add("m", "listen={socket}", "notify=READY=1", r"flood-for-ever=a line like any other\n")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("ready")
    supervisor.load("n")
    supervisor.call("unload", model="m", wait=True)
    os.close(ours)


def test_the_log_goes_on_after_a_stuck_reader(supervisors: type[Supervisor]) -> None:
    """All lines in order, whatever the reader's pace, if it reads at all."""
    ours, theirs = os.pipe()
    supervisor = supervisors().start(stderr=theirs)
    os.close(theirs)
    read: list[bytes] = []

    def reader() -> None:
        while data := os.read(ours, 65536):
            read.append(data)

    thread = threading.Thread(target=reader)
    thread.start()
    supervisor.add("m", *(f"say=line {number}" for number in range(100)), "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert supervisor.stop() == 0
    thread.join(DEADLINE)
    os.close(ours)
    lines = [line for line in b"".join(read).decode().splitlines() if line.startswith("m | ")]
    assert lines == [f"m | line {number}" for number in range(100)]


def test_the_last_words_of_a_server_with_a_large_descriptor(supervisor: Supervisor) -> None:
    """Thousands of clients push descriptors beyond what select(2) can take."""
    clients = [supervisor.client() for _ in range(1100)]
    gate = supervisor.gate("die")
    supervisor.load("m", "listen={socket}", "notify=READY=1", gate.step, "say=farewell", "exit=65")
    watch = supervisor.watch("m")
    gate.visitor().go()
    assert watch.state("failed")["reason"]["last_lines"] == ["farewell"]
    for client in clients:
        client.close()


def test_lines_have_numbers_to_go_on_from(supervisor: Supervisor) -> None:
    supervisor.add("m", "say=one", "say=two", "say=three", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")

    def told(**fields: int) -> list[dict[str, Any]]:
        return [message["line"] for message in supervisor.client().stream("logs", model="m", **fields)]

    lines = told()
    numbers = [line["number"] for line in lines]
    assert numbers == sorted(set(numbers))
    assert {line["instance"] for line in lines} == {"m"}
    assert [line["text"] for line in told(after=numbers[0])] == ["two", "three"]
    assert [line["text"] for line in told(after=numbers[0], lines=1)] == ["three"]
    assert told(after=numbers[-1]) == []
    assert told(after=2**60) == lines  # of a clock that was ahead
    supervisor.stop()
    supervisor.start()
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert [line["text"] for line in told(after=numbers[-1])] == ["one", "two", "three"]
