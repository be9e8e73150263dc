"""A model's state in llama-server's words, and what of its end its clients take for a failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# (1) backoff: a restart is scheduled, so a request waits and is served, as while loading.
# (2) stopping: it takes no more requests and may be loaded again. The process may live on for a moment: see detail.
# (3) no state of the supervisor's, to which such a server is ready: it loads its model when it is asked something.
# (4) likewise: it was asked, and loads.
VALUES = {
    "stopped": "unloaded",
    "failed": "unloaded",
    "starting": "loading",
    "backoff": "loading",  # (1)
    "ready": "loaded",
    "stopping": "unloaded",  # (2)
    "sleeping": "sleeping",  # (3)
    "waking": "loading",  # (4)
}
EXIT_FAILURE = 1
INTENDED = frozenset({"requested", "evicted", "idle", "preset_changed", "shutdown"})

Json = dict[str, Any]


def states_of(model: Json) -> dict[str, str]:
    """The state of each replica of a model, by its name."""
    return {replica["name"]: state(replica["state"], replica) for replica in model.get("replicas") or [model]}


def state(name: str, about: Mapping[str, Any]) -> str:
    """The state of that name, unless a replica or an event says that it sleeps, or loads what it had put away."""
    if name != "ready" or not about.get("sleeping"):
        return name
    return "sleeping" if about.get("progress") is None else "waking"


def foremost(states: Iterable[str]) -> str:
    """The value of a model with replicas in these states."""
    values = {VALUES[each] for each in states}
    return next((value for value in ("loaded", "sleeping", "loading") if value in values), "unloaded")


def exit_code(reason: Json | None) -> int:
    """The code of a failure: the process's; EXIT_FAILURE for a signal, as llama-server has it (subprocess_join of its
    subprocess.h), and for an end that has no code: out of memory, timeouts, the watchdog, a program that can't be
    started.

    Never 0: to llama-server's clients that would be no failure. `detail.reason` has the end as it was.
    """
    code: int | None = reason["code"] if reason else None
    return code or EXIT_FAILURE


def exit_code_of_end(reason: Json | None, *, was_loaded: bool) -> int:
    """The code that a model is unloaded with: 0 for one that was loaded and not to go on, else that of a failure.

    A load that is called off is a failure too: it is what llama-server's clients that wait for the load go by.
    """
    if reason is not None and was_loaded:
        clean = reason["kind"] == "exited" and reason["code"] == 0
        if clean or reason["kind"] in INTENDED:
            return 0
    return exit_code(reason)
