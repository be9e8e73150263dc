"""What the fleet knows: plain records, no decisions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from supervisor.core.events import Goal
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
    """A request's claim on a model: queued until it is granted. `deadline` and `avoid_until` are monotonic times."""

    id: int
    model: str
    asked_at: float
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
    """An operator's wish that is answered once it is reached."""

    id: int
    goal: Goal


@dataclass
class Instance:
    """One replica of a preset (or the web tier), whatever state it is in. Times are monotonic seconds.

    `terms` are the preset it was launched with, or will be. `deadline` is the one time at which something must happen
    to it: the end of its start, drain or stop timeout, or of its back-off. `ending` is why it is being stopped,
    `reason` why its last run ended. `wanted_at` is since when it has been wanted, `insists` that an operator asked for
    it, `idle_since` since when it has been ready with nobody using it, and `drain_before` that leases asked before then
    are still granted while it drains.
    """

    name: str
    terms: Preset | WebTier
    state: State = State.STOPPED
    since: float = 0.0
    wanted: bool = False
    wanted_at: float = 0.0
    insists: bool = False
    launch: int | None = None
    pid: int | None = None
    deadline: float | None = None
    probe_at: float | None = None
    probe_delay: float = 0.0
    idle_since: float | None = None
    draining: bool = False
    drain_before: float = 0.0
    ending: EndReason | None = None
    reason: EndReason | None = None
    failures: tuple[float, ...] = ()
    out_of_memory: bool = False
    was_ready: bool = False
    ever_ready: bool = False
    restarts: int = 0
    served: int = 0
    message: str | None = None
    progress: float | None = None
    leases: set[int] = field(default_factory=set)

    @property
    def has_process(self) -> bool:
        """True while there is a process, or one is being made."""
        return self.state in HAS_PROCESS

    @property
    def next_deadline(self) -> float | None:
        """The earlier of its deadline and its next readiness probe."""
        times = [at for at in (self.deadline, self.probe_at) if at is not None]
        return min(times, default=None)


@dataclass
class Model:
    """A preset with what runs of it and who waits for it, oldest first."""

    preset: Preset
    instance: Instance
    waiting: deque[Lease] = field(default_factory=deque)
    asks: list[Ask] = field(default_factory=list)
    removed: bool = False
