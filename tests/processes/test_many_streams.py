"""Many slow streams at once through the real web tier and supervisor, while others want to know how it is."""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Supervisor
from observed import DEADLINE, Timeout

SERVER = [sys.executable, "-IS", str(Path(__file__).with_name("streaming_server.py")), "{socket}"]
BODY = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
FIRST, LAST = b'"word"', b"data: [DONE]\n\n\r\n0\r\n\r\n"
FOR_OTHERS = 512  # files of this process beside the streams


@pytest.fixture
def files(many: int) -> Iterator[None]:
    """This process may have so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < many + FOR_OTHERS:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + FOR_OTHERS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Streams:
    """Clients that read what they get."""

    def __init__(self, supervisor: Supervisor, opened: ExitStack, many: int) -> None:
        self.received: dict[socket.socket, bytes] = {}
        self._selector = opened.enter_context(selectors.DefaultSelector())
        for _ in range(many):
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(supervisor.listen.removeprefix("unix:"))
            client.sendall(POST)
            self.received[client] = b""
            self._selector.register(client, selectors.EVENT_READ)

    def read_until_each_has(self, wanted: bytes) -> None:
        """Raises Timeout with what one of those got that have not."""
        until = time.monotonic() + DEADLINE
        while missing := [each for each in self.received.values() if wanted not in each]:
            ready = self._selector.select(until - time.monotonic())
            for key, _ in ready:
                client = key.fileobj
                assert isinstance(client, socket.socket)
                data = client.recv(65536)
                assert data, f"a stream ended with {self.received[client][-300:]!r}"
                self.received[client] += data
            if not ready:
                raise Timeout(f"{len(missing)} streams lack {wanted!r}, one has {missing[0]!r}")


def answer(supervisor: Supervisor, path: str) -> bytes:
    """The status line of an answer on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(supervisor.listen.removeprefix("unix:"))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return client.makefile("rb").readline()


@pytest.mark.parametrize("many", [150, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("files")
def test_many_slow_streams_at_once(many: int) -> None:
    with Supervisor() as supervisor, ExitStack() as opened:
        supervisor.add("m", command=SERVER, ready={"http": "/health"}, max_concurrency=many)
        supervisor.start("READY=1")
        supervisor.load("m")
        streams = Streams(supervisor, opened, many)
        streams.read_until_each_has(FIRST)
        assert supervisor.model("m")["in_flight"] == many
        for path in ("/health", "/v1/models", "/ui/login", "/metrics"):
            assert answer(supervisor, path) == b"HTTP/1.1 200 OK\r\n", path
        os.kill(supervisor.model("m")["pid"], signal.SIGUSR1)
        streams.read_until_each_has(LAST)
        assert {each[:17] for each in streams.received.values()} == {b"HTTP/1.1 200 OK\r\n"}
        supervisor.eventually(lambda: supervisor.model("m")["in_flight"] == 0, "all leases are given back")
