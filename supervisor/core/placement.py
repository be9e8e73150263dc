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
   for it as it is; once room is being made, only if that will be enough for both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from supervisor.core import need
from supervisor.core.eviction import Room, Unit, fewest, less
from supervisor.core.fleet_state import Instance, Model
from supervisor.core.need import Bytes
from supervisor.core.policy import Policy
from supervisor.core.refusals import Refusal, never_fits, too_large
from supervisor.core.states import State

_MODELS = "number of models"
_ANYTHING = "anything"  # what every unit frees, for a claim that only needs something to go


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
    """Nothing to do before `until`, unless something else happens; None: time alone changes nothing. `next` is the
    claim that gets the room which is on its way."""

    until: float | None
    next: Claim | None = None


Step = Start | MakeRoom | NeverFits | Wait


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
    ranked = sorted(claims, key=lambda claim: _rank(claim, chosen))
    hopeless = next((claim for claim in ranked if not claim.further and floor.is_too_small_for(claim)), None)
    if hopeless is not None:  # 4
        return NeverFits(hopeless, too_large(hopeless.model.name, _need(hopeless.model), policy.budget))
    first = ranked[0]
    step = _step(first, floor, chosen, now)
    if not isinstance(step, Wait):
        return step
    leaving = floor.leaving() if first.model.name == chosen else ()
    for claim in ranked[1:]:
        spare = not leaving or floor.has_room_for(first, leaving, beside=claim)
        if spare and not claim.replica.needs_room and floor.has_room_for(claim):
            return Start(claim)
    return step


def _rank(claim: Claim, chosen: str | None) -> tuple[bool, bool, bool, float, int, str]:
    lease = claim.model.waiting[0].id if claim.model.waiting else 0  # who came first at the same time
    return (claim.model.name != chosen, not claim.may_evict, claim.further, claim.since, lease, claim.model.name)


def memory_of(model: Model, replicas: int) -> Bytes:
    """What so many replicas of the model are counted with."""
    return _need(model).total(replicas)


def _need(model: Model) -> need.Need:
    return need.known(model.preset.memory, model.need)


class _Floor:
    """What runs, and the limits it must stay within. The number of models is counted like one more device."""

    def __init__(self, models: Collection[Model], policy: Policy) -> None:
        self.policy = policy
        self.models = [model for model in models if model.occupying]
        self.limits: Bytes = {**policy.budget, **({_MODELS: policy.max_models} if policy.max_models else {})}
        self._used = need.total(_takes(model, len(model.occupying)) for model in self.models)

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

    def has_room_for(self, claim: Claim, without: Unit = (), beside: Claim | None = None) -> bool:
        """Whether the claim could start if those `without` were gone, and `beside` started as well."""
        return not self.lacks(claim, without, beside)

    def lacks(self, claim: Claim, without: Unit = (), beside: Claim | None = None) -> dict[str, int]:
        """By how much the limits would be passed; empty if there is room."""
        used = dict(self._used)
        running = {model.name: len(model.occupying) for model in (claim.model, *([beside.model] if beside else []))}
        for model, count in _grouped(self.models, without):
            _add(used, _frees(model, count), -1)
            running[model.name] = len(model.occupying) - count
        for each in (claim, beside) if beside else (claim,):
            _add(used, _takes(each.model, running[each.model.name] + 1), 1)
            _add(used, _takes(each.model, running[each.model.name]), -1)
        return {key: over for key, limit in self.limits.items() if (over := used.get(key, 0) - limit) > 0}


def _takes(model: Model, replicas: int) -> dict[str, int]:
    return {**memory_of(model, replicas), _MODELS: 1} if replicas else {}


def _frees(model: Model, count: int) -> dict[str, int]:
    """What is free again once so many of its replicas are gone."""
    running = len(model.occupying)
    freed = _takes(model, running)
    _add(freed, _takes(model, running - count), -1)
    return freed


