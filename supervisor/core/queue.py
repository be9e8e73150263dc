"""Who waits for what, since when and why: the queue as it is shown."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from supervisor.core.fleet_state import Instance, Lease, Model
from supervisor.core.policy import Policy
from supervisor.core.scheduler import lease_limit
from supervisor.core.states import State


def oldest_waiters(models: Iterable[Model], most: int) -> list[Lease]:
    """The `most` leases that have waited longest, oldest first."""
    heads = (lease for model in models for lease in model.waiting)
    return heapq.nsmallest(most, heads, key=lambda lease: (lease.asked_at, lease.id))


def why_waiting(model: Model, models: Mapping[str, Model], chosen: str | None, policy: Policy) -> str:
    """What those who wait for the model wait for; `chosen` is the model for which room is being made."""
    by_state: dict[State, Instance] = {}
    for replica in model.replicas:
        by_state.setdefault(replica.state, replica)
    if serving := [replica for replica in model.replicas if replica.serves]:
        slots = sum(map(lease_limit, serving))
        more = "; another replica is loading" if State.STARTING in by_state else ""
        if State.STOPPED in by_state and model.wanted and not by_state.keys() & {State.STARTING, State.FAILED}:
            more = "; there is no room for another replica"
        return f"its {slots} slots are in use{more}" if slots > 1 else f"its only slot is in use{more}"
    if State.STARTING in by_state:
        return "it is loading"
    if (backing_off := by_state.get(State.BACKOFF)) is not None:
        return f"it will be restarted: {_text(backing_off.reason)}"
    if (draining := by_state.get(State.READY)) is not None:
        return f"it finishes its running requests: {_text(draining.ending)}"
    if (stopping := by_state.get(State.STOPPING)) is not None:
        return f"it is stopping: {_text(stopping.ending)}"
    return _no_room(model, models, chosen, policy)


def _no_room(model: Model, models: Mapping[str, Model], chosen: str | None, policy: Policy) -> str:
    if chosen not in (None, model.name):
        return f"room is made for {chosen} first"
    occupying = [other for other in models.values() if other.occupying and other is not model]
    leaving = [other.name for other in occupying if any(replica.leaving for replica in other.replicas)]
    if leaving:
        return f"{', '.join(sorted(leaving))} makes room for it"
    names = ", ".join(sorted(other.name for other in occupying))
    if policy.max_models and len(occupying) >= policy.max_models:
        return f"max_models is {policy.max_models}, and in use by {names}"
    return f"the memory is in use by {names}"


def _text(reason: object) -> str:
    return getattr(reason, "text", "unknown")
