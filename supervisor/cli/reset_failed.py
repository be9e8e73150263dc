"""`llama-router reset-failed`."""

from __future__ import annotations

import click

from supervisor.cli import answers
from supervisor.cli.asking import connect, refused_as
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.report import tell
from supervisor.cli.terminal import escape, say, say_json
from supervisor.client import Client
from supervisor.errors import Refused
from supervisor.protocol import Message, refusal


@click.command("reset-failed", epilog="Example: llama-router reset-failed qwen")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@json_option
@runtime_dir_option
def command(models: tuple[str, ...], as_json: bool) -> int:
    """Forgive the failure of each MODEL, or of all.

    Requests may load it again; the failures that count towards its restart limit are forgotten.
    """
    with connect() as client:
        names = list(models) or _failed(client)
        outcomes = [_reset(client, name) for name in names]
    done = [answers.model(outcome) for outcome in outcomes if not isinstance(outcome, Refused)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    if as_json:
        bodies = [outcome["model"] for outcome in outcomes if not isinstance(outcome, Refused)]
        errors = [refusal(error)["error"] for error in refused]
        say_json({"ok": not refused, "models": bodies, "errors": errors})
    else:
        for model in done:
            say(escape(f"{model.name}: reset"))
        if not names:
            say("no model has failed")
    return max(map(tell, refused), default=0)


def _failed(client: Client) -> list[str]:
    status = answers.status(client.call("status"))
    return [model.name for model in status.models if model.state == "failed"]


def _reset(client: Client, name: str) -> Message | Refused:
    """The answer, or the refusal: one model's must not keep the others from being reset."""
    try:
        with refused_as(f"reset '{name}'", client, name):
            return client.call("reset", model=name)
    except Refused as error:
        return error
