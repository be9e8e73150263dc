"""Memory, as the supervisor sees it: what the machine has, what presets need, what running servers use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor import backends
from supervisor.core import policy
from supervisor.core.config import Config
from supervisor.core.misfits import Misfit, misfits
from supervisor.core.need import Need
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from supervisor.core.shape import Shape
from supervisor.needs import Needs
from supervisor.usage import Gpus, Nvidia, Usage, machine_memory, process_usage


@dataclass(frozen=True)
class _Seen:
    """GPUs as they were."""

    by_pid: list[dict[int, int]]

    def totals(self) -> list[int | None]:
        return []

    def used(self) -> list[dict[int, int]]:
        return self.by_pid


class Memory:
    """`state_dir` is where measures are kept; without it none is kept or known."""

    def __init__(self, state_dir: Path | None, gpus: Gpus | None = None) -> None:
        self._state_dir = state_dir
        self._gpus = Nvidia() if gpus is None else gpus
        self._machine = machine_memory(self._gpus)
        self._count = len(self._gpus.totals())
        self._needs = Needs(state_dir, self._count)

    def policy(self, config: Config) -> Policy:
        """The part of the configuration that the core acts on, "auto" replaced by what there is."""
        return policy.policy(config, self._machine)

    def needs(self, config: Config, presets: Mapping[str, Preset]) -> dict[str, Need]:
        """What each preset needs, as far as that is known."""
        count = max([self._count, *(int(device[3:]) + 1 for device in config.memory if device != "host")])
        if count != self._needs.gpus:  # GPUs of other makers are known by their budgets only
            self._needs = Needs(self._state_dir, count)
        return self._needs.of(presets)

    def misfits(self, config: Config, presets: Mapping[str, Preset]) -> list[Misfit]:
        """What does not fit: replicas together, a single model, or every model."""
        budget = policy.budget(config, self._machine)
        found = misfits(presets, self.needs(config, presets), budget)
        return found + [
            Misfit(name, "memory", f"there is no {device} here; limit it in config.yaml", fatal=False)
            for name, preset in presets.items()
            for device in preset.memory or ()
            if device not in budget
        ]

    def why_no_model(self, path: str) -> str | None:
        """What makes the file at `path` no model, or not all of one; None if nothing does."""
        return self._needs.why_no_model(path)

    def refused(self, preset: Preset) -> list[tuple[tuple[str, ...], str]]:
        """What the program would refuse that is to serve it. Runs the program to learn that."""
        return backends.problems(preset)

    def shape(self, path: str) -> Shape | None:
        """What the header of a model's file says; None where it can't be read. It is read once until it changes."""
        return self._needs.shape(path)

    def look(self, group: int) -> Callable[[], Usage | None]:
        """A function that tells, in a fork too, what the processes of a group use; None if they are gone. The GPUs are
        asked at once: NVIDIA's library is lost on a fork."""
        seen = _Seen(self._gpus.used())
        return lambda: process_usage([group], seen).get(group)

    def remember(self, preset: Preset, need: Need) -> None:
        """Keep what was measured, for all that is started in the same way."""
        self._needs.remember(preset.name, preset, need)
