"""Entries by key that are remembered over restarts: in memory, and in a JSON file of the state directory.

None of it is worth failing for. What of the file can't be used is left out and told, and where it can't be written,
that is told and tried again at the next `save`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from supervisor.core.quantities import readable_size, shown
from supervisor.paths import printable

# Above what `needs` keeps of as many files as models_dir looks at, some 5 KiB of each. What is larger is none of ours.
MAX_FILE = 256 * 2**20
# What a file of another version has here is not read.
FORMAT = 1

Entry = TypeVar("Entry")
Tell = Callable[[str], None]


class _File(msgspec.Struct):
    """The file, its entries not yet looked into: one that is damaged must not cost the others."""

    format: int
    entries: dict[str, msgspec.Raw]


class _Written(msgspec.Struct):
    format: int
    entries: Mapping[str, object]


class Book(Generic[Entry]):
    """Entries of one kind, the latest last. `path` None: in memory only."""

    def __init__(
        self,
        path: Path | None,
        kind: type[Entry],
        tell: Tell,
        is_sound: Callable[[Entry], bool] = lambda _entry: True,
    ) -> None:
        """`tell` gets a line when the file can't be read or written; `is_sound` says of an entry that is of the right
        types whether it can be used."""
        self._path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._tell = tell
        self._is_sound = is_sound
        self._unwritable: str | None = None
        self._changed = False
        self._entries = self._read()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """The entry, if there is one."""
        return self._entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, in the place of another one."""
        if self._entries.get(key) != entry:
            self._entries.pop(key, None)
            self._entries[key] = entry
            self._changed = True

    def drop(self, key: str) -> None:
        """Forget an entry."""
        self._changed |= self._entries.pop(key, None) is not None

    def trim(self, most: int, keep: Collection[str]) -> None:
        """Forget the oldest entries that are none of `keep`, down to `most`."""
        strangers = (key for key in list(self._entries) if key not in keep)
        for key in itertools.islice(strangers, max(len(self._entries) - most, 0)):
            self.drop(key)

    def detach(self) -> None:
        """Write nothing down any more."""
        self._path = None

    def save(self) -> None:
        """Replace the file as a whole, if anything changed since it was."""
        if not self._changed or self._path is None or not self._path.parent.is_dir():
            return
        new = self._path.with_name(f".{self._path.name}.new")
        unwritable = None
        try:
            content = msgspec.json.encode(_Written(FORMAT, self._entries))
            new.unlink(missing_ok=True)  # whatever lies there: opening a FIFO would wait for its reader
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            new.replace(self._path)
            self._changed = False
        except UnicodeError:
            unwritable = "a path in it is not Unicode"
        except OSError as error:
            unwritable = f"{printable(Path(os.fsdecode(error.filename or new)))}: {error.strerror or error}"
        if unwritable is not None:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
        self._tell_unwritable(unwritable)

    def _tell_unwritable(self, why: str | None) -> None:
        """Once for each reason, as long as it lasts."""
        if why is not None and why != self._unwritable:
            self._tell(f"cannot write {self._name}: {why}; it is tried again at the next change")
        self._unwritable = why

    @property
    def _name(self) -> str:
        return printable(self._path) if self._path is not None else ""

    def _read(self) -> dict[str, Entry]:
        """What of the file can be used."""
        if self._path is None:
            return {}
        try:
            if self._path.exists() and not self._path.is_file():
                raise OSError("it is not a regular file")
            if self._path.exists() and self._path.stat().st_size > MAX_FILE:
                raise OSError(f"it has more than {readable_size(MAX_FILE)}")
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            self._tell(
                f"cannot use {self._name}: {getattr(error, 'strerror', None) or error}; what it held is found anew"
            )
            return {}
        return self._decoded(file) if file.format == FORMAT else {}

    def _decoded(self, file: _File) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        bad: list[str] = []
        for key, raw in file.entries.items():
            try:
                entry = self._decoder.decode(raw)
                if not self._is_sound(entry):
                    raise ValueError("it holds what can't be")
                entries[key] = entry
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                bad.append(f"{shown(key, 200)}: {error}")
        if bad:
            self._changed = True
            self._tell(
                f"ignored {len(bad)} of {len(file.entries)} entries in {self._name}, which are damaged and found anew; "
                f"the first is {bad[0]}"
            )
        return entries
