"""Many requests at once: pages are answered meanwhile, and nobody is forgotten."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor
from web_tier import DEADLINE, WebTier, chat_request, read_all, read_until

from supervisor.errors import Refused

NUMBER = 300
PAGE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
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


def asking(tier: WebTier, stack: ExitStack, number: int) -> list[socket.socket]:
    clients = [stack.enter_context(tier.connect()) for _ in range(number)]
    for client in clients:
        client.sendall(chat_request({"model": "m"}))
    return clients


def test_a_page_waits_for_a_few_requests_only(tier: WebTier) -> None:
    with ExitStack() as stack:
        with stopped(tier):
            clients = asking(tier, stack, NUMBER)
            page = stack.enter_context(tier.connect())
            page.sendall(PAGE)
        read_until(page, b'"ok"}')
        answered, _, _ = select.select(clients, [], [], 0)
        assert len(answered) < NUMBER / 2
        for client in clients:
            assert read_until(client, b"}}").startswith(b"HTTP/1.1 503 ")


def test_a_page_does_not_wait_for_requests_on_connections_that_are_kept(tier: WebTier) -> None:
    with ExitStack() as stack:
        clients = asking(tier, stack, NUMBER)
        for client in clients:
            read_until(client, b"}}")
        with stopped(tier):
            for client in clients:
                client.sendall(chat_request({"model": "m"}))
            page = stack.enter_context(tier.connect())
            page.sendall(PAGE)
        read_until(page, b'"ok"}')
        answered, _, _ = select.select(clients, [], [], 0)
        assert len(answered) < NUMBER / 2
        for client in clients:
            assert read_until(client, b"}}").startswith(b"HTTP/1.1 503 ")


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
            page = stack.enter_context(tier.connect())
            page.sendall(PAGE)
        read_until(page, b'"ok"}')  # by then all before it are accepted
        tier.process.terminate()
        for client in clients:
            assert read_all(client).startswith(b"HTTP/1.1 503 ")
        assert tier.process.wait(DEADLINE) == 0
