"""Measures what running servers use in a process of its own: the kernel takes 20 to 30 ms for each GiB in memory, for
which the loop must not stand still.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import IO

from supervisor.core.events import Measured
from supervisor.forked import READ_BYTES, Forked
from supervisor.loop import Loop
from supervisor.usage import Usage


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
        used = self._look(group)
        try:
            process = Forked(lambda answer: _measure(used, answer))
        except OSError:  # no processes or descriptors at the moment
            return
        self.under_way.add(launch)
        self._loop.watch(process.pipe, lambda: self._answered(launch, process))

    def _answered(self, launch: int, process: Forked) -> None:
        """The whole answer is one write; nothing at all if the process was killed."""
        self._loop.unwatch(process.pipe)
        data = os.read(process.pipe, READ_BYTES)
        process.end()
        self.under_way.discard(launch)
        if data:
            private, shared = json.loads(data)
            self._loop.deliver(Measured(launch, private, shared))


def _measure(used: Callable[[], Usage | None], answer: IO[bytes]) -> None:
    usage = used()
    if usage is not None:
        answer.write(json.dumps([dict(usage.private), dict(usage.shared)]).encode())
