"""Readiness of programs that can't notify: one HTTP GET, or one TCP connection, without ever blocking the loop."""

from __future__ import annotations

import re
import socket
from enum import Enum

PROBE_SECONDS = 5.0
STATUS_LINE = re.compile(rb"HTTP/1\.[01] 200[ \r\n]")
OTHER_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r\n]")
STATUS_BYTES = 13


class Outcome(Enum):
    """What a step of a probe came to."""

    WAITING = "waiting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Probing:
    """One probe on its way to `address` ("unix:PATH" or "tcp:HOST:PORT"). `path` None: a connection is enough.

    Call `step` whenever the socket is readable or, until `connected`, writable; give up at `deadline`. `ailment` is
    what was wrong once it is unhealthy.
    """

    def __init__(self, launch: int, address: str, path: str | None, now: float) -> None:
        self.launch = launch
        self.deadline = now + PROBE_SECONDS
        self.connected = False
        self.ailment: str | None = None
        self.path = path
        self._received = b""
        family, target = _target(address)
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._refused = False
        try:
            self._socket.connect(target)
        except BlockingIOError:
            pass
        except OSError:
            self._refused = True

    def fileno(self) -> int:
        """For the selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def step(self) -> Outcome:
        """Go on as far as possible."""
        try:
            return self._step()
        except BlockingIOError:
            return Outcome.WAITING
        except OSError:
            return self._unhealthy("connections break")

    def _step(self) -> Outcome:
        if self._refused or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return self._unhealthy("connections are refused")
        if not self.connected:
            self._socket.getpeername()
            self.connected = True
            if self.path is None:
                return Outcome.HEALTHY
            self._socket.send(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        data = self._socket.recv(STATUS_BYTES - len(self._received))
        self._received += data
        if STATUS_LINE.match(self._received):
            return Outcome.HEALTHY
        if data and len(self._received) < STATUS_BYTES:
            return Outcome.WAITING
        code = OTHER_STATUS.match(self._received)
        return self._unhealthy(f"GET {self.path} answers {code[1].decode() if code else 'no HTTP'}")

    def _unhealthy(self, ailment: str) -> Outcome:
        self.ailment = ailment
        return Outcome.UNHEALTHY


def _target(address: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    kind, _, place = address.partition(":")
    if kind == "unix":
        return socket.AF_UNIX, place
    host, _, port = place.rpartition(":")
    return socket.AF_INET, (host, int(port))
