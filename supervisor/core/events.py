"""Everything that can happen to the fleet: the inputs of `Fleet.handle`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.core.need import Bytes, Need
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason


@dataclass(frozen=True)
class Begin:
    """The supervisor starts: bring up the web tier and what is to be loaded from the start."""


@dataclass(frozen=True)
class TakenOver:
    """This program goes on where another one left off, whose web tier runs: another one takes its place."""


@dataclass(frozen=True)
class Tick:
    """A deadline may have passed. Harmless when none has."""


@dataclass(frozen=True)
class Spawned:
    """The launch has a process."""

    launch: int
    pid: int


@dataclass(frozen=True)
class Notified:
    """A message of the launch: readiness, a line for people, load progress from 0 to 1, that it is out of memory, that
    it is alive, that it is stuck and wants to be restarted, or whether it sleeps without its model (None: no word)."""

    launch: int
    ready: bool = False
    status: str | None = None
    progress: float | None = None
    out_of_memory: bool = False
    alive: bool = False
    stuck: bool = False
    sleeping: bool | None = None


@dataclass(frozen=True)
class Probed:
    """The answer to a Probe. `ailment` is what was wrong with it; None if it is healthy, or did not answer at all."""

    launch: int
    healthy: bool
    ailment: str | None = None


@dataclass(frozen=True)
class Measured:
    """What the launch uses, in bytes by device: alone, and as its part of what it shares with others."""

    launch: int
    alone: Bytes
    shared: Bytes


@dataclass(frozen=True)
class Ended:
    """The launch's process is gone, or never came. `reason` is how it looks from outside: EXITED, KILLED or
    CANNOT_START; the core knows whether it was asked to."""

    launch: int
    reason: EndReason


@dataclass(frozen=True)
class LeaseAsked:
    """A request wants `model` (None: it named none) within `timeout` seconds; `avoid` is a launch that just broke,
    `who` the client in words for people, and `futile` that there is no program to be loaded."""

    lease: int
    model: str | None
    autoload: bool = True
    timeout: float | None = None
    avoid: int | None = None
    who: str | None = None
    futile: bool = False


@dataclass(frozen=True)
class LeaseEnded:
    """The lease was given back, or its client hung up; harmless if it is over already."""

    lease: int
    served: bool = False


class Goal(StrEnum):
    """What an operator asks of a model."""

    LOAD = "load"
    UNLOAD = "unload"
    RESTART = "restart"
    RESET = "reset"


@dataclass(frozen=True)
class Asked:
    """An operator wants `goal` of `model`. `wait` answers when it is reached; `strict` refuses what already holds.
    `futile`: as above."""

    ask: int
    goal: Goal
    model: str
    wait: bool = False
    strict: bool = False
    futile: bool = False


@dataclass(frozen=True)
class AskDropped:
    """The operator's client hung up; what was asked still happens."""

    ask: int


@dataclass(frozen=True)
class PresetsChanged:
    """A valid new configuration, with what is known of its models' memory. Applied as a difference."""

    presets: Mapping[str, Preset]
    aliases: Mapping[str, str]
    policy: Policy
    needs: Mapping[str, Need] = field(default_factory=dict)


@dataclass(frozen=True)
class StopAsked:
    """SIGTERM or Ctrl-C. The second one does not wait for running requests."""


Event = (
    Begin
    | TakenOver
    | Tick
    | Spawned
    | Notified
    | Probed
    | Measured
    | Ended
    | LeaseAsked
    | LeaseEnded
    | Asked
    | AskDropped
    | PresetsChanged
    | StopAsked
)
