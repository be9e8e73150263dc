"""Asks for pages every few milliseconds, on a new connection each, until its standard input ends.

    python -m tests.bench.looking ADDRESS JSON      (a list of requests, as they are sent)

Prints what the looks took, as JSON: {"waits": seconds, "errors": texts}. A process of its own, as what is measured
meanwhile keeps the benchmark busy.
"""

from __future__ import annotations

import json
import select
import sys
import time

from tests.bench.wire import Address, Broken, ask

PAUSE = 0.02  # seconds


def main() -> None:
    """Look, and tell."""
    address = Address(sys.argv[1])
    pages = [page.encode() for page in json.loads(sys.argv[2])]
    waits: list[float] = []
    errors: list[str] = []
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        for page in pages:
            began = time.monotonic()
            try:
                status, _ = ask(address, page)
                if status != 200:
                    raise Broken(f"{page.split()[1].decode()}: status {status}")
            except (OSError, Broken) as error:
                errors.append(str(error))
            waits.append(time.monotonic() - began)
    json.dump({"waits": waits, "errors": errors}, sys.stdout)


if __name__ == "__main__":
    main()
