"""What the dashboard's templates show: the status object in words. Pure, but for the clock.

The parts that an older supervisor does not tell of (replicas, memory, the queue) may be absent.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from admin.log_text import clean
from admin.words import rate, times
from supervisor.core.need import HOST, host_first, sizes
from supervisor.core.quantities import readable_size
from supervisor.core.reasons import at_rest
from supervisor.core.states import State
from supervisor.protocol import Message

MOST_WAITERS = 200
STATES = tuple(state.value for state in State)
# What the table can be sorted by: the row's data attribute, and the column's title.
COLUMNS = (
    ("model", "Model"),
    ("state", "State"),
    ("requests", "Requests"),
    ("speed", "Tokens/s"),
    ("memory", "Memory"),
    ("restarts", "Restarts"),
    ("since", "Since"),
)
LOADED = frozenset(["starting", "ready", "stopping", "backoff"])
# What a person can do to a model in a state: the control socket's op and the button's word, the likeliest first.
ACTIONS = {
    "stopped": (("load", "Load"),),
    "starting": (("unload", "Cancel"),),
    "ready": (("unload", "Unload"), ("restart", "Restart")),
    "stopping": (),
    "backoff": (("load", "Load now"), ("unload", "Unload")),
    "failed": (("load", "Load"), ("reset", "Reset")),
}
INTENDED_ENDS = frozenset(["requested", "idle", "shutdown"])


def view(answer: Message, rates: Mapping[str, float]) -> Message:
    """What the templates need of the status object; `rates` are tokens a second by model."""
    models, queue = answer["models"], answer.get("queue", [])[:MOST_WAITERS]
    return {
        "status": answer,
        "counts": summary(models),
        "room": room(answer),
        "queue": [waiter | times(waiter["since"]) for waiter in queue],
        "waiting": sum(model["waiting"] for model in models),
        "models": [row(model) | {"speed": speed(rates.get(model["name"]))} for model in models],
        "budget": answer.get("memory", {}).get("budget", {}).get(HOST),
        "states": STATES,
        "notices": [notice | {"where": where(notice)} for notice in answer.get("notices", [])],
        "problems": [problem | {"where": where(problem)} for problem in answer.get("problems", [])],
        "columns": COLUMNS,
    }


def room(answer: Message) -> list[Message]:
    """What may be loaded and what is: `value` of `limit` for each kind of room, the limit None where there is none."""
    kinds = []
    if most := answer.get("max_models"):
        loaded = sum(model["state"] in LOADED for model in answer["models"])
        kinds.append({"name": "Models", "value": loaded, "limit": most, "words": f"{loaded} of {most} loaded"})
    memory = answer.get("memory", {"budget": {}, "planned": {}})
    for device in host_first(memory["budget"] | memory["planned"]):
        planned, limit = memory["planned"].get(device, 0), memory["budget"].get(device)
        words = f"{readable_size(planned)}{'' if limit is None else f' of {readable_size(limit)}'} planned"
        kinds.append({"name": "Memory" if device == HOST else device, "value": planned, "limit": limit, "words": words})
    return kinds


def row(model: Message) -> Message:
    """A model and how to show it."""
    state = model["state"]
    reason = model["reason"]
    replicas = model.get("replicas", [])
    serving = sum(each["state"] == "ready" and not each["draining"] for each in replicas)
    return model | {
        "words": words(model),
        "cause": cause(model),
        "serving": f"{serving}/{len(replicas)}" if len(replicas) > 1 and serving else None,
        "replicas": [each | {"words": words(each), "cause": cause(each)} for each in replicas]
        if len(replicas) > 1
        else [],
        "waiting_times": times(since) if (since := model.get("waiting_since")) else None,
        "waiting_for": model.get("waiting_for"),
        "memory": memory_of(model),
        "percent": round(100 * model["progress"]) if state == "starting" and model["progress"] is not None else None,
        **times(model["since"]),
        "lines": reason["last_lines"] if reason is not None and state in ("failed", "backoff", "stopped") else [],
        "actions": ACTIONS[state],
    }


def speed(measured: float | None) -> str | None:
    """Tokens a second, if they are known."""
    return None if measured is None else rate(measured)


def words(model: Message) -> str | None:
    """The state's circumstances, such as "exited with code 65"; None when there is nothing to say."""
    reason = model["reason"]
    match model["state"]:
        case "starting":
            return model["message"] and str(model["message"])
        case "ready":
            return "finishing its requests, then stopping" if model["draining"] else None
        case "stopped" if reason and model.get("stopped_by"):
            return at_rest(model["stopped_by"], reason["text"])
        case "failed":
            return str(reason["text"]) if reason else None
        case "backoff":
            wait = max(0, round((model["next_start"] or 0) - time.time()))
            return f"{reason['text'] if reason else 'ended'}; next start in {wait} s"
        case _:
            return str(reason["text"]) if reason and reason["kind"] not in INTENDED_ENDS else None


def cause(model: Message) -> str | None:
    """The line of its log that says most of why it failed; None where there is none, or the failure is history."""
    reason = model["reason"]
    if reason is None or model["state"] not in ("failed", "backoff", "stopped") or model.get("stopped_by"):
        return None
    line = clean(reason.get("telling") or "").strip()
    return None if not line or line in reason["text"] else line


def where(notice: Message) -> str:
    """Such as "presets.d/chat.yaml, line 7"."""
    return notice["file"] if notice["line"] is None else f"{notice['file']}, line {notice['line']}"


def summary(models: list[Message]) -> str:
    """Such as "3 models: 1 ready, 1 starting, 1 failed"."""
    counts = Counter(model["state"] for model in models)
    parts = [f"{counts[state]} {state}" for state in ("ready", "starting", "backoff", "failed") if counts[state]]
    total = "1 model" if len(models) == 1 else f"{len(models)} models"
    return f"{total}: {', '.join(parts)}" if parts else f"{total}, none running"


def memory_of(model: Message) -> Message:
    """`used` and `needed`: a phrase for each device; `source`, how the need is known; its `parts`; `host`, in bytes."""
    memory = model.get("memory") or {"used": {}, "need": {}, "source": "unknown", "parts": ""}
    return {
        "used": sizes(memory["used"]),
        "needed": sizes(memory["need"]),
        "source": memory["source"],
        "parts": memory["parts"],
        "host": memory["used"].get(HOST) or memory["need"].get(HOST, 0),
    }
