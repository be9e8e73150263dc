"""The log in files, one for each model: the supervisor's side of the process that writes them, `log_writer`."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from supervisor import log_writer
from supervisor.core.log_fields import Entry, printable
from supervisor.core.log_places import file_name
from supervisor.loop import Loop

BLOCK = 16384  # bytes of one message; those that wait may take 200 KiB together (net.core.wmem_default)
AGAIN_SECONDS = 10.0
LAST_SECONDS = 2.0


class LogFiles:
    """Writes to `directory`, which takes at most `keep` bytes. `tell` is given what people should know of it."""

    def __init__(self, loop: Loop, directory: str, keep: int, tell: Callable[[str], None]) -> None:
        self.directory = directory
        self.keep = keep
        self._loop = loop
        self._tell = tell
        self._socket: socket.socket | None = None
        self._pid = 0
        self._pidfd = -1
        self._started = -AGAIN_SECONDS
        self._lost = 0

    @property
    def processes(self) -> set[int]:
        """The process that writes, if there is one."""
        return {self._pid} - {0}

    def write(self, entries: Iterable[Entry]) -> None:
        """Hand over lines; those that nobody takes, because the disk hangs, are lost."""
        for name, block, count in _blocks(entries):
            sent = self._sent(os.fsencode(name) + b"\n" + block)
            if sent and self._lost:
                lost, self._lost = self._lost, 0
                self._tell(f"log files in {self.directory} are written again; {lost} lines are missing")
            elif not sent:
                first = not self._lost
                self._lost += count
                if first:
                    self._tell(f"log files in {self.directory} take no lines at the moment; they are left out")

    def close(self, *, wait: bool) -> None:
        """Let the process go once all is written; `wait` for that, but not for a disk that hangs."""
        if self._socket is None:
            return
        self._socket.shutdown(socket.SHUT_WR)
        if wait:
            ended = select.poll()
            ended.register(self._pidfd, select.POLLIN)
            if not ended.poll(LAST_SECONDS * 1000):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._forget()

    def _sent(self, message: bytes) -> bool:
        if self._socket is None and not self._start():
            return False
        assert self._socket is not None
        try:
            self._socket.send(message)
        except BlockingIOError:
            return False
        except OSError:  # it was killed
            self._forget()
            return False
        return True

    def _start(self) -> bool:
        """Fork the process, unless that was tried a moment ago."""
        now = time.monotonic()
        if now < self._started + AGAIN_SECONDS:
            return False
        self._started = now
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return False
        with theirs:
            try:
                self._pid = os.fork()
            except OSError:
                ours.close()
                return False
            if self._pid == 0:
                log_writer.live(theirs, Path(self.directory), self.keep)
        ours.setblocking(False)
        self._socket, self._pidfd = ours, os.pidfd_open(self._pid)
        self._loop.watch(ours, self._answered)
        return True

    def _answered(self) -> None:
        """Something to be told, or the process is dead: the next line starts another."""
        assert self._socket is not None
        try:
            told = self._socket.recv(log_writer.MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if told:
            self._tell(told.decode(errors="replace"))
        else:
            self._forget()

    def _forget(self) -> None:
        assert self._socket is not None
        self._loop.unwatch(self._socket)
        self._socket.close()
        os.close(self._pidfd)
        self._socket, self._pid = None, 0


def _blocks(entries: Iterable[Entry]) -> Iterator[tuple[str, bytes, int]]:
    """The lines as files have them: the file's name, some lines for it, and how many those are."""
    for name, group in groupby(entries, lambda entry: entry.name):
        block, count = b"", 0
        for entry in group:
            line = _line(entry)
            if block and len(block) + len(line) > BLOCK:
                yield file_name(name), block, count
                block, count = b"", 0
            block, count = block + line, count + 1
        yield file_name(name), block, count


def _line(entry: Entry) -> bytes:
    """With its time in UTC, as journalctl -o short-iso-precise has it."""
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds")
    text = f"{at} {printable(entry.text)}".encode(errors="replace")
    return text[: BLOCK - 1] + b"\n"
