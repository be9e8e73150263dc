"""The picture of the fleet that is shown: plain JSON values. `offset` turns monotonic times into Unix seconds."""

from __future__ import annotations

from typing import Any

from supervisor.core.fleet import Fleet
from supervisor.core.fleet_state import Instance, Model
from supervisor.core.need import known, total
from supervisor.core.placement import memory_of
from supervisor.core.queue import oldest_waiters, why_waiting
from supervisor.core.reasons import EndReason
from supervisor.core.states import State

Picture = dict[str, Any]
Known = tuple[tuple[Any, ...], ...]

MOST_SHOWN = 200


def fleet_status(fleet: Fleet, offset: float) -> Picture:
    """The overview, and `models` by name. The shell adds what it alone knows."""
    models = [model_status(fleet, model, offset) for _, model in sorted(fleet.models.items())]
    return {**overview(fleet, offset), "models": models}


def overview(fleet: Fleet, offset: float) -> Picture:
    """`state`, `counts` by state, `memory`, `queue`, `web`, and the web tiers `web_before` it that still finish what
    they serve."""
    states = [model.state for model in fleet.models.values()]
    running = [model for model in fleet.models.values() if model.occupying]
    planned = total(memory_of(model, len(model.occupying)) for model in running)
    return {
        "state": _supervisor_state(fleet),
        "counts": {state.value: states.count(state) for state in State},
        "max_models": fleet.policy.max_models,
        "memory": {"budget": dict(fleet.policy.budget), "planned": planned},
        "queue": queue_status(fleet, offset),
        "web": instance_status(fleet.web, offset),
        "web_before": [instance_status(each, offset) for each in fleet.web_tiers.earlier],
    }


def at_rest(model: Model) -> Known | None:
    """All that is known of a model without a process that nobody waits for: it is shown as before while that is equal.
    None for any other, which may be shown otherwise for what happens to others or passes outside of the fleet."""
    if model.waiting:
        return None
    known = [tuple(vars(model).values())]
    for each in model.replicas:
        if each.launch is not None or each.has_process:
            return None
        known.append(tuple(vars(each).values()))
    return tuple(known)


def model_status(fleet: Fleet, model: Model, offset: float) -> Picture:
    """One model; with several replicas, `pid` and `launch` are those of the first that runs, the numbers their sum."""
    preset, replicas = model.preset, [instance_status(each, offset) for each in model.replicas]
    state = model.state.value
    foremost = next(each for each in replicas if each["state"] == state)
    return {
        "aliases": list(preset.aliases),
        "description": preset.description,
        "backend": preset.backend,
        "removed": model.removed,
        "waiting": len(model.waiting),
        "waiting_since": model.waiting[0].asked_at + offset if model.waiting else None,
        "waiting_for": why_waiting(model, fleet.models, fleet.loading.chosen, fleet.policy) if model.waiting else None,
        **foremost,
        "name": preset.name,
        "draining": any(each.draining for each in model.replicas) and not any(each.serves for each in model.replicas),
        "reason": reason_status(model.last_reason, offset),
        **{key: sum(each[key] for each in replicas) for key in ("in_flight", "served", "restarts")},
        "memory": _memory(model),
        "replicas": replicas,
    }


def _memory(model: Model) -> Picture:
    """`need` in bytes by device of all replicas that the preset asks for, and of what runs as it was last measured."""
    needed = known(model.preset.memory, model.need)
    used = [amount for each in model.replicas for amount in (each.used, each.used_shared)]
    return {
        "need": needed.total(model.preset.replicas),
        "source": needed.source,
        "parts": needed.parts,
        "used": total(used),
    }


def queue_status(fleet: Fleet, offset: float) -> list[Picture]:
    """Those who have waited longest, oldest first."""
    why: dict[str, str] = {}
    pictures = []
    for lease in oldest_waiters(fleet.models.values(), MOST_SHOWN):
        if lease.model not in why:
            why[lease.model] = why_waiting(fleet.models[lease.model], fleet.models, fleet.loading.chosen, fleet.policy)
        since = lease.asked_at + offset
        pictures.append({"model": lease.model, "who": lease.who, "since": since, "why": why[lease.model]})
    return pictures


def instance_status(instance: Instance, offset: float) -> Picture:
    """One replica of a model, or the web tier."""
    backing_off = instance.state is State.BACKOFF and instance.deadline is not None
    return {
        "name": instance.name,
        "state": instance.state.value,
        "since": instance.since + offset,
        "draining": instance.draining,
        "reason": reason_status(instance.reason, offset),
        "stopped_by": instance.stopped_by,
        "message": instance.message,
        "progress": instance.progress,
        "sleeping": instance.sleeping,
        "pid": instance.pid,
        "launch": instance.launch,
        "in_flight": len(instance.leases),
        "served": instance.served,
        "restarts": instance.restarts,
        "next_start": (instance.deadline or 0.0) + offset if backing_off else None,
    }


def reason_status(reason: EndReason | None, offset: float) -> Picture | None:
    """Why a run ended, in words and in numbers; `telling` is one of the `last_lines`."""
    if reason is None:
        return None
    return {
        "kind": reason.kind.value,
        "text": reason.text,
        "code": reason.code,
        "signal": reason.signal_name,
        "at": reason.at + offset,
        "launch": reason.launch,
        "last_lines": list(reason.last_lines),
        "telling": reason.telling,
    }


def status_line(fleet: Fleet) -> str:
    """What `systemctl status` shows, such as "3 ready, 1 starting, 0 backoff, 0 failed"."""
    states = [model.state for model in fleet.models.values()]
    shown = (State.READY, State.STARTING, State.BACKOFF, State.FAILED)
    line = ", ".join(f"{states.count(state)} {state.value}" for state in shown)
    return f"stopping; {line}" if fleet.stopping else line


def _supervisor_state(fleet: Fleet) -> str:
    if fleet.stopping:
        return "stopping"
    return "running" if fleet.web.ever_ready else "starting"
