"""The order of a run: scene by scene, routers in turns, one at a time; what fails is an error in its place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import scenes
from tests.bench.readings import Reading
from tests.bench.routers.router import Router, Scene
from tests.bench.rows import contention, crash, idle, many, size, small, streams, swap
from tests.bench.scenes import Effort


@dataclass(frozen=True)
class Row:
    """A measurement: in which scene, what it reads, and how often."""

    name: str
    scene: Scene
    measure: Callable[[Router, Effort], list[Reading]]
    reads: tuple[str, ...]  # measures
    turns: int = 2


ROWS = (
    Row("swap", scenes.SWAP, swap.measure, ("swap-135m", "swap-270m")),
    Row("contention", scenes.SWAP, contention.measure, ("contention", "contention-wait")),
    Row("crash", scenes.SWAP, crash.measure, ("crash",)),
    Row("small", scenes.PROXY, small.measure, ("small-1", "small-8")),
    Row("streams", scenes.PROXY, streams.measure, ("streams",)),
    Row("many", scenes.PROXY, many.three_hundred, ("many-300",), turns=1),
    Row("slow", scenes.PROXY, many.slow, ("many-2000",), turns=1),
    Row("idle", scenes.IDLE, idle.measure, ("idle-wakeups", "idle-pss"), turns=1),
    Row("size", scenes.SIZE, size.measure, ("size-start", "size-list"), turns=1),
)


@dataclass
class Run:
    """What is to be measured of whom. `limit`: seconds, after which nothing more is begun."""

    rows: Sequence[Row]
    routers: Sequence[type[Router]]
    effort: Effort
    directory: Path
    limit: float
    turns: int | None = None  # of each row, in place of its own

    def all(self) -> list[Reading]:
        """All rows, then those with more turns again; in every other turn the routers come in the opposite order."""
        until = time.monotonic() + self.limit
        readings: list[Reading] = []
        for turn in range(max(self._turns(row) for row in self.rows)):
            rows = [row for row in self.rows if turn < self._turns(row)]
            for scene in dict.fromkeys(row.scene for row in rows):
                due = [row for row in rows if row.scene == scene]
                for router in self.routers if turn % 2 == 0 else self.routers[::-1]:
                    if turn >= router.most_turns:
                        continue
                    if time.monotonic() > until:
                        readings += self._none(router, due)
                    else:
                        readings += self._turn(router, scene, due, turn)
        return readings

    def _turns(self, row: Row) -> int:
        return self.turns or row.turns

    def _none(self, router: type[Router], rows: Sequence[Row]) -> list[Reading]:
        return [
            Reading(measure, router.name, why_none=router.cannot.get(row.name, "there was no time left"))
            for row in rows
            for measure in row.reads
        ]

    def _turn(self, router: type[Router], scene: Scene, rows: Sequence[Row], turn: int) -> list[Reading]:
        readings = self._none(router, [row for row in rows if row.name in router.cannot])
        left = [row for row in rows if row.name not in router.cannot]
        while left:
            directory = self.directory / f"{len(list(self.directory.iterdir()))}"
            directory.mkdir(mode=0o700)
            began = time.monotonic()
            readings += self._started(router(directory), scene, left)
            _say(f"{scene.name} {turn + 1}: {router.name}, {time.monotonic() - began:.1f} s")
        return readings

    def _started(self, router: Router, scene: Scene, left: list[Row]) -> list[Reading]:
        """Measure rows, each taken from the list, until one fails: what is left then needs another start."""
        readings: list[Reading] = []
        under_way: list[Row] = list(left)  # all of them, should it not start
        try:
            with router.running(scene):
                while left:
                    under_way = [left.pop(0)]
                    readings += under_way[0].measure(router, self.effort)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            _say(f"error: {router.name}, {', '.join(row.name for row in under_way)}: {text}")
            left[:] = [row for row in left if row not in under_way]
            readings += [Reading(measure, router.name, errors=[text]) for row in under_way for measure in row.reads]
        return readings


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
