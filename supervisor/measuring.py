"""Measures what running servers use in a process of its own: the kernel takes 20 to 30 ms for each GiB in memory, for
which the loop must not stand still.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from supervisor.core.events import Measured
from supervisor.guard import LAST_FD
from supervisor.loop import Loop
from supervisor.usage import Usage

MAX_ANSWER = 65536  # what a pipe takes at once, pipe(7)


class Measuring:
    """Delivers one Measured for each `start`, unless the server is gone by then or cannot be looked at. The launches
    that are `under_way` another program has to measure anew."""

    def __init__(self, loop: Loop, look: Callable[[int], Callable[[], Usage | None]]) -> None:
        """`look(group)` makes a function that tells what a process group uses."""
        self._loop = loop
        self._look = look
        self.under_way: set[int] = set()

    def start(self, launch: int, group: int | None) -> None:
        """Measure the process group of a launch; None if it has no process. One at a time for each launch."""
        if group is None or launch in self.under_way:
            return
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError:  # out of descriptors at the moment
            return
        used = self._look(group)
        try:
            pid = os.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            return
        if pid == 0:
            _measure(used, write_end)
        os.close(write_end)
        self.under_way.add(launch)
        self._loop.watch(read_end, lambda: self._answered(launch, read_end))

    def _answered(self, launch: int, pipe: int) -> None:
        """The whole answer is one write; nothing at all if the process was killed."""
        self._loop.unwatch(pipe)
        data = os.read(pipe, MAX_ANSWER)
        os.close(pipe)
        self.under_way.discard(launch)
        if data:
            private, shared = json.loads(data)
            self._loop.deliver(Measured(launch, private, shared))


def _measure(used: Callable[[], Usage | None], pipe: int) -> NoReturn:
    """The child's whole life; it is reaped like any other orphan. What it would hold open is closed."""
    try:
        signal.set_wakeup_fd(-1)
        os.closerange(3, pipe)
        os.closerange(pipe + 1, LAST_FD)
        usage = used()
        if usage is not None:
            os.write(pipe, json.dumps([dict(usage.private), dict(usage.shared)]).encode())
    finally:
        os._exit(0)
