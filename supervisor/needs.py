"""How much memory each preset needs: what was measured of its servers once, else an estimate from its GGUF file.

Both are remembered over restarts, in two files of the state directory: `models.json` holds what the headers of GGUF
files say, `measured.json` what servers took. Neither is worth failing for: a file that can't be read counts as empty,
and one that can't be written is written at the next change.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import msgspec

from supervisor import gguf_file
from supervisor.core.estimate import estimate
from supervisor.core.need import UNKNOWN, Need
from supervisor.core.preset import Preset
from supervisor.core.quantities import MAX_SIZE
from supervisor.core.reload import LAUNCH_KEYS
from supervisor.core.shape import Shape
from supervisor.errors import CannotReadModel, NotAModel

MAX_SHAPES = 1_000
MAX_MEASURES = 10_000
MAX_FILE = 64 * 2**20
# Of both files; what another version wrote is not read.
FORMAT = 1

Entry = TypeVar("Entry")
# What tells one content of a file from another: its size, and when it was changed in ns. None: there is no such file.
Stamp = tuple[int, int] | None
Stamps = dict[str, Stamp]

# Of what a server is started with, all but how it is watched.
_FINGERPRINT_KEYS = set(LAUNCH_KEYS - {"ready", "watchdog"})


Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]


class _Known(msgspec.Struct):
    """What the files of a model say that have these stamps; None if they can't be read, and why if they are none."""

    stamps: Stamps
    shape: Shape | None
    why_not: str | None = None


class _Measure(msgspec.Struct):
    """Bytes by device that were measured of a preset's servers. The name is for people who look into the file."""

    name: str
    shared: dict[str, Amount]
    each: dict[str, Amount]


class _File(msgspec.Struct, Generic[Entry]):
    format: int
    entries: dict[str, Entry]


class Needs:
    """What presets need. Nothing here raises: a need that can't be found out is UNKNOWN."""

    def __init__(self, state_dir: Path | None, gpus: int) -> None:
        """`gpus` is how many the machine has. Without `state_dir` nothing is remembered or recalled."""
        self.gpus = gpus
        self._in_use: set[str] = set()
        self._shapes = _Book(state_dir and state_dir / "models.json", _Known)
        self._measures = _Book(state_dir and state_dir / "measured.json", _Measure)

    def of(self, presets: Mapping[str, Preset]) -> dict[str, Need]:
        """The need of each preset, by name. Reads the headers of files that were not read before, some 20 ms each."""
        looked: Stamps = {}
        prints = {name: _fingerprint(preset, self.gpus, looked) for name, preset in presets.items()}
        needs = {name: self._of(preset, prints[name], looked) for name, preset in presets.items()}
        self._shapes.trim(MAX_SHAPES, {preset.model for preset in presets.values() if preset.model})
        self._shapes.save()
        self._in_use = set(prints.values())
        return needs

    def remember(self, name: str, preset: Preset, need: Need) -> None:
        """Keep what was measured of the servers of `preset`, for all that are started in the same way."""
        measure = _Measure(name, dict(need.shared), dict(need.each))
        self._measures.put(_fingerprint(preset, self.gpus, {}), measure)
        self._measures.trim(MAX_MEASURES, self._in_use)
        self._measures.save()

    def shape(self, path: str) -> Shape | None:
        """What the header of a model's file says; None where it can't be read."""
        return self._look(path, {}).shape

    def why_no_model(self, path: str) -> str | None:
        """What makes the file at `path` no model, or not all of one; None for what only fails in other ways, or not."""
        return self._look(path, {}).why_not

    def _of(self, preset: Preset, fingerprint: str, looked: Stamps) -> Need:
        measure = self._measures.get(fingerprint)
        estimated = self._estimate(preset, looked)
        if measure is None:
            return estimated
        # Weights that models have in common are measured in parts, and one of the models may be loaded alone.
        shared = {device: max(size, estimated.shared.get(device, 0)) for device, size in measure.shared.items()}
        return Need("measured", shared, measure.each)

    def _estimate(self, preset: Preset, looked: Stamps) -> Need:
        shape = self._look(preset.model, looked).shape if preset.model else None
        if shape is None:
            return UNKNOWN
        projector = _stamp(preset.mmproj, looked) if preset.mmproj else None
        try:
            return estimate(preset, shape, projector[0] if projector else 0, self.gpus)
        except (ValueError, ArithmeticError):  # no header gives such a shape: what was remembered of it is damaged
            self._shapes.drop(preset.model or "")
            return UNKNOWN

    def _look(self, path: str, looked: Stamps) -> _Known:
        stamps = {file: _stamp(file, looked) for file in gguf_file.files(path)}
        known = self._shapes.get(path)
        if known is None or known.stamps != stamps:
            # Stamped before it is read: what changes meanwhile has another stamp the next time.
            known = _read(path, stamps)
            self._shapes.put(path, known)
        return known


class _Book(Generic[Entry]):
    """Entries by key, the latest last: in memory and, with a `path`, in a file of the state directory."""

    def __init__(self, path: Path | None, kind: type[Entry]) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(_File[kind])  # type: ignore[valid-type]  # made for one kind of entry
        self._entries = self._read()
        self._changed = False

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        if self._entries.get(key) != entry:
            self._entries.pop(key, None)
            self._entries[key] = entry
            self._changed = True

    def drop(self, key: str) -> None:
        """Forget an entry: it is found out anew the next time."""
        self._changed |= self._entries.pop(key, None) is not None

    def trim(self, most: int, keep: Collection[str]) -> None:
        """Forget the oldest entries that are none of `keep`, down to `most`."""
        strangers = (key for key in list(self._entries) if key not in keep)
        for key in itertools.islice(strangers, max(len(self._entries) - most, 0)):
            del self._entries[key]
            self._changed = True

    def save(self) -> None:
        """Replace the file as a whole, if anything changed."""
        if not self._changed or self._path is None:
            return
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            content = msgspec.json.encode(_File(FORMAT, self._entries))
            new.unlink(missing_ok=True)  # whatever lies there: opening a FIFO would wait for its reader
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            new.replace(self._path)
        except (OSError, UnicodeError):
            # The disk is full or read-only, or a path is not Unicode: it is tried again at the next change.
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
        self._changed = False

    def _read(self) -> dict[str, Entry]:
        """What the file holds; nothing if it is not as `save` writes it."""
        if self._path is None:
            return {}
        try:
            if not self._path.is_file() or self._path.stat().st_size > MAX_FILE:
                return {}
            file = self._decoder.decode(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError, RecursionError):
            return {}
        return dict(file.entries) if file.format == FORMAT else {}


def _fingerprint(preset: Preset, gpus: int, looked: Stamps) -> str:
    """Equal for presets whose servers are started in the same way from the same files on as many GPUs."""
    paths = [*(gguf_file.files(preset.model) if preset.model else []), *filter(None, [preset.mmproj])]
    stamps = {path: _stamp(path, looked) for path in paths}
    told = [preset.model_dump(include=_FINGERPRINT_KEYS), stamps, gpus]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: str, looked: Stamps) -> Stamp:
    """The stamp of a file, looked at once for all presets of a call."""
    if path not in looked:
        try:
            about = os.stat(path)  # noqa: PTH116 - Path would accept "" as "."
            looked[path] = (about.st_size, about.st_mtime_ns)
        except (OSError, ValueError):
            looked[path] = None
    return looked[path]


def _read(path: str, stamps: Stamps) -> _Known:
    try:
        return _Known(stamps, gguf_file.read(path))
    except NotAModel as error:
        return _Known(stamps, None, error.why)
    except CannotReadModel:
        return _Known(stamps, None)
