"""`llama-router check`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.compare import Comparison, compare, config_in_use
from supervisor.cli.options import json_option, path_option, runtime_dir_option
from supervisor.cli.report import tell
from supervisor.cli.state_dir import chosen, running
from supervisor.cli.terminal import escape, say, say_json
from supervisor.core import reload_words
from supervisor.directories import config_file, is_config_named, unwritten
from supervisor.errors import ConfigurationError, Problem, RouterError

if TYPE_CHECKING:
    from supervisor.configuration import Configuration


@click.command("check", epilog="Example: llama-router check --config ./config.yaml")
@path_option("--config", metavar="FILE", text="The configuration file.")
@path_option(
    "--state-dir", metavar="DIR", text="Where its keys and passwords are; else as for the running one, or for run."
)
@json_option
@runtime_dir_option
def command(config: Path | None, state_dir: Path | None, as_json: bool) -> int:
    """Print everything wrong with the configuration.

    That is FILE, or else the one that the running llama-router uses. If nothing is
    wrong, and a llama-router runs with it, also print what it would change: it takes
    changed files over by itself, or when told to reload.
    """
    # It brings pydantic, which no client command should wait for.
    from supervisor import exposure, presets_dir
    from supervisor.memory import Memory

    hashes = exposure.take_keys()
    named = config if config or is_config_named(os.environ) else config_in_use()
    path = config_file(os.environ, named)
    try:
        configuration = presets_dir.load(path, Memory(None))
        if configuration.faults:
            raise ConfigurationError(list(configuration.faults))
        listen = configuration.config.listen
        admission = exposure.admission(configuration, listen, hashes)
        if not admission.keyless:
            wrong = exposure.problems(configuration, listen, _state(state_dir, path), admission)
            if wrong:
                raise ConfigurationError(wrong)
    except ConfigurationError as error:
        error.problems += unwritten(os.environ, named)
        if as_json:
            say_json(_as_json(problems=error.problems))
        return tell(error)
    names, comparison = sorted(configuration.presets), compare(path)
    notices = [*configuration.notices, *_unenforced(configuration, comparison)]
    if as_json:
        say_json(_as_json(notices=notices, models=names, comparison=comparison))
        return 0
    say(_found(configuration))
    for notice in notices:
        say(escape(f"notice: {notice}"))
    for line in _lines(comparison):
        say(escape(line))
    return 0


def _unenforced(configuration: Configuration, comparison: Comparison | None) -> list[Problem]:
    """Limits that the llama-router that runs can't enforce; nothing is known of any other."""
    if comparison is None or comparison.told is None:
        return []
    from supervisor.core.cgroups import unenforced

    found = {name: unenforced(preset, comparison.controllers) for name, preset in configuration.presets.items()}
    origins = configuration.origins
    return [
        Problem(origins[name].file, origins[name].line, f"models.{name}.limits", why)
        for name, why in found.items()
        if why is not None
    ]


def _state(state_dir: Path | None, config: Path) -> Path:
    """Of the llama-router that runs with `config`, or would."""
    try:
        status = running()
    except RouterError:
        status = None
    is_its = status is not None and status.get("config") == str(config)
    return chosen(state_dir, status if is_its else None)


def _found(configuration: Configuration) -> str:
    written, found = configuration.written(), configuration.found()
    files = len({configuration.origins[name].file for name in written})
    words = f"{_count(len(written), 'model')} in {_count(files, 'file')}"
    if found:
        words += f", {len(found)} in {escape(str(configuration.models_dir))}"
    return f"{words} {'is' if len(written) + len(found) == 1 else 'are'} fine"


def _lines(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return []
    lines = [f"notice: {comparison.notice}"] if comparison.notice else []
    lines += [f"  {problem}" for problem in comparison.problems]
    if comparison.told is not None:
        lines.append(reload_words.would(comparison.told))
        lines += [f"notice: {line}" for line in reload_words.later(comparison.told)]
    return lines


def _as_json(
    problems: Sequence[Problem] = (),
    notices: Sequence[Problem] = (),
    models: Sequence[str] = (),
    comparison: Comparison | None = None,
) -> dict[str, object]:
    return {
        "ok": not problems,
        "problems": [vars(problem) for problem in problems],
        "notices": [vars(notice) for notice in notices],
        "models": list(models),
        "reload": comparison.as_json() if comparison is not None else None,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
