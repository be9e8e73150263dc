"""Asks programs for their version and their options, all of them at once.

Whatever is found there instead, a script that sleeps or something that floods, costs a few seconds and ends in words.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from supervisor.child import PASSING, SUPERVISOR_VARIABLE, die_with_parent
from supervisor.core.quantities import format_duration, shown

# For how long none of those that are asked together may answer, before all that are left are given up: so many that
# hang take no longer than one, and many that answer have the time they need.
PATIENCE = 10.0
LONGEST_ANSWER = 2**20
MOST_AT_ONCE = 32
READ_BYTES = 65536  # what a pipe takes at once, pipe(7)
_ASKED = ("--version", "--help")
# Of its own environment, what would change its answers or tell systemd something.
_HIDDEN = ("LLAMA_", "NOTIFY_SOCKET", "WATCHDOG_")


@dataclass(frozen=True)
class Question:
    """What the program at `path` is that has this stamp, when it is run with `env` in its environment."""

    path: str
    env: tuple[tuple[str, str], ...]
    stamp: tuple[int, ...]


class Answer(msgspec.Struct, frozen=True):
    """The first line of what it says to --version, and all of what it says to --help.

    Or `why` that is not known, as words that follow its name; it `may_pass` where another time may tell.
    """

    version: str = ""
    help: str = ""
    why: str = ""
    may_pass: bool = False


def ask(questions: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
    """The answer to each, in the order in which they come. Blocks for the tenth of a second that two short runs take,
    and for PATIENCE seconds after the last of those that answer."""
    waiting, running = deque(questions), set[_Asked]()
    deadline = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < MOST_AT_ONCE:
                    asked = _Asked(waiting.popleft(), selector)
                    if (answer := asked.start()) is not None:
                        yield asked.question, answer
                    else:
                        running.add(asked)
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    asked = key.data
                    if (answer := asked.go_on(key.fd)) is not None:
                        running.remove(asked)
                        deadline = time.monotonic() + PATIENCE
                        yield asked.question, answer
                if time.monotonic() >= deadline:
                    break
            yield from [(asked.question, asked.late()) for asked in running]
            yield from [(question, late(_ASKED[0])) for question in waiting]
        finally:
            for asked in running:
                asked.end()


def late(what: str) -> Answer:
    """That of a program which nobody waits for any longer."""
    return Answer(why=f"{what} did not end within {format_duration(PATIENCE)}", may_pass=True)


def _is_hidden(variable: str) -> bool:
    # By the supervisor's own the guard knows what is to die with it.
    return variable.startswith(_HIDDEN) and variable != SUPERVISOR_VARIABLE


class _Asked:
    """One program, which is asked one thing after the other."""

    def __init__(self, question: Question, selector: selectors.BaseSelector) -> None:
        self.question = question
        self._selector = selector
        self._texts: list[str] = []
        self._said = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1

    def start(self) -> Answer | None:
        """Run it; the answer if that is not possible."""
        env = {**os.environ, **dict(self.question.env)}
        self._said = b""
        try:
            self._process = subprocess.Popen(
                [self.question.path, self._what],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in env.items() if not _is_hidden(name)},
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        except OSError as error:
            return Answer(why=f"it can't be run: {error.strerror}", may_pass=error.errno in PASSING)
        self._pidfd = os.pidfd_open(self._process.pid)
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout.fileno(), selectors.EVENT_READ, self)
        return None

    def go_on(self, descriptor: int) -> Answer | None:
        """Take in what it says, or that it ended; the answer if that is all of it."""
        if descriptor == self._pidfd:
            return self._ended(self.end())
        data = os.read(descriptor, READ_BYTES)
        self._said += data
        if len(self._said) > LONGEST_ANSWER:
            self.end()
            return Answer(why=f"{self._what} says more than {LONGEST_ANSWER // 2**20} MiB")
        if not data:
            self._selector.unregister(descriptor)
            self._selector.register(self._pidfd, selectors.EVENT_READ, self)
        return None

    def late(self) -> Answer:
        """What is to be said of it if it is not waited for any longer."""
        return late(self._what)

    def end(self) -> int:
        """Kill what is left of it; its exit code, or the negative number of the signal that ended it."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdout is not None
        for descriptor in (process.stdout.fileno(), self._pidfd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # before waiting for it frees the group's number
        process.stdout.close()
        os.close(self._pidfd)
        return process.wait()

    @property
    def _what(self) -> str:
        return _ASKED[len(self._texts)]

    def _ended(self, code: int) -> Answer | None:
        text = self._said.decode(errors="replace")
        if code:
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            return Answer(why=f"{self._what} ends with {how} and says {shown(last, 200)}")
        self._texts.append(text)
        if len(self._texts) < len(_ASKED):
            return self.start()
        version, options = self._texts
        return Answer(version.strip().partition("\n")[0][:200], options)
