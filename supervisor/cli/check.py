"""`llama-router check`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from supervisor.cli.options import json_option, path_option
from supervisor.cli.report import tell
from supervisor.cli.terminal import escape, say, say_json
from supervisor.directories import config_file
from supervisor.errors import ConfigurationError, Problem


@click.command("check", epilog="Example: llama-router check --config ./config.yaml")
@path_option("--config", metavar="FILE", text="The configuration file.")
@json_option
def command(config: Path | None, as_json: bool) -> int:
    """Print everything wrong with the configuration."""
    # It brings pydantic, which no client command should wait for.
    from supervisor import presets_dir

    try:
        configuration = presets_dir.load(config_file(os.environ, config))
    except ConfigurationError as error:
        if as_json:
            say_json(_as_json(problems=error.problems))
        return tell(error)
    names = sorted(configuration.presets)
    if as_json:
        say_json(_as_json(notices=configuration.notices, models=names))
        return 0
    files = len({origin.file for origin in configuration.origins.values()})
    say(f"{_count(len(names), 'model')} in {_count(files, 'file')} {'is' if len(names) == 1 else 'are'} fine")
    for notice in configuration.notices:
        say(escape(f"notice: {notice}"))
    return 0


def _as_json(
    problems: Sequence[Problem] = (), notices: Sequence[Problem] = (), models: Sequence[str] = ()
) -> dict[str, object]:
    return {
        "ok": not problems,
        "problems": [vars(problem) for problem in problems],
        "notices": [vars(notice) for notice in notices],
        "models": list(models),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
