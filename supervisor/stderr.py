"""The log on stderr, with priorities where systemd reads it.

The supervisor never waits for a reader: a stuck terminal or pager loses lines (and is told how many), not models.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
from collections.abc import Iterable

from supervisor.core.log_fields import IDENTIFIER, PRIORITIES, Entry, printable
from supervisor.core.log_places import Stderr as Kind
from supervisor.systemd import is_journal

WRITE_BYTES = 4096  # POLLOUT on a pipe promises this much, pipe(7)


class Stderr:
    """Descriptor `fd`, by default 2. `kind` is what that is."""

    def __init__(self, fd: int | None = None) -> None:
        chosen = _usual() if fd is None else fd
        self.kind = _kind(chosen)
        self._fd = _never_waiting(chosen)
        self._lost = 0

    def write(self, entries: Iterable[Entry]) -> None:
        """Write lines, as many at once as can be written without waiting; count those as lost that nobody reads."""
        block, count = b"", 0
        for data in (self._line(entry.text, entry.level) for entry in entries):
            if len(block) + len(data) > WRITE_BYTES:
                self._put(block, count)
                block, count = b"", 0
            block, count = block + data, count + 1
        self._put(block, count)

    def _line(self, text: str, level: str) -> bytes:
        prefix = ""
        if self.kind is Kind.JOURNAL:  # which puts the program's name before each line itself
            prefix, text = f"<{PRIORITIES[level]}>", text.removeprefix(f"{IDENTIFIER}: ")  # sd-daemon(3)
        data = f"{prefix}{printable(text)}".encode(errors="replace")
        if len(data) >= WRITE_BYTES:
            data = data[: WRITE_BYTES - 1].decode(errors="ignore").encode()
        return data + b"\n"

    def _put(self, block: bytes, count: int) -> None:
        if self._lost:
            notice = f"llama-router: {self._lost} log lines are lost: nobody read them"
            if self._emit(self._line(notice, "warning")):
                self._lost = 0
        if self._lost or not self._emit(block):
            self._lost += count

    def _emit(self, data: bytes) -> bool:
        writable = select.poll()
        writable.register(self._fd, select.POLLOUT)
        try:
            return writable.poll(0) == [(self._fd, select.POLLOUT)] and os.write(self._fd, data) == len(data)
        except OSError:
            return False


def _usual() -> int:
    """Descriptor 2, which sys.stderr is None for if it was closed: a file may have that number by now."""
    return sys.stderr.fileno() if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)


def _kind(fd: int) -> Kind:
    if is_journal(fd):
        return Kind.JOURNAL
    found = os.fstat(fd)
    null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev  # noqa: PTH116
    return Kind.NOWHERE if null else Kind.ELSEWHERE


def _never_waiting(fd: int) -> int:
    """A terminal may take less than POLLOUT promises of a pipe: open it once more, not to wait for it.

    Its own descriptor stays as it is: others, such as a shell, share it.
    """
    if os.isatty(fd):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return fd
