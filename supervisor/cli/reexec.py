"""`llama-router reexec`."""

from __future__ import annotations

import click

from supervisor.cli import checked
from supervisor.cli.asking import connect, refused_as
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.terminal import escape, say, say_json


@click.command("reexec", epilog="Example: llama-router reexec")
@json_option
@runtime_dir_option
def command(as_json: bool) -> int:
    """Go on as the version installed by now, unloading nothing.

    The supervisor becomes the new program in its place. Models, requests and waiting
    clients go on, and the new web tier takes over from the old one, which finishes
    the answers that it streams.

    If there is any doubt whether that works, nothing happens, and the reason is told.
    """
    with connect(patient=True) as client, refused_as("reexec", client):
        answer = client.call("reexec")
    told = checked.table(answer, "reexec")
    version, before = checked.text(told, "version"), checked.text(told, "before")
    if as_json:
        say_json(answer)
    elif version == before:
        say(f"llama-router {escape(version)} was started anew in its place")
    else:
        say(f"llama-router {escape(version)} runs in place of {escape(before)}")
    return 0
