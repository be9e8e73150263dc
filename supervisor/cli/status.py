"""`llama-router status`."""

from __future__ import annotations

import time

import click

from supervisor.cli import answers, describe
from supervisor.cli.asking import connect, did_you_mean
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.terminal import Cell, Column, cells_of_stdout, complain, escape, say, say_json, span, table
from supervisor.core.reload_words import later
from supervisor.errors import EX_NO_SUCH_MODEL, EX_NOT_RUNNING, NotRunning
from supervisor.protocol import Message

COLUMNS = (
    Column("MODEL", minimum=12),
    Column("STATE", minimum=9),
    Column("SINCE"),
    Column("IN FLIGHT", right=True),
    Column("WAITING", right=True),
    Column("MEMORY", right=True),
    Column("RESTARTS", right=True),
    Column("PID", right=True),
)
MOST_QUEUES = 10


@click.command("status", epilog="Example: llama-router status qwen")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@json_option
@runtime_dir_option
def command(models: tuple[str, ...], as_json: bool) -> int:
    """Show all models, or each MODEL in detail.

    Ends with 3 if llama-router is not running or a MODEL is not ready, with 4 if there is no such MODEL.
    """
    answer = _ask()
    status = answers.status(answer)
    found = {name: status.find(name) for name in models}
    known = list({model.name: model for model in found.values() if model is not None}.values())
    if as_json:
        say_json(_chosen(answer["status"], known) if models else answer["status"])
    elif models:
        _say_details(known)
    else:
        _say_table(status)
    unknown = [name for name, model in found.items() if model is None]
    for name in unknown:
        complain(f"cannot show '{name}': no such model{did_you_mean(name, status.names())}")
    if unknown:
        return EX_NO_SUCH_MODEL
    return 0 if all(model.ready for model in known) else EX_NOT_RUNNING


def _ask() -> Message:
    try:
        with connect() as client:
            return client.call("status")
    except NotRunning as error:
        error.exit_code = EX_NOT_RUNNING
        raise


def _chosen(body: Message, models: list[answers.Model]) -> Message:
    names = {model.name for model in models}
    return {**body, "models": [item for item in body["models"] if item["name"] in names]}


def _say_details(models: list[answers.Model]) -> None:
    now = time.time()
    if models:
        cells = cells_of_stdout()
        say("\n\n".join("\n".join(describe.detail(model, now, cells)) for model in models))


def _say_table(status: answers.Status) -> None:
    now = time.time()
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items() if count) or "no models"
    since = f"pid {status.pid}, for {span(now - status.since)}"
    header = [f"llama-router {status.version}: {status.state} on {status.listen}, {since}", counts]
    if status.room is not None:
        header.append(describe.room(status.room))
    if status.web is not None and not status.web.ready:
        header.append(f"web tier: {describe.state(status.web, now)}")
    header += [f"notice: {line}" for line in (*later(status), *describe.problems(status.problems))]
    lines = [escape(line) for line in header]
    if status.models:
        lines += ["", *table(COLUMNS, [_row(model, now) for model in status.models], cells_of_stdout())]
    if queues := _queues(status, now):
        lines += ["", *map(escape, queues)]
    say("\n".join(lines))


def _queues(status: answers.Status, now: float) -> list[str]:
    """For each model that requests wait for a line that says why, those that wait longest first."""
    waited_for = [model for model in status.models if model.waiting]
    waited_for.sort(key=lambda model: model.waiting_since or now)
    lines = [f"{model.name}: {describe.waiting(model, now)}" for model in waited_for[:MOST_QUEUES]]
    if len(waited_for) > MOST_QUEUES:
        lines.append(f"and {len(waited_for) - MOST_QUEUES} more models; llama-router queue shows the requests")
    return lines


def _row(model: answers.Model, now: float) -> tuple[Cell, ...]:
    return (
        Cell(model.name),
        Cell(describe.state(model, now), describe.COLOUR_OF_STATE.get(model.state)),
        Cell(span(now - model.since)),
        Cell(str(model.in_flight)),
        Cell(str(model.waiting)),
        Cell(describe.memory(model)),
        Cell(str(model.restarts)),
        Cell(describe.pid(model)),
    )
