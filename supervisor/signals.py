"""The signals that the supervisor acts on, each an event of the loop; and how they wait for a moment."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from supervisor.loop import Loop

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
ALL = (*STOP, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """Handlers do nothing: the interpreter writes each signal's number to the wake-up descriptor. `came` is told the
    numbers. What was kept back, by a program that this one follows, comes at once."""

    def __init__(self, loop: Loop, came: Callable[[set[int]], None]) -> None:
        self._came = came
        self._received, self._wakeup = socket.socketpair()
        self._received.setblocking(False)
        self._wakeup.setblocking(False)
        for number in ALL:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)
        loop.watch(self._received, self.take)

    def take(self) -> None:
        """Act on what has come, if anything has."""
        try:
            numbers = set(self._received.recv(4096))
        except BlockingIOError:
            return
        self._came(numbers)

    @contextmanager
    def kept_back(self) -> Iterator[bool]:
        """Within it none comes, and no process may be started; it is true if all are acted on that came before. Those
        that are sent meanwhile come when it ends, or to a program that takes the place of this one: execve(2)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
        try:
            yield not self._has_come()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)

    @staticmethod
    def close() -> None:
        """Have nothing written any more."""
        signal.set_wakeup_fd(-1)

    def _has_come(self) -> bool:
        try:
            return bool(self._received.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
