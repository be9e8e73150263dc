"""The files of a configuration: as they are on disk, or as they would be if one of them were written differently.

Each is read whenever it is asked for, and parsed only if its content is new: with a thousand presets in fifty files,
that is what makes checking each keystroke of an editor a matter of milliseconds.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from supervisor import yaml_positions
from supervisor.paths import printable
from supervisor.yaml_positions import Document
from supervisor.yaml_source import Made, Source, read_source

Content = tuple[str, bytes]


class Files:
    """What of the contents neither the last reading nor the one before asked for is forgotten."""

    def __init__(self) -> None:
        self._recent: dict[Content, tuple[Document, Made]] = {}
        self._older: dict[Content, tuple[Document, Made]] = {}

    def begin(self) -> None:
        """A reading of the whole configuration begins."""
        self._older, self._recent = self._recent, {}

    def open(self, path: Path) -> Source:
        """Read and parse a file. Raises ConfigurationError."""
        return self.source(path, read_source(path))

    def names(self, directory: Path) -> list[str]:
        """The names in a directory. Raises OSError."""
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries]

    def source(self, path: Path, data: bytes) -> Source:
        """The file at `path`, if it held `data`. Raises ConfigurationError."""
        key = (str(path), hashlib.sha256(data).digest())
        known = self._recent.get(key) or self._older.get(key)
        if known is None:
            known = yaml_positions.parse(data, printable(path)), {}
        self._recent[key] = known
        return Source(path, *known)


class Edited(Files):
    """The same as `files`, but that the file at `path` holds `data`, or is not there (None)."""

    def __init__(self, files: Files, path: Path, data: bytes | None) -> None:
        self._files = files
        self._path = path
        self._data = data

    def begin(self) -> None:
        self._files.begin()

    def open(self, path: Path) -> Source:
        if path == self._path and self._data is not None:
            return self.source(path, self._data)
        return self._files.open(path)

    def names(self, directory: Path) -> list[str]:
        names = self._files.names(directory)
        if directory != self._path.parent:
            return names
        return [name for name in names if name != self._path.name] + [self._path.name] * (self._data is not None)

    def source(self, path: Path, data: bytes) -> Source:
        return self._files.source(path, data)
