"""Swap: one model may be loaded; from a request for the other one to the first token of its stream."""

from __future__ import annotations

from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import FIRST, SECOND, Effort
from tests.bench.wire import first

TOKENS = 4
MEASURES = {SECOND: "swap-270m", FIRST: "swap-135m"}


def measure(router: Router, effort: Effort) -> list[Reading]:
    """Each model in turn, after a first load of both that does not count."""
    readings = {model: Reading(name, router.name) for model, name in MEASURES.items()}
    for model in (SECOND, FIRST):
        first(router.address, router.completion(model.name, TOKENS, stream=True), b"data: {")
    for _ in range(effort.swaps):
        for model, reading in readings.items():
            with spending(router, reading, models_end=True):
                seconds = first(router.address, router.completion(model.name, TOKENS, stream=True), b"data: {")
            reading.figures.append(seconds)
            reading.waits.append(seconds)
    return list(readings.values())
