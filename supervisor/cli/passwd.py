"""`llama-router passwd`."""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from pathlib import Path
from typing import NoReturn

import click

from supervisor import access, directories
from supervisor.cli import checked
from supervisor.cli import state_dir as state_dirs
from supervisor.cli.asking import connect
from supervisor.cli.options import runtime_dir, runtime_dir_option
from supervisor.cli.state_dir import state_dir_option
from supervisor.cli.terminal import complain, escape, explain, say
from supervisor.core.access import MAX_BYTES, RoleName, UnusablePassword, check
from supervisor.errors import EX_DATAERR, RouterError


class CannotSet(RouterError):
    """The password that was given can't be set; the one before it stays."""

    exit_code = EX_DATAERR


@click.command("passwd", epilog="Example: llama-router passwd --viewer")
@click.option("--viewer", is_flag=True, help="The password of those who may look and use models, but change nothing.")
@click.option("--remove", is_flag=True, help="Let nobody sign in with it any more.")
@click.option("--stdin", is_flag=True, help="Read it from standard input, one line, instead of asking twice.")
@click.option("--link", is_flag=True, help="Print a link that signs in as admin once, such as when it is forgotten.")
@state_dir_option
@runtime_dir_option
def command(viewer: bool, remove: bool, stdin: bool, link: bool, state_dir: Path | None) -> int:
    """Set the password of the dashboard.

    It counts at once, and everybody who is signed in by the last one is signed out.
    """
    if link + stdin + remove > 1 or (link and viewer):
        raise click.UsageError("--link, --remove and --stdin do not go together, nor do --link and --viewer")
    if link:
        return _print_link(state_dir)
    role: RoleName = "viewer" if viewer else "admin"
    status = state_dirs.running()
    state = state_dirs.chosen(state_dir, status)
    if remove:
        return _remove(state, role)
    try:
        password = _given(sys.stdin.buffer.readline(MAX_BYTES + 3)) if stdin else _asked(role)
        if not state.is_dir():
            directories.make_private(state, tighten=False)
        access.set_password(state, role, password, complain)
    except UnusablePassword as error:
        raise CannotSet(f"cannot set this password: {error}") from None
    say(escape(f"{role}: password set in {state}; who was signed in is signed out"))
    state_dirs.explain_guess(state_dir, status)
    return 0


def _remove(state: Path, role: RoleName) -> int:
    found = state.is_dir() and access.remove_password(state, role, complain)
    say(f"{role}: password removed; who was signed in is signed out" if found else f"{role}: there is no password")
    if found and role == "admin":
        explain("To sign in as admin, run: llama-router passwd --link")
    return 0


def _print_link(state_dir: Path | None) -> int:
    """Raises NotRunning: a link is for one that runs."""
    with connect() as client:
        status = checked.table(client.call("status"), "status")
    runtime = directories.for_client(os.environ, runtime_dir())
    token = access.new_link(state_dirs.chosen(state_dir, status), runtime, complain)
    say(access.link_line(checked.text(status, "url"), token))
    return 0


def _given(line: bytes) -> str:
    try:
        return line.decode().rstrip("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UnusablePassword("it is not UTF-8") from None


def _asked(role: RoleName) -> str:
    """Asked for twice, without showing it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            password = getpass.getpass(f"New password of {role}: ")
            check(password)
            again = getpass.getpass("Once more: ")
        except getpass.GetPassWarning:
            _no_terminal()
        except EOFError:
            raise click.Abort from None
    if again != password:
        raise UnusablePassword("the two differ; try again")
    return password


def _no_terminal() -> NoReturn:
    raise click.UsageError(
        "there is no terminal to ask on; give the password as a line of standard input, with --stdin"
    )
