"""Which model is loaded next, and who makes room for it. Pure questions: nothing here changes anything.

A claim is a stopped replica that is to be started: the first of a model that somebody waits for or that is to be
loaded, or a further one, once those before it are ready. One step at a time:

1. Claims with a right to evict (somebody waits, or an operator asked) come before those without, first replicas before
   further ones, and then the oldest first. One for which room is being made stays first, or the room would go to
   somebody else.
2. There is room: start it.
3. Room is on its way (something is stopping, or drains): wait.
4. Nothing could ever make room, as it is too large or pinned models hold what it needs: refuse.
5. Something idle, unpinned and past its min_residency is there: evict as few as will do, the least recently used.
6. Everything is busy and the claim has waited max_wait: those that have served longest drain, and are swapped.
7. Else wait, until the first of these may change by time alone. Meanwhile a younger claim may start if there is room
   for it as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from supervisor.core import need
from supervisor.core.fleet_state import Instance, Model
from supervisor.core.need import Bytes
from supervisor.core.policy import Policy
from supervisor.core.refusals import Refusal, never_fits, too_large
from supervisor.core.states import State

# Enough to try every pair of a hundred idle models. Beyond, a choice that is not the smallest will do.
MAX_COMBINATIONS = 5000
MAX_CLAIMS_TRIED = 50


@dataclass(frozen=True)
class Start:
    """Start the replica at once."""

    claim: Claim


@dataclass(frozen=True)
class MakeRoom:
    """Stop `victims`, once their running requests are done, for the claim."""

    claim: Claim
    victims: tuple[Instance, ...]


@dataclass(frozen=True)
class NeverFits:
    """There is no hope for the claim."""

    claim: Claim
    why: Refusal


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`, unless something else happens; None: time alone changes nothing."""

    until: float | None


Step = Start | MakeRoom | NeverFits | Wait
Unit = tuple[Instance, ...]  # replicas that are stopped together


class Claim(NamedTuple):
    """A replica to be started; `further` if others of its model run already."""

    model: Model
    replica: Instance
    further: bool

    @property
    def may_evict(self) -> bool:
        """True when somebody waits for the model, or an operator asked for it; not for one that starts by itself."""
        return bool(self.model.waiting) or (self.model.insists and not self.further)

    @property
    def since(self) -> float:
        """Since when somebody has waited for the model; else since when it has been wanted."""
        return self.model.waiting[0].asked_at if self.model.waiting else self.model.wanted_at


def claim_of(model: Model) -> Claim | None:
    """The replica of a model that is to be started next, if any."""
    occupying = model.occupying
    stopped = [replica for replica in model.replicas if replica.state is State.STOPPED]
    failed = any(replica.state is State.FAILED for replica in model.replicas)
    if model.removed or failed or not stopped:
        return None
    if not occupying:
        return Claim(model, stopped[0], further=False) if model.wanted or model.waiting else None
    settled = all(replica.state in (State.READY, State.STOPPING) for replica in occupying)
    return Claim(model, stopped[0], further=True) if model.wanted and settled else None


def next_step(
    claims: Collection[Claim], models: Collection[Model], policy: Policy, chosen: str | None, now: float
) -> Step | None:
    """The next step, or None without any claim. `chosen` is the model for which room is being made."""
    if not claims:
        return None
    floor = _Floor(models, policy)
    ranked = sorted(claims, key=lambda claim: _rank(claim, chosen))[:MAX_CLAIMS_TRIED]
    hopeless = next((claim for claim in ranked if not claim.further and floor.is_too_small_for(claim)), None)
    if hopeless is not None:  # 4
        return NeverFits(hopeless, too_large(hopeless.model.name, _need(hopeless.model), policy.budget))
    first: Wait | None = None
    for claim in ranked:
        if first is None:
            step = _step(claim, floor, chosen, now)
            if not isinstance(step, Wait):
                return step
            first = step
            if chosen is not None:
                return first
        elif floor.has_room_for(claim, ()) and not claim.replica.needs_room:
            return Start(claim)
    return first


def _rank(claim: Claim, chosen: str | None) -> tuple[bool, bool, bool, float, int, str]:
    lease = claim.model.waiting[0].id if claim.model.waiting else 0  # who came first at the same time
    return (claim.model.name != chosen, not claim.may_evict, claim.further, claim.since, lease, claim.model.name)


class _Floor:
    """What runs, and the limits it must stay within."""

    def __init__(self, models: Collection[Model], policy: Policy) -> None:
        self.policy = policy
        self.models = [model for model in models if model.occupying]

    def leaving(self) -> Unit:
        """What will be stopped soon."""
        return tuple(each for model in self.models for each in model.occupying if each.leaving)

    def is_too_small_for(self, claim: Claim) -> bool:
        """True when the claim would not fit even if nothing else ran."""
        return not need.fits(memory_of(claim.model, 1), self.policy.budget)

    def movable(self, claim: Claim) -> list[Model]:
        """The other models that may be stopped for the claim, and do not go already."""
        others = [model for model in self.models if model is not claim.model and not model.preset.pinned]
        return [model for model in others if not all(each.leaving for each in model.occupying)]

    def why_never(self, claim: Claim) -> Refusal:
        """What pinned models hold."""
        pinned = [model for model in self.models if model.preset.pinned and model is not claim.model]
        held = {model.name: memory_of(model, len(model.occupying)) for model in pinned}
        return never_fits(claim.model.name, _need(claim.model), self.policy, held)

    def has_room_for(self, claim: Claim, without: Collection[Instance]) -> bool:
        """Whether the claim could start if those `without` were gone."""
        gone = {id(instance) for instance in without}
        counts = [(model, sum(id(each) not in gone for each in model.occupying)) for model in self.models]
        running = {model.name: count for model, count in counts if count}
        if claim.model.name not in running and self.policy.max_models and len(running) >= self.policy.max_models:
            return False
        if not self.policy.budget:
            return True
        used = [memory_of(model, count) for model, count in counts if model is not claim.model]
        used.append(memory_of(claim.model, running.get(claim.model.name, 0) + 1))
        return need.fits(need.total(used), self.policy.budget)


