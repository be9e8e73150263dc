"""Which units go to make room: as few as will do, and of several choices the one that has been used least recently."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from supervisor.core.fleet_state import Instance
from supervisor.core.need import Bytes
from supervisor.core.states import State

# Enough to try every pair of sixty. Beyond, a choice that is not the one used least recently will do.
MAX_COMBINATIONS = 2000

Unit = tuple[Instance, ...]  # replicas that are stopped together


@dataclass(frozen=True)
class Room:
    """A unit, and what it `frees` by the name of what is limited."""

    unit: Unit
    frees: Bytes

    @property
    def resident_until(self) -> float:
        """When its newest replica has been ready for its min_residency."""
        ready = [each for each in self.unit if each.state is State.READY]
        return max((each.since + getattr(each.terms, "min_residency", 0.0) for each in ready), default=0.0)

    @property
    def last_used(self) -> tuple[float, str]:
        """When its last request ended, or it became ready; and a name, for those alike."""
        times = (each.since if each.free_since is None else each.free_since for each in self.unit)
        return (max(times), self.unit[0].name)

    @property
    def serves_since(self) -> tuple[float, str]:
        """Since when its first replica has been ready; and a name."""
        return (min(each.since for each in self.unit), self.unit[0].name)


def less(missing: Bytes, rooms: Iterable[Room]) -> dict[str, int]:
    """What is still missing once they are free."""
    rooms = list(rooms)
    rest = {key: size - sum(room.frees.get(key, 0) for room in rooms) for key, size in missing.items()}
    return {key: size for key, size in rest.items() if size > 0}


def fewest(rooms: Sequence[Room], missing: Bytes) -> list[Room] | None:
    """The smallest choice that frees all that is `missing`; of several, that with the rooms that come first. None if
    all together are not enough."""
    if not missing:
        return []
    if less(missing, rooms):
        return None
    sizes = range(max(_least(rooms, key, size) for key, size in missing.items()), len(rooms) + 1)
    choices = itertools.chain.from_iterable(itertools.combinations(rooms, size) for size in sizes)
    for choice in itertools.islice(choices, MAX_COMBINATIONS):
        if not less(missing, choice):
            return list(choice)
    return _largest(rooms, missing)


def _least(rooms: Sequence[Room], key: str, missing: int) -> int:
    """How many it takes of those that free most of one thing."""
    freed = itertools.accumulate(sorted((room.frees.get(key, 0) for room in rooms), reverse=True))
    return next(count for count, size in enumerate(freed, start=1) if size >= missing)


def _largest(rooms: Sequence[Room], missing: Bytes) -> list[Room]:
    """Always the one that brings it furthest."""
    left, chosen = list(rooms), list[Room]()
    while missing:
        shares = [sum(min(room.frees.get(key, 0) / size, 1.0) for key, size in missing.items()) for room in left]
        best = left.pop(shares.index(max(shares)))
        chosen.append(best)
        missing = less(missing, [best])
    return chosen
