"""The control socket: what clients may send, what they may leave unsent or unread, and that nobody suffers from it."""

from __future__ import annotations

import json
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from harness import Lease, Supervisor, refused
from observed import DEADLINE, bytes_used

from supervisor.protocol import MAX_LINE, raise_refusal

AT_ONCE = 1.0


@contextmanager
def connected(supervisor: Supervisor) -> Iterator[socket.socket]:
    """A bare connection to the control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(str(supervisor.runtime / "control.sock"))
        yield sock


def answer(sock: socket.socket) -> dict[str, object]:
    """The first line that comes."""
    with sock.makefile("rb") as lines:
        line: dict[str, object] = json.loads(lines.readline())
    return line


def test_only_its_owner_can_connect(supervisor: Supervisor) -> None:
    assert stat.S_IMODE((supervisor.runtime / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((supervisor.runtime / "notify.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(supervisor.runtime.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\n",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b"null\n",
        b'"status"\n',
        b"{\n",
        b"[" * 100_000 + b"\n",
        b'{"op":' * 100_000 + b"\n",
        b"1" * 100_000 + b"\n",
        b'{"op":"status"' + b" " * (MAX_LINE + 1),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_garbage_is_refused_and_hung_up_on(supervisor: Supervisor, data: bytes) -> None:
    with connected(supervisor) as sock:
        with suppress(BrokenPipeError):
            sock.sendall(data)
        with sock.makefile("rb") as lines:
            assert json.loads(lines.readline())["error"]["code"] == 400
            with suppress(ConnectionResetError):
                assert lines.readline() == b""


@pytest.mark.parametrize(
    "request_",
    [
        "{}",
        '{"op": null}',
        '{"op": ["status"]}',
        '{"op": "\\ud800"}',
        '{"op": "shutdown"}',
        '{"op": "lease", "model": 1}',
        '{"op": "lease", "model": "\\ud800"}',
        '{"op": "load", "model": "\\udfff\\ud800"}',
        '{"op": "logs", "model": "\\ud800"}',
        '{"op": "lease", "model": "m", "timeout": "1"}',
        '{"op": "lease", "model": "m", "timeout": true}',
        '{"op": "lease", "model": "m", "timeout": NaN}',
        '{"op": "lease", "model": "m", "timeout": Infinity}',
        '{"op": "lease", "model": "m", "timeout": 1e999}',
        f'{{"op": "lease", "model": "m", "timeout": {"9" * 400}}}',
        '{"op": "lease", "model": "m", "avoid": "x"}',
        '{"op": "lease", "model": "m", "autoload": 0}',
        '{"op": "load"}',
        '{"op": "load", "model": ""}',
        '{"op": "load", "model": "m", "wait": "no"}',
        '{"op": "events", "since": "0"}',
        '{"op": "logs", "model": "@web", "lines": 1.5}',
        '{"op": "logs"}',
    ],
)
def test_a_malformed_request_is_refused(supervisor: Supervisor, request_: str) -> None:
    gate = supervisor.gate("never")
    supervisor.add("m", gate.step)
    with connected(supervisor) as sock:
        sock.sendall(request_.encode() + b"\n")
        error = answer(sock)["error"]
        assert isinstance(error, dict)
        assert error["code"] in (400, 404)
        sock.sendall(b'{"op": "status"}\n')
        assert answer(sock)["ok"] is True
    assert not gate.visited


@pytest.mark.parametrize("timeout", ["-1", "-1e300", "0", "1e7", "1e300"])
def test_any_finite_patience_is_borne(supervisor: Supervisor, timeout: str) -> None:
    supervisor.add("m", supervisor.gate("never").step)
    with connected(supervisor) as sock:
        sock.sendall(f'{{"op": "lease", "model": "m", "timeout": {timeout}}}\n'.encode())
        supervisor.gate("never").visitor()
        supervisor.status()
        answered = bool(select.select([sock], [], [], 0)[0])
    assert answered == (float(timeout) <= 0)


def test_half_a_line_and_a_hang_up(supervisor: Supervisor) -> None:
    supervisor.add("m", supervisor.gate("never").step)
    with connected(supervisor) as sock:
        sock.sendall(b'{"op": "load", "model": "m"}')
    with connected(supervisor) as sock:
        for byte in b'{"op": "status"}\n':
            sock.sendall(bytes([byte]))
        assert answer(sock)["ok"] is True
    assert supervisor.model("m")["state"] == "stopped"


def test_a_second_request_must_wait_for_the_first_answer(supervisor: Supervisor) -> None:
    supervisor.add("m", supervisor.gate("loading").step)
    lease = supervisor.lease("m")
    lease.client._send({"op": "status"})
    with refused() as errors:
        lease.grant()
    assert errors[0].status == 400


def test_a_second_lease_on_a_connection_is_refused(supervisor: Supervisor) -> None:
    supervisor.load("m", max_concurrency=2)
    lease = supervisor.lease("m")
    lease.grant()
    with refused():
        lease.client.call("lease", model="m")
    assert supervisor.model("m")["in_flight"] == 1
    lease.release()
    assert lease.client.call("lease", model="m")["lease"]["model"] == "m"


def test_a_release_may_come_with_the_next_request(supervisor: Supervisor) -> None:
    supervisor.load("m", max_concurrency=1)
    with supervisor.client() as client:
        for served in range(3):
            assert client.call("lease", model="m", timeout=DEADLINE)["lease"]["model"] == "m"
            assert (supervisor.model("m")["in_flight"], supervisor.model("m")["served"]) == (1, served)
            client.release_later({"ended": "complete"})
        assert client.call("status")["status"]["models"][0]["in_flight"] == 0


def test_releases_without_a_lease_do_nothing(supervisor: Supervisor) -> None:
    supervisor.load("m")
    with supervisor.client() as client:
        client.release({})
        client.release({"ended": "complete"})
        assert client.call("status")["status"]["models"][0]["served"] == 0


def test_hundreds_of_connections(supervisor: Supervisor) -> None:
    supervisor.load("m", max_concurrency=250)
    idle = [supervisor.client() for _ in range(250)]
    leases = [supervisor.lease("m") for _ in range(250)]
    assert {lease.grant()["model"] for lease in leases} == {"m"}
    assert supervisor.model("m")["in_flight"] == 250
    for client in (*idle, *(lease.client for lease in leases)):
        client.close()
    supervisor.eventually(lambda: supervisor.model("m")["in_flight"] == 0, "all leases are free")


def test_more_clients_than_descriptors_allow_are_refused_and_the_others_served(supervisors: type[Supervisor]) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    supervisor = supervisors(prefix=few).start(until="READY=1")
    supervisor.add("m")
    clients = [supervisor.client() for _ in range(150)]
    assert [client.call("status")["ok"] for client in clients[:40]] == [True] * 40
    with refused() as caught:
        raise_refusal(clients[-1]._receive())
    assert caught[0].status == 503 and "clients are connected already" in str(caught[0])
    assert clients[0].call("load", model="m", wait=True)["model"]["state"] == "ready"
    for client in clients:
        client.close()
    supervisor.eventually(lambda: supervisor.status()["models"][0]["state"] == "ready", "there is room again")


def test_out_of_descriptors(supervisors: type[Supervisor]) -> None:
    """Clients wait then, servers can be neither started nor asked for their health, and all that passes."""
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    greedy = "from supervisor import descriptors; descriptors.RESERVED = -100"
    supervisor = supervisors(prefix=f"{few}; {greedy}").start(until="READY=1")
    patient = {"delay": "50ms", "max_delay": "50ms", "limit": 1000}
    gate = supervisor.gate("loading")
    supervisor.add("probed", gate.step, "listen={socket}", "serve", ready={"http": "/health"})
    supervisor.call("load", model="probed")
    visitor = gate.visitor()
    supervisor.add("socket", restart=patient)
    supervisor.add("port", "listen={port}", "notify=READY=1", "serve", restart=patient)
    socks = []
    for _ in range(150):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(supervisor.runtime / "control.sock"))
        socks.append(sock)
    assert supervisor.cpu_seconds_in(0.3) < 0.1
    socks[0].settimeout(DEADLINE)
    for name in ("socket", "port"):
        socks[0].sendall(b'{"op": "load", "model": "%s"}\n' % name.encode())
        assert answer(socks[0])["ok"] is True
    socks[-1].sendall(b'{"op": "status"}\n')
    assert not select.select([socks[-1]], [], [], 0)[0]
    for sock in socks[1:-1]:
        sock.close()
    socks[-1].settimeout(DEADLINE)
    assert answer(socks[-1])["ok"] is True
    visitor.go()
    for name in ("socket", "port", "probed"):
        supervisor.watch(name).state("ready")
        assert name == "probed" or supervisor.watch(name).state("backoff")["reason"]["kind"] == "cannot_start"
    for sock in socks:
        sock.close()


def test_a_follower_that_never_reads_is_dropped(supervisor: Supervisor) -> None:
    """It costs nobody time, and memory only up to a bound."""
    supervisor.load("m", "listen={socket}", "notify=READY=1", "flood-for-ever=" + "x" * 4000 + r"\n")
    before = bytes_used(supervisor.pid)
    with connected(supervisor) as deaf:
        deaf.sendall(b'{"op": "logs", "model": "m", "follow": true}\n')
        hung_up = select.poll()
        hung_up.register(deaf, select.POLLRDHUP)
        most = 0.0
        while not hung_up.poll(0):
            start = time.monotonic()
            supervisor.status()
            most = max(most, time.monotonic() - start)
        assert most < AT_ONCE
        assert bytes_used(supervisor.pid) - before < 100 * 1024 * 1024
    supervisor.call("unload", model="m", wait=True)


def test_deaf_followers_that_talk_are_dropped_as_well(supervisor: Supervisor) -> None:
    """Hanging up on them happens while their own words are waiting to be read."""
    supervisor.load("m", "listen={socket}", "notify=READY=1", "flood-for-ever=" + "x" * 4000 + r"\n")

    def talk(sock: socket.socket) -> None:
        with suppress(OSError):
            sock.sendall(b'{"op": "logs", "model": "m", "follow": true}\n')
            while True:
                sock.sendall(b"\n")

    talkers = []
    for _ in range(3):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(supervisor.runtime / "control.sock"))
        talkers.append((sock, threading.Thread(target=talk, args=(sock,))))
        talkers[-1][1].start()
    for sock, thread in talkers:
        thread.join(DEADLINE)
        assert not thread.is_alive()
        sock.close()
    supervisor.call("unload", model="m", wait=True)


def test_clients_that_vanish_at_every_point(supervisor: Supervisor) -> None:
    supervisor.load("m")
    for request_ in (
        b'{"op": "lease", "model": "m"}\n',
        b'{"op": "events", "follow": true}\n',
        b'{"op": "logs", "model": "m", "follow": true}\n',
        b'{"op": "restart", "model": "m", "wait": true}\n',
        b'{"op": "reload"}\n',
        b'{"op": "status"}\n' * 100,
    ):
        for _ in range(20):
            with connected(supervisor) as sock:
                sock.sendall(request_)
    supervisor.eventually(lambda: supervisor.model("m")["state"] == "ready", "the last restart is done")
    assert Lease(supervisor.client(), "m").grant()["model"] == "m"


def test_two_operators_at_once(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, "listen={socket}", "notify=READY=1", "serve")
    clients = [supervisor.client() for _ in range(5)]
    for client in clients:
        client._send({"op": "load", "model": "m", "wait": True})
    visitor = gate.visitor()
    visitor.go()
    assert [client._receive()["model"]["pid"] for client in clients] == [visitor.pid] * 5
    assert not gate.visited


def test_events_without_following_come_to_an_end(supervisor: Supervisor) -> None:
    supervisor.load("m")
    events = [message["event"] for message in supervisor.client().stream("events")]
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    assert [event["to"] for event in events if event["model"] == "m"][-2:] == ["starting", "ready"]
    assert list(supervisor.client().stream("events", since=numbers[-1])) == []
