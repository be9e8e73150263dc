"""Making access.json something that is none."""

from __future__ import annotations

import os
from pathlib import Path


def damage(path: Path, how: str) -> None:
    """`how`: cut off, a FIFO, a directory, a link, huge or not JSON; anything else: gone."""
    if how == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
        return
    path.unlink()
    if how == "a FIFO":
        os.mkfifo(path)
    elif how == "a directory":
        path.mkdir()
    elif how == "a link":
        path.symlink_to("/dev/zero")
    elif how == "huge":
        path.write_bytes(b" " * 2**20)
    elif how == "not JSON":
        path.write_bytes(b"[" * 4000)
