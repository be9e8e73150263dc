"""Web tiers of their own for tests of keys, with the supervisor that all share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_supervisor import FakeSupervisor
from web_tier import Answer, WebTier

from supervisor.core.keys import KEYS_FILE

CHAT = "/v1/chat/completions"
# Samples would ask the supervisor; tests wait for what is written; nobody shall be waited for for long.
CONSTANTS = {
    "admin.sampling.SAMPLE_SECONDS": 3600.0,
    "admin.activity.WRITE_SECONDS": 0.02,
    "admin.key_usage.WRITE_SECONDS": 0.02,
    "supervisor.keys_db.BUSY_SECONDS": 0.2,
}


@contextmanager
def keyed_web(supervisor: FakeSupervisor, folder: Path, **fields: Any) -> Iterator[WebTier]:
    """One that is running."""
    (folder / "control.sock").symlink_to(supervisor.path)
    tier = WebTier(folder, constants=CONSTANTS, **fields)
    tier.start()
    try:
        yield tier
    finally:
        tier.close()


def without_keys(tier: WebTier) -> None:
    """Remove the file with all that belongs to it."""
    for path in tier.state_dir.glob(f"{KEYS_FILE}*"):
        path.unlink()


def chat(tier: WebTier, headers: dict[str, str], model: str = "m") -> Answer:
    """A request for a model."""
    return tier.post(CHAT, {"model": model}, headers)


def status_of(tier: WebTier, headers: dict[str, str] | None = None, path: str = "/v1/models") -> int:
    """Of a request that needs no model."""
    return tier.request("GET", path, headers=headers).status


def lines(body: bytes) -> list[Any]:
    """The events of a stream."""
    return [json.loads(line.removeprefix(b"data: ")) for line in body.split(b"\n\n") if line.strip()]
