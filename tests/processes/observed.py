"""What tests of real processes wait for: the end of a process, a model server at a gate, a word to systemd.

Everything that waits does so on such an event and gives up at DEADLINE.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

DEADLINE = 20.0


class Timeout(AssertionError):
    """What a test waited for did not happen."""


class Process:
    """Some process, by pid, of which the end is an event."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pidfd)

    def fileno(self) -> int:
        """Its pidfd, which is readable once it is dead."""
        return self._pidfd

    def gone(self, deadline: float = DEADLINE) -> float:
        """Wait for its end. Returns how many seconds that took."""
        before = time.monotonic()
        if not select.select([self._pidfd], [], [], deadline)[0]:
            raise Timeout(f"process {self.pid} lives after {deadline} s")
        return time.monotonic() - before

    @property
    def alive(self) -> bool:
        """True until it is dead; a zombie is dead."""
        return not select.select([self._pidfd], [], [], 0)[0]

    def kill(self, number: signal.Signals) -> None:
        """Signal it."""
        signal.pidfd_send_signal(self._pidfd, number)


class Visitor:
    """A model server that came to a gate and waits there."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(DEADLINE)
        self.pid = int(connection.recv(64))

    def go(self) -> None:
        """Let it go on."""
        self._connection.sendall(b"g")

    def gone(self) -> None:
        """Wait until it is dead."""
        with suppress(ConnectionResetError):
            assert self._connection.recv(1) == b""

    @property
    def alive(self) -> bool:
        """True until it is dead."""
        return not select.select([self._connection], [], [], 0)[0]

    def close(self) -> None:
        """Forget it; it ends if it waits."""
        self._connection.close()


class Gate:
    """Where model servers with a step `gate=PATH` announce themselves and wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.step = f"gate={path}"
        self._visitors: list[Visitor] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(100)
        self._listener.settimeout(DEADLINE)

    def visitor(self) -> Visitor:
        """The next one to come."""
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            raise Timeout(f"nobody came to {self.path}") from None
        visitor = Visitor(connection)
        self._visitors.append(visitor)
        return visitor

    @property
    def visited(self) -> bool:
        """True if somebody stands there whom `visitor` has not seen."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def close(self) -> None:
        """Send everybody home."""
        for visitor in self._visitors:
            visitor.close()
        self._listener.close()


def processes(mark: str) -> Iterator[tuple[int, list[str]]]:
    """Pid and argv of each live process with `mark` in its environment or command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                argv = (entry / "cmdline").read_bytes()
                if argv and entry.name != str(os.getpid()) and mark.encode() in argv + (entry / "environ").read_bytes():
                    yield int(entry.name), argv.decode(errors="replace").split("\0")


def still_there(pids: Iterable[int]) -> list[Process]:
    """Those of them that have not ended by now, as what is forked for a moment has."""
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            found.append(Process(pid))
    return found


def children(pid: int) -> dict[int, str]:
    """The children of a process, with the letter of their state (Z for a zombie), see proc_pid_stat(5)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid:
                    found[int(entry.name)] = state
    return found


def command_lines(parent: int) -> dict[int, bytes]:
    """What the children of a process were started as; without those that are gone by now."""
    found = {}
    for pid in children(parent):
        with suppress(OSError):
            if line := Path(f"/proc/{pid}/cmdline").read_bytes():
                found[pid] = line
    return found


def bytes_used(pid: int) -> int:
    """Resident memory."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def cached_bytes(path: Path) -> int:
    """How much of a file, which has to be this user's, is in the page cache; mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.byref(start), ctypes.c_size_t(size), pages)
        del start
    assert not failed, os.strerror(ctypes.get_errno())
    return min(sum(page & 1 for page in pages) * mmap.PAGESIZE, size)


def comes_to_be_cached(path: Path) -> None:
    """Wait until most of a file is: some of it may still be on its way, and the kernel may take some back."""
    deadline = time.monotonic() + DEADLINE
    while (cached := cached_bytes(path)) < path.stat().st_size * 3 / 4:
        if time.monotonic() > deadline:
            raise Timeout(f"of {path} only {cached} bytes are cached")


def dropped_from_cache(path: Path) -> Path:
    """The file, of which no page is cached afterwards; where that can't be had, the test is skipped."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_bytes(path):
        pytest.skip(f"{path} stays in the page cache: it is not on a disk")
    return path
