"""Why a run of an instance ended: a fact of its own, never folded into the state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.last_words import telling

# sysexits(3): wrong usage, bad data, missing input, bad configuration. A server that ends with one of them would end
# so again, whatever the delay; like systemd's RestartPreventExitStatus=.
PERMANENT_EXIT_CODES = frozenset({64, 65, 66, 78})

SIGNAL_NAMES = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE"}
SIGNAL_NAMES |= {9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU"}


# Why an instance is stopped that did not end so.
RESET = "reset"
CALLED_OFF = "its restart was called off"


def at_rest(stopped_by: str | None, last_end: str) -> str:
    """Why an instance is stopped, such as "reset; its last end: exited with code 65"."""
    return last_end if stopped_by is None else f"{stopped_by}; its last end: {last_end}"


class Kind(StrEnum):
    """What ended a run."""

    REQUESTED = "requested"
    EVICTED = "evicted"
    IDLE = "idle"
    EXITED = "exited"
    KILLED = "killed"
    OUT_OF_MEMORY = "out_of_memory"
    START_TIMEOUT = "start_timeout"
    WATCHDOG = "watchdog"
    UNHEALTHY = "unhealthy"
    CANNOT_START = "cannot_start"
    PRESET_CHANGED = "preset_changed"
    SHUTDOWN = "shutdown"
    REPLACED = "replaced"


INTENDED = frozenset({Kind.REQUESTED, Kind.EVICTED, Kind.IDLE, Kind.PRESET_CHANGED, Kind.SHUTDOWN, Kind.REPLACED})

_PHRASES = {
    Kind.IDLE: "unloaded when idle",
    Kind.SHUTDOWN: "llama-router stopped",
    Kind.REPLACED: "another took its place",
}


@dataclass(frozen=True)
class EndReason:
    """Why the run `launch` ended. `code` is an exit code, `signal` a signal number, `detail` what only this end knows:
    the model an eviction made room for, the error of a program that can't be started, a timeout's length, that a preset
    was removed, that a request was for a restart, what was wrong with its health, a limit of its own on memory.
    `passing` is what kept it from being started, such as a lack of memory.
    `hopeless` is an end of which its log says that it would always come.
    """

    kind: Kind
    at: float = 0.0
    code: int | None = None
    signal: int | None = None
    detail: str | None = None
    before_ready: bool = False
    passing: bool = False
    hopeless: bool = False
    last_lines: tuple[str, ...] = ()
    launch: int | None = None

    @property
    def signal_name(self) -> str | None:
        """Such as "SIGKILL"; a number's text for signals without a common name."""
        return None if self.signal is None else SIGNAL_NAMES.get(self.signal, f"signal {self.signal}")

    @property
    def intended(self) -> bool:
        """True for an end that somebody or some policy decided on."""
        return self.kind in INTENDED

    @property
    def permanent(self) -> bool:
        """True when starting again would end the same way."""
        if self.kind is Kind.CANNOT_START:
            return not self.passing
        return self.hopeless or (self.kind is Kind.EXITED and self.code in PERMANENT_EXIT_CODES)

    @property
    def failure(self) -> bool:
        """True for an end that nobody asked for, except a clean exit of a server that had been ready."""
        clean = self.kind is Kind.EXITED and self.code == 0 and not self.before_ready
        return not self.intended and not clean

    @property
    def telling(self) -> str | None:
        """Of its last lines, the one that says most of why; None if there are none."""
        line = telling(self.last_lines)
        return None if line is None else line.strip()

    @property
    def text(self) -> str:
        """A phrase for people, such as "killed by SIGSEGV before it was ready"."""
        phrase = self._phrase()
        late = self.before_ready and self.kind in (Kind.EXITED, Kind.KILLED)
        return f"{phrase} before it was ready" if late else phrase

    def _phrase(self) -> str:
        match self.kind:
            case Kind.EXITED:
                return f"exited with code {self.code}"
            case Kind.KILLED:
                return f"killed by {self.signal_name}"
            case Kind.REQUESTED:
                return self.detail or "unloaded on request"
            case Kind.EVICTED:
                return f"evicted for {self.detail}" if self.detail else "evicted"
            case Kind.OUT_OF_MEMORY:
                return f"out of memory: {self.detail}" if self.detail else "out of memory"
            case Kind.START_TIMEOUT:
                return f"not ready within {self.detail}"
            case Kind.WATCHDOG:
                return f"killed by the watchdog: no sign of life for {self.detail}"
            case Kind.UNHEALTHY:
                return f"killed by the watchdog: {self.detail}"
            case Kind.CANNOT_START:
                return str(self.detail)
            case Kind.PRESET_CHANGED:
                return self.detail or "its preset changed"
            case _:
                return _PHRASES[self.kind]
