"""`llama-router reload`."""

from __future__ import annotations

import click

from supervisor.cli import answers
from supervisor.cli.asking import connect, refused_as
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.terminal import escape, say, say_json
from supervisor.core import reload_words


@click.command("reload", epilog="Example: llama-router reload")
@json_option
@runtime_dir_option
def command(as_json: bool) -> int:
    """Reread the configuration and apply what differs, now.

    llama-router does the same by itself when a file changes; this is for where it
    can't see that, such as a network file system, and to be told the outcome.

    Models that are the same go on as they are. With any error, nothing changes.
    """
    with connect() as client, refused_as("reload", client):
        answer = client.call("reload")
    told = answers.changes(answer)
    if as_json:
        say_json(answer)
        return 0
    say(escape(reload_words.did(told)))
    for line in reload_words.later(told):
        say(escape(f"notice: {line}"))
    return 0
