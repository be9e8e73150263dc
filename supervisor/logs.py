"""What children write, kept by name in bounded memory, and the supervisor's own log on stderr.

The supervisor never waits for a reader: a stuck terminal or pager loses lines (and is told how many), not models.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

READ_BYTES = 16384
DRAIN_READS = 64  # the largest pipe there is by default holds 1 MiB
MAX_LINE = 4096
KEPT_LINES = 1000
LAST_LINES = 12
WRITE_BYTES = 4096  # POLLOUT on a pipe promises this much, pipe(7)
PRIORITIES = {"error": "<3>", "warning": "<4>", "info": "<6>"}  # sd-daemon(3)


@dataclass(frozen=True)
class LogLine:
    """One line of a launch of `instance` as process `pid`, kept under the name of its model; `at` in Unix seconds.

    Later lines have higher numbers, those after a restart of the supervisor included, unless the clock was set back.
    """

    name: str
    at: float
    launch: int
    pid: int
    text: str
    instance: str
    number: int


@dataclass
class Source:
    """The log pipe of one running launch; `name` is the model, `instance` which of its replicas. `took` is told each
    line, and answers whether it was meant for the supervisor and nobody else needs to see it."""

    name: str
    launch: int
    pid: int
    fd: int
    instance: str
    partial: bytearray = field(default_factory=bytearray)
    took: Callable[[str], bool] = lambda _text: False


class LogBook:
    """The last KEPT_LINES lines of every name. `listener` is called with new lines, all of one name."""

    def __init__(self, wall: Callable[[], float], listener: Callable[[list[LogLine]], None]) -> None:
        self._wall = wall
        self._listener = listener
        self._kept: dict[str, deque[LogLine]] = {}
        self._last = 0

    def read(self, source: Source) -> bool:
        """Take in what the pipe holds, at most READ_BYTES so that a flood starves nobody. False at its end."""
        try:
            data = os.read(source.fd, READ_BYTES)
        except BlockingIOError:
            return True
        *lines, rest = (source.partial + data).split(b"\n")
        if len(rest) > MAX_LINE or not data:
            lines, rest = [*lines, rest] if rest else lines, bytearray()
        self._keep(source, [line[at : at + MAX_LINE] for line in lines for at in range(0, max(len(line), 1), MAX_LINE)])
        source.partial = rest
        return bool(data)

    def drain(self, source: Source) -> None:
        """Take in what a dead launch left in its pipe: at most what a pipe holds, as others may still write to it."""
        readable = select.poll()  # select(2) knows no descriptors above 1023
        readable.register(source.fd, select.POLLIN)
        for _ in range(DRAIN_READS):
            if not readable.poll(0) or not self.read(source):
                break
        if source.partial:
            self._keep(source, [source.partial])

    def tail(self, name: str, count: int, after: int = 0) -> list[LogLine]:
        """The last `count` lines of a name that have higher numbers than `after`, oldest first.

        A number that no line has yet is of a time before the clock was set back: it says nothing.
        """
        kept = list(self._kept.get(name, ()))
        if after <= self._last:
            kept = [line for line in kept if line.number > after]
        return kept[-count:] if count > 0 else []

    def last_words(self, name: str, launch: int) -> tuple[str, ...]:
        """The last lines of one launch that are not empty, for the reason of its end."""
        lines = [line.text for line in self._kept.get(name, ()) if line.launch == launch and line.text.strip()]
        return tuple(lines[-LAST_LINES:])

    def keep_only(self, names: Set[str]) -> None:
        """Drop what is kept of all other names."""
        for name in self._kept.keys() - names:
            del self._kept[name]

    def _keep(self, source: Source, pieces: list[bytearray]) -> None:
        if pieces:
            at = self._wall()
            texts = [piece.decode(errors="replace").rstrip("\r") for piece in pieces]
            lines = [
                LogLine(source.name, at, source.launch, source.pid, text, source.instance, self._next(at))
                for text in texts
                if not source.took(text)
            ]
            self._kept.setdefault(source.name, deque(maxlen=KEPT_LINES)).extend(lines)
            if lines:
                self._listener(lines)

    def _next(self, at: float) -> int:
        """The next line's number: microseconds of the clock, as far as it goes on."""
        self._last = max(self._last + 1, int(at * 1_000_000))
        return self._last


class Journal:
    """The supervisor's own log: stderr, with priorities for the journal when systemd reads it."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = _never_waiting(sys.stderr.fileno() if fd is None else fd)
        self._prioritised = "JOURNAL_STREAM" in os.environ
        self._lost = 0

    def write(self, text: str, level: str = "info") -> None:
        """Write one line, or count it as lost if nobody reads at the moment."""
        self.write_all([text], level)

    def write_all(self, texts: Iterable[str], level: str = "info") -> None:
        """Write lines, as many at once as can be written without waiting."""
        block, count = b"", 0
        for data in (self._line(text, level) for text in texts):
            if len(block) + len(data) > WRITE_BYTES:
                self._put(block, count)
                block, count = b"", 0
            block, count = block + data, count + 1
        self._put(block, count)

    def _line(self, text: str, level: str) -> bytes:
        prefix = PRIORITIES[level] if self._prioritised else ""
        data = f"{prefix}{_printable(text)}".encode(errors="replace")
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


def _never_waiting(fd: int) -> int:
    """A terminal may take less than POLLOUT promises of a pipe: open it once more, not to wait for it.

    Its own descriptor stays as it is: others, such as a shell, share it.
    """
    if os.isatty(fd):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return fd


def _printable(text: str) -> str:
    """Without control characters, which a server could use to drive the terminal it is shown on."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
