"""Prints the manual page llama-router(1), in roff, made from the commands themselves.

    manual.py [SECONDS]

SECONDS since 1970 is the page's date, as SOURCE_DATE_EPOCH has it; by default the page has none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import click

from supervisor import __version__, cli

NAME = "llama-router"
FILES = (
    ("/etc/llama-router/config.yaml", "The daemon's settings. A saved edit is applied by itself."),
    (
        "/etc/llama-router/presets.d/*.yaml",
        "The models. A saved edit is applied by itself; the dashboard edits them too.",
    ),
    ("/var/lib/llama-router/models", "Every GGUF file here is a model without a preset."),
    (
        "/var/lib/llama-router",
        "What is kept between runs: passwords, the history of presets and of requests, measurements.",
    ),
    ("/run/llama-router", "The control socket and the model servers' sockets."),
)
ENVIRONMENT = (
    ("LLAMA_ROUTER_CONFIG", "The configuration file, for run and check."),
    ("LLAMA_ROUTER_RUNTIME_DIR", "The directory of the control socket."),
    ("LLAMA_ROUTER_API_KEY", "A key of the API, or several separated by commas, for run."),
)
DOCUMENTATION = "/usr/share/doc/llama-router"


def page(seconds: int | None = None) -> Iterator[str]:
    """The lines of the page."""
    date = "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    yield f'.TH LLAMA\\-ROUTER 1 "{date}" "{NAME} {__version__}" "User commands"'
    program = cli.program
    context = click.Context(program, info_name=NAME, **program.context_settings)
    yield ".SH NAME"
    yield f"{plain(NAME)} \\- {plain((program.help or '').rstrip('.'))}"
    yield from synopsis(context)
    yield ".SH COMMANDS"
    for name in program.list_commands(context):
        yield from command(program.commands[name], context)
    yield ".SH FILES"
    yield from definitions(FILES)
    yield ".SH ENVIRONMENT"
    yield from definitions(ENVIRONMENT)
    yield ".SH EXIT STATUS"
    yield from literal((cli.__doc__ or "").partition("\n\n")[2])
    yield ".SH SEE ALSO"
    yield ".BR systemctl (1),"
    yield ".BR journalctl (1)"
    yield ".PP"
    yield plain(f"{DOCUMENTATION} has the whole documentation, and examples.")


def synopsis(context: click.Context) -> Iterator[str]:
    """How the program is called, and the options that stand before a command."""
    yield ".SH SYNOPSIS"
    yield f".B {plain(NAME)}"
    yield "[OPTIONS] COMMAND [ARGS]..."
    yield ".SH OPTIONS"
    yield from definitions(options(context))
    yield from (
        ".PP",
        plain("Every command takes --help too; run, and those that ask a running llama-router, take --runtime-dir."),
    )


def command(described: click.Command, parent: click.Context) -> Iterator[str]:
    """One command, or each of a group."""
    context = click.Context(described, parent, info_name=described.name)
    if isinstance(described, click.Group):
        for name in described.list_commands(context):
            yield from command(described.commands[name], context)
        return
    yield f".SS {plain(context.command_path)} {plain(' '.join(described.collect_usage_pieces(context)))}"
    for paragraph in re.split(r"\n\s*\n", described.help or ""):
        yield from (".PP", plain(" ".join(paragraph.split())))
    common = [term for term, _ in options(parent.find_root())]
    yield from definitions((term, meaning) for term, meaning in options(context) if term not in common)
    if described.epilog:
        yield from (".PP", plain(described.epilog))


def options(context: click.Context) -> Iterator[tuple[str, str]]:
    """Each option, as it is written, with what it does."""
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield record


def definitions(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A list of terms and what each means."""
    for term, meaning in pairs:
        yield from (".TP", f".B {plain(term)}", plain(meaning))


def literal(text: str) -> Iterator[str]:
    """Lines that keep their breaks and their columns."""
    yield from (".PP", ".nf", *(plain(line) for line in text.strip().splitlines()), ".fi")


def plain(text: str) -> str:
    """Text that roff prints as it is, and so that it can be copied from the page: groff_char(7)."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti").replace('"', "\\(dq")
    return "\\&" + escaped if escaped.startswith(".") else escaped


if __name__ == "__main__":
    print("\n".join(page(int(sys.argv[1]) if len(sys.argv) > 1 else None)))
