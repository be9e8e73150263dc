"""A model in words: the state with its why and its memory for a table, why requests wait for it, the detail block, and
the log lines that explain a failure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.cli.answers import Instance, Memory, Model, Room
from supervisor.cli.terminal import Cell, Column, clock, colour, escape, span, table
from supervisor.core.need import HOST, host_first, in_words, sizes
from supervisor.core.quantities import readable_size
from supervisor.core.reasons import at_rest
from supervisor.errors import Problem

COLOUR_OF_STATE = {"ready": "green", "starting": "yellow", "stopping": "yellow", "backoff": "yellow", "failed": "red"}
EXPLAINED_BY_LOG = frozenset({"failed", "backoff"})
REPLICAS = (
    Column("REPLICA", minimum=12),
    Column("STATE", minimum=9),
    Column("SINCE"),
    Column("IN FLIGHT", right=True),
    Column("RESTARTS", right=True),
    Column("PID", right=True),
)
INDENT = "    "


def problems(found: Sequence[Problem]) -> list[str]:
    """A line about what keeps the files of the configuration from being used, none if nothing does."""
    if not found:
        return []
    first = next((each for each in found if each.line is not None), found[0])
    why = f"{first}{' (and others)' if len(found) > 1 else ''}; see: llama-router check"
    return [f"what the files of the configuration say by now is not in use: {why}"]


def state(model: Model, now: float) -> str:
    """Such as "ready", "ready 2/3" with replicas, "starting 42%" or "failed: exited with code 65".

    `now` is a Unix time in seconds.
    """
    if model.ready and not model.draining and len(model.replicas) > 1:
        serving = [each for each in model.replicas if each.ready and not each.draining]
        word = "sleeping" if all(each.sleeping for each in serving) else "ready"
        return f"{word} {len(serving)}/{len(model.replicas)}"
    return state_of_one(model, now)


def state_of_one(model: Instance, now: float) -> str:
    """The same of one replica, or of a model as if it had but one."""
    why = f": {model.reason.text}" if model.reason else ""
    match model.state:
        case "starting" if model.progress is not None:
            return f"starting {min(max(model.progress, 0), 1):.0%}"
        case "starting":
            return f"starting: {model.message}" if model.message else "starting"
        case "backoff" if model.next_start is not None:
            return f"backoff, starts again in {span(model.next_start - now)}{why}"
        case "ready" if model.sleeping and not model.draining:
            return "sleeping" if model.progress is None else f"waking up {min(max(model.progress, 0), 1):.0%}"
        case "ready":
            return "ready, draining" if model.draining else "ready"
        case "stopping":
            return "stopping"
        case "stopped" if model.reason:
            return f"stopped: {at_rest(model.stopped_by, model.reason.text)}"
        case _:
            return f"{model.state}{why}"


def pid(model: Model) -> str:
    """The process id; with more replicas that run, how many more."""
    if model.pid is None:
        return "-"
    more = sum(each.pid is not None for each in model.replicas) - 1
    return f"{model.pid} +{more}" if more > 0 else str(model.pid)


def memory(model: Model) -> str:
    """What it uses, such as "3.1 GiB", or needs, where nothing of it is loaded: "~4.6 GiB" is estimated."""
    if model.memory is None or not (model.memory.used or model.memory.need):
        return "-"
    if model.memory.used:
        return ", ".join(sizes(model.memory.used))
    return f"{'~' * (model.memory.source == 'estimated')}{', '.join(sizes(model.memory.need))}"


def room(limits: Room) -> str:
    """Such as "max_models: 4; memory: 3.1 GiB of 21 GiB planned"."""
    words = [f"max_models: {limits.max_models or 'no limit'}"]
    for device in host_first(limits.budget.keys() | limits.planned.keys()):
        planned = readable_size(limits.planned.get(device, 0))
        limit = f" of {readable_size(limits.budget[device])}" if device in limits.budget else ""
        words.append(f"{'memory' if device == HOST else device}: {planned}{limit} planned")
    return "; ".join(words)


def waiting(model: Model, now: float) -> str:
    """Such as "3 requests wait, the oldest for 12s: room is made by a"."""
    since = "" if model.waiting_since is None else f" for {span(now - model.waiting_since)}"
    why = f": {model.waiting_for}" if model.waiting_for else ""
    if model.waiting == 1:
        return f"1 request waits{since}{why}"
    return f"{model.waiting} requests wait{since and f', the oldest{since}'}{why}"


def detail(model: Model, now: float, cells: int | None) -> list[str]:
    """The lines of `status MODEL`, like those of systemctl(1); tables in it are at most `cells` wide (None: any)."""
    mark = colour("●", COLOUR_OF_STATE.get(model.state))
    title = f"{model.name} - {model.description}" if model.description else model.name
    shown = colour(escape(state(model, now)), COLOUR_OF_STATE.get(model.state))
    lines = [
        f"{mark} {colour(escape(title), 'bold')}",
        f"{'State':>10}: {shown}, since {clock(model.since)}; {span(now - model.since)} ago",
    ]
    lines += [f"{label:>10}: {escape(text)}" for label, text in _facts(model, now) if text]
    if len(model.replicas) > 1:
        inner = None if cells is None else max(1, cells - len(INDENT))
        rows = table(REPLICAS, [_replica(each, now) for each in model.replicas], inner)
        lines += [f"{'Replicas':>10}:", *(f"{INDENT}{row}" for row in rows)]
    return [*lines, *(f"{INDENT}{line}" for line in last_lines(model))]


def last_lines(model: Model) -> tuple[str, ...]:
    """The end of the log of a model that failed, ready to print; nothing for any other."""
    if model.reason is None or model.state not in EXPLAINED_BY_LOG:
        return ()
    return tuple(escape(line, keep="\t") for line in model.reason.last_lines)


def _facts(model: Model, now: float) -> list[tuple[str, str | None]]:
    launch = f" (launch {model.launch})" if model.launch is not None else ""
    alone = model.pid is not None and len(model.replicas) < 2
    return [
        ("Aliases", ", ".join(model.aliases)),
        ("Backend", model.backend),
        ("Preset", f"{model.file}:{model.line}" if model.line is not None else None),
        ("File", model.file if model.line is None else None),
        ("PID", f"{model.pid}{launch}" if alone else None),
        ("Model file", model.incomplete),
        ("Message", model.message),
        ("Requests", f"{model.in_flight} in flight, {model.waiting} waiting, {model.served} served"),
        ("Waiting", waiting(model, now) if model.waiting else None),
        ("Memory", _uses_and_needs(model.memory) if model.memory else None),
        ("Limits", model.unenforced),
        ("Restarts", str(model.restarts)),
        ("Last end", f"{model.reason.text} at {clock(model.reason.at)}" if model.reason else None),
    ]


def _replica(each: Instance, now: float) -> tuple[Cell, ...]:
    return (
        Cell(each.name),
        Cell(state_of_one(each, now), COLOUR_OF_STATE.get(each.state)),
        Cell(span(now - each.since)),
        Cell(str(each.in_flight)),
        Cell(str(each.restarts)),
        Cell("-" if each.pid is None else str(each.pid)),
    )


def _uses_and_needs(memory: Memory) -> str:
    """Such as "uses 3.1 GiB of host; needs 4.6 GiB of host (estimated: weights 4.0 GiB, KV cache 0.6 GiB)"."""
    uses = [f"uses {in_words(memory.used)}"] if memory.used else []
    parts = f": {memory.parts}" if memory.parts else ""
    needs = f"needs {in_words(memory.need)} ({memory.source}{parts})" if memory.need else "its need is not known"
    return "; ".join([*uses, needs])
