"""`llama-router unload`."""

from __future__ import annotations

import click

from supervisor.cli.actions import ENDED, act
from supervisor.cli.options import json_option, no_wait_option, runtime_dir_option


@click.command("unload", epilog="Example: llama-router unload qwen")
@click.argument("model")
@no_wait_option
@json_option
@runtime_dir_option
def command(model: str, wait: bool, as_json: bool) -> int:
    """Unload MODEL and wait until its process is gone."""
    return act("unload", model, goal=ENDED, wait=wait, as_json=as_json)
