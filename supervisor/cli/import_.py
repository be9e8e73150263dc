"""`llama-router import`."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.options import json_option, path_option
from supervisor.cli.terminal import escape, explain, say, say_json
from supervisor.errors import EX_FAILED, CannotCreate, CannotOpen

if TYPE_CHECKING:
    from supervisor.importing.draft import Imported

KINDS = ("llama-server", "llama-swap")
MODE = 0o644
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


@click.command("import", epilog="Example: llama-router import config.yaml --output /etc/llama-router/presets.d")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "kind", type=click.Choice(KINDS), help="Whose file it is; else its content tells.")
@path_option("--output", metavar="DIR", text="Write DIR/imported-NAME.yaml instead of printing; never overwrites.")
@json_option
def command(file: Path, kind: str | None, output: Path | None, as_json: bool) -> int:
    """Turn the file of another program into presets.

    It may be llama-server's models.ini or llama-swap's config.yaml. What can't come
    along is told on standard error, with its line and what to do instead; the exit
    code is then 1, and 0 if nothing is left to do.
    """
    # They bring pydantic, which no client command should wait for.
    from supervisor import importing
    from supervisor.importing import written, yaml_check

    found = importing.read(_content(file), file.absolute(), kind, os.environ)
    yaml_check.check(found, (output or Path()).absolute())
    text = written.to_yaml(found)
    path = _write(output, f"imported-{_UNFIT.sub('-', file.stem) or 'presets'}.yaml", text) if output else None
    if as_json:
        say_json(_as_json(found, text, path))
    elif path is None:
        say(text.rstrip("\n"))
    else:
        say(escape(f"wrote {path}: {_count(found)}"))
        for key, value in found.config.items():
            say(f"config.yaml should say: {key}: {value}")
    for remark in found.remarks:
        explain(str(remark))
    return EX_FAILED if found.remarks else 0


def _content(file: Path) -> bytes:
    from supervisor.yaml_source import read_file

    try:
        # Relative paths in the file become absolute ones in the YAML, which is UTF-8.
        str(file.absolute()).encode()
        return read_file(file)
    except OSError as error:
        raise CannotOpen(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeEncodeError:
        raise CannotOpen(f"cannot import {file}: its path is not UTF-8; copy it to another place") from None


def _write(directory: Path, name: str, text: str) -> Path:
    """Make the file `name`, whole or not at all. Raises CannotCreate if it exists or can't be made."""
    path = directory / name
    temporary = None
    try:
        # Hidden, so that a llama-router that watches the directory does not take it for presets.
        descriptor, temporary = tempfile.mkstemp(prefix=".imported-", dir=directory)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, MODE)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        # Unlike rename(2), link(2) fails if somebody else was faster.
        Path(path).hardlink_to(temporary)
    except FileExistsError:
        raise CannotCreate(f"cannot write {path}: it exists; remove it or choose another directory") from None
    except OSError as error:
        hint = "write it to standard output, without --output, and save that"
        raise CannotCreate(f"cannot write {path}: {error.strerror}; {hint}") from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
    return path


def _as_json(found: Imported, text: str, path: Path | None) -> dict[str, object]:
    return {
        "from": found.origin,
        "models": [draft.name for draft in found.drafts if draft.is_usable],
        "incomplete": [draft.name for draft in found.drafts if not draft.is_usable],
        "config": found.config,
        "remarks": [vars(remark) for remark in found.remarks],
        "yaml": text if path is None else None,
        "written": None if path is None else str(path),
    }


def _count(found: Imported) -> str:
    usable = sum(draft.is_usable for draft in found.drafts)
    more = f", and {len(found.drafts) - usable} to be completed" if usable < len(found.drafts) else ""
    return f"{usable} model{'' if usable == 1 else 's'}{more}"
