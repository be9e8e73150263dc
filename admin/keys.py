"""The keys of the API as they are at this moment: those of keys.db, of the environment and of llama-server's file form.

Every worker holds them, by what is kept of each, and looks with every request whether that is still true: at the file's
name, and at a number in it. What can't be read is never taken for "no keys".
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from admin.errors import log
from supervisor import keys_db
from supervisor.core import keys
from supervisor.core.keys import KEYS_FILE, OF_FILE, OF_VARIABLE, Key
from supervisor.errors import Refused

BUSY_SECONDS = 0.25  # for which a worker may stand still: readers wait for nobody but one who opens the file anew
RETRY_SECONDS = 5.0
MAX_FILE = 1024 * 1024

ByHash = Mapping[bytes, Key]


@dataclass(frozen=True)
class Known:
    """The keys of a moment, and whether nobody may use the API without one."""

    groups: tuple[ByHash, ...]
    are_needed: bool

    def find(self, secret: bytes) -> Key | None:
        """The key that is shown; None for what is none, or is one no more.

        Hashes are looked up: the time that takes tells nothing of a key, as a guess has nothing in common with the hash
        of another one.
        """
        hashed = keys.digest(secret)
        key = next((group[hashed] for group in self.groups if hashed in group), None)
        return key if key is not None and key.is_good(time.time()) else None


class Keys:
    """All of them. `keyless`: who has none may use everything while there is none."""

    def __init__(self, state_dir: Path, hashes: Iterable[bytes], key_file: Path | None, keyless: bool) -> None:
        """`hashes` are core.keys.digest's of the environment's keys."""
        self._environment = {each: Key(None, f"{OF_VARIABLE}:{number}") for number, each in enumerate(hashes, 1)}
        self._database = _Database(state_dir / KEYS_FILE)
        self._file = None if key_file is None else _File(key_file)
        self._keyless = keyless
        self._told = ""

    @classmethod
    def of_environment(cls, state_dir: Path, environment: Mapping[str, str]) -> Self:
        """As the supervisor tells it; what it does not tell is closed."""
        hashes = [bytes.fromhex(each) for each in environment.get("LLAMA_ROUTER_KEY_HASHES", "").split()]
        file = environment.get("LLAMA_ROUTER_KEY_FILE")
        return cls(state_dir, hashes, Path(file) if file else None, environment.get("LLAMA_ROUTER_KEYLESS") == "open")

    def now(self) -> Known:
        """Those of this moment. Raises Refused (503) if that can't be told."""
        stored, of_file = self._stored(), self._of_file()
        self._told = ""
        needed = not self._keyless or self._file is not None or bool(self._environment or stored)
        return Known((stored, self._environment, of_file), needed)

    def are_needed(self) -> bool:
        """Whether nobody may use the API without one, as far as that can be told."""
        try:
            return self.now().are_needed
        except Refused:
            return True

    def is_good(self, key: Key) -> bool:
        """Whether a key that was found would be found again."""
        try:
            known = self.now()
        except Refused:
            return False
        return key.is_good(time.time()) and any(key in group.values() for group in known.groups)

    def _stored(self) -> ByHash:
        try:
            return self._database.keys()
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(self._database.path, str(getattr(error, "strerror", None) or error)) from None

    def _of_file(self) -> ByHash:
        if self._file is None:
            return {}
        try:
            return self._file.keys()
        except OSError as error:
            raise self._unusable(self._file.path, error.strerror or str(error)) from None

    def _unusable(self, path: Path, why: str) -> Refused:
        """Told once in the log."""
        line = f"no key can be checked: cannot use {path}: {why}"
        if line != self._told:
            log.error("%s", line)
        self._told = line
        return Refused(line, status=503, retry_after=RETRY_SECONDS)


@dataclass
class _Database:
    path: Path
    _keys: ByHash = field(default_factory=dict)
    _connection: sqlite3.Connection | None = None
    _identity: tuple[int, int] | None = None
    _changes: int | None = None

    def __post_init__(self) -> None:
        self._directory = self.path.parent

    def keys(self) -> ByHash:
        """None where there is no file. Raises sqlite3.Error or OSError."""
        try:
            self._look()
        except BaseException:
            self._disconnect()
            raise
        return self._keys

    def _look(self) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            self._directory.stat()  # what is not there because nothing is there is no answer
            self._disconnect()
            return
        if stat.S_ISLNK(found.st_mode):  # what it leads to may be away, and may hold keys
            found = self.path.stat()
        if self._identity != (found.st_dev, found.st_ino):
            self._disconnect()
        if self._connection is None:
            self._connection = keys_db.connect(self.path, BUSY_SECONDS)
            self._identity = (found.st_dev, found.st_ino)
        changes = keys_db.changes(self._connection)
        if changes != self._changes:
            self._keys = {stored.hash: stored.key for stored in keys_db.stored(self._connection)}
            self._changes = changes

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._keys, self._connection, self._identity, self._changes = {}, None, None, None


@dataclass
class _File:
    path: Path
    _keys: ByHash = field(default_factory=dict)
    _version: tuple[int, ...] = ()

    def keys(self) -> ByHash:
        """Raises OSError."""
        found = self.path.stat()
        version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if version != self._version:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                content = os.read(descriptor, MAX_FILE + 1)
            finally:
                os.close(descriptor)
            if len(content) > MAX_FILE:  # its last key would be cut, and the piece a key
                raise OSError(None, f"it is larger than {MAX_FILE} bytes")
            self._keys = {
                keys.digest(line): Key(None, f"{OF_FILE}:{number}") for number, line in keys.in_file(content).items()
            }
            self._version = version
        return self._keys
