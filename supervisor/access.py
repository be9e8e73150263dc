"""The files of core/access.py on disk: made, changed and locked. The web tier only reads them, and uses up the link.

Whoever changes one holds a lock on its directory (flock(2)) and replaces the file as a whole, so two at once and one
that is killed leave a file that can be read. Files that root writes into a directory of another user are that user's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.core import access
from supervisor.core.access import ACCESS_FILE, FAILURES_FILE, MAX_FILE, TOKEN_FILE, Access, RoleName
from supervisor.errors import CannotCreate

LOCK_SECONDS = 5.0
RETRY_SECONDS = 0.02
DAMAGED = f"{ACCESS_FILE}.damaged"

Tell = Callable[[str], None]


def set_password(state: Path, role: RoleName, password: str, tell: Tell) -> None:
    """End all sessions of `role`; from now on they begin with `password`. Raises UnusablePassword or CannotCreate."""
    access.check(password)
    with locked(state) as directory:
        found = directory.access(tell)
        directory.write(found.changed(role, access.hash_of(password, found.salt), _era()))


def remove_password(state: Path, role: RoleName, tell: Tell) -> bool:
    """Nobody signs in with a password as `role`, and all its sessions end. False if there was none; CannotCreate."""
    with locked(state) as directory:
        found = directory.access(tell)
        directory.write(found.changed(role, None, _era()))
        return found.of(role).hash is not None


def new_link(state: Path, runtime: Path, tell: Tell) -> str:
    """A new token for signing in as admin once; the last one is worth nothing any more. Raises CannotCreate."""
    return _new_link(known(state, tell), runtime)


def link_at_start(state: Path, runtime: Path, tell: Tell) -> str | None:
    """A token if there is no admin's password, else None: then an older link is worth nothing any more.

    What can't be written is told, and is no reason not to serve models.
    """
    try:
        found = known(state, tell)
        if found.admin.hash is None:
            return _new_link(found, runtime)
        (runtime / TOKEN_FILE).unlink(missing_ok=True)
    except OSError as error:
        tell(f"cannot remove {runtime / TOKEN_FILE}: {error.strerror or error}")
    except CannotCreate as error:
        tell(f"nobody can sign in to the dashboard: {error}")
    return None


def known(state: Path, tell: Tell) -> Access:
    """What access.json says, which is made if there is none. Raises CannotCreate."""
    with locked(state) as directory:
        return directory.access(tell)


def has_password(state: Path) -> bool:
    """Whether anybody can sign in with a password, as far as that can be read; makes no file."""
    try:
        with (state / ACCESS_FILE).open("rb") as file:
            found = access.parse(file.read(MAX_FILE + 1))
    except (OSError, ValueError):
        return False
    return found.admin.hash is not None or found.viewer.hash is not None


def forget(runtime: Path) -> None:
    """Remove what is of no use without a web tier."""
    for name in (TOKEN_FILE, FAILURES_FILE):
        with contextlib.suppress(OSError):
            (runtime / name).unlink()


def link_line(url: str, token: str) -> str:
    """What to do with a token. `url` is where people reach the web tier, or the address of its UNIX socket."""
    path = f"/ui/login?token={token}"
    return f"open {path} at what forwards to {url}" if url.startswith("unix:") else f"open {url}{path}"


class _Directory:
    """An open directory; everything in it is reached through its descriptor, whoever renames what meanwhile."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def access(self, tell: Tell) -> Access:
        """What access.json says; it is made if there is none, and anew if it is damaged."""
        try:
            return access.parse(self._read(ACCESS_FILE))
        except FileNotFoundError:
            pass
        except ValueError as error:
            os.replace(ACCESS_FILE, DAMAGED, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            tell(
                f"cannot use {self._path / ACCESS_FILE}: {error}; it is {DAMAGED} now, and all passwords and sessions "
                "are gone"
            )
        made = access.new(secrets.token_bytes(access.SECRET_BYTES), secrets.token_bytes(32), (_era(), _era()))
        self.write(made)
        return made

    def write(self, changed: Access) -> None:
        """Replace access.json."""
        self.replace(ACCESS_FILE, access.written(changed))

    def replace(self, name: str, data: bytes) -> None:
        """Write a file of mode 0600, whole or not at all."""
        new = f".{name}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(new, flags, 0o600, dir_fd=self._descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                self._give_away(descriptor)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(new, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=self._descriptor)
            raise

    def _give_away(self, descriptor: int) -> None:
        owner = os.fstat(self._descriptor)
        if os.geteuid() == 0 != owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def _read(self, name: str) -> bytes:
        """The first bytes, which core/access.py refuses if they are too many. Raises ValueError for what is no file."""
        if not stat.S_ISREG(os.lstat(name, dir_fd=self._descriptor).st_mode):
            raise ValueError("it is not a regular file")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._descriptor)
        try:
            return os.read(descriptor, MAX_FILE + 1)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[_Directory]:
    """The directory, nobody else changing its files. Raises CannotCreate, also for an OSError of the block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(descriptor)
            yield _Directory(path, descriptor)
        finally:
            os.close(descriptor)
    except TimeoutError:
        raise CannotCreate(
            f"cannot change files in {path}: another llama-router has been at it for {LOCK_SECONDS} s"
        ) from None
    except OSError as error:
        name = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise CannotCreate(f"cannot change files in {path}: {error.strerror or error}{name}") from None


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(RETRY_SECONDS)


def _new_link(found: Access, runtime: Path) -> str:
    token = secrets.token_urlsafe(32)
    with locked(runtime) as directory:
        directory.replace(TOKEN_FILE, access.token_file(token, found))
    return token


def _era() -> str:
    return secrets.token_hex(access.ERA_BYTES)
