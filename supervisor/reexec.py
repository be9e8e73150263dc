"""`llama-router reexec`: a new program takes the place of this one, in the same process, with all that it has.

1. The program that this one was started from, as it is on the disk by now, runs as a child that only says whether it
   could go on with all that there is. Meanwhile everything goes on. Unless it says so and ends with 0, that is all.
2. What there is by then is written down anew, the descriptors are made inheritable, and execve(2) puts the program in
   the place of this one. The process stays what it is: the parent of its children, the holder of its lock, the main
   process of its unit. Signals wait meanwhile: those that are blocked are kept over execve(2).
3. The new program answers who asked, once its web tier has taken the place of the one before.

Whatever goes wrong before execve(2) has succeeded is told to who asked, and nothing has changed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor import child, handover
from supervisor.child import Child
from supervisor.children import Children
from supervisor.core.quantities import format_duration
from supervisor.errors import Refused, RouterError
from supervisor.logs import Journal
from supervisor.loop import Loop
from supervisor.protocol import Message
from supervisor.signals import Signals
from supervisor.succession import Succession

CHECK_SECONDS = 60.0
READ_BYTES = 65536
MAX_SAID = 65536
TOLD_LINES = 3
ATTEMPTS = 20
CANNOT = "cannot reexec: "
CHECK_FD = 3  # where `child.spawn` puts it


@dataclass
class _Check:
    """The program on trial: what it said so far, and when it is given up (monotonic)."""

    process: Child
    asker: int
    deadline: float
    said: bytearray = field(default_factory=bytearray)


class Reexec:
    """`answer` tells an asker, by its number."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        signals: Signals,
        journal: Journal,
        succession: Succession,
        answer: Callable[[int, Message | Refused], None],
    ) -> None:
        self._loop = loop
        self._children = children
        self._signals = signals
        self._journal = journal
        self._succession = succession
        self._answer = answer
        self._check: _Check | None = None
        loop.timed.append(self)

    def ask(self, asker: int) -> None:
        """Begin. Raises Refused if it can't be done at the moment; all else is answered later."""
        if self._check is not None:
            raise _refused("another reexec is under way")
        self._refuse_if_busy(asker)
        try:
            memfd = handover.written(self._succession.handed_over(asker))
            try:
                process = child.spawn(program(), self._told(handover.CHECK, CHECK_FD), memfd)
            finally:
                os.close(memfd)
        except Exception as error:  # whatever it is: this program goes on
            raise _refused(_words(error)) from None
        self._check = check = _Check(process, asker, time.monotonic() + CHECK_SECONDS)
        self._children.reaped_by[process.pid] = self._ended
        self._loop.watch(process.log, lambda: self._said(check))
        self._loop.watch(process.pidfd, self._ended)

    def due(self) -> float | None:
        """When the program has had its time."""
        return self._check.deadline if self._check is not None else None

    def fire(self, now: float) -> None:
        """Give it up if it is time."""
        if self._check is not None and self._check.deadline <= now:
            check = self._finish(self._check)
            self._refuse(check.asker, f"the new program did not answer within {format_duration(CHECK_SECONDS)}")

    def _said(self, check: _Check) -> None:
        try:
            data = os.read(check.process.log, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.unwatch(check.process.log)
        check.said = (check.said + data)[-MAX_SAID:]

    def _ended(self) -> None:
        """The program on trial is dead: if it can go on, it shall."""
        check = self._check
        if check is None:
            return
        result = os.waitid(os.P_PIDFD, check.process.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return
        self._said(check)
        self._finish(check)
        lines = [line for line in check.said.decode(errors="replace").splitlines() if line.strip()]
        accepted = bool(lines) and lines[-1].startswith(handover.ACCEPTED)
        if result.si_code == os.CLD_EXITED and result.si_status == os.EX_OK and accepted:
            self._go(check.asker)
        else:
            self._refuse(check.asker, f"the new program {_end_of(result)}: {'; '.join(lines[-TOLD_LINES:])[:1000]}")

    def _finish(self, check: _Check) -> _Check:
        """Leave nothing of the program on trial."""
        process = check.process
        self._loop.unwatch(process.log)
        self._loop.unwatch(process.pidfd)
        os.killpg(process.pid, signal.SIGKILL)  # it is not reaped yet, so the group is there
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOHANG)  # one that lives is reaped like any orphan
        os.close(process.log)
        os.close(process.pidfd)
        del self._children.reaped_by[process.pid]
        self._check = None
        return check

    def _go(self, asker: int) -> None:
        """Become the program. Returns only if that can't be done."""
        why = "signals come all the time"
        try:
            self._succession.leave()
            for _ in range(ATTEMPTS):
                self._signals.take()
                with self._signals.kept_back() as none_came:
                    if none_came:
                        self._become(asker)
        except Exception as error:  # whatever it is: this program goes on
            why = _words(error)
        self._succession.stay()
        self._refuse(asker, why)

    def _become(self, asker: int) -> None:
        """Raises Refused or OSError."""
        self._refuse_if_busy(asker)
        told = self._succession.handed_over(asker)
        memfd = handover.written(told)
        descriptors = [memfd, *told.descriptors]
        try:
            for fd in descriptors:
                os.set_inheritable(fd, True)
            argv = program()
            os.execve(argv[0], argv, self._told(handover.TAKE, memfd))
        finally:
            for fd in descriptors:
                os.set_inheritable(fd, False)
            os.close(memfd)

    def _told(self, order: str, fd: int) -> dict[str, str]:
        return {**self._succession.environment(), handover.VARIABLE: f"{order} {fd}"}

    def _refuse_if_busy(self, asker: int) -> None:
        if (why := self._succession.why_not(asker)) is not None:
            raise _refused(why)

    def _refuse(self, asker: int, why: str) -> None:
        why = why.removeprefix(CANNOT)
        self._journal.write(f"llama-router: {CANNOT}{why}; everything goes on as it was", "error")
        self._answer(asker, _refused(why))


def program() -> list[str]:
    """The command line that this program was started with. A script is found anew with the interpreter that its first
    line names by now; without one it is this interpreter, and what it finds on the disk."""
    first, *rest = sys.orig_argv
    if rest[:1] == sys.argv[:1] and os.access(rest[0], os.X_OK):
        return rest
    return [sys.executable or first, *rest]


def _refused(why: str) -> Refused:
    return Refused(f"{CANNOT}{why}", status=503)


def _words(error: Exception) -> str:
    expected = isinstance(error, RouterError | OSError)
    return str(error) if expected else f"{type(error).__name__}: {error}"


def _end_of(result: os.waitid_result) -> str:
    if result.si_code == os.CLD_EXITED:
        return f"ended with {result.si_status}"
    return f"was ended by {signal.Signals(result.si_status).name}"
