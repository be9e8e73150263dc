"""Reads files into the page cache, so that whoever maps or reads them then does not wait for the disk.

sendfile(2) to /dev/null does that at the speed of the disk and copies nothing. It returns once the pages are there: a
process that is killed reads no further than the kernel does ahead of it. POSIX_FADV_WILLNEED returns at once instead,
and does of a longer range only what the device takes in one request (force_page_cache_readahead, mm/readahead.c).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator

from supervisor.usage import cache_room

STEP = 16 * 2**20
SAMPLE = 2**20  # of so many bytes one page is looked at, to tell whether they are cached
SPARE = 512 * 2**20  # what is left to whoever else needs memory meanwhile


def fill(paths: Iterable[str], room: Callable[[], int] = cache_room) -> None:
    """Read what is not cached of the files, in order, until only SPARE would be left of the `room` in memory. What
    can't be read, or is no regular file, is left out. Blocks for as long as the disk or the network takes."""
    null = os.open(os.devnull, os.O_WRONLY)
    filled = 0  # which the room still counts, as the kernel may take it back
    for path in paths:
        for fd, offset in _missing(path):
            if room() < filled + STEP + SPARE:
                return
            with contextlib.suppress(OSError):  # of a disk that has lost a part of the file
                filled += os.sendfile(null, fd, offset, STEP)


def _missing(path: str) -> Iterator[tuple[int, int]]:
    """The descriptor of a file, and where each STEP of it begins that has data and is not cached."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for somebody to write
    except (OSError, ValueError):
        return
    try:
        offset = 0 if stat.S_ISREG(os.fstat(fd).st_mode) else None
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # twice the usual read-ahead
        while offset is not None:
            offset = os.lseek(fd, offset, os.SEEK_DATA)  # OSError beyond the last data, wherever the file ends by now
            if not _is_cached(fd, offset):
                yield fd, offset
            offset += STEP
    except OSError:
        return
    finally:
        os.close(fd)


def _is_cached(fd: int, offset: int) -> bool:
    """Whether a STEP is, by samples. mincore(2) would tell of all pages, and only to who may write the file."""
    try:
        for at in range(offset, offset + STEP, SAMPLE):
            os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, or a file system that can't tell
        return False
    return True
