"""HTTP exchanges with model servers over UNIX or TCP sockets; knows no policy, only when a server has died.

A connection serves one request after the other (Connections) where the server is known to stand it. One that the
server has closed meanwhile is noticed before a byte is sent, and while the head is: half a head is nothing that a
server could act on. So a request is sent again only if it can't have been executed.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import gevent

from admin.connection import peek
from admin.heads import Malformed, Response

Headers = list[tuple[str, str]]
Piece = bytes | bytearray | memoryview
Server = tuple[Any, str]  # a launch's number and its address, "unix:/path" or "tcp:host:port", as a lease names them

READ_BYTES = 65536

# Below the shortest keep-alive time of the servers whose connections are used again: llama-server's 5 s (cpp-httplib,
# CPPHTTPLIB_KEEPALIVE_TIMEOUT_SECOND). One that is about to be closed is never used, and a server that is to end has
# no idle connection for longer.
REUSE_SECONDS = 2.0
MAX_IDLE_EACH = 32

# RFC 9110 §7.6.1, and the older names still seen. All of Proxy-* are of one hop as well.
HOP_BY_HOP = frozenset(
    ["connection", "keep-alive", "te", "trailer", "trailers", "transfer-encoding", "upgrade", "http2-settings"]
)
PROXY = "proxy-"
# RFC 9110 §5.6.2 and §5.5, as latin-1 text.
FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FIELD_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")


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
        self._idle: dict[Server, list[tuple[float, HTTPConnection]]] = {}
        self._sweeping = False

    def take(self, server: Server) -> HTTPConnection | None:
        """A connection on which the server waits for a request, as far as can be seen."""
        idle = self._idle.get(server)
        while idle:
            since, connection = idle.pop()
            if time.monotonic() - since < REUSE_SECONDS and peek(connection.sock) is None:
                return connection
            connection.close()
        return None

    def keep(self, server: Server, connection: HTTPConnection) -> None:
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
        self._connection: HTTPConnection | None = None
        self._response: Response | None = None
        self._has_body = False
        self._complete = False

    def ask(self, method: str, target: str, headers: Headers, body: Body | None) -> tuple[int, str, Headers]:
        """Send a request and wait for the head of its answer: status, reason and headers (end-to-end ones only).

        Content-Length is there if the body has a known length. Raises UpstreamDied or NotHttp.
        """
        try:
            response = self._exchange(method, target, headers, body)
        except (OSError, HTTPException) as error:
            raise _broken(error) from None
        self._response = response
        fields = end_to_end(response.getheaders(), frozenset(["content-length"]))
        for name, value in fields:
            if not (FIELD_NAME.fullmatch(name) and FIELD_VALUE.fullmatch(value)):
                raise NotHttp(f"malformed header {name!r}")
        if (length := _length(response, method)) is not None:
            fields.append(("Content-Length", length))
        reason = response.reason if FIELD_VALUE.fullmatch(response.reason) else ""
        return response.status, reason, fields

    def _exchange(self, method: str, target: str, headers: Headers, body: Body | None) -> Response:
        connection = self._sent(method, target, headers, body)
        # It may have answered without reading all of a body it does not want; else reading the answer fails as well.
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in body.pieces if body else ():
                connection.send(piece)
        response = connection.getresponse()
        assert isinstance(response, Response)
        return response

    def _sent(self, method: str, target: str, headers: Headers, body: Body | None) -> HTTPConnection:
        """A connection on which the head is sent: an idle one, or one of its own."""
        length: Headers = [("Content-Length", str(body.length))] if body else []
        while self._connections and (idle := self._connections.take(self._server)):
            self._connection = idle
            try:
                _send_head(idle, method, target, headers + length)
            except (BrokenPipeError, ConnectionResetError):
                idle.close()
            else:
                return idle
        self._connection = connection = connect(self._server[1])
        with suppress(BrokenPipeError, ConnectionResetError):
            _send_head(connection, method, target, headers + length)
        return connection

    def read(self) -> bytes:
        """What has arrived of the body, b"" at its end. Raises UpstreamDied when it ends early, or NotHttp."""
        response = self._response
        if response is None:
            return b""
        try:
            data = response.read1(READ_BYTES)
            response.check_chunk()
        except (OSError, HTTPException) as error:
            raise _broken(error) from None
        if not data:
            self._check_end(response)
            self._complete = True
        self._has_body = True
        return data

    def _check_end(self, response: Response) -> None:
        if response.length:
            raise UpstreamDied(f"{response.length} bytes of the body are missing")
        if response.length is None and not response.chunked and not self._has_body:
            raise UpstreamDied("the connection ended right behind the head")

    def close(self) -> None:
        """Let go of the server; one that is still generating stops."""
        response, connection = self._response, self._connection
        if connection is None:
            return
        if response is not None:
            response.close()
        if self._complete and self._connections is not None and response is not None and not response.will_close:
            self._connections.keep(self._server, connection)
        else:
            connection.close()


def _broken(error: Exception) -> UpstreamDied:
    return NotHttp(str(error)) if isinstance(error, Malformed) else UpstreamDied(repr(error))


def _length(response: Response, method: str) -> str | None:
    """The Content-Length to announce; that of an answer to HEAD is of the one to GET. (gunicorn drops that of 204.)"""
    if method == "HEAD" or response.status == 304:
        declared = response.headers.get("Content-Length", "")
        return declared if declared.isascii() and declared.isdecimal() else None
    return None if response.length is None else str(response.length)


def connect(address: str) -> HTTPConnection:
    """Raises OSError."""
    kind, _, place = address.partition(":")
    connection = _UnixConnection(place) if kind == "unix" else HTTPConnection(place)
    connection.response_class = Response
    connection.connect()
    return connection


def _send_head(connection: HTTPConnection, method: str, target: str, headers: Headers) -> None:
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()


class _UnixConnection(HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)