def _grouped(models: Collection[Model], instances: Unit) -> list[tuple[Model, int]]:
    counts: dict[str, int] = {}
    for instance in instances:
        counts[instance.model] = counts.get(instance.model, 0) + 1
    return [(model, counts[model.name]) for model in models if model.name in counts]


def _add(amount: dict[str, int], other: Bytes, times: int) -> None:
    for key, size in other.items():
        amount[key] = amount.get(key, 0) + times * size


def _step(claim: Claim, floor: _Floor, chosen: str | None, now: float) -> Step:
    leaving = floor.leaving()
    short = claim.replica.needs_room and (claim.model.name != chosen or bool(leaving))
    others = floor.movable(claim)
    if (not short or not (others or leaving)) and floor.has_room_for(claim):  # 2
        return Start(claim)
    if leaving and floor.has_room_for(claim, leaving):  # 3
        return Wait(None, claim)
    if not claim.may_evict:
        return Wait(None)
    everything = (*leaving, *(each for model in others for each in model.occupying if not each.leaving))
    if not floor.has_room_for(claim, everything):  # 4
        return Wait(None) if claim.further else NeverFits(claim, floor.why_never(claim))
    return _make_room(claim, floor, others, leaving, now)


def _make_room(claim: Claim, floor: _Floor, others: Sequence[Model], leaving: Unit, now: float) -> Step:
    missing = floor.lacks(claim, leaving)
    if not missing and not leaving:  # it needs room for once, whatever the limits say
        missing = {_ANYTHING: 1}
    idle = [room for model in others for room in _idle_rooms(model)]
    resident = sorted((room for room in idle if room.resident_until <= now), key=lambda room: room.last_used)
    if (rooms := fewest(resident, missing)) is not None:  # 5
        return _making(claim, rooms)
    patience_ends = claim.since + floor.policy.max_wait
    in_use = [model for model in others if model.in_flight and any(each.serves for each in model.replicas)]
    if in_use and not claim.further and patience_ends <= now:  # 6
        busy = sorted(map(_room, in_use), key=lambda room: room.serves_since)
        if (rooms := _swap(busy, resident, missing)) is not None:
            return _making(claim, rooms)
    changes = [room.resident_until for room in idle if room.resident_until > now]  # 7
    changes += [patience_ends] if in_use and not claim.further and patience_ends > now else []
    return Wait(min(changes, default=None))


def _making(claim: Claim, rooms: Sequence[Room]) -> MakeRoom:
    return MakeRoom(claim, tuple(each for room in rooms for each in room.unit))


def is_idle(model: Model) -> bool:
    """True for what runs and nobody uses or waits for."""
    unused = not model.in_flight and not model.waiting and not model.asks
    return unused and any(each.serves or each.state is State.BACKOFF for each in model.replicas)


def _room(model: Model) -> Room:
    """What all of a model that does not go already would free."""
    return _room_of(model, tuple(each for each in model.occupying if not each.leaving))


def _room_of(model: Model, unit: Unit) -> Room:
    # What leaves already is taken into account elsewhere: it must not count again, and hides what it shares.
    leaving = len([each for each in model.occupying if each.leaving])
    freed = _frees(model, leaving + len(unit))
    _add(freed, _frees(model, leaving), -1)
    return Room(unit, {**freed, _ANYTHING: 1})


def _idle_rooms(model: Model) -> list[Room]:
    """An idle model as a whole; of one in use, each replica that nobody uses, if another one serves."""
    if is_idle(model):
        return [_room(model)]
    if model.waiting:
        return []
    serving = [each for each in model.replicas if each.serves]
    return [_room_of(model, (each,)) for each in serving if not each.leases and len(serving) > 1]


def _swap(busy: Sequence[Room], idle: Sequence[Room], missing: Bytes) -> list[Room] | None:
    """As few busy units as will do together with idle ones, and no idle one in vain."""
    chosen = fewest(busy, less(missing, idle))
    spare = None if chosen is None else fewest(idle, less(missing, chosen))
    return None if chosen is None or spare is None else [*chosen, *spare]
