"""`llama-router schema`."""

from __future__ import annotations

import click

from supervisor.cli.terminal import say_json

KINDS = ("config", "presets")


@click.command("schema", epilog="Example: llama-router schema presets > presets.schema.json")
@click.argument("kind", type=click.Choice(KINDS), default="presets", metavar="[config|presets]")
def command(kind: str) -> int:
    """Print the JSON Schema of a kind of file.

    An editor with a YAML language server completes and checks a file that begins
    with a line such as: # yaml-language-server: $schema=presets.schema.json
    """
    # It brings pydantic, which no client command should wait for.
    from supervisor.core import schema

    say_json(schema.config() if kind == "config" else schema.presets())
    return 0
