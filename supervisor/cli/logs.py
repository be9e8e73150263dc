"""`llama-router logs`."""

from __future__ import annotations

import click

from supervisor.cli import answers, checked
from supervisor.cli.asking import connect, refused_as
from supervisor.cli.options import json_option, runtime_dir_option
from supervisor.cli.terminal import clock, escape_log, say, say_json


@click.command("logs", epilog="Example: llama-router logs -f -n 20 qwen")
@click.argument("model")
@click.option("-f", "--follow", is_flag=True, help="Go on with lines as they are written.")
@click.option(
    "-n", "--lines", metavar="LINES", type=click.IntRange(min=0), default=100, show_default=True, help="How many."
)
@json_option
@runtime_dir_option
def command(model: str, follow: bool, lines: int, as_json: bool) -> int:
    """Print the log of MODEL; "@web" is the web tier.

    Control characters are shown as \\x1b and the like; --json has lines as they were written.
    """
    launch = None
    with connect(patient=follow) as client, refused_as(f"show the log of '{model}'", client, model):
        for message in client.stream("logs", model=model, lines=lines, follow=follow):
            line = answers.log_line(message)
            if as_json:
                say_json(checked.field(message, "line"), indent=None)
                continue
            if launch is not None and line.launch != launch:
                say(f"-- process {line.pid} --" if line.pid else "-- another process --")
            launch = line.launch
            say(f"{clock(line.at)} {escape_log(line.text)}")
    return 0
