"""The picture of the fleet that is shown: plain JSON values. `offset` turns monotonic times into Unix seconds."""

from __future__ import annotations

from typing import Any

from supervisor.core.fleet import Fleet
from supervisor.core.fleet_state import Instance, Model
from supervisor.core.reasons import EndReason
from supervisor.core.states import State

Picture = dict[str, Any]


def fleet_status(fleet: Fleet, offset: float) -> Picture:
    """`state`, `counts` by state, `web` and `models` by name. The shell adds what it alone knows."""
    models = [model_status(model, offset) for _, model in sorted(fleet.models.items())]
    counts = {state.value: 0 for state in State}
    for model in models:
        counts[model["state"]] += 1
    return {
        "state": _supervisor_state(fleet),
        "counts": counts,
        "web": instance_status(fleet.web, offset),
        "models": models,
    }


def model_status(model: Model, offset: float) -> Picture:
    """One model with its instance."""
    preset = model.preset
    return {
        "aliases": list(preset.aliases),
        "description": preset.description,
        "backend": preset.backend,
        "removed": model.removed,
        "waiting": len(model.waiting),
        **instance_status(model.instance, offset),
    }


def instance_status(instance: Instance, offset: float) -> Picture:
    """One instance: a model's or the web tier's."""
    backing_off = instance.state is State.BACKOFF and instance.deadline is not None
    return {
        "name": instance.name,
        "state": instance.state.value,
        "since": instance.since + offset,
        "draining": instance.draining,
        "reason": reason_status(instance.reason, offset),
        "message": instance.message,
        "progress": instance.progress,
        "pid": instance.pid,
        "launch": instance.launch,
        "in_flight": len(instance.leases),
        "served": instance.served,
        "restarts": instance.restarts,
        "next_start": (instance.deadline or 0.0) + offset if backing_off else None,
    }


def reason_status(reason: EndReason | None, offset: float) -> Picture | None:
    """Why a run ended, in words and in numbers."""
    if reason is None:
        return None
    return {
        "kind": reason.kind.value,
        "text": reason.text,
        "code": reason.code,
        "signal": reason.signal_name,
        "at": reason.at + offset,
        "last_lines": list(reason.last_lines),
    }


def status_line(fleet: Fleet) -> str:
    """What `systemctl status` shows, such as "3 ready, 1 loading, 0 failed"."""
    states = [model.instance.state for model in fleet.models.values()]
    ready, failed = states.count(State.READY), states.count(State.FAILED)
    loading = states.count(State.STARTING) + states.count(State.BACKOFF)
    line = f"{ready} ready, {loading} loading, {failed} failed"
    return f"stopping; {line}" if fleet.stopping else line


def _supervisor_state(fleet: Fleet) -> str:
    if fleet.stopping:
        return "stopping"
    return "running" if fleet.web.ever_ready else "starting"
