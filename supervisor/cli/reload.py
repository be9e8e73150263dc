"""`llama-router reload`."""

from __future__ import annotations

import click

from supervisor.cli import answers
from supervisor.cli.asking import connect, refused_as
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.terminal import escape, say, say_json


@click.command("reload", epilog="Example: llama-router reload")
@json_option
@runtime_dir_option
def command(as_json: bool) -> int:
    """Reread the configuration and apply what differs.

    Models that are the same go on as they are. With any error, nothing changes.
    """
    with connect() as client, refused_as("reload", client):
        answer = client.call("reload")
    changes = answers.changes(answer)
    if as_json:
        say_json(answer)
        return 0
    for what, names in (("added", changes.added), ("changed", changes.changed), ("removed", changes.removed)):
        if names:
            say(escape(f"{what}: {', '.join(names)}"))
    say(f"untouched: {changes.unchanged}")
    return 0
