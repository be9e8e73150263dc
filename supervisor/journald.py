"""The log in systemd's journal, line by line with fields (systemd's Native Journal Protocol), never waiting for it.

The journal's socket takes as few as ten lines at once (net.unix.max_dgram_qlen), and a model says hundreds while it
loads. What it does not take is kept for a moment and offered again.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable

from supervisor.core.log_fields import Entry, datagram

SOCKET = "/run/systemd/journal/socket"
MAX_WAITING = 1 << 20  # bytes
AGAIN_SECONDS = 0.01
LAST_SECONDS = 1.0


class Journald:
    """`instead` takes what the journal can't be given at all, as when there is none."""

    def __init__(self, instead: Callable[[Iterable[Entry]], None]) -> None:
        self._instead = instead
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[Entry, bytes]] = deque()
        self._bytes = 0
        self._lost = 0
        self._again = 0.0

    def write(self, entries: Iterable[Entry]) -> None:
        """Hand over lines; what is not taken at once is offered again, in order, by `fire`."""
        for entry in entries:
            data = datagram(entry)
            if self._waiting or not self._sent(entry, data):
                self._wait(entry, data)

    @property
    def waiting(self) -> list[Entry]:
        """What the journal has not taken yet."""
        return [entry for entry, _ in self._waiting]

    def due(self) -> float | None:
        """When what waits is offered again."""
        return self._again if self._waiting else None

    def fire(self, now: float) -> None:
        """Offer what waits."""
        if not self._waiting or now < self._again:
            return
        while self._waiting and self._sent(*self._waiting[0]):
            self._bytes -= len(self._waiting.popleft()[1])
        self._again = now + AGAIN_SECONDS
        if self._lost and not self._waiting:
            notice = f"llama-router: {self._lost} log lines are lost: the journal did not take them"
            self._lost = 0
            self.write([Entry(notice, time.time(), "warning")])

    def close(self) -> None:
        """Offer what waits for a last moment: it may say why all this ends."""
        until = time.monotonic() + LAST_SECONDS
        while self._waiting and (now := time.monotonic()) < until:
            self.fire(now)
            time.sleep(AGAIN_SECONDS)
        if self._socket is not None:
            self._socket.close()

    def _wait(self, entry: Entry, data: bytes) -> None:
        if self._lost or self._bytes + len(data) > MAX_WAITING:
            self._lost += 1
            return
        if not self._waiting:
            self._again = time.monotonic() + AGAIN_SECONDS
        self._waiting.append((entry, data))
        self._bytes += len(data)

    def _sent(self, entry: Entry, data: bytes) -> bool:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(data, SOCKET)
        except BlockingIOError:
            return False
        except OSError:
            self._instead([entry])
        return True
