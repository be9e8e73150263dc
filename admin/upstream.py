"""One HTTP exchange with a model server over a UNIX or TCP socket; knows no policy, only when the server has died."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse

Headers = list[tuple[str, str]]

READ_BYTES = 65536

# RFC 9110 §7.6.1, and the older names still seen.
HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ]
)
# RFC 9110 §5.6.2 and §5.5, as latin-1 text.
FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FIELD_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")


class UpstreamDied(Exception):
    """The model server closed the connection, or broke HTTP, before its response was complete."""


def end_to_end(headers: Headers, dropped: frozenset[str] = frozenset()) -> Headers:
    """`headers` without those of one hop, those that Connection names, and `dropped` (lower case)."""
    named = {
        name.strip().lower() for field, value in headers if field.lower() == "connection" for name in value.split(",")
    }
    unwanted = HOP_BY_HOP | named | dropped
    return [(field, value) for field, value in headers if field.lower() not in unwanted]


class Upstream:
    """A request on its way. Use it in one greenlet; close it in any case."""

    def __init__(self, address: str) -> None:
        """`address` is "unix:/path" or "tcp:host:port", as a lease names it."""
        kind, _, place = address.partition(":")
        self._connection = _UnixConnection(place) if kind == "unix" else HTTPConnection(place)
        self._response: HTTPResponse | None = None
        self._has_body = False

    def ask(self, target: str, headers: Headers, body: bytearray) -> tuple[int, str, Headers]:
        """Send a POST and wait for the head of its answer: status, reason and headers (end-to-end ones only).

        Content-Length is there if the body has a known length. Raises UpstreamDied.
        """
        try:
            response = self._exchange(target, headers, body)
        except (OSError, HTTPException) as error:
            raise UpstreamDied(repr(error)) from None
        fields = end_to_end(response.getheaders(), frozenset(["content-length"]))
        for name, value in fields:
            if not (FIELD_NAME.fullmatch(name) and FIELD_VALUE.fullmatch(value)):
                raise UpstreamDied(f"malformed header {name!r}")
        if response.length is not None:
            fields.append(("Content-Length", str(response.length)))
        self._response = response
        reason = response.reason if FIELD_VALUE.fullmatch(response.reason) else ""
        return response.status, reason, fields

    def _exchange(self, target: str, headers: Headers, body: bytearray) -> HTTPResponse:
        connection = self._connection
        connection.connect()
        connection.putrequest("POST", target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        # It may have answered without reading all of a body it does not want; else reading the answer fails as well.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders(body)
        return connection.getresponse()

    def read(self) -> bytes:
        """What has arrived of the body, b"" at its end. Raises UpstreamDied when it ends early."""
        response = self._response
        if response is None:
            return b""
        try:
            data = response.read1(READ_BYTES)
        except (OSError, HTTPException) as error:
            raise UpstreamDied(repr(error)) from None
        if not data:
            self._check_end(response)
        self._has_body = True
        return data

    def _check_end(self, response: HTTPResponse) -> None:
        if response.length:
            raise UpstreamDied(f"{response.length} bytes of the body are missing")
        # http.client takes a head that breaks off for a whole one; what it then finds is a body that never began.
        if response.length is None and not response.chunked and not self._has_body:
            raise UpstreamDied("the connection ended in the head or right behind it")

    def close(self) -> None:
        """Hang up; a server that is still generating stops."""
        self._connection.close()
        if self._response is not None:
            self._response.close()


class _UnixConnection(HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)
