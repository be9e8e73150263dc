"""The path of a UNIX socket: removed in the end, but only if it still is the socket that was bound there."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

Identity = tuple[int, int]  # st_dev and st_ino


class Bound(msgspec.Struct, frozen=True):
    """A bound socket that one program hands over to another: the descriptor, and the path's identity."""

    fd: int
    identity: Identity


class BoundPath:
    """Make one right after bind. Somebody may have removed the path since, and bound another socket in its place."""

    def __init__(self, path: Path, identity: Identity | None = None) -> None:
        self.path = path
        self._identity = identity or _identity(path)

    def handed_over(self, fd: int) -> Bound:
        """For another program that is given the socket as descriptor `fd`."""
        return Bound(fd, self._identity)

    def remove(self) -> None:
        """Remove the path unless it has become another's; harmless if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def _identity(path: Path) -> Identity:
    found = path.lstat()
    return found.st_dev, found.st_ino
