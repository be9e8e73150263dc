"""Finds out, in a process of its own, what a load of the configuration needs to know and does not: what the headers of
model files say, and what programs are.

A header takes some 10 ms, more from a slow disk and for ever from a network that is gone, and a program as long as it
likes. The loop must not stand still for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from supervisor.backends.llama_server_asking import Answer, Question, ask
from supervisor.forked import READ_BYTES, Forked
from supervisor.logs import Journal
from supervisor.loop import Loop
from supervisor.needs import Header, read, unreadable
from supervisor.paths import printable

# How long one file may take, and how long none of the programs may answer, which is more than `ask` waits. Each that
# took so long halves it for the next, or a thousand on a dead mount would take a thousand times as long.
PATIENCE = 60.0
LEAST_PATIENCE = 1.0

Unknown = str | Question  # the path of a model's file, or a program
Learned = Header | Answer

# Of what is left: the number from 0, and what was learned of it.
_Line = tuple[int, Header | None, Answer | None]
_decoder = msgspec.json.Decoder(_Line)

NO_PROCESS = Answer(why="there is no process to be had for it at the moment", may_pass=True)


class Reading:
    """`unknown` tells what is to be found out, programs first, and `take` is given what is learned of each."""

    def __init__(
        self,
        loop: Loop,
        *,
        unknown: Callable[[], Sequence[Unknown]],
        take: Callable[[Unknown, Learned], None],
        journal: Journal,
    ) -> None:
        self._loop = loop
        self._unknown = unknown
        self._take = take
        self._journal = journal
        self._asked: Sequence[Unknown] = ()  # by the process, with those that were answered
        self._left: dict[Unknown, None] = {}
        self._done: Callable[[], None] | None = None
        self._patience = PATIENCE
        self._due: float | None = None
        self._process: Forked | None = None
        self._partial = b""
        loop.timed.append(self)

    @property
    def busy(self) -> bool:
        """True while something is found out."""
        return self._done is not None

    def start(self, done: Callable[[], None]) -> bool:
        """Find out what is unknown and call `done`; False, and `done` is not called, if nothing is. One at a time."""
        self._left = dict.fromkeys(self._unknown())
        if not self._left:
            return False
        self._done, self._patience = done, PATIENCE
        verb, what = _words(next(iter(self._left)))
        more = f" and {len(self._left) - 1} more" if len(self._left) > 1 else ""
        self._journal.write(f"llama-router: {verb}ing {what}{more}")
        self._go_on()
        return True

    def close(self) -> None:
        """Find out no more."""
        self._done = None
        self._end()

    def due(self) -> float | None:
        """When what is being found out has had its time."""
        return self._due

    def fire(self, now: float) -> None:
        """Go on with the next one if it is time."""
        if self._due is not None and self._due <= now:
            self._end()
            self._give_up(f"it took more than {self._patience:g} s")
            self._patience = max(self._patience / 2, LEAST_PATIENCE)
            self._go_on()

    def _go_on(self) -> None:
        try:
            if self._left:
                self._fork()
        except OSError:  # no processes or descriptors at the moment
            for unknown in self._left:
                self._take(unknown, NO_PROCESS if isinstance(unknown, Question) else read(unknown))
            self._left.clear()
        if not self._left and self._done is not None:
            done, self._done = self._done, None
            done()

    def _fork(self) -> None:
        """Raises OSError."""
        self._asked = asked = list(self._left)
        self._process = process = Forked(lambda answers: _learn_all(asked, answers))
        self._due = time.monotonic() + self._patience
        self._loop.watch(process.pipe, lambda: self._readable(process.pipe))

    def _readable(self, pipe: int) -> None:
        data = os.read(pipe, READ_BYTES)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._learned(*_decoder.decode(line))
            self._due = time.monotonic() + self._patience
        if self._left and data:
            return
        self._end()
        if self._left:
            self._give_up("the process that did it was killed")
        self._go_on()

    def _learned(self, number: int, header: Header | None, answer: Answer | None) -> None:
        unknown = self._asked[number]
        del self._left[unknown]
        self._take(unknown, answer or header or unreadable())

    def _give_up(self, why: str) -> None:
        unknown = next(iter(self._left))
        del self._left[unknown]
        line = "cannot {} {}: {}; it is tried again at the next reload".format(*_words(unknown), why)
        self._journal.write(f"llama-router: {line}", "warning")
        self._take(unknown, Answer(why=why, may_pass=True) if isinstance(unknown, Question) else unreadable())

    def _end(self) -> None:
        if self._process is not None:
            self._loop.unwatch(self._process.pipe)
            self._process.end()
        self._process = self._due = None
        self._partial = b""


def _words(unknown: Unknown) -> tuple[str, str]:
    """What is done, and to what."""
    if isinstance(unknown, Question):
        return "ask", f"{printable(Path(unknown.path))} what it is"
    return "read", f"the header of {printable(Path(unknown))}"


def _learn_all(unknown: Sequence[Unknown], answers: IO[bytes]) -> None:
    """A line for each, as it is found out."""
    for line in _lines(unknown):
        answers.write(line + b"\n")
        answers.flush()


def _lines(unknown: Sequence[Unknown]) -> Iterator[bytes]:
    numbers = {each: number for number, each in enumerate(unknown)}
    for question, answer in ask([each for each in unknown if isinstance(each, Question)]):
        yield msgspec.json.encode((numbers[question], None, answer))
    for path in unknown:
        if isinstance(path, str):
            yield _line(numbers[path], path)


def _line(number: int, path: str) -> bytes:
    try:
        return msgspec.json.encode((number, read(path), None))
    except UnicodeError:  # a path that is not Unicode
        return msgspec.json.encode((number, unreadable(), None))
