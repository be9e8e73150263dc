"""Size: 1,000 presets; from the start to the first list of models, and how long one takes then."""

from __future__ import annotations

import json
import time

from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import SIZE, Effort
from tests.bench.wire import Broken, ask, get


def measure(router: Router, effort: Effort) -> list[Reading]:
    """Seconds."""
    start, lists = Reading("size-start", router.name, figures=[router.started_in]), Reading("size-list", router.name)
    request = get("/v1/models")
    _, body = ask(router.address, request)
    if (number := len(json.loads(body)["data"])) < len(SIZE.models):
        raise Broken(f"it lists {number} models only")
    with spending(router, lists):
        for _ in range(effort.lists):
            began = time.monotonic()
            ask(router.address, request)
            lists.waits.append(time.monotonic() - began)
    lists.figures += lists.waits
    return [start, lists]
