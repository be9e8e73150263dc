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

PATIENCE = 60.0


def three_hundred(router: Router, effort: Effort) -> list[Reading]:
    """300 streams; of llama-server's router with a model that computes."""
    model = TOKENS if router.name == "llama-server" else PACED
    chunks = 4 if model is TOKENS else 40
    return _measure("many-300", router, model.name, 300, chunks, "20 per second")


def slow(router: Router, effort: Effort) -> list[Reading]:
    """2,000 streams of a chunk a second."""
    return _measure("many-2000", router, PACED.name, 2000, 5, "1 per second")


def _measure(name: str, router: Router, model: str, number: int, chunks: int, pace: str) -> list[Reading]:
    address = router.address_of(PACED)
    streams(address, router.stream(model, pace, 1), 1, 1, PATIENCE)  # loads the model
    reading = Reading(name, router.name)
    pages = [page.decode() for page in router.pages()]
    argv = [sys.executable, "-m", "tests.bench.looking", address.text, json.dumps(pages)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as looking:
        with spending(router, reading):
            load = streams(address, router.stream(model, pace, chunks), number, chunks, PATIENCE)
        looks = json.loads(looking.communicate()[0])
    reading.waits += looks["waits"]
    reading.figures += [max(looks["waits"])] if looks["waits"] else []
    reading.errors += load.errors + looks["errors"]
    reading.generator.append(load.cpu / load.seconds / (os.cpu_count() or 1))
    return [reading]
