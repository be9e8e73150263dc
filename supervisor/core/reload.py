"""What a new set of presets changes, as a difference; `check` shows it and the fleet applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.core.preset import Preset

# What a model server is started with; it is told the watchdog's time. A change of any other key (a description, an
# alias, a restart policy) applies to the running server.
LAUNCH_KEYS = frozenset(
    {"backend", "model", "mmproj", "context", "gpu_layers", "parallel", "threads", "embedding", "options", "env"}
    | {"binary", "command", "ready", "watchdog", "limits"}
)


@dataclass(frozen=True)
class Changes:
    """Names of presets, sorted. `changed` need a restart, `adjusted` do not."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    adjusted: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int

    def __str__(self) -> str:
        parts = [f"{', '.join(names)} {what}" for what, names in self._named() if names]
        return "; ".join([*parts, f"{self.unchanged} untouched"])

    def _named(self) -> list[tuple[str, tuple[str, ...]]]:
        return [
            ("added", self.added),
            ("changed", self.changed),
            ("adjusted", self.adjusted),
            ("removed", self.removed),
        ]


def changes(old: Mapping[str, Preset], new: Mapping[str, Preset]) -> Changes:
    """Compare two sets of presets by name."""
    kept = sorted(old.keys() & new.keys())
    differing = [name for name in kept if old[name] != new[name]]
    changed = tuple(name for name in differing if not same_launch(old[name], new[name]))
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=changed,
        adjusted=tuple(name for name in differing if name not in changed),
        removed=tuple(sorted(old.keys() - new.keys())),
        unchanged=len(kept) - len(differing),
    )


def same_launch(old: Preset, new: Preset) -> bool:
    """True when a server started with `old` need not be restarted for `new`."""
    return old == new or old.model_copy(update={key: getattr(new, key) for key in LAUNCH_KEYS}) == old
