"""Nobody waits longer than max_wait and the swaps ahead of it: a simulated world of loads, requests and memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import events
from supervisor.core.commands import Command, Grant, Spawn, Terminate
from supervisor.core.events import Ended, Event, LeaseAsked, LeaseEnded, Notified, Spawned
from supervisor.core.fleet import Fleet
from supervisor.core.fleet_state import WEB
from supervisor.core.need import Need
from supervisor.core.policy import Policy
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State
from tests.core.driver import preset

LOAD, STOP, REQUEST, MAX_WAIT = 2.0, 1.0, 3.0, 5.0
SWAP = LOAD + STOP + REQUEST
SIZES = {"a": 40, "b": 40, "c": 60, "d": 20}


@dataclass
class World:
    """Servers that load in LOAD seconds and stop in STOP; requests that take REQUEST."""

    fleet: Fleet
    pending: list[tuple[float, int, Event]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    asked: dict[int, tuple[float, float]] = field(default_factory=dict)
    granted: dict[int, float] = field(default_factory=dict)

    def at(self, when: float, event: Event) -> None:
        heapq.heappush(self.pending, (when, next(self.numbers), event))

    def run(self, until: float) -> None:
        while True:
            deadline = self.fleet.next_deadline()
            first = self.pending[0][0] if self.pending else until
            if deadline is not None and deadline < first:
                self.deliver(events.Tick(), deadline)
            elif self.pending:
                now, _, event = heapq.heappop(self.pending)
                self.deliver(event, now)
            else:
                return

    def deliver(self, event: Event, now: float) -> None:
        if isinstance(event, LeaseAsked):
            self.asked[event.lease] = (now, self.longest_wait(event.model or ""))
        for command in self.fleet.handle(event, now):
            self.follow(command, now)

    def longest_wait(self, name: str) -> float:
        """From here on: each model that is ahead, or in the middle of something, may cost a swap."""
        ahead = [
            model
            for model in self.fleet.models.values()
            if model.name != name and (model.waiting or model.state not in (State.STOPPED, State.READY))
        ]
        return MAX_WAIT + (len(ahead) + 1) * SWAP

    def follow(self, command: Command, now: float) -> None:
        match command:
            case Spawn() if command.instance != WEB:
                self.at(now, Spawned(command.launch, command.launch))
                self.at(now + LOAD, Notified(command.launch, ready=True))
            case Terminate():
                self.at(now + STOP, Ended(command.launch, EndReason(Kind.EXITED, code=0)))
            case Grant():
                self.granted[command.lease] = now
                self.at(now + REQUEST, LeaseEnded(command.lease, served=True))
            case _:
                pass


arrivals = st.lists(st.tuples(st.floats(0, 60), st.sampled_from(sorted(SIZES))), min_size=1, max_size=40)


@given(arrivals, st.integers(1, 4))
def test_nobody_waits_longer_than_max_wait_and_the_swaps_ahead(
    arrivals: list[tuple[float, str]], max_models: int
) -> None:
    policy = Policy(max_models=max_models, max_wait=MAX_WAIT, budget={"host": 100})
    needs = {name: Need("estimated", {}, {"host": size}) for name, size in SIZES.items()}
    presets = {name: preset(name, max_concurrency=100) for name in SIZES}
    world = World(Fleet(presets, {}, policy, 0.0, needs))
    for lease, (when, name) in enumerate(arrivals):
        world.at(when, LeaseAsked(lease, name))
    world.run(1000)
    for lease in range(len(arrivals)):
        asked, longest = world.asked[lease]
        assert world.granted[lease] - asked <= longest + 1e-6
