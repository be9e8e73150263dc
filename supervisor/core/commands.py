"""The closed list of side effects. The core returns them, `supervisor.effects` executes them, nobody else acts."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.need import Need
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason
from supervisor.core.refusals import Refusal
from supervisor.core.states import State


@dataclass(frozen=True)
class Spawn:
    """Start a process for `instance` of `model` as `launch`. `preset` is None for the web tier."""

    instance: str
    model: str
    launch: int
    preset: Preset | None


@dataclass(frozen=True)
class Terminate:
    """Ask the launch to end: SIGTERM to its process group."""

    launch: int


@dataclass(frozen=True)
class Kill:
    """End the launch: SIGKILL to its process group."""

    launch: int


@dataclass(frozen=True)
class Probe:
    """Ask the launch once whether it can answer: an HTTP GET of `path`, or a TCP connection where it is None."""

    launch: int
    path: str | None


@dataclass(frozen=True)
class Measure:
    """Find out what the launch uses."""

    launch: int


@dataclass(frozen=True)
class Prefetch:
    """Read these files into the page cache, and no longer those of the last such command; without any, none. `paths`
    are as presets have them: of a model in several shards the first."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class Remember:
    """Keep what the model was seen to need, for the next time it is to be loaded."""

    model: str
    need: Need


@dataclass(frozen=True)
class KeepVocabulary:
    """A server of `preset` was evicted: have at hand what its next one needs of the model's file."""

    preset: Preset


@dataclass(frozen=True)
class Grant:
    """Tell the lease's client which launch serves it."""

    lease: int
    launch: int
    model: str
    instance: str


@dataclass(frozen=True)
class Refuse:
    """Tell the lease's client why it gets none; the lease is over."""

    lease: int
    refusal: Refusal


@dataclass(frozen=True)
class Answer:
    """Tell an operator's client that what it asked for is done (or accepted, if it did not wait)."""

    ask: int
    model: str


@dataclass(frozen=True)
class Reject:
    """Tell an operator's client that what it asked for can't be done."""

    ask: int
    refusal: Refusal


@dataclass(frozen=True)
class Announce:
    """Something people and programs that watch want to know; `state`, `sleeping` and `reason` are those after the
    change, of `instance` where the model has several, and `launch` the run it is about. What sleeps and has `progress`
    loads its model again."""

    kind: str
    model: str | None
    text: str
    instance: str | None = None
    before: State | None = None
    state: State | None = None
    reason: EndReason | None = None
    progress: float | None = None
    sleeping: bool = False
    launch: int | None = None


@dataclass(frozen=True)
class DeclareReady:
    """The web tier answers for the first time: say so to systemd and to whoever sits at the terminal."""


@dataclass(frozen=True)
class WebRenewed:
    """The web tier of this program has taken the place of the one before; or it ended before it could, and `why`."""

    why: EndReason | None


@dataclass(frozen=True)
class CloseListener:
    """Take no more connections."""


@dataclass(frozen=True)
class Exit:
    """Every process is gone: end the supervisor. `code` is 0 unless `why` says what went wrong."""

    code: int
    why: EndReason | None = None


Command = (
    Spawn
    | Terminate
    | Kill
    | Probe
    | Measure
    | Prefetch
    | Remember
    | KeepVocabulary
    | Grant
    | Refuse
    | Answer
    | Reject
    | Announce
    | DeclareReady
    | WebRenewed
    | CloseListener
    | Exit
)
