"""What children write, kept by name in bounded memory, and the log: all that is told, to wherever it goes."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from supervisor.core import log_fields
from supervisor.core.config import Log
from supervisor.core.log_fields import Entry, Fields
from supervisor.core.log_places import places
from supervisor.journald import Journald
from supervisor.log_files import LogFiles
from supervisor.loop import Loop
from supervisor.stderr import Stderr

READ_BYTES = 4096  # as many lines, which may all be empty, hold up the loop for some 20 ms
DRAIN_READS = 64  # the largest pipe there is by default holds 1 MiB
MAX_LINE = 4096
KEPT_LINES = 1000
LAST_LINES = 12


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


class KeptLines(msgspec.Struct, frozen=True):
    """The lines of each name, and the number of the last of all."""

    lines: dict[str, list[LogLine]]
    last: int


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
        if rest and not data:
            lines.append(rest)
            rest = bytearray()
        pieces = [line[at : at + MAX_LINE] for line in lines for at in range(0, max(len(line), 1), MAX_LINE)]
        while len(rest) > MAX_LINE:  # the last piece waits for the newline, which alone would be a line of its own
            pieces.append(rest[:MAX_LINE])
            del rest[:MAX_LINE]
        self._keep(source, pieces)
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

    def handed_over(self) -> KeptLines:
        """What is kept, for another program to go on with."""
        return KeptLines({name: list(lines) for name, lines in self._kept.items()}, self._last)

    def take_over(self, kept: KeptLines) -> None:
        """Go on with what another program kept."""
        self._kept = {name: deque(lines, maxlen=KEPT_LINES) for name, lines in kept.lines.items()}
        self._last = kept.last

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
    """The log: stderr, systemd's journal and files, as config.yaml has it. It never waits for any of them: what they
    don't take is lost, and told as such.

    It works from the start on; `serve` adds what needs a loop. `usual` is the directory of files where none is named.
    """

    def __init__(self, fd: int | None = None, log: Log | None = None, usual: Path | None = None) -> None:
        self._stderr = Stderr(fd)
        self._journald = Journald(self._stderr.write)
        self._files: LogFiles | None = None
        self._usual = str(usual or "")
        self._loop: Loop | None = None
        self.use(log or Log())

    @property
    def processes(self) -> set[int]:
        """Those that write files, and end by themselves once they have written what they were given."""
        return self._files.processes if self._files else set()

    def handed_over(self) -> list[Entry]:
        """What has not been taken yet, for another program to `take_over`. What files get is with their process."""
        return self._journald.waiting

    def take_over(self, entries: list[Entry]) -> None:
        """Go on with what another program could not write."""
        self._journald.write(entries)

    def use(self, log: Log) -> None:
        """Go by this from now on."""
        self._keep = log.keep
        self._places = places(log, self._stderr.kind, self._usual)
        if self._loop is not None:
            self._use_files(self._loop)

    def serve(self, loop: Loop) -> None:
        """From now on there are files, if there are to be any, and what the journal does not take at once has time."""
        self._loop = loop
        loop.timed.append(self._journald)
        self._use_files(loop)

    def close(self) -> None:
        """Have everything written, as far as that takes a moment only."""
        self._journald.close()
        if self._files is not None:
            self._files.close(wait=True)

    def write(self, text: str, level: str = "info", fields: Fields | None = None) -> None:
        """Write one line."""
        self.write_all([text], level, fields)

    def write_all(self, texts: Iterable[str], level: str = "info", fields: Fields | None = None) -> None:
        """Write lines, as many at once as can be written without waiting."""
        at = time.time()
        self._put([Entry(text, at, level, fields or {}) for text in texts], own=True)

    def write_lines(self, lines: list[LogLine]) -> None:
        """Write what children wrote, all of one model."""
        self._put(
            [
                Entry(
                    f"{line.instance} | {line.text}",
                    line.at,
                    fields=log_fields.of_line(line.name, line.instance, line.launch),
                    name=line.name,
                )
                for line in lines
            ],
            own=False,
        )

    def _put(self, entries: list[Entry], *, own: bool) -> None:
        if self._places.journal:
            self._journald.write(entries)
        if self._places.stderr if own else self._places.models_too:
            self._stderr.write(entries)
        if self._files is not None:
            self._files.write(entries)

    def _use_files(self, loop: Loop) -> None:
        wanted = self._places.files
        if self._files is not None and (self._files.directory, self._files.keep) != (wanted, self._keep):
            self._files.close(wait=False)
            self._files = None
        if self._files is None and wanted is not None:
            self._files = LogFiles(loop, wanted, self._keep, self._warn)

    def _warn(self, line: str) -> None:
        self.write(f"llama-router: {line}", "warning")
