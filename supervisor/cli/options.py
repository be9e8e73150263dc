"""Options that several subcommands share.

--runtime-dir is accepted before and after the subcommand; the latter wins. Values travel in click's context, not as
parameters, so that a subcommand's function has only what is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

RUNTIME_DIR = "supervisor.cli.runtime_dir"
JSON = "supervisor.cli.json"


def path_option(*names: str, metavar: str, text: str) -> Callable[[F], F]:
    """An option that takes a path, which need not exist."""
    return click.option(*names, metavar=metavar, type=click.Path(path_type=Path), help=text)


def runtime_dir_option(function: F) -> F:
    """Adds --runtime-dir; `runtime_dir` tells what it said."""
    return click.option(
        "--runtime-dir",
        metavar="DIR",
        type=click.Path(path_type=Path),
        callback=_remember_runtime_dir,
        expose_value=False,
        help="Directory of the control socket.",
    )(function)


def json_option(function: F) -> F:
    """Adds --json as the parameter `as_json`; with it, errors are told as JSON on standard output as well."""
    return click.option(
        "--json", "as_json", is_flag=True, callback=_remember_json, is_eager=True, help="Print JSON for programs."
    )(function)


def no_wait_option(function: F) -> F:
    """Adds --no-wait as the parameter `wait`."""
    return click.option("--no-wait", "wait", flag_value=False, default=True, help="Do not wait until it is done.")(
        function
    )


def runtime_dir() -> Path | None:
    """The value of --runtime-dir, wherever it stood."""
    value: Path | None = click.get_current_context().meta.get(RUNTIME_DIR)
    return value


def _remember_runtime_dir(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[RUNTIME_DIR] = value


def _remember_json(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    context.meta[JSON] = value
    return value
