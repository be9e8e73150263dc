"""The path of a UNIX socket: removed in the end, but only if it still is the socket that was bound there."""

from __future__ import annotations

import contextlib
from pathlib import Path


class BoundPath:
    """Make one right after bind. Somebody may have removed the path since, and bound another socket in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the path unless it has become another's; harmless if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
