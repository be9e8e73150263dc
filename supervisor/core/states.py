"""The one transition table: which state an instance can be in, and what takes it to the next.

Facts such as wanted, draining or the reason of the last end are fields of the instance, not states.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an instance is. STARTING, READY and STOPPING have a process; the others have none."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"

    __hash__ = str.__hash__  # Enum's is written in Python


class Trigger(StrEnum):
    """What moves an instance on."""

    START = "start"  # a process is to be launched
    READY = "ready"  # the process can answer
    STOP = "stop"  # the process is asked to end, or a planned restart is called off
    ENDED = "ended"  # the process is gone and nothing follows
    RETRY = "retry"  # the process is gone and a restart follows after a delay
    GIVE_UP = "give up"  # the process is gone for good: the restart limit is used up, or retrying can't help
    RESET = "reset"  # a person, or a changed preset, forgives the failure


TRANSITIONS: dict[State, dict[Trigger, State]] = {
    State.STOPPED: {
        Trigger.START: State.STARTING,
    },
    State.STARTING: {
        Trigger.READY: State.READY,
        Trigger.STOP: State.STOPPING,
        Trigger.ENDED: State.STOPPED,
        Trigger.RETRY: State.BACKOFF,
        Trigger.GIVE_UP: State.FAILED,
    },
    State.READY: {
        Trigger.STOP: State.STOPPING,
        Trigger.ENDED: State.STOPPED,
        Trigger.RETRY: State.BACKOFF,
        Trigger.GIVE_UP: State.FAILED,
    },
    State.STOPPING: {
        Trigger.ENDED: State.STOPPED,
        Trigger.RETRY: State.BACKOFF,
        Trigger.GIVE_UP: State.FAILED,
    },
    State.BACKOFF: {
        Trigger.START: State.STARTING,
        Trigger.STOP: State.STOPPED,
    },
    State.FAILED: {
        Trigger.START: State.STARTING,
        Trigger.RESET: State.STOPPED,
    },
}

HAS_PROCESS = frozenset({State.STARTING, State.READY, State.STOPPING})


def next_state(state: State, trigger: Trigger) -> State:
    """The state after `trigger`. Raises ValueError for a pair that is not in the table: a bug of the caller."""
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise ValueError(f"cannot take {trigger.value!r} in state {state.value!r}") from None


def diagram() -> str:
    """The table as Mermaid text; supervisor/DESIGN.md holds it."""
    arrows = [
        f"    {state.value} --> {target.value}: {trigger.value}"
        for state, row in TRANSITIONS.items()
        for trigger, target in row.items()
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> stopped", *arrows])
