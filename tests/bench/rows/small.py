"""Small requests: POST /tokenize on one connection and on eight, kept open and never without a request."""

from __future__ import annotations

import os

from tests.bench.load import keep_asking
from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import TOKENS, Effort
from tests.bench.wire import Broken, ask

WARM_UP = 0.3  # seconds
CPU_FOR = 10_000  # requests


def measure(router: Router, effort: Effort) -> list[Reading]:
    """Requests a second; CPU seconds are those of 10,000."""
    request = router.tokenize(TOKENS.name)
    status, body = ask(router.address, request)  # which loads the model
    if status != 200:
        raise Broken(f"status {status}: {body[:200].decode(errors='replace')}")
    readings = []
    for connections in (1, 8):
        reading = Reading(f"small-{connections}", router.name)
        keep_asking(router.address, request, connections, WARM_UP)
        with spending(router, reading):
            load = keep_asking(router.address, request, connections, effort.small_seconds)
        reading.cpu = [cpu / len(load.waits) * CPU_FOR for cpu in reading.cpu if load.waits]
        reading.figures.append(load.rate)
        reading.waits += load.waits
        reading.errors += load.errors
        reading.generator.append(load.cpu / load.seconds / (os.cpu_count() or 1))
        readings.append(reading)
    return readings
