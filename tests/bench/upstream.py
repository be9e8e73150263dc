"""A model server that computes nothing: streams of chunks at a given pace, so that what is measured is the router.

    python upstream.py HOST:PORT        (or the path of a UNIX socket)

A request says in its text how: "50 per second", and with max_tokens how many. Each chunk carries the moment when it was
due (time.monotonic(), which all processes of a machine share), so that the client knows how late it is.
"""

from __future__ import annotations

import heapq
import json
import re
import select
import socket
import sys
import time
from contextlib import suppress

PACE = re.compile(rb"(\d+(?:\.\d+)?) per second")
NUMBER = re.compile(rb'"max_tokens": ?(\d+)')
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    """A chunk of OpenAI's chat completions."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "paced", "choices": [choice]}
    return b"data: " + json.dumps(about, separators=(",", ":")).encode() + b"\n\n"


BEFORE, AFTER = event({"content": "@MOMENT@"}).split(b"MOMENT")
LAST = event({}, "stop") + DONE


def chunk(data: bytes) -> bytes:
    """Data as a chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(body: bytes) -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def listening(where: str) -> socket.socket:
    """A socket that listens there."""
    if where.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
    else:
        host, _, port = where.rpartition(":")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
    listener.listen(4096)
    listener.setblocking(False)
    return listener


class Upstream:
    """One epoll and one heap of what is due when."""

    def __init__(self, where: str) -> None:
        self._listener = listening(where)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._clients: dict[int, socket.socket] = {}
        self._read: dict[int, bytes] = {}
        self._due: list[tuple[float, int, socket.socket, float, int]] = []  # when, descriptor, its socket, pause, left

    def serve(self) -> None:
        """Until the process is killed."""
        while True:
            patience = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
            for descriptor, _ in self._epoll.poll(patience):
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._receive(descriptor)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._send(*heapq.heappop(self._due))

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                if client.family != socket.AF_UNIX:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[client.fileno()] = client
                self._epoll.register(client, select.EPOLLIN)

    def _receive(self, descriptor: int) -> None:
        client = self._clients[descriptor]
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(descriptor)
            return
        request = self._read.pop(descriptor, b"") + data
        head, end, body = request.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or (length is not None and len(body) < int(length[1])):
            self._read[descriptor] = request
        elif head.startswith(b"POST"):
            self._begin(descriptor, body)
        else:
            client.sendall(answer(b'{"status":"ok"}'))

    def _begin(self, descriptor: int, body: bytes) -> None:
        pace, number = PACE.search(body), NUMBER.search(body)
        pause = 1 / float(pace[1]) if pace else 0.02
        left = int(number[1]) if number else 16
        client = self._clients[descriptor]
        client.sendall(STREAM)
        heapq.heappush(self._due, (time.monotonic() + pause, descriptor, client, pause, left))

    def _send(self, due: float, descriptor: int, client: socket.socket, pause: float, left: int) -> None:
        if self._clients.get(descriptor) is not client:
            return
        data = chunk(b"%b%.6f%b" % (BEFORE, due, AFTER)) if left else chunk(LAST) + b"0\r\n\r\n"
        try:
            client.sendall(data)
        except OSError:
            self._drop(descriptor)
            return
        if left:
            heapq.heappush(self._due, (due + pause, descriptor, client, pause, left - 1))

    def _drop(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._read.pop(descriptor, None)
        self._clients.pop(descriptor).close()


if __name__ == "__main__":
    server = Upstream(sys.argv[1])
    print("listening", flush=True)
    server.serve()
