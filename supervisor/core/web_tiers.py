"""The web tier, and those before it: after the supervisor was replaced by another program, a new one takes the place of
the one that runs. Until it answers, that one goes on; then it takes no more connections and finishes what it serves,
however long that takes.
"""

from __future__ import annotations

from supervisor.core.commands import DeclareReady, WebRenewed
from supervisor.core.fleet_state import WEB, Instance, WebTier
from supervisor.core.lifecycle import Lifecycle
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State

LEAVE_SECONDS = 5.0
REPLACED = EndReason(Kind.REPLACED)
SHUTDOWN = EndReason(Kind.SHUTDOWN)


class WebTiers:
    """`current` is the one that serves, or is to; `earlier` ones have a process. `renewing` until it is known whether
    the current one took the place of one before."""

    def __init__(self, lifecycle: Lifecycle, now: float) -> None:
        self.current = Instance(WEB, WEB, WebTier(), since=now)
        self.earlier: list[Instance] = []
        self.renewing = False
        self._lifecycle = lifecycle

    @property
    def beyond_hope(self) -> bool:
        """True when none serves, and none will."""
        return self.current.state is State.FAILED and not any(each.state is State.READY for each in self.earlier)

    def restore(self, current: Instance, earlier: list[Instance], *, renewing: bool) -> None:
        """Go on where another program left off."""
        self.current, self.earlier, self.renewing = current, earlier, renewing

    def renew(self, now: float) -> None:
        """Start one in the place of the one that runs. One that was starting served nobody, and ends at once."""
        old = self.current
        self.current = Instance(WEB, WEB, WebTier(), since=now, ever_ready=old.ever_ready, restarts=old.restarts)
        if old.state is State.BACKOFF:
            self._lifecycle.stop(old, REPLACED, now, patience=None)
        if old.has_process:
            self._lifecycle.rename(old, f"{WEB}#{old.launch}")
            self.earlier.append(old)
            old.ending = REPLACED
            if old.state is State.STARTING:
                self._lifecycle.abort(old, REPLACED, now)
        self.renewing = True
        self._lifecycle.start(self.current, now)

    def became_ready(self, instance: Instance, now: float) -> None:
        """The current one can answer: those before it need not."""
        if instance is not self.current:
            return
        self._lifecycle.commands.append(DeclareReady())
        for each in self.earlier:
            if each.state is State.READY:
                self._lifecycle.stop(each, REPLACED, now, patience=None)
                each.deadline = None
        self._renewed(None)

    def ended(self, instance: Instance, seen: EndReason, now: float) -> None:
        """The process of one is gone."""
        reason = self._lifecycle.ended(instance, seen, now)
        if instance is self.current:
            self._renewed(reason)
        else:
            self.earlier.remove(instance)

    def stop(self, now: float) -> None:
        """Take no more connections; running requests may go on until the supervisor wants to `leave`."""
        for each in (self.current, *self.earlier):
            if each.state is State.STARTING:  # it serves nobody, and gunicorn's workers are deaf to SIGTERM meanwhile
                self._lifecycle.abort(each, SHUTDOWN, now)
                continue
            self._lifecycle.stop(each, SHUTDOWN, now, patience=None)
            if each.has_process:
                each.deadline = None

    def leave(self, now: float) -> bool:
        """End what goes on, in a moment; True when all are gone."""
        left = [each for each in (self.current, *self.earlier) if each.has_process]
        for each in left:
            if each.deadline is None:
                each.deadline = now + LEAVE_SECONDS
        return not left

    def _renewed(self, why: EndReason | None) -> None:
        if self.renewing:
            self.renewing = False
            self._lifecycle.commands.append(WebRenewed(why))
