"""How much memory each preset needs: what was measured of its servers once, else an estimate from its GGUF file.

Both are remembered over restarts, in two files of the state directory: `models.json` holds what the headers of GGUF
files say, `measured.json` what servers took.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from supervisor import gguf_file
from supervisor.book import Book, Tell
from supervisor.core.estimate import estimate
from supervisor.core.need import UNKNOWN, Need
from supervisor.core.preset import Preset
from supervisor.core.quantities import MAX_SIZE
from supervisor.core.reload import LAUNCH_KEYS
from supervisor.core.shape import MAX_LAYERS, Shape
from supervisor.errors import CannotReadModel, IncompleteModel, NotAModel
from supervisor.paths import printable

# How many are remembered beside those in use.
MAX_SHAPES = 1_000
MAX_MEASURES = 10_000
SAVE_SECONDS = 5.0

# What tells one content of a file from another: its size, and when it was changed in ns. None: there is no such file.
Stamp = tuple[int, int] | None
Stamps = dict[str, Stamp]

# Of what a server is started with, all but how it is watched.
_FINGERPRINT_KEYS = set(LAUNCH_KEYS - {"ready", "watchdog", "limits"})


Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]


class Incomplete(msgspec.Struct):
    """Which file of a model ends too soon, or is not there, and how many bytes it has to have if that is known."""

    path: str
    takes: int | None


class Header(msgspec.Struct):
    """What the files of a model say that have these stamps. `shape` is None if they can't be read, `why_not` says what
    makes them none, `inputs` are what a projector takes beside text, and `incomplete` tells a file that is still to be
    written from one that is something else."""

    stamps: Stamps
    shape: Shape | None
    why_not: str | None
    inputs: tuple[gguf_file.Input, ...]
    incomplete: Incomplete | None = None


class _Measure(msgspec.Struct):
    """Bytes by device that were measured of a preset's servers. The name is for people who look into the file."""

    name: str
    shared: dict[str, Amount]
    each: dict[str, Amount]


class _Estimated(NamedTuple):
    """What an estimate is made of: that of a reading before counts while this is the same."""

    preset: Preset
    shape: Shape
    projector: int
    gpus: int


