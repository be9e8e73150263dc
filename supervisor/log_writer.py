"""The process that writes log files, so that a disk that is slow or hangs holds up nobody else.

It is forked from the supervisor. A message is the name of a file, a newline, and lines for it; an answer is a line to
be told. It ends once the supervisor has closed the socket, or is dead, and everything is written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from pathlib import Path
from typing import NoReturn

from supervisor.core.log_places import OLDER, PARTS, is_ours, surplus
from supervisor.descriptors import ENOUGH
from supervisor.directories import make_private
from supervisor.errors import CannotCreate

MAX_MESSAGE = 1 << 16


def live(control: socket.socket, directory: Path, keep: int) -> NoReturn:
    """The whole life of the forked process."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        control.setblocking(True)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, ENOUGH)
        _serve(control, Files(directory, keep))
    finally:
        os._exit(0)


def _serve(control: socket.socket, files: Files) -> None:
    while message := control.recv(MAX_MESSAGE):
        name, _, lines = message.partition(b"\n")
        for told in files.append(os.fsdecode(name), lines):
            with contextlib.suppress(OSError):  # the supervisor is dead
                control.send(told.encode(errors="replace"))


class Files:
    """Log files of at most `keep` bytes together, all of them in `directory`, which is made when it is missing.

    A file that holds a part of that (PARTS) becomes the older one of its name, in place of the one before.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep
        self._most = keep // PARTS
        self._total: int | None = None  # None: to be counted
        self._lost: dict[str, int] = {}  # lines, by what could not be written the last time

    def append(self, name: str, lines: bytes) -> list[str]:
        """Write to a file. Returns what is to be told: that all or this one can't be written, once, or can be again.

        Files are opened each time, so it does not matter who moves or deletes them, logrotate(8) or people.
        """
        told = []
        path = self._directory / name
        what = f"log files in {self._directory}"
        try:
            make_private(self._directory, tighten=False)
            told += self._works(what)
            what = f"log file {path}"
            self._write(path, lines)
            told += self._works(what)
        except (OSError, CannotCreate) as error:
            if what not in self._lost:
                why = error.strerror if isinstance(error, OSError) else error
                told.append(f"cannot write {what}: {why}; lines are left out")
            self._lost[what] = self._lost.get(what, 0) + lines.count(b"\n")
        return told

    def _works(self, what: str) -> list[str]:
        lost = self._lost.pop(what, 0)
        return [f"{what} can be written again; {lost} lines are missing"] if lost else []

    def _write(self, path: Path, lines: bytes) -> None:
        fd = _opened(path)
        try:
            size = os.fstat(fd).st_size
            if size and size + len(lines) > self._most:
                path.rename(f"{path}{OLDER}")
                older, fd = fd, _opened(path)
                os.close(older)
                size, self._total = 0, None
            self._make_room(len(lines))
            _write_all(fd, lines, size)
        except OSError:
            self._total = None
            raise
        finally:
            os.close(fd)

    def _make_room(self, size: int) -> None:
        """Delete what was not written to for the longest, and a little more, not to do so with each line."""
        if self._total is None or self._total + size > self._keep:
            files = [(each.name, each.stat(follow_symlinks=False)) for each in os.scandir(self._directory)]
            ours = [(name, found.st_size, found.st_mtime) for name, found in files if is_ours(name)]
            self._total = sum(size for _, size, _ in ours)
            if self._total + size > self._keep:
                for name in surplus(ours, self._keep - self._most):
                    (self._directory / name).unlink(missing_ok=True)
                    self._total -= next(size for each, size, _ in ours if each == name)
        self._total += size


def _opened(path: Path) -> int:
    """A pipe that nobody reads is none to wait for: O_NONBLOCK."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(None, "it is not a regular file")
    return fd


def _write_all(fd: int, lines: bytes, size: int) -> None:
    """All of it or nothing: on a full disk, half a line is taken back."""
    try:
        left = memoryview(lines)
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        os.ftruncate(fd, size)
        raise
