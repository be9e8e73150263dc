"""`python -m tests.bench`: measure, print the table, write JSON, leave nothing behind."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.bench import machine
from tests.bench.page import placed, section
from tests.bench.processes import adopt_orphans, end_all
from tests.bench.readings import together
from tests.bench.report import Results, document, errors, table
from tests.bench.routers.litellm import LiteLLM
from tests.bench.routers.llama_cpp import LlamaCpp
from tests.bench.routers.llama_router import LlamaRouter, WithLlamaServer
from tests.bench.routers.llama_server import Direct, LlamaServer
from tests.bench.routers.llama_swap import LlamaSwap
from tests.bench.routers.router import VENV, Router
from tests.bench.running import ROWS, Run
from tests.bench.scenes import QUICK, Effort

ROUTERS: tuple[type[Router], ...] = (LlamaRouter, WithLlamaServer, LlamaServer, LlamaSwap, LlamaCpp, LiteLLM, Direct)
LIMIT = 510.0  # seconds; what runs then is finished, so all of it stays below ten minutes


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS='…'", description=__doc__)
    rows, routers = [row.name for row in ROWS], [router.name for router in ROUTERS]
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows, help="measure these only")
    parser.add_argument("--routers", nargs="+", choices=routers, default=routers, help="of these only")
    parser.add_argument("--turns", type=int, help="how often each router gets its turn, for every row")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer of everything: to see whether it works")
    parser.add_argument("--json", type=Path, default=VENV / "bench.json", metavar="FILE", help="where JSON goes")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page, docs/performance.md")
    return parser.parse_args(argv)


def measured(chosen: argparse.Namespace, directory: Path) -> Results:
    """A run of what was chosen."""
    began = time.monotonic()
    about = machine.described()
    picked = [router for router in ROUTERS if router.name in chosen.routers]
    looked_at = {router: router(directory).missing() for router in picked}
    there = [router for router, why in looked_at.items() if why is None]
    run = Run(
        rows=[row for row in ROWS if row.name in chosen.rows],
        routers=there,
        effort=QUICK if chosen.quick else Effort(),
        directory=directory,
        limit=LIMIT,
        turns=1 if chosen.quick else chosen.turns,
    )
    readings = run.all()
    return Results(
        readings=together(readings),
        order=[router.name for router in picked],
        ours=LlamaRouter.name,
        peers=[router.name for router in ROUTERS if not issubclass(router, LlamaRouter | Direct)],
        versions={router.name: router(directory).version() for router in there},
        missing={router.name: why for router, why in looked_at.items() if why is not None},
        machine=about,
        seconds=time.monotonic() - began,
    )


def _ended(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Whatever happens, nothing that was started goes on, and no file stays but the JSON."""
    chosen = options()
    page = chosen.page and chosen.page.read_text()
    if page is not None:
        placed(page, "")  # or fail before ten minutes are spent
    signal.signal(signal.SIGTERM, _ended)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a stream takes one here, and two in a router
    adopt_orphans()
    directory = Path(tempfile.mkdtemp(prefix="lr-bench-"))
    try:
        results = measured(chosen, directory)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        end_all()
        shutil.rmtree(directory)
    print(table(results), errors(results), sep="\n")
    chosen.json.write_text(json.dumps(document(results), indent=1, ensure_ascii=False) + "\n")
    if page is not None:
        chosen.page.write_text(placed(page, section(results)))
    about = results.machine
    print(f"\n{about['cores']} cores, {about['cpu']}; load average {about['load_average'][0]} before", end="")
    print(f"; {results.seconds:.0f} s; JSON in {chosen.json}")


if __name__ == "__main__":
    main()
