"""How the web tier starts, says so, and ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, FakeUpstream
from gunicorn.http.body import ChunkedReader
from web_tier import ARGV, DEADLINE, WebTier, chat_request, read_all, read_until

from admin import turns
from admin.worker import FairUnreader

LAST_CHUNK = b"0\r\n\r\n"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSupervisor]:
    supervisor = FakeSupervisor(tmp_path)
    supervisor.start()
    yield supervisor
    supervisor.stop()


@pytest.fixture
def tier(fake: FakeSupervisor, tmp_path: Path) -> Iterator[WebTier]:
    tier = WebTier(tmp_path)
    tier.start()
    yield tier
    tier.close()


def wait_for_end(pid: int) -> None:
    """Until no such process is left; no zombie counts, as its new parent may be slow to reap."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        os.sched_yield()
    pytest.fail(f"process {pid} is still there")


def test_ready_comes_from_the_workers_alone(fake: FakeSupervisor, tmp_path: Path) -> None:
    tier = WebTier(tmp_path, workers=2)
    tier.start()
    try:
        assert tier.notices == [b"READY=1", b"READY=1"]
        tier.notify.setblocking(False)
        with pytest.raises(BlockingIOError):
            tier.notify.recv(1024)
        for pid in (tier.process.pid, *tier.worker_pids()):
            assert os.getpgid(pid) == os.getpgid(tier.process.pid)
        assert len(tier.worker_pids()) == 2
    finally:
        tier.close()


def test_it_ends_without_a_word(fake: FakeSupervisor, tmp_path: Path) -> None:
    tier = WebTier(tmp_path, workers=2)
    tier.start()
    try:
        assert tier.request("GET", "/health").status == 200
        assert tier.terminate() == 0
        assert tier.log_text() == ""
    finally:
        tier.close()


def test_a_killed_worker_is_replaced(tier: WebTier) -> None:
    (first,) = tier.worker_pids()
    os.kill(first, signal.SIGKILL)
    assert tier.notify.recv(1024) == b"READY=1"
    assert tier.request("GET", "/health").status == 200
    (second,) = tier.worker_pids()
    assert second != first


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    tier = WebTier(tmp_path, timeout=6)
    tier.start()
    try:
        (first,) = tier.worker_pids()
        os.kill(first, signal.SIGSTOP)
        assert tier.notify.recv(1024) == b"READY=1"
        assert tier.request("GET", "/health").status == 200
        assert first not in tier.worker_pids()
    finally:
        tier.close()


