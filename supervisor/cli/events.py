"""`llama-router events`."""

from __future__ import annotations

import click

from supervisor.cli import answers, checked
from supervisor.cli.asking import connect, refused_as
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.terminal import clock, escape, say, say_json


@click.command("events", epilog="Example: llama-router events -f")
@click.option("-f", "--follow", is_flag=True, help="Go on with events as they happen.")
@click.option("--since", metavar="SEQ", type=click.IntRange(min=0), default=0, help="Only events after that number.")
@json_option
@runtime_dir_option
def command(follow: bool, since: int, as_json: bool) -> int:
    """Print what happened, with its number and time."""
    with connect(patient=follow) as client, refused_as("show events", client):
        for message in client.stream("events", follow=follow, since=since):
            event = answers.event(message)
            if as_json:
                say_json(checked.field(message, "event"), indent=None)
            else:
                say(f"{event.seq:>6}  {clock(event.at)}  {escape(event.text)}")
    return 0
