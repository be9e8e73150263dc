"""A model in words: the state with its why for a table, the detail block, and the log lines that explain a failure."""

from __future__ import annotations

from supervisor.cli.answers import Model
from supervisor.cli.terminal import clock, colour, escape, span

COLOUR_OF_STATE = {"ready": "green", "starting": "yellow", "stopping": "yellow", "backoff": "yellow", "failed": "red"}
EXPLAINED_BY_LOG = frozenset({"failed", "backoff"})


def state(model: Model, now: float) -> str:
    """Such as "ready", "loading 42%" or "failed: exited with code 65". `now` is a Unix time in seconds."""
    why = f": {model.reason.text}" if model.reason else ""
    match model.state:
        case "starting" if model.progress is not None:
            return f"loading {min(max(model.progress, 0), 1):.0%}"
        case "starting":
            return f"starting: {model.message}" if model.message else "starting"
        case "backoff" if model.next_start is not None:
            return f"backoff, starts again in {span(model.next_start - now)}{why}"
        case "ready":
            return "ready, draining" if model.draining else "ready"
        case "stopping":
            return "stopping"
        case _:
            return f"{model.state}{why}"


def detail(model: Model, now: float) -> list[str]:
    """The lines of `status MODEL`, like those of systemctl(1)."""
    mark = colour("●", COLOUR_OF_STATE.get(model.state))
    title = f"{model.name} - {model.description}" if model.description else model.name
    shown = colour(escape(state(model, now)), COLOUR_OF_STATE.get(model.state))
    lines = [
        f"{mark} {colour(escape(title), 'bold')}",
        f"{'State':>10}: {shown}, since {clock(model.since)}; {span(now - model.since)} ago",
    ]
    lines += [f"{label:>10}: {escape(text)}" for label, text in _facts(model) if text]
    return [*lines, *(f"    {line}" for line in last_lines(model))]


def last_lines(model: Model) -> tuple[str, ...]:
    """The end of the log of a model that failed, ready to print; nothing for any other."""
    if model.reason is None or model.state not in EXPLAINED_BY_LOG:
        return ()
    return tuple(escape(line, keep="\t") for line in model.reason.last_lines)


def _facts(model: Model) -> list[tuple[str, str | None]]:
    launch = f" (launch {model.launch})" if model.launch is not None else ""
    return [
        ("Aliases", ", ".join(model.aliases)),
        ("Backend", model.backend),
        ("Preset", f"{model.file}:{model.line}" if model.line is not None else model.file),
        ("PID", f"{model.pid}{launch}" if model.pid is not None else None),
        ("Message", model.message),
        ("Requests", f"{model.in_flight} in flight, {model.waiting} waiting, {model.served} served"),
        ("Restarts", str(model.restarts)),
        ("Last end", f"{model.reason.text} at {clock(model.reason.at)}" if model.reason else None),
    ]
