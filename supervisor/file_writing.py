"""Replaces, makes and removes files of a directory so that whoever reads them finds the old one or the new one, whole.

Nothing is written through a symbolic link, and what people made of a file's mode and owner is kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor.yaml_source import read_file

# Hidden, so the files of presets and the watch on them know nothing of it.
TEMPORARY = ".llama-router-{}"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
        name = TEMPORARY.format(secrets.token_hex(8))
        try:
            _write(name, data, directory, old, mode)
            _check(path.name, directory, old)
            os.rename(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
            raise
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


def _write(name: str, data: bytes, directory: int, old: Present | None, mode: int) -> None:
    descriptor = os.open(name, _OPEN_NEW, mode if old is None else 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if old is not None:
            _like(descriptor, old.about)
        file.flush()
        os.fsync(descriptor)


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
    """Raises FileExistsError if another file is there than `old`."""
    try:
        about = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if old is None:
            return
        raise FileExistsError(errno.EEXIST, "it was removed meanwhile") from None
    if old is None or _stamp(about) != _stamp(old.about):
        raise FileExistsError(errno.EEXIST, "it was changed meanwhile")


def _stamp(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _sync(directory: int) -> None:
    """Some file systems can't; then the name is as safe as they make it."""
    with contextlib.suppress(OSError):
        os.fsync(directory)
