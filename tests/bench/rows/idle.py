"""Idle: three models loaded and nobody asks; how often the router's own processes wake up, and what they take."""

from __future__ import annotations

import time

from tests.bench.processes import pss, wake_ups
from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import IDLE, Effort
from tests.bench.wire import Broken, ask

SETTLED = 3.0  # seconds after the last answer: what follows it, such as measuring, is over


def measure(router: Router, effort: Effort) -> list[Reading]:
    """Wake-ups, and PSS in MiB."""
    for model in IDLE.models:
        status, body = ask(router.address, router.completion(model.name, 1))
        if status != 200:
            raise Broken(f"status {status}: {body[:200].decode(errors='replace')}")
    time.sleep(SETTLED)
    woken, size = Reading("idle-wakeups", router.name), Reading("idle-pss", router.name)
    with spending(router, woken):
        before = wake_ups(router.own())
        time.sleep(effort.idle_seconds)
        after = wake_ups(router.own())
    woken.figures.append(sum(number - before.get(task, 0) for task, number in after.items()))
    size.figures.append(pss(router.own()) / 2**20)
    return [woken, size]
