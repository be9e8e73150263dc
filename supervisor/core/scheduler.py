"""Leases: who waits for which model, who is served next, and who is refused.

One queue a model, oldest first. A lease ends in exactly one way: granted and later released, refused, or withdrawn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from supervisor.core import refusals
from supervisor.core.commands import Command, Grant, Refuse
from supervisor.core.events import LeaseAsked
from supervisor.core.fleet_state import Instance, Lease, Model
from supervisor.core.refusals import Refusal
from supervisor.core.states import State

# A client saw its connection break before the supervisor saw the process end. The kernel closes a dying process's
# sockets just before it reports the death, so this long without a death means that the server lives.
AVOID_SECONDS = 1.0


class Scheduler:
    """All leases, by number. Adds commands to the list it is given."""

    def __init__(self, commands: list[Command]) -> None:
        self.commands = commands
        self.leases: dict[int, Lease] = {}
        self.waiting = 0
        self._timed: dict[int, Lease] = {}

    def restore(self, leases: Iterable[Lease]) -> None:
        """Go on with leases of which another program granted some; the others wait in their models' queues."""
        self.leases = {lease.id: lease for lease in sorted(leases, key=lambda lease: lease.id)}
        queued = [lease for lease in self.leases.values() if lease.launch is None]
        self.waiting = len(queued)
        self._timed = {lease.id: lease for lease in queued if _due(lease) is not None}

    def ask(self, model: Model, asked: LeaseAsked, now: float, queue_limit: int) -> None:
        """Queue a lease, or refuse it at once: 1. the model has failed 2. it is not loaded and must not be 3. the queue
        is full, unless the lease can be granted right now."""
        if model.state is State.FAILED:  # 1
            self.refuse_ask(asked.lease, refusals.failed(model.name, model.last_reason))
            return
        if not model.wanted and not asked.autoload:  # 2
            self.refuse_ask(asked.lease, refusals.NOT_LOADED)
            return
        lease = Lease(asked.lease, model.name, now, who=asked.who, timeout=asked.timeout)
        at_once = not model.waiting and bool(self._with_room(model, lease))
        if self.waiting >= queue_limit and not at_once:  # 3
            self.refuse_ask(asked.lease, refusals.queue_full(queue_limit))
            return
        if asked.avoid is not None:
            lease.avoid, lease.avoid_until = asked.avoid, now + AVOID_SECONDS
        self.leases[lease.id] = lease
        self.waiting += 1
        model.waiting.append(lease)
        if lease.timeout is not None or lease.avoid is not None:
            self._timed[lease.id] = lease

    def refuse_ask(self, lease: int, refusal: Refusal) -> None:
        """Refuse what was never queued."""
        self.commands.append(Refuse(lease, refusal))

    def grant_waiting(self, model: Model, now: float) -> None:
        """Hand out what room the replicas have, oldest waiter first, to the least busy replica."""
        passed_over: deque[Lease] = deque()
        while model.waiting and (replicas := self._with_room(model, model.waiting[0])):
            lease = model.waiting.popleft()
            usable = [each for each in replicas if lease.avoid != each.launch or now >= lease.avoid_until]
            if usable:
                self._grant(lease, min(usable, key=lambda each: len(each.leases)))
            else:
                passed_over.append(lease)
        passed_over.extend(model.waiting)
        model.waiting = passed_over

    def refuse_waiting(self, model: Model, refusal: Refusal) -> None:
        """Refuse everyone who waits for the model."""
        while model.waiting:
            lease = model.waiting.popleft()
            self._forget(lease)
            self.commands.append(Refuse(lease.id, refusal))

    def end(self, lease_id: int, models: dict[str, Model]) -> Lease | None:
        """The client released, withdrew or hung up. Returns the lease if it was not over already."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return None
        self._forget(lease)
        model = models.get(lease.model)
        if lease.launch is None and model is not None:
            model.waiting.remove(lease)
        return lease

    def expire(self, models: dict[str, Model], now: float) -> list[str]:
        """Refuse waiters whose own deadline has passed. Returns the models to look at again."""
        touched = []
        for lease in [lease for lease in self._timed.values() if (at := _due(lease)) is not None and at <= now]:
            touched.append(lease.model)
            lease.avoid = None
            if lease.deadline is not None and lease.deadline <= now:
                models[lease.model].waiting.remove(lease)
                self._forget(lease)
                refusal = refusals.waited_too_long(lease.model, lease.timeout or 0.0)
                self.commands.append(Refuse(lease.id, refusal))
        return touched

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return _earliest(_due(lease) for lease in self._timed.values())

    @staticmethod
    def _with_room(model: Model, lease: Lease) -> list[Instance]:
        """The replicas that could take the lease."""
        return [
            replica
            for replica in model.replicas
            if replica.state is State.READY
            and (not replica.draining or lease.asked_at < replica.drain_before)
            and len(replica.leases) < lease_limit(replica)
        ]

    def _grant(self, lease: Lease, instance: Instance) -> None:
        assert instance.launch is not None
        lease.launch = instance.launch
        self.waiting -= 1
        instance.leases.add(lease.id)
        self._timed.pop(lease.id, None)
        self.commands.append(Grant(lease.id, instance.launch, lease.model, instance.name))

    def _forget(self, lease: Lease) -> None:
        del self.leases[lease.id]
        self.waiting -= lease.launch is None
        self._timed.pop(lease.id, None)


def lease_limit(instance: Instance) -> int:
    """How many leases it grants at once."""
    return getattr(instance.terms, "lease_limit", 0)


def _due(lease: Lease) -> float | None:
    return _earliest([lease.deadline, lease.avoid_until if lease.avoid is not None else None])


def _earliest(times: Iterable[float | None]) -> float | None:
    return min((at for at in times if at is not None), default=None)
