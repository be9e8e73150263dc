"""Many streams: 300 at once on one model, and 2,000 slow ones; meanwhile /health and the dashboard are asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.bench.load import streams
from tests.bench.readings import Reading, spending
from tests.bench.routers.router import ROOT, Router
from tests.bench.scenes import PACED, TOKENS, Effort

PATIENCE = 30.0


def three_hundred(router: Router, effort: Effort) -> list[Reading]:
    """300 streams; of llama-server's router with a model that computes."""
    if router.serves_only_gguf:
        return _measure("many-300", router, router.stream(TOKENS.name, "", 4), 300, least=1)  # it may end before
    return _measure("many-300", router, router.stream(PACED.name, "20 per second", 40), 300, least=40)


def slow(router: Router, effort: Effort) -> list[Reading]:
    """2,000 streams of a chunk a second."""
    return _measure("many-2000", router, router.stream(PACED.name, "1 per second", 5), 2000, least=5)


def _measure(name: str, router: Router, request: bytes, number: int, *, least: int) -> list[Reading]:
    address = router.address_of(PACED)
    streams(address, request, 1, least, PATIENCE)  # loads the model
    reading = Reading(name, router.name)
    pages = [page.decode() for page in router.pages()]
    argv = [sys.executable, "-m", "tests.bench.looking", address.text, json.dumps(pages)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as looking:
        with spending(router, reading):
            load = streams(address, request, number, least, PATIENCE)
        looks = json.loads(looking.communicate()[0])
    reading.waits += looks["waits"]
    reading.figures += [max(looks["waits"])] if looks["waits"] else []
    reading.errors += load.errors + looks["errors"]
    reading.generator.append(load.cpu / load.seconds / (os.cpu_count() or 1))
    return [reading]
