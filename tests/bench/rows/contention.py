"""Contention: one model may be loaded, two clients want each of two, 32 short requests in all."""

from __future__ import annotations

import threading
import time

from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import FIRST, SECOND, Effort
from tests.bench.wire import Broken, ask

CLIENTS = (FIRST, FIRST, SECOND, SECOND)
REQUESTS = 8  # of each client
TOKENS = 8


def measure(router: Router, effort: Effort) -> list[Reading]:
    """Seconds until all are answered, and the longest wait."""
    ask(router.address, router.completion(FIRST.name, TOKENS))  # all begin with the same model loaded
    waits: list[float] = []
    errors: list[str] = []

    def client(request: bytes) -> None:
        for _ in range(REQUESTS):
            began = time.monotonic()
            try:
                status, body = ask(router.address, request)
                if status != 200:
                    raise Broken(f"status {status}: {body[:200].decode(errors='replace')}")
            except (OSError, Broken) as error:
                errors.append(str(error))
            waits.append(time.monotonic() - began)

    threads = [threading.Thread(target=client, args=[router.completion(model.name, TOKENS)]) for model in CLIENTS]
    whole, longest = Reading("contention", router.name), Reading("contention-wait", router.name)
    with spending(router, whole, models_end=True):
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole.figures.append(time.monotonic() - began)
    whole.waits += waits
    whole.errors += errors
    longest.figures.append(max(waits))
    return [whole, longest]
