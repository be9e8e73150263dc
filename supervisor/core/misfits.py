"""Presets that ask for more memory than there is: what `check` and `run` say before anything starts.

What was measured is left out: the same configuration would be valid or not, depending on what ran before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.core.need import UNKNOWN, Bytes, Need, fits, in_words, known
from supervisor.core.preset import Preset
from supervisor.core.quantities import readable_size


@dataclass(frozen=True)
class Misfit:
    """What does not fit: `key` of the model `name`, or of config.yaml if that is None. A `fatal` one is an error."""

    name: str | None
    key: str
    message: str
    fatal: bool


def misfits(presets: Mapping[str, Preset], needs: Mapping[str, Need], budget: Bytes) -> list[Misfit]:
    """What does not fit into `budget`, with the numbers.

    1. Replicas that don't fit together while fewer do: fatal, on "replicas".
    2. A model of which not even one replica fits: not fatal, on "memory" if it says what it needs, else on "model".
    3. No model fits of which it is known: only that, fatal, on config.yaml's "memory".
    """
    learned = {name: known(preset.memory, needs.get(name, UNKNOWN)) for name, preset in presets.items()}
    judged = {name: need for name, need in learned.items() if need.source in ("declared", "estimated")}
    found = [misfit for name, need in judged.items() for misfit in _misfits_of(presets[name], need, budget)]
    never = [misfit.name for misfit in found if not misfit.fatal]
    may_run = any(need.source == "measured" and fits(need.total(1), budget) for need in learned.values())
    if never and len(never) == len(judged) and not may_run:
        return [_nothing_fits(judged, budget)]
    return found


def _misfits_of(preset: Preset, need: Need, budget: Bytes) -> list[Misfit]:
    if not fits(need.total(1), budget):
        key = "model" if preset.memory is None else "memory"
        return [Misfit(preset.name, key, f"cannot run it: it needs {_beyond(need.total(1), budget)}", fatal=False)]
    count = next(count for count in range(preset.replicas, 0, -1) if fits(need.total(count), budget))
    if count == preset.replicas:
        return []
    message = f"cannot run {preset.replicas} replicas: they need {_beyond(need.total(preset.replicas), budget)}"
    return [Misfit(preset.name, "replicas", f"{message}; {count} {'fits' if count == 1 else 'fit'}", fatal=True)]


def _nothing_fits(needs: Mapping[str, Need], budget: Bytes) -> Misfit:
    least = min(needs, key=lambda name: sum(needs[name].total(1).values()))
    beyond = _beyond(needs[least].total(1), budget)
    message = f"cannot run any model: {least}, which needs least, needs {beyond}; allow more, or use smaller models"
    return Misfit(None, "memory", message, fatal=True)


def _beyond(amount: Bytes, budget: Bytes) -> str:
    """Such as "9.1 GiB of host, and memory allows 8.0 GiB", of the devices that have too little."""
    over = {device: size for device, size in sorted(amount.items()) if size > budget.get(device, size)}
    return f"{in_words(over)}, and memory allows {', '.join(readable_size(budget[device]) for device in over)}"
