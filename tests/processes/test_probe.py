"""One readiness probe against real sockets, however they answer."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from observed import DEADLINE

from supervisor.probe import PROBE_SECONDS, Outcome, Probing

ANSWERS = {
    b"HTTP/1.1 200 OK\r\n\r\n": Outcome.HEALTHY,
    b"HTTP/1.0 200 \r\n": Outcome.HEALTHY,
    b"HTTP/1.1 200\r\n": Outcome.HEALTHY,
    b"HTTP/1.1 503 Loading\r\n": Outcome.UNHEALTHY,
    b"HTTP/1.1 2000 X\r\n": Outcome.UNHEALTHY,
    b"HTTP/2.0 200 OK\r\n": Outcome.UNHEALTHY,
    b"SSH-2.0-OpenSSH_9.2\r\n": Outcome.UNHEALTHY,
    b"HTTP/1.1 200": Outcome.UNHEALTHY,
    b"": Outcome.UNHEALTHY,
    b"\0" * 1000: Outcome.UNHEALTHY,
}


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    if request.param == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
    else:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(tmp_path / "s"))
        server.listen()
    server.settimeout(DEADLINE)
    with server:
        yield server


def address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"tcp:{name[0]}:{name[1]}"


def finish(probing: Probing) -> Outcome:
    """Step whenever the socket is ready, as the loop does."""
    while (outcome := probing.step()) is Outcome.WAITING:
        wanted = ([probing], []) if probing.connected else ([], [probing])
        ready = select.select(*wanted, [], DEADLINE)
        assert any(ready)
    return outcome


@pytest.mark.parametrize("data", ANSWERS, ids=repr)
@pytest.mark.parametrize("piece", [1, 4096])
def test_an_answer(listener: socket.socket, data: bytes, piece: int) -> None:
    probing = Probing(1, address(listener), "/health?x=1", 0.0)
    assert probing.step() is Outcome.WAITING
    connection, _ = listener.accept()
    probing.step()
    assert connection.recv(4096).startswith(b"GET /health?x=1 HTTP/1.1\r\nHost: localhost\r\n")
    outcome = Outcome.WAITING
    for start in range(0, len(data), piece):
        if outcome is Outcome.WAITING:
            connection.sendall(data[start : start + piece])
            assert select.select([probing], [], [], DEADLINE)[0]
            outcome = probing.step()
    connection.close()
    if outcome is Outcome.WAITING:
        outcome = finish(probing)
    probing.close()
    assert outcome is ANSWERS[data]


def test_a_connection_is_enough_without_a_path(listener: socket.socket) -> None:
    probing = Probing(1, address(listener), None, 0.0)
    assert finish(probing) is Outcome.HEALTHY
    probing.close()


def test_nobody_listens(listener: socket.socket) -> None:
    where = address(listener)
    listener.close()
    for path in (None, "/health"):
        probing = Probing(1, where, path, 0.0)
        assert finish(probing) is Outcome.UNHEALTHY
        probing.close()


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    probing = Probing(1, f"unix:{tmp_path}/none", None, 0.0)
    assert probing.step() is Outcome.UNHEALTHY
    probing.close()


def test_a_full_queue_never_blocks(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(0)
        probes = [Probing(number, f"unix:{tmp_path}/s", None, 0.0) for number in range(3)]
        outcomes = [probing.step() for probing in probes]
        for probing in probes:
            probing.close()
    assert outcomes == [Outcome.HEALTHY, Outcome.UNHEALTHY, Outcome.UNHEALTHY]


def test_it_says_when_to_give_up(listener: socket.socket) -> None:
    now = time.monotonic()
    probing = Probing(1, address(listener), "/", now)
    assert probing.deadline == now + PROBE_SECONDS
    probing.close()