class Needs:
    """What presets need. Nothing here raises: a need that can't be found out is UNKNOWN.

    A header that is not known is read when it is asked for, or, with `reads_later`, noted for `unread`.
    """

    def __init__(
        self,
        state_dir: Path | None,
        gpus: int,
        tell: Tell = lambda _line: None,
        waiting: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`gpus` is how many the machine has. Without `state_dir` nothing is remembered or recalled. `tell` gets a line
        for each thing that is wrong with what is remembered. `waiting` is told, again and again while headers are read,
        for how many seconds at most nothing may happen."""
        self.gpus = gpus
        self._waiting = waiting
        self.reads_later = False
        self._unread: dict[str, None] = {}
        self._fresh: set[str] = set()
        self._asked: set[str] = set()
        self._in_use: set[str] = set()
        self._estimates: dict[str, tuple[_Estimated, Need]] = {}
        self._saved_at = time.monotonic()
        self._headers = Book(state_dir and state_dir / "models.json", Header, tell, _is_sound)
        self._measures = Book(state_dir and state_dir / "measured.json", _Measure, tell)

    def of(self, presets: Mapping[str, Preset]) -> dict[str, Need]:
        """The need of each preset, by name, at the moment. What other files were asked for since the last time is
        remembered as well."""
        looked: Stamps = {}
        prints = {name: _fingerprint(preset, self.gpus, looked) for name, preset in presets.items()}
        needs = {name: self._of(preset, prints[name], looked) for name, preset in presets.items()}
        for name in self._estimates.keys() - presets.keys():
            del self._estimates[name]
        self._headers.trim(len(self._asked) + MAX_SHAPES, self._asked)
        self._asked.clear()
        self._in_use = set(prints.values())
        self.save()
        return needs

    def remember(self, name: str, preset: Preset, need: Need) -> None:
        """Keep what was measured of the servers of `preset`, for all that are started in the same way."""
        measure = _Measure(name, dict(need.shared), dict(need.each))
        self._measures.put(_fingerprint(preset, self.gpus, {}), measure)
        self._measures.trim(MAX_MEASURES, self._in_use)
        self._measures.save()

    def save(self) -> None:
        """Write down what changed."""
        self._headers.save()
        self._measures.save()
        self._saved_at = time.monotonic()

    def apart(self) -> None:
        """In a process of its own: read at once, and write nothing down."""
        self.reads_later = False
        self._headers.detach()
        self._measures.detach()

    def why_no_model(self, path: str) -> str | None:
        """What makes the file at `path` no model, or not all of one; None for what only fails in other ways, or not."""
        return self._look(path, {}).why_not

    def why_incomplete(self, path: str) -> str | None:
        """The same of a file that may be a projector: only what is missing at the end of it."""
        header = self._look(path, {})
        return header.why_not if header.incomplete else None

    def still_incomplete(self, path: str) -> str | None:
        """What is missing at the end of a file that was incomplete when it was last read, None if nothing is, or if
        that can't be told from its size. Reads no file."""
        known = self._headers.get(path)
        if known is None or known.incomplete is None:
            return None
        short: Incomplete = known.incomplete
        looked: Stamps = {}
        if known.stamps == _stamps(path, looked):
            return known.why_not
        stamp = _stamp(short.path, looked)
        if stamp is None or short.takes is None or stamp[0] >= short.takes:
            return None
        return _named(path, short.path, gguf_file.cut_short(stamp[0], short.takes))

    def header(self, path: str) -> Header | None:
        """What the file said when it was last asked for; None if nothing is known of it. Looks at no file."""
        return self._headers.get(path)

    def unread(self) -> list[str]:
        """The files to be read before what was said since the last time can be relied on; each once."""
        paths = list(self._unread)
        self._unread.clear()
        if not paths:
            self._fresh.clear()
        return paths

    def take(self, path: str, header: Header) -> None:
        """Take in what was read of an `unread` file. It counts, however the file changes, until nothing is unread: a
        file that never rests must not be read for ever."""
        self._fresh.add(path)
        self._keep(path, header)

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
        if preset.mmproj:
            self._look(preset.mmproj, looked)  # for what it takes
        if shape is None:
            return UNKNOWN
        projector = _stamp(preset.mmproj, looked) if preset.mmproj else None
        of = _Estimated(preset, shape, projector[0] if projector else 0, self.gpus)
        before, known = self._estimates.get(preset.name, (None, UNKNOWN))
        if of == before:
            return known
        try:
            need = estimate(*of)
        except (ValueError, ArithmeticError):  # no header gives such a shape: what was remembered of it is damaged
            self._headers.drop(preset.model or "")
            return UNKNOWN
        self._estimates[preset.name] = of, need
        return need

    def _look(self, path: str, looked: Stamps) -> Header:
        self._asked.add(path)
        stamps = _stamps(path, looked)
        known = self._headers.get(path)
        if known is not None and (known.stamps == stamps or path in self._fresh):
            return known
        if self.reads_later:
            self._unread[path] = None
            return Header(stamps, None, None, ())
        header = read(path, stamps)
        self._keep(path, header)
        return header

    def _keep(self, path: str, header: Header) -> None:
        """Headers by the thousand take minutes, which must not be in vain if the supervisor is killed meanwhile."""
        self._headers.put(path, header)
        if time.monotonic() > self._saved_at + SAVE_SECONDS:
            self._waiting(SAVE_SECONDS)
            self.save()


def read(path: str, stamps: Stamps | None = None) -> Header:
    """What the files of the model or the projector at `path` say. Blocks as long as the disk takes, some 10 ms."""
    # Stamped before it is read: what changes meanwhile has another stamp the next time.
    stamps = _stamps(path, {}) if stamps is None else stamps
    try:
        return Header(stamps, gguf_file.read(path), None, ())
    except IncompleteModel as error:
        why = _named(path, error.path, error.why)
        return Header(stamps, None, why, (), Incomplete(error.path, error.takes))
    except NotAModel as error:
        return Header(stamps, None, error.why, _inputs(path))
    except CannotReadModel:
        return Header(stamps, None, None, _inputs(path))


def unreadable() -> Header:
    """What is known of a file that nobody could read: nothing, and that only until it is asked for again."""
    return Header({}, None, None, ())


def _named(path: str, file: str, why: str) -> str:
    """What is wrong with a model at `path`, which may be so with another `file` of it."""
    return why if file == path else f"its shard {printable(Path(Path(file).name))}: {why}"


def _inputs(path: str) -> tuple[gguf_file.Input, ...]:
    try:
        return tuple(gguf_file.inputs(path))
    except CannotReadModel:
        return ()


def _is_sound(header: Header) -> bool:
    """Whether a header can give this: what is remembered may be damaged."""
    shape = header.shape
    if shape is None:
        return True
    numbers = chain(*(vars(each).values() for each in (shape, *shape.layers)))
    whole = (number for number in numbers if isinstance(number, int))
    return 0 < len(shape.layers) <= MAX_LAYERS and all(0 <= number <= MAX_SIZE for number in whole)


def _stamps(path: str, looked: Stamps) -> Stamps:
    return {file: _stamp(file, looked) for file in gguf_file.files(path)}


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
