"""What is measured, in which unit, and the goals: ratios to peers in the same run, limits, and that nothing fails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.bench.readings import Reading


@dataclass(frozen=True)
class Ratio:
    """At most `factor` times a peer's figure, or at least where more is better. Without `peer`: the best one's."""

    factor: float
    peer: str = ""


@dataclass(frozen=True)
class Limit:
    """At most this, in the measure's unit."""

    most: float


@dataclass(frozen=True)
class NoErrors:
    """No request fails."""


Goal = Ratio | Limit | NoErrors


@dataclass(frozen=True)
class Measure:
    """One line of the table for each router."""

    id: str
    what: str
    unit: str = "s"
    more_is_better: bool = False
    peers_may_fail: bool = False  # true: what fails on the way to the figure does not make it worthless
    goals: tuple[Goal, ...] = ()


LOAD_SECONDS = 1.0  # one load, in the goal that no request waits for longer than max_wait and one load
MAX_WAIT_SECONDS = 10.0  # max_wait as it is by default

FASTER = (Ratio(1.5, "llama-server"), Ratio(1, "llama-swap"))

MEASURES = (
    Measure("swap-135m", "swap to the 135M model, first token", goals=(Ratio(0.6),)),
    Measure("swap-270m", "swap to the 270M model, first token", goals=(Ratio(0.6),)),
    Measure("small-1", "small requests, 1 connection", "/s", more_is_better=True, goals=FASTER),
    Measure("small-8", "small requests, 8 connections", "/s", more_is_better=True, goals=FASTER),
    Measure("streams", "200 streams, CPU of 20,000 chunks", "CPU s", goals=(Ratio(0.8, "llama-swap"), NoErrors())),
    Measure("many-300", "300 streams, slowest page", goals=(Limit(0.1), NoErrors())),
    Measure("many-2000", "2,000 slow streams, slowest page", goals=(Limit(0.1), NoErrors())),
    Measure("contention", "contention, 32 requests", goals=(Ratio(0.7), NoErrors())),
    Measure("contention-wait", "contention, longest wait", goals=(Limit(MAX_WAIT_SECONDS + LOAD_SECONDS),)),
    Measure("crash", "crash, next answer", peers_may_fail=True, goals=(Ratio(1), NoErrors())),
    Measure("idle-wakeups", "idle, wake-ups", "", goals=(Limit(0),)),
    Measure("idle-pss", "idle, memory (PSS)", "MiB"),
    Measure("size-start", "1,000 presets, start", goals=(Limit(1.0),)),
    Measure("size-list", "1,000 presets, GET /v1/models", goals=(Limit(0.02),)),
)


def best(measure: Measure, peers: Iterable[Reading]) -> Reading | None:
    """The best of those that have a figure that counts."""
    found = [peer for peer in peers if peer.figure is not None and (measure.peers_may_fail or not peer.errors)]
    choose = max if measure.more_is_better else min
    return choose(found, key=lambda peer: peer.figure or 0.0, default=None)


def ratio(figure: float, other: float) -> float:
    """How many times the other; of nothing, infinitely many times unless it is nothing too."""
    if other == 0:
        return math.inf if figure else 1.0
    return figure / other


@dataclass(frozen=True)
class Verdict:
    """Whether a goal is reached; None if that can't be told, and `text` says why."""

    reached: bool | None
    text: str


def judge(measure: Measure, goal: Goal, ours: Reading, peers: Mapping[str, Reading]) -> Verdict:
    """Hold our reading against a goal. `peers`: the readings of the others by name, those without figures too."""
    if ours.figure is None:
        return Verdict(None, "not measured")
    match goal:
        case NoErrors():
            return Verdict(not ours.errors, "no error")
        case Limit(most):
            return Verdict(ours.figure <= most, f"≤ {shown(most, measure.unit)}")
        case Ratio(factor, peer):
            text = f"{'≥' if measure.more_is_better else '≤'} {factor:g} × {peer or 'the best peer'}"
            other = best(measure, [peers[peer]] if peer in peers else [] if peer else peers.values())
            if other is None or other.figure is None:
                return Verdict(None, text)
            times = ratio(ours.figure, other.figure)
            reached = times >= factor if measure.more_is_better else times <= factor
            return Verdict(reached, f"{text} ({times:.2f})")


def shown(figure: float, unit: str) -> str:
    """A figure with its unit, as people read it."""
    match unit:
        case "s" if figure < 0.1:
            return f"{figure * 1e3:.1f} ms" if figure < 0.01 else f"{figure * 1e3:.0f} ms"
        case "/s":
            return f"{figure:,.0f}/s"
        case "":
            return f"{figure:,.0f}"
        case "MiB":
            return f"{figure:.1f} MiB"
        case _:
            return f"{figure:.2f} {unit}"
