"""Any history: a hypothesis state machine plays clients, operators, processes and the clock against the fleet.

Invariants, checked after every step:
1. a lease ends once: granted, refused, or withdrawn while it waits; nothing is decided about it afterwards
2. a grant goes to the launch that is ready now, never past the preset's limit, never to one that drains
3. an instance has at most one process, and every launch is a new number
4. a leased server is asked to end only when an operator's patience is over, when it hangs, or by the shutdown; never by
   an eviction
5. whoever waits has something to wait for: a process on its way, one that serves, or a restart that is due
6. the same history gives the same decisions
7. a server that drains has a lease to wait for; nothing is launched for a preset that was removed
8. never more models than max_models, and nobody waits for a model while another one idles in its place
9. no load is planned beyond the memory budget
10. it can be shown at any time, and no two replicas share a name
11. a program that takes it over decides as the one before would have
12. files are read ahead for a model that is to be started, while something leaves, and for no other
13. a model at rest is shown as before while the same is known of it
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.core import events, handover, placement
from supervisor.core.commands import Command, Exit, Grant, Prefetch, Refuse, Spawn, Terminate
from supervisor.core.events import (
    Asked,
    Ended,
    Event,
    Goal,
    LeaseAsked,
    LeaseEnded,
    Measured,
    Notified,
    Probed,
    Spawned,
)
from supervisor.core.fleet import Fleet
from supervisor.core.fleet_state import WEB, Instance, Model
from supervisor.core.need import Need, fits, total
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind
from supervisor.core.states import State
from supervisor.core.status import Known, Picture, at_rest, fleet_status, model_status
from tests.core.driver import preset

NAMES = ["a", "b", "c"]
POLICY = Policy(max_models=2, max_wait=5.0, queue_limit=8, budget={"host": 100})
RESTART = {"limit": 1, "delay": 2}
NEEDS = {"a": Need("estimated", {"host": 10}, {"host": 20}), "b": Need("estimated", {"host": 30}, {"host": 15})}


def presets(context: int, limit: int, replicas: int = 2) -> dict[str, Preset]:
    probed = {"name": "c", "backend": "command", "command": ["x", "{port}"], "ready": "tcp", "start_timeout": 20}
    return {
        "a": preset("a", context=context, max_concurrency=limit, start_timeout=30, stop_timeout=5),
        "b": preset("b", autostart=True, replicas=replicas, restart=RESTART, stop_timeout=0, watchdog=9),
        "c": Preset.model_validate(probed),
    }


class FleetMachine(RuleBasedStateMachine):
    """The world around a fleet."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.fleet = Fleet(presets(0, 1), {}, POLICY, self.now, NEEDS)
        self.history: list[tuple[Event, float]] = []
        self.outcome: list[list[Command]] = []
        self.processes: dict[int, str] = {}
        self.waiting: dict[int, str] = {}
        self.granted: dict[int, int] = {}
        self.prefetched: tuple[str, ...] = ()
        self.numbers = 0
        self.over = False
        self.shown: dict[str, tuple[Known, Picture]] = {}

    def send(self, event: Event) -> None:
        if self.over:
            return
        commands = self.fleet.handle(event, self.now)
        self.history.append((event, self.now))
        self.outcome.append(commands)
        for command in commands:
            self.follow(command, event)

    def some_launch(self) -> st.SearchStrategy[int]:
        """Mostly a model's: the web tier is one of four, and its end leads to little."""
        models = [launch for launch, name in self.processes.items() if not name.startswith(WEB)]
        return st.sampled_from([*models, *models, *self.processes])

    def follow(self, command: Command, event: Event) -> None:
        match command:
            case Spawn():
                assert command.launch not in self.processes, "3"
                assert command.instance not in self.processes.values(), "3"
                self.planned_within_budget(command, event)
                assert command.preset is None or not self.fleet.models[command.model].removed, "7"
                self.processes[command.launch] = command.instance
            case Grant():
                name = self.waiting.pop(command.lease)  # 1
                assert self.processes[command.launch].partition("#")[0] == name, "2"
                instance = self.fleet.lifecycle.launches[command.launch]
                assert command.lease in instance.leases, "2"
                self.granted[command.lease] = command.launch
            case Refuse():
                self.waiting.pop(command.lease)  # 1
            case Terminate():
                held = [lease for lease, launch in self.granted.items() if launch == command.launch]
                ending = self.fleet.lifecycle.launches[command.launch].ending
                assert ending is not None
                hangs = getattr(self.fleet.lifecycle.launches[command.launch].terms, "watchdog", None)
                hangs = hangs or (isinstance(event, Notified) and event.stuck)
                assert not held or hangs or isinstance(event, events.Tick | events.StopAsked), "4"
                assert not held or hangs or ending.kind is not Kind.EVICTED, "4"
            case Prefetch():
                assert command.paths != self.prefetched, "12"
                self.prefetched = command.paths
            case Exit():
                assert not self.processes
                self.over = True
            case _:
                pass

    def planned_within_budget(self, command: Spawn, event: Event) -> None:
        """Except for a restart of what ran, and of what grew while it ran, no load overdraws the budget."""
        if command.preset is not None and isinstance(event, LeaseAsked | LeaseEnded):
            assert fits(self.used(self.fleet.models.values()), POLICY.budget), "9"

    @initialize()
    def begin(self) -> None:
        self.send(events.Begin())

    @rule(
        name=st.sampled_from(["a", "a", *NAMES, "nope"]),
        autoload=st.sampled_from([True, True, False]),
        timeout=st.sampled_from([None, None, 0.0, 3.0]),
    )
    def lease(self, name: str, autoload: bool, timeout: float | None) -> None:
        if not self.over:
            self.numbers += 1
            self.waiting[self.numbers] = name
            self.send(LeaseAsked(self.numbers, name, autoload, timeout))

    @precondition(lambda self: self.granted or self.waiting)
    @rule(data=st.data(), broke=st.booleans())
    def release_or_withdraw(self, data: st.DataObject, broke: bool) -> None:
        lease = data.draw(st.sampled_from([*self.granted, *self.waiting]))
        launch, name = self.granted.pop(lease, None), self.waiting.pop(lease, None)
        self.send(LeaseEnded(lease, served=not broke))
        if broke and launch is not None and name is None and not self.over:
            self.numbers += 1
            model = self.processes.get(launch, "a").partition("#")[0]
            self.waiting[self.numbers] = model
            self.send(LeaseAsked(self.numbers, model, avoid=launch))

    @rule(name=st.sampled_from(["a", "a", "b", "c"]), leases=st.integers(1, 3))
    def serves(self, name: str, leases: int) -> None:
        """The way things mostly go: requests come, and the server gets ready."""
        for _ in range(leases):
            self.lease(name, autoload=True, timeout=None)
        for launch in [launch for launch, instance in self.processes.items() if instance.startswith(name)]:
            self.send(Spawned(launch, 1000 + launch))
            self.send(Probed(launch, healthy=True) if name == "c" else Notified(launch, ready=True))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), how=st.sampled_from(["spawned", "ready", "probe", "sick", "oom", "alive", "stuck", "grown"]))
    def process_speaks(self, data: st.DataObject, how: str) -> None:
        launch = data.draw(self.some_launch())
        said: dict[str, Event] = {
            "spawned": Spawned(launch, 1000 + launch),
            "ready": Notified(launch, ready=True),
            "probe": Probed(launch, healthy=True),
            "sick": Probed(launch, healthy=False),
            "oom": Notified(launch, out_of_memory=True, progress=0.5),
            "alive": Notified(launch, alive=True),
            "stuck": Notified(launch, stuck=True),
            "grown": Measured(launch, {"host": 25}, {"host": 5}),
        }
        self.send(said[how])

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), how=st.sampled_from([{"code": 0}, {"code": 1}, {"code": 65}, {"signal": 9}]))
    def process_ends(self, data: st.DataObject, how: dict[str, Any]) -> None:
        launch = data.draw(self.some_launch())
        del self.processes[launch]
        kind = Kind.KILLED if "signal" in how else Kind.EXITED
        self.send(Ended(launch, EndReason(kind, **how)))

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 7.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(1000):
            at = self.fleet.next_deadline()
            if at is None or at > end or self.over:
                break
            self.now = max(self.now, at)
            self.send(events.Tick())
        else:
            raise AssertionError("deadlines never stop being due")
        self.now = end

    @rule(name=st.sampled_from([*NAMES, "nope"]), goal=st.sampled_from(Goal), strict=st.booleans(), wait=st.booleans())
    def operator(self, name: str, goal: Goal, strict: bool, wait: bool) -> None:
        self.numbers += 1
        # An operator may end a leased server, but only after its stop timeout, which comes with a Tick.
        self.send(Asked(self.numbers, goal, name, wait, strict))

    @precondition(lambda self: self.numbers > 3)
    @rule(
        context=st.sampled_from([0, 0, 1]),
        limit=st.integers(1, 3),
        replicas=st.sampled_from([1, 2, 2, 3]),
        kept=st.sampled_from(["abc", "abc", "ac", "b"]),
    )
    def reload(self, context: int, limit: int, replicas: int, kept: str) -> None:
        new = {name: p for name, p in presets(context, limit, replicas).items() if name in kept}
        self.send(events.PresetsChanged(new, {}, POLICY, NEEDS))

    @precondition(lambda self: not self.fleet.stopping)
    @rule()
    def another_program_takes_over(self) -> None:
        """Checked by 6, too: nobody takes over the fleet that is given the same history."""
        told = json.loads(json.dumps(handover.record(self.fleet)))
        before, self.fleet = self.fleet, handover.restored(told)
        assert self.fleet.next_deadline() == before.next_deadline(), "11"
        assert fleet_status(self.fleet, 0.0) == fleet_status(before, 0.0), "11"

    @precondition(lambda self: not self.fleet.stopping)
    @rule()
    def another_web_tier(self) -> None:
        """What follows then."""
        for launch, name in self.processes.items():
            if name == WEB:
                self.processes[launch] = f"{WEB}#{launch}"
        self.send(events.TakenOver())
        assert self.fleet.web.name == WEB

    @precondition(lambda self: self.numbers > 40)
    @rule()
    def stop(self) -> None:
        self.send(events.StopAsked())

    @invariant()
    def grants_stay_within_limits(self) -> None:
        for instance in self.instances():
            assert not instance.leases or instance.state in (State.READY, State.STOPPING), "2"
            assert len(instance.leases) <= 3, "2"
            assert instance.leases or not instance.draining, "7"
            assert instance.has_process == (instance.name in self.processes.values()), "3"

    @invariant()
    def waiters_have_something_to_wait_for(self) -> None:
        models = self.fleet.models.values()
        queued = {lease.id for model in models for lease in model.waiting}
        assert queued == set(self.waiting), "1"
        for model in models:
            assert not model.waiting or model.state is not State.FAILED, "5"
            if model.waiting and model.state is State.STOPPED:
                moving = any(
                    each.state in (State.STARTING, State.STOPPING, State.BACKOFF) or each.draining
                    for each in self.instances()
                )
                assert self.lacks_room(model) or model.replicas[0].needs_room, "5"
                assert moving or self.fleet.next_deadline() is not None, "5"

    @invariant()
    def it_can_be_shown(self) -> None:
        picture = fleet_status(self.fleet, 0.0)
        assert len(picture["models"]) == len(self.fleet.models)
        for model in self.fleet.models.values():
            assert len({each.name for each in model.replicas}) == len(model.replicas) >= 1, "10"

    @invariant()
    def it_can_be_shown_as_before(self) -> None:
        for name, model in self.fleet.models.items():
            if (known := at_rest(model)) is not None:
                picture = model_status(self.fleet, model, 0.0)
                before, shown = self.shown.get(name, (None, picture))
                assert known != before or picture == shown, "13"
                self.shown[name] = known, picture

    @invariant()
    def the_limits_hold(self) -> None:
        running = {self.fleet.models[name.partition("#")[0]].name for name in self.processes.values() if name[0] != "@"}
        assert len(running) <= POLICY.max_models, "8"

    @invariant()
    def nobody_idles_in_the_place_of_a_waiter(self) -> None:
        for model in self.fleet.models.values():
            if model.waiting and model.state is State.STOPPED and not any(each.leaving for each in self.instances()):
                idle = [other for other in self.fleet.models.values() if placement.is_idle(other)]
                assert not idle or not self.would_do(model, idle), "8"

    @invariant()
    def what_is_read_ahead_is_waited_for(self) -> None:
        assert self.fleet.loading.prefetched == self.prefetched, "12"
        if self.prefetched:
            [model] = [each for each in self.fleet.models.values() if (each.preset.model,) == self.prefetched]
            assert not model.removed and (model.waiting or model.wanted) and not self.fleet.stopping, "12"
            assert any(each.state is State.STOPPED for each in model.replicas), "12"
            assert any(each.leaving for each in self.instances()), "12"

    def instances(self) -> list[Instance]:
        return [each for model in self.fleet.models.values() for each in model.replicas]

    def used(self, models: Iterable[Model]) -> dict[str, int]:
        return total(placement.memory_of(model, len(model.occupying)) for model in models)

    def lacks_room(self, model: Model) -> bool:
        """True while the model can't be started beside what runs."""
        running = [other for other in self.fleet.models.values() if other.occupying]
        added = total([self.used(running), placement.memory_of(model, 1)])
        return len(running) >= POLICY.max_models or not fits(added, POLICY.budget)

    def would_do(self, model: Model, idle: list[Model]) -> bool:
        """True if the model could be started with the idle ones gone."""
        rest = [other for other in self.fleet.models.values() if other.occupying and other not in idle]
        return len(rest) < POLICY.max_models and fits(
            total([self.used(rest), placement.memory_of(model, 1)]), POLICY.budget
        )

    def teardown(self) -> None:
        again = Fleet(presets(0, 1), {}, POLICY, 0.0, NEEDS)
        assert [again.handle(event, now) for event, now in self.history] == self.outcome, "6"


FleetMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestFleetMachine = FleetMachine.TestCase
