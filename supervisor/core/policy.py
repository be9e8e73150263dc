"""What config.yaml decides about the fleet as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.config import Config


@dataclass(frozen=True)
class Policy:
    """`max_models` loaded at once (0: no limit), `max_wait` seconds until a busy model must make room, at most
    `queue_limit` waiting requests, and `fallback`, the model that serves requests which name none."""

    max_models: int = 0
    max_wait: float = 10.0
    queue_limit: int = 512
    fallback: str | None = None


def policy(config: Config) -> Policy:
    """The part of the configuration that the core acts on."""
    return Policy(config.max_models, config.max_wait, config.queue_limit, config.fallback)
