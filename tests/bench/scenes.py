"""The models that routers are started with, and how long everything goes on."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.routers.router import LARGE, SMALL, Model, Scene

TOKENS = Model("tokens", SMALL, tokenizes=True)
PACED = Model("paced", None)
FIRST = Model("first", SMALL)
SECOND = Model("second", LARGE)

PROXY = Scene("proxy", (TOKENS, PACED), room=2)
SWAP = Scene("swap", (FIRST, SECOND), room=1)
IDLE = Scene("idle", (FIRST, SECOND, Model("third", SMALL)), room=3)
SIZE = Scene("size", tuple(Model(f"model-{number:04}", SMALL) for number in range(1000)), room=4)


@dataclass(frozen=True)
class Effort:
    """How much is done in a turn."""

    swaps: int = 3  # to each of the two models
    small_seconds: float = 2.0  # for each number of connections
    idle_seconds: float = 20.0
    lists: int = 50  # of 1,000 models


QUICK = Effort(swaps=1, small_seconds=0.5, idle_seconds=3.0, lists=10)
