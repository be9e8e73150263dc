"""What the fleet knows: plain records, no decisions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from supervisor.core.events import Goal
from supervisor.core.need import UNKNOWN, Bytes, Need
from supervisor.core.preset import Preset, Restart
from supervisor.core.reasons import EndReason
from supervisor.core.states import HAS_PROCESS, State

WEB = "@web"


@dataclass(frozen=True)
class WebTier:
    """How the web tier is run: like a model server, by other rules. Times in seconds."""

    name: str = WEB
    start_timeout: float | None = 60.0
    stop_timeout: float = 15.0
    restart: Restart = field(
        default_factory=lambda: Restart(policy="always", delay=0.2, max_delay=10.0, limit=1_000_000)
    )


@dataclass
class Lease:
    """A request's claim on a model: queued until it is granted. `deadline` and `avoid_until` are monotonic times;
    `who` asked, in words for people."""

    id: int
    model: str
    asked_at: float
    who: str | None = None
    timeout: float | None = None
    avoid: int | None = None
    avoid_until: float = 0.0
    launch: int | None = None

    @property
    def deadline(self) -> float | None:
        """When the client no longer wants to wait."""
        return None if self.timeout is None else self.asked_at + self.timeout


@dataclass
class Ask:
    """An operator's wish that is answered once it is reached, or with `wait` false once it has been acted on."""

    id: int
    goal: Goal
    wait: bool


@dataclass
class Instance:
    """One replica of a preset (or the web tier), whatever state it is in. Times are monotonic seconds.

    `model` is the preset's name, `name` its own. `terms` are the preset it was launched with, or will be. `deadline` is
    when its state must end: its start, drain or stop timeout, its back-off, or its idle_timeout. `alive_by` is when it
    must have given a sign of life, and `probe_at` when it is asked for one. `ending` is why it is being stopped,
    `reason` why its last run ended; `stopped_by` says what else made it rest since. `drain_before`: leases asked before
    then are still granted while it drains. `needs_room` asks for an eviction before the next start, because the last
    one ran out of memory; `made_room` says that this was done already. `used` is what it alone was seen to use,
    `used_shared` its part of what it shares. `free_since` is when its last lease ended. `sleeping` says that it
    unloaded its model until somebody asks it; with `progress`, that it loads it again.
    """

    name: str
    model: str
    terms: Preset | WebTier
    state: State = State.STOPPED
    since: float = 0.0
    launch: int | None = None
    pid: int | None = None
    deadline: float | None = None
    alive_by: float | None = None
    probe_at: float | None = None
    probe_delay: float = 0.0
    draining: bool = False
    drain_before: float = 0.0
    ending: EndReason | None = None
    reason: EndReason | None = None
    stopped_by: str | None = None
    failures: tuple[float, ...] = ()
    out_of_memory: bool = False
    needs_room: bool = False
    made_room: bool = False
    ailment: str | None = None
    was_ready: bool = False
    ever_ready: bool = False
    restarts: int = 0
    served: int = 0
    served_this_run: int = 0
    message: str | None = None
    progress: float | None = None
    sleeping: bool = False
    leases: set[int] = field(default_factory=set)
    used: Bytes = field(default_factory=dict)
    used_shared: Bytes = field(default_factory=dict)
    measured_at: float | None = None
    free_since: float | None = None

    @property
    def has_process(self) -> bool:
        """True while there is a process, or one is being made."""
        return self.state in HAS_PROCESS

    @property
    def occupies(self) -> bool:
        """True while it has a process, or is about to be given one again: it takes its room."""
        return self.has_process or self.state is State.BACKOFF

    @property
    def leaving(self) -> bool:
        """True for what will be stopped soon; if it is to come back then, it is one claimant among others."""
        stopping = self.state is State.STOPPING and self.ending is not None and self.ending.intended
        return stopping or self.draining

    @property
    def serves(self) -> bool:
        """True while it takes any lease."""
        return self.state is State.READY and not self.draining

    @property
    def next_deadline(self) -> float | None:
        """The earliest time at which something is due for it."""
        times = [at for at in (self.deadline, self.probe_at, self.alive_by) if at is not None]
        return min(times, default=None)


# The first of these that any replica is in is the model's.
_FOREMOST = (State.READY, State.STARTING, State.BACKOFF, State.STOPPING)


@dataclass
class Model:
    """A preset with its replicas and those who wait for it, oldest first. Never without a replica.

    `need` is what was learned of its memory. `wanted_at` is since when it has been wanted, `insists` that an operator
    asked for it, `idle_since` since when it has been ready with nobody using it, and `told` what was last announced of
    its queue. `failed`: its last replica failed for good. `futile`: there was no program when it was last asked for, so
    that no room is to be made for it.
    """

    preset: Preset
    replicas: list[Instance]
    need: Need = UNKNOWN
    wanted: bool = False
    wanted_at: float = 0.0
    insists: bool = False
    idle_since: float | None = None
    waiting: deque[Lease] = field(default_factory=deque)
    asks: list[Ask] = field(default_factory=list)
    removed: bool = False
    failed: bool = False
    futile: bool = False
    told: str | None = None

    @property
    def name(self) -> str:
        """The preset's."""
        return self.preset.name

    @property
    def state(self) -> State:
        """How far it is: that of its foremost replica. It has failed with its last one, not with any."""
        states = {replica.state for replica in self.replicas}
        for state in _FOREMOST:
            if state in states:
                return state
        return State.FAILED if self.failed and State.FAILED in states else State.STOPPED

    @property
    def occupying(self) -> list[Instance]:
        """The replicas that take room."""
        return [replica for replica in self.replicas if replica.occupies]

    @property
    def has_process(self) -> bool:
        """True while any replica has a process."""
        return any(replica.has_process for replica in self.replicas)

    @property
    def in_flight(self) -> int:
        """Leases granted and not given back."""
        return sum(len(replica.leases) for replica in self.replicas)

    @property
    def last_reason(self) -> EndReason | None:
        """Why the last run of any replica ended; that of a failed one before others."""
        failed = [replica for replica in self.replicas if replica.state is State.FAILED] or self.replicas
        reasons = [replica.reason for replica in failed if replica.reason is not None]
        return max(reasons, key=lambda reason: reason.at, default=None)

    def unwant(self) -> None:
        """Nobody wants it any more, unless somebody waits."""
        self.wanted = self.insists = False


def replica(preset: Preset, number: int, now: float) -> Instance:
    """A replica that was never started; the first has the model's name, others NAME#2, NAME#3, …"""
    name = preset.name if number == 1 else f"{preset.name}#{number}"
    return Instance(name, preset.name, preset, since=now)


def grow(model: Model, now: float) -> None:
    """Give a model the replicas that its preset has more of, by the first names that are free."""
    names = {each.name for each in model.replicas}
    fresh = (replica(model.preset, number, now) for number in range(1, 2 * model.preset.replicas + len(names) + 1))
    unused = (each for each in fresh if each.name not in names)
    while len(model.replicas) < model.preset.replicas:
        model.replicas.append(next(unused))


def new_model(preset: Preset, need: Need, now: float) -> Model:
    """A model of which nothing runs."""
    return Model(preset, [replica(preset, number + 1, now) for number in range(preset.replicas)], need)
