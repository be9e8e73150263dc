"""web.api_key_file: what is in it, and whether it can be used. The web tier reads it by itself, whenever it changes."""

from __future__ import annotations

from pathlib import Path

from supervisor.core import keys
from supervisor.paths import printable

MAX_FILE = 1024 * 1024


def problem(file: Path) -> str | None:
    """Why there are no keys in it; None if there are."""
    why = _why_not(file)
    return None if why is None else f"cannot take keys from {printable(file)}: {why}"


def read(file: Path) -> dict[int, bytes]:
    """Its keys, by line. Raises OSError."""
    with file.open("rb") as opened:
        content = opened.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise OSError(None, f"it has more than {MAX_FILE} bytes")
    return keys.in_file(content)


def _why_not(file: Path) -> str | None:
    try:
        return None if read(file) else "there is none in it; write one in each line"
    except OSError as error:
        return error.strerror or str(error)
