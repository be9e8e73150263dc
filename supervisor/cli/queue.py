"""`llama-router queue`."""

from __future__ import annotations

import time

import click

from supervisor.cli import answers
from supervisor.cli.asking import connect
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.terminal import Cell, Column, cells_of_stdout, say, say_json, span, table

COLUMNS = (Column("WAITS"), Column("MODEL", minimum=8), Column("WHO", minimum=8), Column("WHY", minimum=8))


@click.command("queue", epilog="Example: llama-router queue")
@json_option
@runtime_dir_option
def command(as_json: bool) -> int:
    """Show the requests that wait for a model, and why.

    The oldest come first; 200 are shown at most.
    """
    with connect() as client:
        answer = client.call("status")
    status = answers.status(answer)
    if as_json:
        say_json({"waiting": status.waiting, "queue": answer["status"].get("queue") or []})
    elif status.waiting:
        _say_table(status)
    else:
        say("no request waits")
    return 0


def _say_table(status: answers.Status) -> None:
    now = time.time()
    rows = [
        (Cell(span(now - waiter.since)), Cell(waiter.model), Cell(waiter.who or "-"), Cell(waiter.why))
        for waiter in status.queue
    ]
    lines = table(COLUMNS, rows, cells_of_stdout())
    if more := status.waiting - len(rows):
        lines.append(f"and {more} more")
    say("\n".join(lines))
