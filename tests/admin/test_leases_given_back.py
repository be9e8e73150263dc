"""Giving leases back: the supervisor hears of it in the same breath as of the next request, or right away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from admin import leases
from admin.leases import Lease, Leases, Wish
from supervisor import protocol
from supervisor.client import SOCKET_NAME, Client
from supervisor.errors import NotRunning
from supervisor.protocol import Message

DEADLINE = 10.0
WISH = Wish("m", None, "somebody")


class Listening:
    """The supervisor's end of control connections."""

    def __init__(self, directory: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / SOCKET_NAME))
        self._listener.listen()
        self._listener.settimeout(DEADLINE)

    def accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(DEADLINE)
        return connection

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    server = Listening(tmp_path)
    yield server
    server.close()


@pytest.fixture
def pool(tmp_path: Path, listening: Listening) -> Iterator[Leases]:
    """Whoever takes leases from it gives them back."""
    pool = Leases(tmp_path)
    yield pool
    gevent.idle()
    pool._drop_idle()


def grant(connection: socket.socket) -> None:
    lease = {"model": "m", "launch": 1, "address": "unix:/nowhere", "backend": None}
    connection.sendall(protocol.encode(protocol.ok(lease=lease)))


def heard(connection: socket.socket) -> list[Message]:
    """What one look finds, with nothing waited for."""
    connection.setblocking(False)
    try:
        return [protocol.decode(line) for line in protocol.LineBuffer().feed(connection.recv(65536))]
    except BlockingIOError:
        return []
    finally:
        connection.settimeout(DEADLINE)


def leased(pool: Leases, listening: Listening) -> tuple[Lease, socket.socket]:
    """A lease on a connection of its own, and the other end of that."""
    asking = gevent.get_hub().threadpool.spawn(pool.acquire, WISH, None)
    connection = listening.accept()
    grant(connection)
    lease = asking.get(timeout=DEADLINE)
    assert [message["op"] for message in heard(connection)] == ["lease"]
    return lease, connection


def give_back(lease: Lease) -> None:
    with lease:
        lease.answered(200)


def test_what_is_over_and_what_comes_next_are_told_at_once(pool: Leases, listening: Listening) -> None:
    lease, connection = leased(pool, listening)
    with connection:
        give_back(lease)
        assert heard(connection) == []
        grant(connection)
        another = pool.acquire(WISH, None)
        released, asked = heard(connection)
        assert (released["op"], released["figures"]["ended"]) == ("release", "complete")
        assert (asked["op"], asked["model"]) == ("lease", "m")
        give_back(another)


def test_without_a_next_one_it_is_told_before_the_loop_looks(pool: Leases, listening: Listening) -> None:
    given = [leased(pool, listening) for _ in range(3)]
    for lease, _ in given:
        give_back(lease)
    gevent.idle()
    told = [heard(connection) for _, connection in given]
    for _, connection in given:
        connection.close()
    assert [[message["op"] for message in each] for each in told] == [["release"]] * 3


def test_one_that_is_not_kept_has_been_told_when_it_is_closed(
    pool: Leases, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MAX_IDLE_CONNECTIONS", 0)
    lease, connection = leased(pool, listening)
    with connection:
        give_back(lease)
        assert [message["op"] for message in heard(connection)] == ["release"]
        assert connection.recv(1) == b""


def test_a_connection_on_which_it_cannot_be_told_is_not_used_again(pool: Leases, listening: Listening) -> None:
    lease, connection = leased(pool, listening)
    connection.close()
    give_back(lease)
    gevent.idle()
    lease, connection = leased(pool, listening)
    with connection:
        give_back(lease)


def test_who_does_not_read_is_hung_up_on(tmp_path: Path, listening: Listening) -> None:
    with Client(tmp_path, timeout=DEADLINE) as client, listening.accept():
        client.release_later({"ended": "x" * 10_000_000})
        with pytest.raises(NotRunning, match="cannot tell"):
            client.flush()
