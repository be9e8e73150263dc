"""Has the files of the next model read while running requests keep it from being loaded, in a process of its own: a
disk takes seconds for that, and a network that is gone for ever."""

from __future__ import annotations

import os
from collections.abc import Iterable

from supervisor import gguf_file
from supervisor.forked import Forked
from supervisor.loop import Loop
from supervisor.page_cache import fill

# Nice, and for the disk likewise, ioprio_set(2). It takes 5 % of a processor; with the lowest priority it would not get
# even that beside a model that computes on all of them.
LESS = 10


class Prefetching:
    """One process at most. Nobody waits for it, and nothing depends on it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._process: Forked | None = None

    def read(self, paths: Iterable[str]) -> None:
        """Read these files, the other shards of a model as well, and no longer those of the last call."""
        self.close()
        files = [file for path in paths for file in gguf_file.files(path)]
        if not files:
            return
        try:
            self._process = process = Forked(lambda _answer: _read(files))
        except OSError:  # no processes or descriptors at the moment
            return
        self._loop.watch(process.pipe, self.close)

    def close(self) -> None:
        """Read no more."""
        if self._process is not None:
            self._loop.unwatch(self._process.pipe)
            self._process.end()
            self._process = None


def _read(files: Iterable[str]) -> None:
    os.nice(LESS)
    fill(files)