def test_others_are_served_while_a_body_of_tiny_chunks_is_read(tier: WebTier) -> None:
    (worker,) = tier.worker_pids()
    with ExitStack() as stack:
        slow = stack.enter_context(tier.connect())
        os.kill(worker, signal.SIGSTOP)  # so that all of the body is there when the first byte is read
        quick = stack.enter_context(tier.connect())  # and that this one is yet to be accepted
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        slow.sendall(b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n")
        quick.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        os.kill(worker, signal.SIGCONT)
        first, _, _ = select.select([slow, quick], [], [], DEADLINE)
        assert first == [quick]
        assert read_until(slow, b"}}").startswith(b"HTTP/1.1 400 ")


def test_what_has_arrived_is_read_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    served = 0

    def serve_others() -> None:
        nonlocal served
        while True:
            served += 1
            gevent.sleep(0)

    ours, theirs = socket.socketpair()
    others = gevent.spawn(serve_others)
    with ours, theirs:
        theirs.sendall(b"1\r\n \r\n" * 10_000 + b"0\r\n\r\n")
        reader = ChunkedReader(None, FairUnreader(ours))
        assert reader.read(2**20) == b" " * 10_000
    others.kill()
    assert served >= 60_000 // 8192


def test_no_worker_outlives_a_killed_master(tier: WebTier) -> None:
    (worker,) = tier.worker_pids()
    assert tier.request("GET", "/health").status == 200  # it is past its first look at whose child it is
    tier.process.kill()
    tier.process.wait(DEADLINE)
    began = time.monotonic()
    wait_for_end(worker)
    assert time.monotonic() - began < 5  # gunicorn's own check comes with the heartbeat, after 30 s


def test_a_worker_may_hold_many_connections(tier: WebTier) -> None:
    limits = Path(f"/proc/{tier.worker_pids()[0]}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    assert int(soft) >= min(int(hard), 65536)


def test_an_application_that_cannot_start_is_never_ready(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, socket.create_server(("127.0.0.1", 0)) as listener:
        notify.bind(str(tmp_path / "notify.sock"))
        environment = {
            "PATH": os.environ["PATH"],
            "LLAMA_ROUTER_LISTEN_FD": str(listener.fileno()),
            "LLAMA_ROUTER_WORKERS": "1",
            "NOTIFY_SOCKET": str(tmp_path / "notify.sock"),
        }
        run = subprocess.run(
            ARGV, env=environment, pass_fds=[listener.fileno()], capture_output=True, timeout=DEADLINE, check=False
        )
        assert run.returncode != 0
        assert b"LLAMA_ROUTER_RUNTIME_DIR" in run.stderr
        notify.setblocking(False)
        with pytest.raises(BlockingIOError):
            notify.recv(1024)


def test_idle_connections_do_not_delay_the_end(tier: WebTier) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(tier.connect()) for _ in range(30)]
        for client in clients[:10]:  # slow with their first request, or silent, as the next ten
            client.sendall(b"GET /health HTT")
        for client in clients[20:]:  # kept alive after a request; by then all before them are accepted
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            read_until(client, b'"ok"}')
        began = time.monotonic()
        assert tier.terminate() == 0
        assert time.monotonic() - began < tier.grace - 1
        for client in clients:
            assert client.recv(1) == b""


def test_open_dashboards_do_not_delay_the_end(tier: WebTier, fake: FakeSupervisor) -> None:
    with tier.connect() as browser:
        browser.sendall(f"GET /ui/events HTTP/1.1\r\nHost: x\r\nCookie: {tier.cookie()}\r\n\r\n".encode())
        fake.wait_for_followers()
        began = time.monotonic()
        assert tier.terminate() == 0
        assert time.monotonic() - began < tier.grace - 1
        assert read_all(browser).endswith(LAST_CHUNK)


def test_requests_in_progress_are_finished(tier: WebTier, fake: FakeSupervisor, tmp_path: Path) -> None:
    word = threading.Event()

    def slow(call: Call) -> None:
        call.head()
        call.chunk(b"data: 1\n\n")
        word.wait(DEADLINE)
        call.chunk(b"data: 2\n\n")
        call.send(LAST_CHUNK)

    with FakeUpstream(slow, tmp_path / "1.sock") as upstream, tier.connect() as client:
        fake.grants["m"] = [(1, upstream.address)]
        client.sendall(chat_request({"model": "m"}))
        read_until(client, b"data: 1")
        with tier.connect() as idle:
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            read_until(idle, b'"ok"}')
            tier.process.terminate()
            assert idle.recv(1) == b""
        with tier.connect() as late:  # the supervisor's end of the listening socket still takes connections
            late.settimeout(0.5)
            late.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(TimeoutError):
                late.recv(1)  # but this web tier accepts no more
        word.set()
        assert read_all(client).endswith(b"data: 2\n\n\r\n" + LAST_CHUNK)
        assert tier.process.wait(DEADLINE) == 0


def test_what_outlasts_the_grace_period_is_broken_off(fake: FakeSupervisor, tmp_path: Path) -> None:
    def endless(call: Call) -> None:
        call.head()
        call.chunk(b"data: 1\n\n")
        call.wait_for_hangup()

    tier = WebTier(tmp_path, grace=0.5)
    tier.start()
    with FakeUpstream(endless, tmp_path / "1.sock") as upstream, tier.connect() as client:
        fake.grants["m"] = [(1, upstream.address)]
        client.sendall(chat_request({"model": "m"}))
        read_until(client, b"data: 1")
        began = time.monotonic()
        assert tier.terminate() == 0
        assert time.monotonic() - began < 4.0
        ending = read_all(client)
        assert b'data: {"error": {"code": 503, "message": "llama-router was stopped before ' in ending
        assert ending.endswith(b"\n\n\r\n" + LAST_CHUNK)
        (release,) = fake.wait_for("release")
        assert release["figures"]["ended"] == "client_gone"
    tier.close()


def test_what_outlasts_the_grace_period_is_never_silently_short(fake: FakeSupervisor, tmp_path: Path) -> None:
    def endless(call: Call) -> None:
        call.head("application/json")
        call.chunk(b"[1,")
        call.wait_for_hangup()

    def mute(call: Call) -> None:
        call.wait_for_hangup()

    tier = WebTier(tmp_path, grace=0.5)
    tier.start()
    with (
        FakeUpstream(endless, tmp_path / "1.sock") as first,
        FakeUpstream(mute, tmp_path / "2.sock") as second,
        tier.connect() as client,
        tier.connect() as waiting,
    ):
        fake.grants = {"m": [(1, first.address)], "mute": [(2, second.address)]}
        client.sendall(chat_request({"model": "m"}))
        read_until(client, b"[1,")
        waiting.sendall(chat_request({"model": "mute"}))
        second.call()
        assert tier.terminate() == 0
        assert not read_all(client).endswith(LAST_CHUNK)
        assert read_all(waiting).startswith(b"HTTP/1.1 503 ")
    tier.close()


def test_the_supervisors_unix_socket_stays(fake: FakeSupervisor, tmp_path: Path) -> None:
    tier = WebTier(tmp_path, family=socket.AF_UNIX)
    tier.start()
    try:
        raw = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert tier.exchange(raw).endswith(b'{"status":"ok"}\n')
        assert tier.terminate() == 0
        assert Path(tier.address).is_socket()
    finally:
        tier.close()


def test_a_connection_may_rest_for_longer_than_a_stall(fake: FakeSupervisor, tmp_path: Path) -> None:
    tier = WebTier(tmp_path, constants={"admin.worker.STALL_SECONDS": 0.3})
    tier.start()
    try:
        with tier.connect() as client:
            for _ in range(2):
                client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_until(client, b"}").startswith(b"HTTP/1.1 200 ")
                assert not select.select([client], [], [], 1.0)[0], "it is not closed"
    finally:
        tier.close()
