"""What config.yaml decides about the fleet as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.core.config import Config
from supervisor.core.need import Bytes

# What "auto" leaves to everything else on the machine: of the host's memory a tenth, of a GPU's a twentieth, where only
# a desktop or the driver may take some.
HOST_SHARE = 0.9
GPU_SHARE = 0.95


@dataclass(frozen=True)
class Policy:
    """`max_models` loaded at once (0: no limit), together within the `budget` of bytes by device; `max_wait` seconds
    until a busy model must make room, at most `queue_limit` waiting requests, and `fallback`, the model that serves
    requests which name none."""

    max_models: int = 0
    max_wait: float = 10.0
    queue_limit: int = 512
    fallback: str | None = None
    budget: Bytes = field(default_factory=dict)


def policy(config: Config, machine: Mapping[str, int]) -> Policy:
    """The part of the configuration that the core acts on, on a machine with so many bytes by device."""
    return Policy(config.max_models, config.max_wait, config.queue_limit, config.fallback, budget(config, machine))


def budget(config: Config, machine: Mapping[str, int]) -> dict[str, int]:
    """Bytes by device: as configured, and the larger part of what the machine has where nothing is, or "auto"."""
    usual = {device: int(size * (HOST_SHARE if device == "host" else GPU_SHARE)) for device, size in machine.items()}
    return usual | {device: size for device, size in config.memory.items() if isinstance(size, int)}
