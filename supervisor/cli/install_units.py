"""`llama-router install-units`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.options import path_option
from supervisor.cli.terminal import escape, explain, say
from supervisor.directories import SYSTEM_CONFIG
from supervisor.errors import CannotCreate

if TYPE_CHECKING:
    from supervisor.unit_files import UnitFile

PRIVATE = (Path("/home"), Path("/root"), Path("/run/user"))
SYSTEM_NEXT = (
    "systemd-sysusers llama-router.conf",
    "systemd-tmpfiles --create llama-router.conf",
    "systemctl daemon-reload",
    "systemctl enable --now llama-router",
)
USER_NEXT = ("systemctl --user daemon-reload", "systemctl --user enable --now llama-router")


@click.command("install-units", epilog="Example: llama-router install-units --user")
@click.option("--user", is_flag=True, help="For your own systemd, instead of the system's.")
@path_option("--root", metavar="DIR", text="Write the system's files below DIR instead of /.")
@click.option("--print", "only_print", is_flag=True, help="Print the files and write nothing.")
@click.option("--force", is_flag=True, help="Replace files that somebody edited.")
def command(user: bool, root: Path | None, only_print: bool, force: bool) -> int:
    """Write systemd units that start this llama-router.

    This is for an installation without a package: a service, a socket, and for the
    system's what makes its user and directories. A file that somebody edited is left
    alone; your own settings belong into a drop-in (systemctl edit).
    """
    from supervisor import unit_files  # brings pydantic, which no other command should wait for

    if user and root is not None:
        raise click.UsageError("--root is for the system's units, not for --user")
    if not (user or only_print) and (packaged := unit_files.packaged(root or Path("/"))):
        raise CannotCreate(
            f"cannot write units: a package's is there, {packaged}, which they would hide; "
            "for settings of your own: systemctl edit llama-router; for your own systemd: install-units --user; "
            "to use this llama-router instead, remove the package first"
        )
    program = _program()
    files = _files(user, root or Path("/"), program)
    if only_print:
        for file in files:
            say(escape(f"# {file.path}"))
            say(file.text)
        return 0
    edited = [] if force else [str(file.path) for file in files if file.is_edited and file.text != file.present]
    if edited:
        raise CannotCreate(f"cannot write {', '.join(edited)}: edited by somebody; move it away, or use --force")
    written = unit_files.write(files)
    for file in files:
        say(escape(f"wrote {file.path}" if file.path in written else f"{file.path} is up to date"))
    for line in _advice(user, program):
        explain(escape(line))
    return 0


def _files(user: bool, root: Path, program: Path) -> list[UnitFile]:
    from supervisor import unit_files

    if not user:
        return unit_files.unit_files(unit_files.SYSTEM, root, program)
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.environ.get("HOME", ""), ".config")  # noqa: PTH118
    if not Path(base).is_absolute():
        raise CannotCreate("cannot choose a directory for the units: HOME is not set")
    return unit_files.unit_files(unit_files.USER, Path(base), program)


def _program() -> Path:
    """The console script of this installation. Raises CannotCreate if it has none."""
    script = Path(sys.executable).parent / "llama-router"
    if not os.access(script, os.X_OK):
        raise CannotCreate(f"cannot write units: there is no {script} for them to start; install llama-router with pip")
    return script


def _advice(user: bool, program: Path) -> list[str]:
    """What to do next, and what would keep it from working."""
    place, beside = ("~/.config/llama-router", ", and presets.d beside it") if user else (SYSTEM_CONFIG, "")
    lines = [f"write {place}/config.yaml, as in packaging/examples/{beside}, if there is none; then"]
    hidden = [path for path in (program, Path(sys.base_prefix)) if any(map(path.is_relative_to, PRIVATE))]
    if hidden and not user:
        lines.insert(
            0, f"notice: the service does not see {hidden[0]}, as homes are hidden from it: install below /opt"
        )
    return [*lines, "next:", *(f"  {each}" for each in (USER_NEXT if user else SYSTEM_NEXT))]
