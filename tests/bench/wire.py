"""HTTP/1.1 by hand, as little as measuring takes: requests are bytes made once, answers are taken apart in place."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

PATIENCE = 60.0  # seconds, for one answer
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Broken(Exception):
    """What came is no answer, or not all of it. The message says why."""


@dataclass(frozen=True)
class Address:
    """Where a server listens: HOST:PORT, or the path of a UNIX socket."""

    text: str

    def connect(self) -> socket.socket:
        """A blocking connection. Raises OSError."""
        if self.text.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(PATIENCE)
            try:
                connection.connect(self.text)
            except OSError:
                connection.close()
                raise
            return connection
        host, _, port = self.text.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def loopback() -> Address:
    """An address on loopback whose port was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return Address(f"127.0.0.1:{taken.getsockname()[1]}")


def get(path: str, host: str = "localhost", cookie: str = "") -> bytes:
    """A GET as it is sent."""
    cookies = f"Cookie: {cookie}\r\n" if cookie else ""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{cookies}\r\n".encode()


def post(path: str, body: Mapping[str, object]) -> bytes:
    """A POST of JSON as it is sent."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    return head.encode() + b"\r\n\r\n" + content


class Answer:
    """One answer, fed with what comes. `status` is 0 until the head is there; `whole` is true at its end."""

    __slots__ = ("_chunked", "_held", "_left", "keeps", "status", "whole")

    def __init__(self) -> None:
        self.status = 0
        self.whole = False
        self.keeps = True  # whether the connection can be used again
        self._chunked = False
        self._held = b""
        self._left: int | None = None  # bytes of the body or of its chunk; None: a chunk's head follows

    def feed(self, data: bytes) -> bytes:
        """The part of the body that is in `data`, without chunks' heads. Raises Broken."""
        if self.status:
            return self._chunks(data) if self._chunked else self._plain(data)
        head, end, rest = (self._held + data).partition(b"\r\n\r\n")
        if not end:
            self._held = head
            return b""
        if not head.startswith(b"HTTP/1."):
            raise Broken(f"no HTTP: {head[:40]!r}")
        self._held = b""
        self.status = int(head[9:12])
        self.keeps = b"\r\nconnection: close" not in head.lower()
        if (length := LENGTH.search(head)) is not None:
            self._left = int(length[1])
            self.whole = self._left == len(rest)
            if self.whole:  # most small answers come in one piece
                return rest
            return self._plain(rest)
        if CHUNKED.search(head) is None:
            raise Broken("the answer has neither a length nor chunks")
        self._chunked = True
        return self._chunks(rest)

    def _plain(self, data: bytes) -> bytes:
        assert self._left is not None
        self._left -= len(data)
        self.whole = self._left <= 0
        return data

    def _chunks(self, data: bytes) -> bytes:
        parts = []
        data = self._held + data
        self._held = b""
        while data and not self.whole:
            if self._left is None:
                size, end, rest = data.partition(b"\r\n")
                self._left = int(size.partition(b";")[0], 16) if end else None
                if self._left is None or (self._left == 0 and not rest.startswith(b"\r\n")):
                    self._held, self._left = data, None
                    break
                self.whole = self._left == 0
                data = rest
            elif len(data) < self._left + 2:  # not all of the chunk with the line end behind it
                parts.append(data[: self._left])
                self._held = data[self._left :]
                self._left = max(0, self._left - len(data))
                break
            else:
                parts.append(data[: self._left])
                data, self._left = data[self._left + 2 :], None
        return b"".join(parts)


def ask(address: Address, request: bytes) -> tuple[int, bytes]:
    """Status and body of an answer on a connection of its own. Raises OSError, Broken."""
    with address.connect() as connection:
        connection.sendall(request)
        answer = Answer()
        body = b""
        while not answer.whole:
            data = connection.recv(262144)
            if not data:
                raise Broken("the connection ended before the answer")
            body += answer.feed(data)
        return answer.status, body


def first(address: Address, request: bytes, mark: bytes) -> float:
    """Seconds until `mark` is in an answer of status 200, which is then read to its end. Raises OSError, Broken."""
    began = time.monotonic()
    seen = None
    body = b""
    with address.connect() as connection:
        connection.sendall(request)
        answer = Answer()
        while not answer.whole:
            data = connection.recv(65536)
            if not data:
                raise Broken("the connection ended before the answer")
            body += answer.feed(data)
            if seen is None and mark in body:
                seen = time.monotonic() - began
    if answer.status != 200 or seen is None:
        raise Broken(f"status {answer.status}: {body[:200].decode(errors='replace')}")
    return seen
