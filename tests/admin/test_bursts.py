"""Many requests at once: pages are answered meanwhile, and nobody is forgotten."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor
from web_tier import DEADLINE, WebTier, chat_request, read_all, read_until

from supervisor.errors import Refused

NUMBER = 300
PAGE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
SO_TIMESTAMPNS = 35  # socket(7); asm-generic/socket.h
TIMESPEC = struct.Struct("qq")
# The share of time that requests have would depend on how long things take.
CONSTANTS = {"admin.turns.SHARE": 0.0}


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSupervisor]:
    supervisor = FakeSupervisor(tmp_path)
    supervisor.refusals["m"] = Refused("not today", status=503)
    supervisor.start()
    yield supervisor
    supervisor.stop()


@pytest.fixture
def tier(fake: FakeSupervisor, tmp_path: Path) -> Iterator[WebTier]:
    tier = WebTier(tmp_path, workers=2, constants=CONSTANTS)
    tier.start()
    yield tier
    tier.close()


def arrival(client: socket.socket, begin: bytes) -> float:
    """When an answer came that begins like this, by the kernel's clock: the test itself may look later."""
    data, [(_, _, at)], _, _ = client.recvmsg(65536, socket.CMSG_SPACE(TIMESPEC.size))
    assert data.startswith(begin)
    seconds, nanoseconds = TIMESPEC.unpack(at)
    return float(seconds + nanoseconds / 1e9)


@contextmanager
def stopped(tier: WebTier) -> Iterator[None]:
    """What arrives meanwhile arrives all at once."""
    workers = tier.worker_pids()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


def connected(tier: WebTier, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(tier.connect())
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return client


def asking(tier: WebTier, stack: ExitStack, number: int) -> list[socket.socket]:
    clients = [connected(tier, stack) for _ in range(number)]
    for client in clients:
        client.sendall(chat_request({"model": "m"}))
    return clients


def test_a_page_waits_for_a_few_requests_only(tier: WebTier) -> None:
    with ExitStack() as stack:
        with stopped(tier):
            clients = asking(tier, stack, NUMBER)
            page = connected(tier, stack)
            page.sendall(PAGE)
        shown = arrival(page, b"HTTP/1.1 200 ")
        answered = [arrival(client, b"HTTP/1.1 503 ") for client in clients]
        assert sum(at < shown for at in answered) < NUMBER / 2


def test_for_clients_that_left_nothing_is_asked(tier: WebTier, fake: FakeSupervisor) -> None:
    with ExitStack() as stack, stopped(tier):
        clients = asking(tier, stack, NUMBER)
        for client in clients[::2]:
            client.close()
        stack.pop_all()
    for client in clients[1::2]:
        with client:
            assert read_until(client, b"}}").startswith(b"HTTP/1.1 503 ")
    assert len(fake.of("lease")) < NUMBER * 2 / 3


def test_those_in_line_are_answered_when_the_web_tier_ends(tier: WebTier) -> None:
    with ExitStack() as stack:
        with stopped(tier):
            clients = asking(tier, stack, NUMBER)
            page = connected(tier, stack)
            page.sendall(PAGE)
        read_until(page, b'"ok"}')  # by then all before it are accepted
        tier.process.terminate()
        for client in clients:
            assert read_all(client).startswith(b"HTTP/1.1 503 ")
        assert tier.process.wait(DEADLINE) == 0
