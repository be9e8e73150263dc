"""`llama-router restart`."""

from __future__ import annotations

import click

from supervisor.cli.actions import RUNNING, act
from supervisor.cli.options import json_option, no_wait_option, runtime_dir_option


@click.command("restart", epilog="Example: llama-router restart qwen")
@click.argument("model")
@no_wait_option
@json_option
@runtime_dir_option
def command(model: str, wait: bool, as_json: bool) -> int:
    """Restart MODEL and wait until it can answer."""
    return act("restart", model, goal=RUNNING, wait=wait, as_json=as_json)
