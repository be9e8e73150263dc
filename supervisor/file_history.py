"""What files of presets held before they were saved in the browser: a folder for each, a file for each version."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor import file_writing
from supervisor.yaml_source import read_file

MOST_OF_A_FILE = 50
MOST_BYTES = 64 * 2**20
_BLOCK = 4096  # what the smallest file takes on disk

# "1760000000000000000-2c26…+3-1@192.0.2.7": when, what it held, and lines added and removed by the save that ended it.
_NAME = re.compile(
    r"(?P<at>[0-9]{1,20})-(?P<sha>[0-9a-f]{64})(\+(?P<added>[0-9]{1,9})-(?P<removed>[0-9]{1,9}))?(@(?P<by>[0-9A-Za-z.:]{1,45}))?"
)
_BY = re.compile(r"[0-9A-Za-z.:]{1,45}")


@dataclass(frozen=True)
class Version:
    """What a file held until it was saved `at` (ns since the epoch).

    That save `added` and `removed` so many lines; `by` is the address that it came from. None where it is not known.
    """

    path: Path
    at: int
    sha: str
    size: int
    added: int | None
    removed: int | None
    by: str | None


def sha_of(data: bytes) -> str:
    """By which two contents are told apart."""
    return hashlib.sha256(data).hexdigest()


def lines_changed(old: bytes, new: bytes) -> tuple[int, int]:
    """How many lines of `new` are not in `old`, and of `old` not in `new`. A line that was moved is none."""
    one, other = Counter(old.splitlines()), Counter(new.splitlines())
    return (other - one).total(), (one - other).total()


class History:
    """`directory` is made when it is first needed. `clock` tells ns since the epoch."""

    def __init__(self, directory: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._directory = directory
        self._clock = clock

    def keep(self, file: str, data: bytes, new: bytes = b"", by: str | None = None) -> None:
        """Keep a content that is about to be replaced with `new`, unless it is the latest one kept. Raises OSError.

        `by` is the address of who does it; whatever is no address is left out.
        """
        folder = self._directory / file
        for each in (self._directory, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        versions, sha = self.versions(file), sha_of(data)
        if versions and versions[0].sha == sha:
            return
        # A clock that was set back must not put it among the older ones.
        at = max(self._clock(), versions[0].at + 1 if versions else 0)
        added, removed = lines_changed(data, new)
        who = f"@{by}" if by and _BY.fullmatch(by) else ""
        file_writing.replace(folder / f"{at}-{sha}+{added}-{removed}{who}", data, None, mode=0o600)
        self._trim(file)

    def versions(self, file: str) -> list[Version]:
        """The versions of a file, the latest first. What has been damaged or put there by others is none."""
        return sorted(_versions(self._directory / file), key=lambda version: version.at, reverse=True)

    def content(self, file: str, at: int) -> bytes | None:
        """A version's content; None if it is not there, or not what it was. Raises OSError."""
        version = next((version for version in self.versions(file) if version.at == at), None)
        if version is None:
            return None
        data = read_file(version.path)
        return data if sha_of(data) == version.sha else None

    def _trim(self, file: str) -> None:
        for version in self.versions(file)[MOST_OF_A_FILE:]:
            version.path.unlink(missing_ok=True)
        everything = [version for folder in self._directory.iterdir() for version in _versions(folder)]
        everything.sort(key=lambda version: version.at)
        too_much = sum(max(version.size, _BLOCK) for version in everything) - MOST_BYTES
        for version in everything:
            if too_much <= 0:
                break
            version.path.unlink(missing_ok=True)
            too_much -= max(version.size, _BLOCK)
            with contextlib.suppress(OSError):  # not empty yet
                version.path.parent.rmdir()


def _versions(folder: Path) -> Iterator[Version]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # there is none, or it is no folder
        return
    for entry in entries:
        match = _NAME.fullmatch(entry.name)
        if match and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(OSError):
                size = entry.stat(follow_symlinks=False).st_size
                added, removed = (None if match[key] is None else int(match[key]) for key in ("added", "removed"))
                yield Version(Path(entry.path), int(match["at"]), match["sha"], size, added, removed, match["by"])
