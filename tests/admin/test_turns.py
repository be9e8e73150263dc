"""Standing in line: a few begin each time the loop has looked for what has arrived, in the order in which they came."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent
import pytest
from gevent.socket import wait_read

from admin import turns
from admin.turns import TOGETHER, Line

NUMBER = 20 * TOGETHER


@pytest.fixture
def looks() -> Iterator[list[int]]:
    """A list to which each look of the loop adds 0, as what has arrived is dealt with then."""
    found: list[int] = []

    def look(readable: socket.socket) -> None:
        while True:
            wait_read(readable.fileno())
            found.append(0)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x")
        looking = gevent.spawn(look, ours)
        yield found
        looking.kill()


def all_begin(line: Line, looks: list[int]) -> list[int]:
    """How many began after each look. Each adds its number to what began, in its turn."""
    began: list[int] = []

    def begin(number: int) -> None:
        line.wait()
        began.append(number)
        looks[-1] += 1

    looks.append(0)
    gevent.joinall([gevent.spawn(begin, number) for number in range(NUMBER)], timeout=20, raise_error=True)
    assert began == list(range(NUMBER))
    return looks


def test_a_few_begin_at_each_look(monkeypatch: pytest.MonkeyPatch, looks: list[int]) -> None:
    monkeypatch.setattr(turns, "SHARE", 0.0)
    found = all_begin(Line(), looks)
    assert max(found) <= 2 * TOGETHER  # the first ones did not have to stand in line
    assert sum(found) == NUMBER


def test_who_begins_has_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch, looks: list[int]) -> None:
    monkeypatch.setattr(turns, "SHARE", 1e9)
    assert max(all_begin(Line(), looks)) > 4 * TOGETHER


def test_nobody_stands_in_an_empty_line() -> None:
    line = Line()
    assert not line.wait()
    assert not line


def test_who_leaves_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SHARE", 0.0)
    line, began = Line(), list[int]()

    def begin(number: int) -> None:
        line.wait()
        began.append(number)

    everyone = [gevent.spawn(begin, number) for number in range(NUMBER)]
    leaving = everyone[NUMBER // 2 :: 2]
    gevent.spawn(gevent.killall, leaving, block=False).join(20)
    assert line
    gevent.joinall(everyone, timeout=20)
    assert began == [number for number, each in enumerate(everyone) if each not in leaving]
    assert not line
