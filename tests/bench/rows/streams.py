"""Streams: 200 at once, of 100 chunks, 50 a second; what the router's own processes take for these 20,000 chunks."""

from __future__ import annotations

import os

from tests.bench.load import streams
from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import PACED, Effort

NUMBER, CHUNKS, PACE = 200, 100, "50 per second"
PATIENCE = 25.0


def measure(router: Router, effort: Effort) -> list[Reading]:
    """CPU seconds; the waits are how late chunks are."""
    address = router.address_of(PACED)
    streams(address, router.stream(PACED.name, PACE, 5), 1, 5, PATIENCE)  # loads the model
    reading = Reading("streams", router.name)
    with spending(router, reading):
        load = streams(address, router.stream(PACED.name, PACE, CHUNKS), NUMBER, CHUNKS, PATIENCE)
    reading.figures += [cpu / load.chunks * NUMBER * CHUNKS for cpu in reading.cpu if load.chunks]
    reading.waits += load.delays
    reading.errors += load.errors
    reading.generator.append(load.cpu / load.seconds / (os.cpu_count() or 1))
    return [reading]
