"""Which model is loaded next, and who makes room for it. Pure questions: nothing here changes anything.

A claimant is a stopped model that somebody waits for, or that is to be loaded. One step at a time:

1. Claimants with a right to evict (somebody waits, or an operator asked) come before those without; among them the
   oldest first. One for which room is being made stays first, or the room would go to somebody else.
2. There is room: start it.
3. Room is on its way (something is stopping, or drains): wait.
4. Nothing could ever make room, as pinned models hold it all: refuse.
5. Something idle, unpinned and past its min_residency is there: evict the least recently used.
6. Everything is busy and the claimant has waited max_wait: the one that has served longest drains, and is swapped.
7. Else wait, until the first of these may change by time alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from supervisor.core.fleet_state import Instance, Model
from supervisor.core.policy import Policy
from supervisor.core.states import State


@dataclass(frozen=True)
class Start:
    """Load it now."""

    claimant: Model


@dataclass(frozen=True)
class MakeRoom:
    """Stop `victim`, once its running requests are done, for the claimant."""

    claimant: Model
    victim: Model


@dataclass(frozen=True)
class NeverFits:
    """Pinned models hold all the room there is."""

    claimant: Model
    holders: tuple[str, ...]


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`, unless something else happens; None: time alone changes nothing."""

    until: float | None


Step = Start | MakeRoom | NeverFits | Wait


class _Rank(NamedTuple):
    chosen: bool
    may_evict: bool
    since: float
    name: str


def is_claimant(model: Model) -> bool:
    """True for a stopped model that is to be loaded."""
    return (
        model.instance.state is State.STOPPED and not model.removed and (model.instance.wanted or bool(model.waiting))
    )


def demand_since(model: Model) -> float:
    """Since when somebody has waited for the model; else since when it has been wanted."""
    return model.waiting[0].asked_at if model.waiting else model.instance.wanted_at


def may_evict(model: Model) -> bool:
    """True when somebody waits for the model, or an operator asked for it; not for one that merely starts by itself."""
    return bool(model.waiting) or model.instance.insists


def next_step(
    claimants: Collection[Model], models: Collection[Model], policy: Policy, chosen: str | None, now: float
) -> Step | None:
    """The next step for the first of `claimants`, or None without any."""
    first = min(claimants, key=lambda model: _rank(model, chosen), default=None)
    if first is None:
        return None
    occupying = [model for model in models if is_occupying(model.instance)]
    if not policy.max_models or len(occupying) < policy.max_models:  # 2
        return Start(first)
    staying = [model for model in occupying if not is_leaving(model.instance)]
    if len(staying) < policy.max_models or not may_evict(first):  # 3
        return Wait(None)
    movable = [model for model in staying if not model.preset.pinned]
    if not movable:  # 4
        return NeverFits(first, tuple(sorted(model.preset.name for model in staying)))
    idle = [model for model in movable if is_idle(model)]
    resident = [model for model in idle if _resident_until(model) <= now]
    if resident:  # 5
        return MakeRoom(first, min(resident, key=_last_used))
    patience_ends = demand_since(first) + policy.max_wait
    busy = [model for model in movable if model.instance.state is State.READY and model.instance.leases]
    if busy and patience_ends <= now:  # 6
        return MakeRoom(first, min(busy, key=lambda model: (model.instance.since, model.preset.name)))
    changes = [_resident_until(model) for model in idle] + ([patience_ends] if busy else [])  # 7
    return Wait(min(changes, default=None))


def is_occupying(instance: Instance) -> bool:
    """True for what has a process, or is about to be given one again."""
    return instance.has_process or instance.state is State.BACKOFF


def is_leaving(instance: Instance) -> bool:
    """True for what will be stopped soon; if it is to come back then, it is one claimant among others."""
    stopping = instance.state is State.STOPPING and instance.ending is not None and instance.ending.intended
    return stopping or instance.draining


def is_idle(model: Model) -> bool:
    """True for what nobody uses or waits for."""
    instance = model.instance
    unused = not instance.leases and not model.waiting and not model.asks
    return unused and instance.state in (State.READY, State.BACKOFF) and not instance.draining


def _rank(model: Model, chosen: str | None) -> _Rank:
    name = model.preset.name
    return _Rank(name != chosen, not may_evict(model), demand_since(model), name)


def _resident_until(model: Model) -> float:
    ready = model.instance.state is State.READY
    return model.instance.since + model.preset.min_residency if ready else 0.0


def _last_used(model: Model) -> tuple[float, str]:
    idle_since = model.instance.idle_since
    return (model.instance.since if idle_since is None else idle_since, model.preset.name)