def memory_of(model: Model, replicas: int) -> Bytes:
    """What so many replicas of the model are counted with."""
    return need.known(model.preset.memory, model.need).total(replicas)


def _step(claim: Claim, floor: _Floor, chosen: str | None, now: float) -> Step:
    leaving = floor.leaving()
    short = claim.replica.needs_room and (claim.model.name != chosen or bool(leaving))
    if not short and floor.has_room_for(claim, ()):  # 2
        return Start(claim)
    if leaving and floor.has_room_for(claim, leaving):  # 3
        return Wait(None)
    others = floor.movable(claim)
    if short and not others:
        return Start(claim)
    if not claim.may_evict:
        return Wait(None)
    if not floor.has_room_for(claim, (*leaving, *(each for model in others for each in model.occupying))):  # 4
        return Wait(None) if claim.further else NeverFits(claim, floor.why_never(claim))
    return _make_room(claim, floor, others, leaving, now)


def _make_room(claim: Claim, floor: _Floor, others: Sequence[Model], leaving: Unit, now: float) -> Step:
    def enough(victims: Collection[Instance]) -> bool:
        return bool(victims or leaving) and floor.has_room_for(claim, (*leaving, *victims))

    idle = [unit for model in others for unit in _idle_units(model)]
    resident = sorted((unit for unit in idle if _resident_until(unit) <= now), key=_last_used)
    if (victims := _fewest(resident, enough)) is not None:  # 5
        return MakeRoom(claim, victims)
    patience_ends = claim.since + floor.policy.max_wait
    busy = [tuple(model.occupying) for model in others if model.in_flight and any(r.serves for r in model.replicas)]
    if busy and not claim.further and patience_ends <= now:  # 6
        swapped = _swap(sorted(busy, key=_served_since), resident, enough)
        if swapped is not None:
            return MakeRoom(claim, swapped)
    changes = [at for unit in idle if (at := _resident_until(unit)) > now]  # 7
    changes += [patience_ends] if busy and not claim.further and patience_ends > now else []
    return Wait(min(changes, default=None))


def _need(model: Model) -> need.Need:
    return need.known(model.preset.memory, model.need)


def is_idle(model: Model) -> bool:
    """True for what runs and nobody uses or waits for."""
    unused = not model.in_flight and not model.waiting and not model.asks
    return unused and any(each.serves or each.state is State.BACKOFF for each in model.replicas)


def _idle_units(model: Model) -> list[Unit]:
    """An idle model as a whole; of one in use, each replica that nobody uses, if another one serves."""
    if is_idle(model):
        return [tuple(model.occupying)]
    if model.waiting:
        return []
    serving = [each for each in model.replicas if each.serves]
    return [(each,) for each in serving if not each.leases and len(serving) > 1]


def _fewest(units: Sequence[Unit], enough: Callable[[Collection[Instance]], bool]) -> Unit | None:
    """The smallest choice of units that is enough; of several, that with the units that come first."""
    everything = tuple(itertools.chain.from_iterable(units))
    if not everything or not enough(everything):
        return None
    sizes = range(1, len(units) + 1)
    choices = itertools.chain.from_iterable(itertools.combinations(units, size) for size in sizes)
    for choice in itertools.islice(choices, MAX_COMBINATIONS):
        victims = tuple(itertools.chain.from_iterable(choice))
        if enough(victims):
            return victims
    return _pruned(units, enough)


def _pruned(units: Sequence[Unit], enough: Callable[[Collection[Instance]], bool]) -> Unit:
    """All units but those that need not go, the last ones first."""
    kept = list(units)
    for unit in reversed(units):
        rest = [other for other in kept if other is not unit]
        if enough(tuple(itertools.chain.from_iterable(rest))):
            kept = rest
    return tuple(itertools.chain.from_iterable(kept))


def _swap(busy: Sequence[Unit], idle: Sequence[Unit], enough: Callable[[Collection[Instance]], bool]) -> Unit | None:
    """As few busy units as will do together with idle ones, and no idle one in vain."""
    spare = tuple(itertools.chain.from_iterable(idle))
    chosen = _fewest(busy, lambda victims: enough((*spare, *victims)))
    if chosen is None:
        return None
    return (*chosen, *_pruned(idle, lambda victims: enough((*chosen, *victims))))


def _resident_until(unit: Unit) -> float:
    """When its newest replica has been ready for its min_residency."""
    return max(
        each.since + getattr(each.terms, "min_residency", 0.0) if each.state is State.READY else 0.0 for each in unit
    )


def _last_used(unit: Unit) -> tuple[float, str]:
    return (max(each.since if each.free_since is None else each.free_since for each in unit), unit[0].name)


def _served_since(unit: Unit) -> tuple[float, str]:
    return (min(each.since for each in unit), unit[0].name)
