"""HTTP exchanges with model servers over UNIX or TCP sockets; knows no policy, only when a server has died.

A connection serves one request after the other (Connections) where the server is known to stand it. One that the
server has closed meanwhile is noticed before a byte is sent, and while the head is: half a head is nothing that a
server could act on. So a request is sent again only if it can't have been executed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import gevent

from admin.connection import peek
from admin.heads import Headers, Malformed
from admin.incoming import BrokenOff, Incoming
from admin.turns import Turns

Piece = bytes | bytearray | memoryview
Server = tuple[Any, str]  # a launch's number and its address, "unix:/path" or "tcp:host:port", as a lease names them

# A piece of a body that goes out with the head; a larger one is not copied for that.
MAX_WITH_HEAD = 65536

# Below the shortest keep-alive time of the servers whose connections are used again: llama-server's 5 s (cpp-httplib,
# CPPHTTPLIB_KEEPALIVE_TIMEOUT_SECOND). One that is about to be closed is never used, and a server that is to end has
# no idle connection for longer.
REUSE_SECONDS = 2.0
MAX_IDLE_EACH = 32
NOT_MODIFIED = 304

# RFC 9110 §7.6.1, and the older names still seen. All of Proxy-* are of one hop as well.
HOP_BY_HOP = frozenset(
    ["connection", "keep-alive", "te", "trailer", "trailers", "transfer-encoding", "upgrade", "http2-settings"]
)
PROXY = "proxy-"


class UpstreamDied(Exception):
    """The model server closed the connection before its response was complete."""

    did = "died"


class NotHttp(UpstreamDied):
    """What the model server sent is no HTTP. It has got the request, and would say the same again."""

    did = "sent what is no HTTP"


def end_to_end(headers: Headers, dropped: frozenset[str] = frozenset()) -> Headers:
    """`headers` without those of one hop, those that Connection names, and `dropped` (lower case)."""
    named = {
        name.strip().lower() for field, value in headers if field.lower() == "connection" for name in value.split(",")
    }
    unwanted = HOP_BY_HOP | named | dropped
    return [
        (field, value)
        for field, value in headers
        if (name := field.lower()) not in unwanted and not name.startswith(PROXY)
    ]


@dataclass(frozen=True)
class Body:
    """A request's body: how many bytes it has, and they in pieces, each time they are asked for."""

    length: int
    pieces: Iterable[Piece]


class Connections:
    """Idle connections to model servers, by launch and address, for REUSE_SECONDS; the last one used first."""

    def __init__(self) -> None:
        self._idle: dict[Server, list[tuple[float, socket.socket]]] = {}
        self._sweeping = False

    def take(self, server: Server) -> socket.socket | None:
        """A connection on which the server waits for a request, as far as can be seen."""
        idle = self._idle.get(server)
        while idle:
            since, connection = idle.pop()
            if time.monotonic() - since < REUSE_SECONDS and peek(connection) is None:
                return connection
            connection.close()
        return None

    def keep(self, server: Server, connection: socket.socket) -> None:
        """Have it for another request; its last response was read to its end."""
        idle = self._idle.setdefault(server, [])
        if len(idle) >= MAX_IDLE_EACH:
            connection.close()
            return
        idle.append((time.monotonic(), connection))
        if not self._sweeping:
            self._sweeping = True
            gevent.spawn(self._sweep)

    def _sweep(self) -> None:
        """Close what was idle for too long, until nothing is left."""
        while self._idle:
            gevent.sleep(REUSE_SECONDS / 2)
            for server, idle in list(self._idle.items()):
                while idle and time.monotonic() - idle[0][0] >= REUSE_SECONDS:
                    idle.pop(0)[1].close()
                if not idle:
                    del self._idle[server]
        self._sweeping = False


class Upstream:
    """A request on its way. Use it in one greenlet; close it in any case."""

    def __init__(self, server: Server, connections: Connections | None) -> None:
        """`connections` of None: use a connection once."""
        self._server = server
        self._connections = connections
        self._connection: socket.socket | None = None
        self._answer: Incoming | None = None
        self._turns = Turns()  # of a server that sends faster than tiny chunks are read, no read would ever wait

    def ask(self, method: str, target: str, headers: Headers, body: Body | None) -> tuple[int, str, Headers]:
        """Send a request and wait for the head of its answer: status, reason and headers (end-to-end ones only).

        Content-Length is there if the body has a known length. Raises UpstreamDied or NotHttp.
        """
        length: Headers = [("Content-Length", str(body.length))] if body else []
        head = _head(method, target, headers + length)
        try:
            self._answer = Incoming(self._sent(head, body), method)
        except (OSError, BrokenOff, Malformed) as error:
            raise _broken(error) from None
        found = self._answer.head
        fields = end_to_end(found.fields, frozenset(["content-length"]))
        # That of an answer to HEAD is of the one to GET. (gunicorn drops that of 204.)
        size = found.declared if method == "HEAD" or found.status == NOT_MODIFIED else found.length
        if size is not None:
            fields.append(("Content-Length", str(size)))
        return found.status, found.reason, fields

    def _sent(self, head: bytes, body: Body | None) -> socket.socket:
        """The connection on which the request was sent: an idle one, or one of its own."""
        while self._connections and (idle := self._connections.take(self._server)):
            self._connection = idle
            if _send(idle, head, body):
                return idle
            idle.close()
        self._connection = connection = connect(self._server[1])
        _send(connection, head, body)
        return connection

    def read(self) -> bytes:
        """What has arrived of the body, b"" at its end. Raises UpstreamDied when it ends early, or NotHttp."""
        if self._answer is None:
            return b""
        self._turns.next()
        try:
            return self._answer.read()
        except (OSError, BrokenOff, Malformed) as error:
            raise _broken(error) from None

    def close(self) -> None:
        """Let go of the server; one that is still generating stops."""
        if self._connection is None:
            return
        if self._connections is not None and self._answer is not None and self._answer.leaves_connection:
            self._connections.keep(self._server, self._connection)
        else:
            self._connection.close()


def _broken(error: Exception) -> UpstreamDied:
    if isinstance(error, Malformed):
        return NotHttp(str(error))
    return UpstreamDied(str(error) if isinstance(error, BrokenOff) else repr(error))


def connect(address: str) -> socket.socket:
    """Raises OSError."""
    kind, _, place = address.partition(":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(place)
        except BaseException:
            connection.close()
            raise
        return connection
    host, _, port = place.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _head(method: str, target: str, headers: Headers) -> bytes:
    """Raises ValueError for what would become another request."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    head = "\r\n".join(lines).encode("latin-1")
    if head.count(b"\n") != len(headers) or head.count(b"\r") != len(headers):
        raise ValueError("a newline in the head of a request")
    return head + b"\r\n\r\n"


def _send(connection: socket.socket, head: bytes, body: Body | None) -> bool:
    """Send a request; False if the server has closed the connection before all of the head was sent.

    It may have answered without reading all of a body it does not want; else reading the answer fails as well.
    """
    pieces: Iterator[Piece] = iter(body.pieces) if body else iter(())
    first = next(pieces, b"")
    if len(first) <= MAX_WITH_HEAD:
        begin, rest = memoryview(head + first), pieces
    else:
        begin, rest = memoryview(head), chain((first,), pieces)
    sent = 0
    try:
        while sent < len(head):
            sent += connection.send(begin[sent:])
    except (BrokenPipeError, ConnectionResetError):
        return False
    with suppress(BrokenPipeError, ConnectionResetError):
        if sent < len(begin):
            connection.sendall(begin[sent:])
        for piece in rest:
            connection.sendall(piece)
    return True
