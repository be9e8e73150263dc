"""The table for people, in Markdown, and the same as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.figures import median
from tests.bench.measures import MEASURES, Measure, Verdict, best, judge, ratio, shown
from tests.bench.readings import Reading

HEAD = ("measured", "router", "median", "p99", "CPU s", "errors", "client", "× best peer", "goal")
WORDS = {True: "reached", False: "MISSED", None: "not told"}


@dataclass
class Results:
    """A whole run. `order`: the routers as they are shown, ours first; `peers` are those that ours is compared with."""

    readings: Mapping[tuple[str, str], Reading]
    order: Sequence[str]
    ours: str
    peers: Sequence[str]
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, measure: Measure) -> dict[str, Reading]:
        """Its readings by router."""
        return {name: reading for name in self.order if (reading := self.readings.get((measure.id, name)))}

    def peers_of(self, measure: Measure) -> dict[str, Reading]:
        """Those of peers."""
        return {name: reading for name, reading in self.of(measure).items() if name in self.peers}

    def verdicts(self, measure: Measure) -> list[Verdict]:
        """Of each goal, if there is a reading of ours."""
        ours = self.of(measure).get(self.ours)
        return [judge(measure, goal, ours, self.peers_of(measure)) for goal in measure.goals] if ours else []


def table(results: Results) -> str:
    """A line for each router of each measure that has a figure or an error; below, what is missing and why."""
    lines: list[tuple[str, ...]] = []
    reasons: dict[str, dict[str, list[str]]] = {}
    for measure in MEASURES:
        for name, reading in results.of(measure).items():
            if reading.figure is None and not reading.errors:
                reasons.setdefault(name, {}).setdefault(reading.why_none, []).append(measure.what)
            else:
                lines.append(_line(results, measure, reading))
    text = _aligned([HEAD, *lines])
    notes = [f"- {name} is missing: {why}" for name, why in results.missing.items()]
    for name, whys in reasons.items():
        notes += [f"- {name}, not measured ({'; '.join(what)}): {why}" for why, what in whys.items()]
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def errors(results: Results) -> str:
    """The first error of each reading that has some; not for a page, as it may name files of this machine."""
    return "\n".join(
        f"- {name}, {measure.what}: {len(reading.errors)} errors, first: {reading.errors[0]}"
        for measure in MEASURES
        for name, reading in results.of(measure).items()
        if reading.errors
    )


def _line(results: Results, measure: Measure, reading: Reading) -> tuple[str, ...]:
    figure, p99 = reading.figure, reading.p99
    against = best(measure, results.peers_of(measure).values())
    times = _times(reading, against)
    verdicts = results.verdicts(measure) if reading.router == results.ours else []
    return (
        measure.what,
        reading.router,
        "error" if figure is None else shown(figure, measure.unit),
        "" if p99 is None else shown(p99, "s"),
        f"{median(reading.cpu):.2f}" if reading.cpu else "",
        str(len(reading.errors)),
        f"{median(reading.generator):.0%}" if reading.generator else "",
        "" if times is None else f"{times:.2f}",
        "; ".join(f"{verdict.text}: {WORDS[verdict.reached]}" for verdict in verdicts),
    )


def _times(reading: Reading, against: Reading | None) -> float | None:
    if reading.figure is None or against is None or against.figure is None:
        return None
    return ratio(reading.figure, against.figure)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in ruled
    )


def document(results: Results) -> dict[str, Any]:
    """All of it. Times are seconds; waits are told by their number, median and p99."""
    return {
        "machine": dict(results.machine),
        "seconds": round(results.seconds, 1),
        "versions": dict(results.versions),
        "missing": dict(results.missing),
        "measures": [_measure(results, measure) for measure in MEASURES if results.of(measure)],
    }


def _measure(results: Results, measure: Measure) -> dict[str, Any]:
    against = best(measure, results.peers_of(measure).values())
    return {
        "id": measure.id,
        "what": measure.what,
        "unit": measure.unit,
        "more_is_better": measure.more_is_better,
        "best_peer": against and against.router,
        "goals": [{"goal": verdict.text, "reached": verdict.reached} for verdict in results.verdicts(measure)],
        "routers": {name: _reading(reading, against) for name, reading in results.of(measure).items()},
    }


def _reading(reading: Reading, against: Reading | None) -> dict[str, Any]:
    waits, times = reading.waits, _times(reading, against)
    return {
        "figure": reading.figure,
        "figures": reading.figures,
        "waits": {"number": len(waits), "median": median(waits), "p99": reading.p99} if waits else None,
        "cpu_seconds": reading.cpu,
        "errors": len(reading.errors),
        "first_errors": reading.errors[:3],
        "generator": reading.generator,
        "times_best_peer": times if times is not None and math.isfinite(times) else None,
        "why_none": reading.why_none or None,
    }
