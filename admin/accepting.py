"""Which worker takes how many of the connections that wait to be accepted: all workers listen on one socket.

A few at a time balance best, as whoever has little to do comes back first. But they are accepted in the order in which
they came, and a page behind a thousand others would wait for as many looks of the loop.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from gevent.server import StreamServer

from admin.turns import beginning

AT_ONCE = 50
UNACKED = struct.Struct("=24xI")  # of struct tcp_info (linux/tcp.h): of a listening socket, how many wait


class Server(StreamServer):
    """One of so many `workers` on its socket."""

    def __init__(self, listener: Any, workers: int, **settings: Any) -> None:
        self._workers = workers
        super().__init__(listener, **settings)

    @property
    def max_accept(self) -> int:  # type: ignore[override]  # gevent asks for it at each look
        """How many are accepted before anything else is done: this worker's share of all that wait.

        A UNIX socket does not tell how many that are; there a worker leaves the next one to the others until requests
        stand in line.
        """
        try:
            waiting: int = UNACKED.unpack(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNACKED.size))[0]
        except OSError:
            return AT_ONCE if beginning or self._workers == 1 else 1
        return min(max(1, waiting // self._workers), AT_ONCE)
