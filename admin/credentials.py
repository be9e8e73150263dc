"""What the web tier knows of passwords: access.json as it is at this moment, and the one-time link, used up once.

Every worker has its own; what they share is in the files.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
from gevent.lock import BoundedSemaphore

from admin.errors import log
from supervisor.core import access
from supervisor.core.access import ACCESS_FILE, MAX_FILE, TOKEN_FILE, Access, RoleName

HASHES_AT_ONCE = 2

Version = tuple[int, int, int, int]


class Credentials:
    """The files of `state_dir` and `runtime_dir`, looked at whenever they are asked for."""

    def __init__(self, state_dir: Path, runtime_dir: Path) -> None:
        self._path = state_dir / ACCESS_FILE
        self._runtime_dir = runtime_dir
        self._version: Version | None = None
        self._access: Access | None = None
        self._told = ""
        self._problem = ""
        self._room = BoundedSemaphore(HASHES_AT_ONCE)

    def access(self) -> Access | None:
        """Who may sign in now. None if that can't be read: then nobody may, and nobody is signed in."""
        try:
            found = self._path.lstat()
            version = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if version != self._version:
                self._access, self._version = access.parse(read_small(self._path)), version
                self._told = ""
        except (OSError, ValueError) as error:
            self._access = self._version = None
            self._problem = str(getattr(error, "strerror", None) or error)
            self._tell(f"nobody can sign in: cannot use {self._path}: {self._problem}")
        return self._access

    def problem(self) -> str | None:
        """Why nobody may; None if somebody may."""
        return None if self.access() is not None else self._problem

    def role_of(self, password: str) -> tuple[RoleName, Access] | None:
        """Whose password it is, and of what the session is to be; None for nobody's. It takes the same time whoever has
        one. Runs in a thread, a few of them at once."""
        known = self.access()
        if known is None or access.is_too_long(password):
            return None
        with self._room:
            hashed = gevent.get_hub().threadpool.apply(access.hash_of, (password, known.salt))
        known = self.access()  # it may have been changed meanwhile
        role = known.role_of(hashed) if known is not None else None
        return (role, known) if known is not None and role is not None else None

    def of_link(self, token: str) -> Access | None:
        """What `use_link` would be."""
        known = self.access()
        try:
            good = known is not None and access.is_token(token, read_small(self._runtime_dir / TOKEN_FILE), known)
        except (OSError, ValueError):
            good = False
        return known if good else None

    def use_link(self, token: str) -> Access | None:
        """Of what the admin's session is to be that the link begins: once, whichever workers ask at once; else None."""
        try:
            with _locked(self._runtime_dir):
                if (known := self.of_link(token)) is not None:
                    (self._runtime_dir / TOKEN_FILE).unlink()
                return known
        except OSError as error:
            log.error("cannot use up the link in %s: %s", self._runtime_dir, error.strerror or error)
            return None

    def _tell(self, line: str) -> None:
        """Once for each reason."""
        if line != self._told:
            log.error("%s", line)
        self._told = line


def read_small(path: Path) -> bytes:
    """A regular file's first bytes, which core/access.py refuses if they are too many; never waits for a FIFO. Raises
    OSError, or ValueError for what is no such file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        return os.read(descriptor, MAX_FILE + 1)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """As whoever writes a new link locks it. It is held for a moment, in which no greenlet is switched to."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # gevent's os.close leaves the closing to its loop
        os.close(descriptor)
