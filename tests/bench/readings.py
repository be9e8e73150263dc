"""What a turn of a measurement brings, and what several turns of it come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.bench.figures import median, nth
from tests.bench.processes import cpu_seconds
from tests.bench.routers.router import Router


@dataclass
class Reading:
    """One measure of one router: of a turn, or of all turns together."""

    measure: str
    router: str
    figures: list[float] = field(default_factory=list)  # in the measure's unit; the median counts
    waits: list[float] = field(default_factory=list)  # seconds, of single requests, chunks or looks
    cpu: list[float] = field(default_factory=list)  # seconds of the router's own processes, a turn
    errors: list[str] = field(default_factory=list)
    generator: list[float] = field(default_factory=list)  # its share of all cores, a turn
    why_none: str = ""

    @property
    def figure(self) -> float | None:
        """What it comes to."""
        return median(self.figures) if self.figures else None

    @property
    def p99(self) -> float | None:
        """Of the waits, in seconds; with fewer than a hundred of them that is the longest."""
        return nth(self.waits, 0.99) if self.waits else None


def together(readings: Iterable[Reading]) -> dict[tuple[str, str], Reading]:
    """The turns of each measure of each router as one reading, by measure and router."""
    found: dict[tuple[str, str], Reading] = {}
    for turn in readings:
        whole = found.setdefault((turn.measure, turn.router), Reading(turn.measure, turn.router))
        whole.figures += turn.figures
        whole.waits += turn.waits
        whole.cpu += turn.cpu
        whole.errors += turn.errors
        whole.generator += turn.generator
        whole.why_none = whole.why_none or turn.why_none
    return found


@contextmanager
def spending(router: Router, reading: Reading, *, models_end: bool = False) -> Iterator[None]:
    """Add the CPU seconds that the router's own processes take in the block.

    `models_end`: model servers end in it, and what they took is in that of the children a router has waited for. So no
    children count then, nor own processes that are gone.
    """
    if not router.counts_cpu:
        yield
        return
    before = cpu_seconds(router.own(), waited=not models_end)
    yield
    after = cpu_seconds(router.own(), waited=not models_end)
    if models_end:
        reading.cpu.append(sum(used - before.get(pid, 0.0) for pid, used in after.items()))
    else:
        reading.cpu.append(sum(after.values()) - sum(before.values()))
