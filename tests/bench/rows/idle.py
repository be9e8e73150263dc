"""Idle: three models loaded and nobody asks; how often the router's own processes wake up, and what they take."""

from __future__ import annotations

import time

from tests.bench.processes import pss, wake_ups
from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import IDLE, Effort
from tests.bench.wire import Broken, ask

SETTLED = 12.0  # seconds after the last answer, in which what follows it, measuring and a last sample, comes to its end


def measure(router: Router, effort: Effort) -> list[Reading]:
    """Wake-ups, and PSS in MiB."""
    for model in IDLE.models:
        status, body = ask(router.address, router.completion(model.name, 1))
        if status != 200:
            raise Broken(f"status {status}: {body[:200].decode(errors='replace')}")
    woken, size = Reading("idle-wakeups", router.name), Reading("idle-pss", router.name)
    own = router.own()
    with spending(router, woken):
        time.sleep(SETTLED)  # behind the last look at the router too, which may be a question to it
        before = wake_ups(own)
        time.sleep(effort.idle_seconds)
        after = wake_ups(own)
    woken.figures.append(sum(number - before.get(task, 0) for task, number in after.items()))
    size.figures.append(pss(own) / 2**20)
    return [woken, size]
