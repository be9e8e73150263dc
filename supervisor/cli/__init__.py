"""The command line, `llama-router`: one file a subcommand; this one joins them and turns errors into exit codes.

0    done; with `status MODEL`: it is ready          70   a bug in llama-router
1    the model failed, or the request was refused    73   a directory, socket or file cannot be made
3    not running, or `status MODEL`: not ready       74   standard output takes no more
4    no such model                                   75   another runs there, or a program is too slow
64   wrong usage                                     76   the control socket speaks something else
65   a file or a password that cannot be taken       78   the configuration has errors
66   a file that cannot be read                      130  Ctrl-C
69   nothing answers on the control socket           141  nobody reads standard output any more
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NoReturn

import click

from supervisor import __version__
from supervisor.cli.options import runtime_dir_option
from supervisor.cli.report import report, report_bug, report_usage
from supervisor.errors import EX_USAGE, RouterError

# What a shell reports for a program that SIGINT or SIGPIPE ended: 128 + the signal's number.
EX_INTERRUPTED = 130
EX_BROKEN_PIPE = 141


# The names of the subcommands, and the modules here that have them.
MODULES = {
    "run": "run",
    "check": "check",
    "status": "status",
    "queue": "queue",
    "load": "load",
    "unload": "unload",
    "restart": "restart",
    "reset-failed": "reset_failed",
    "logs": "logs",
    "events": "events",
    "reload": "reload",
    "key": "key",
    "reexec": "reexec",
    "passwd": "passwd",
    "import": "import_",
    "install-units": "install_units",
    "schema": "schema",
}


class Commands(Mapping[str, click.Command]):
    """The subcommands, each imported when it is asked for: half of the time of a short one is importing."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = import_module(f"{__name__}.{MODULES[name]}").command
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class Program(click.Group):
    """A click group that ends with this program's exit codes and a line for an error."""

    def main(self, *arguments: Any, **settings: Any) -> NoReturn:
        """Parse, run, exit. Raises SystemExit, always."""
        _print_anything()
        sys.exit(self._exit_code(*arguments, **settings))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand and return its exit code; errors of llama-router end here."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return EX_BROKEN_PIPE
        except RouterError as error:
            return report(error)

    def _exit_code(self, *arguments: Any, **settings: Any) -> int:
        settings["standalone_mode"] = False
        try:
            return super().main(*arguments, **settings) or 0
        except click.Abort:
            return EX_INTERRUPTED
        except click.ClickException as error:
            report_usage(error)
            return EX_USAGE
        except Exception as error:
            return report_bug(error)


def main() -> NoReturn:
    """The entry point of the installed script."""
    program.main(prog_name="llama-router")


def _print_anything() -> None:
    """A closed stream, a locale that lacks a character, or half a surrogate pair is no reason to fail."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123  as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@click.group(
    "llama-router",
    cls=Program,
    commands=Commands(),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: llama-router status",
)
@click.version_option(__version__, prog_name="llama-router", message="%(prog)s %(version)s")
@runtime_dir_option
def program() -> None:
    """Run many local language models behind one OpenAI-compatible endpoint."""
