"""Answers on their way to clients: gunicorn's Response, whose head goes out together with the first piece of the body.

A system call and a packet fewer for each answer; and gevent's `sendall` asks the kernel for the size of a buffer before
each piece, which `send` does not.
"""

from __future__ import annotations

import socket
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from gunicorn.http.wsgi import Response


def send_all(client: socket.socket, data: bytes) -> None:
    """As `sendall`, which is only asked for what does not fit at once. Raises OSError."""
    sent = client.send(data)
    if sent < len(data):
        client.sendall(memoryview(data)[sent:])


class SentAnswer(Response):  # type: ignore[misc]  # gunicorn has no type hints
    """The answer to one request."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.headers_sent = False
        self._head = b""  # what is not sent yet of it

    def write(self, arg: bytes) -> None:
        """Send a piece of the body; the first one, even if it is empty, sends the head."""
        super().write(arg)
        self._send(b"")

    def close(self) -> None:
        """End the answer."""
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def send_headers(self) -> None:
        """Have the head sent with what comes next."""
        if not self.headers_sent:
            fields = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
            self._head = "".join(fields).encode("latin-1")
            self.headers_sent = True

    def default_headers(self) -> list[str]:
        """The status line and gunicorn's own fields."""
        version, today = ".".join(map(str, self.req.version)), _date(int(time.time()))
        lines = [f"HTTP/{version} {self.status}\r\n", f"Server: {self.version}\r\n", f"Date: {today}\r\n"]
        lines.append(f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n")
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        return lines

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _send(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        if data:
            send_all(self.sock, data)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """A Date field's value, put into words once a second."""
    return formatdate(second, usegmt=True)
