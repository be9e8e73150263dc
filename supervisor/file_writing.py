"""Replaces, makes and removes files of a directory so that whoever reads them finds the old one or the new one, whole.

Nothing is written through a symbolic link, and what people made of a file's mode and owner is kept. What a kill left
half written is cleared away by the next write in the same directory: such a file is locked (flock(2)) for as long as
its writer lives.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from supervisor.yaml_source import read_file

# Hidden, so the files of presets and the watch on them know nothing of it.
TEMPORARY = ".llama-router-{}"
_TEMPORARY = re.compile(re.escape(TEMPORARY.format("")) + "[0-9a-f]{16}")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# File systems without hard links (vfat, some of FUSE's) refuse them in one of these ways.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class Present:
    """A file as it is: its content and what is known of it."""

    data: bytes
    about: os.stat_result


def present(path: Path) -> Present | None:
    """The regular file at `path`; None if there is none. Raises OSError, of a symbolic link too (ELOOP)."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(about.st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed; edit what it leads to on the machine")
    return Present(read_file(path), about)


def replace(path: Path, data: bytes, old: Present | None, *, mode: int = 0o666) -> None:
    """Put `data` where `old` is. `mode` is that of a new file, less the umask. Raises OSError; nothing is changed then.

    FileExistsError: it is not `old` any more that is there.
    """
    with _opened(path.parent) as directory:
        _clear(directory)
        with _temporary(directory, mode if old is None else 0o600) as (name, file):
            file.write(data)
            if old is not None:
                _like(file.fileno(), old.about)
            file.flush()
            os.fsync(file.fileno())
            _check(path.name, directory, old)
            _name(name, path.name, directory, is_new=old is None)
        _sync(directory)


def remove(path: Path, old: Present) -> None:
    """Take `old` away. Raises OSError as `replace` does."""
    with _opened(path.parent) as directory:
        _check(path.name, directory, old)
        os.unlink(path.name, dir_fd=directory)
        _sync(directory)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, _OPEN_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _clear(directory: int) -> None:
    """Remove what writers that were killed have left. Other users' and locked files stay, and nothing is raised."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for name in [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                descriptor = os.open(name, _OPEN_OLD, dir_fd=directory)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=directory)
                finally:
                    os.close(descriptor)


@contextlib.contextmanager
def _temporary(directory: int, mode: int) -> Iterator[tuple[str, BinaryIO]]:
    """A new file, locked, under a name that it no longer has in the end."""
    while True:
        name = TEMPORARY.format(secrets.token_hex(8))
        descriptor = os.open(name, _OPEN_NEW, mode, dir_fd=directory)
        with os.fdopen(descriptor, "wb") as file:
            if not _locked(descriptor):
                continue  # cleared away between its making and its locking
            try:
                yield name, file
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=directory)
            return


def _locked(descriptor: int) -> bool:
    """Whether a new file is its writer's. Where there are no locks, nobody clears anything away either."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return os.fstat(descriptor).st_nlink > 0


def _name(temporary: str, name: str, directory: int, *, is_new: bool) -> None:
    """Give the file its name. A new one by link(2), which unlike rename(2) takes no name from a file of others."""
    if is_new:
        try:
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _like(descriptor: int, about: os.stat_result) -> None:
    """Owner and mode as they were. Who may not give a file away may still give it to a group of theirs."""
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (about.st_uid, about.st_gid):
        try:
            os.fchown(descriptor, about.st_uid, about.st_gid)
        except OSError:
            with contextlib.suppress(OSError):
                os.fchown(descriptor, -1, about.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(about.st_mode) & 0o777)


def _check(name: str, directory: int, old: Present | None) -> None:
    """Raises FileExistsError if another file is there than `old`, or another content.

    Times alone do not tell: clocks of file systems tick in milliseconds, and a second edit may be as long as the first.
    """
    try:
        about = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if old is None:
            return
        raise FileExistsError(errno.EEXIST, "it was removed meanwhile") from None
    if old is None or _stamp(about) != _stamp(old.about) or _content(name, directory, len(old.data)) != old.data:
        raise FileExistsError(errno.EEXIST, "it was changed meanwhile")


def _content(name: str, directory: int, size: int) -> bytes | None:
    """A file of that size; None if it is no such file by now."""
    try:
        descriptor = os.open(name, _OPEN_OLD, dir_fd=directory)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(size + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _stamp(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _sync(directory: int) -> None:
    """Some file systems can't; then the name is as safe as they make it."""
    with contextlib.suppress(OSError):
        os.fsync(directory)
