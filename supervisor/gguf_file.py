"""Reads the header of a GGUF file: the shape of its model, without its weights or its vocabulary.

The package `gguf` says what the numbers in a file mean, and only its module `constants` is loaded. Its GGUFReader makes
a Python object of each token (2 s for 49,000 of them) and maps the file, which ends the process with SIGBUS when the
file shrinks. Importing the package itself brings numpy, whose OpenBLAS starts threads, and the supervisor forks.

A file is read a piece at a time; time and memory have bounds whatever is in it. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import struct
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

from supervisor.core.quantities import readable_size, shown
from supervisor.core.shape import MAX_LAYERS, Shape, Tensor, Value, shape
from supervisor.errors import CannotReadModel, IncompleteModel, NotAModel

# The largest headers known have 30 MiB: 262,144 tokens, half a million merges, a thousand tensors.
_MAX_HEADER = 128 * 2**20
_MAX_PAIRS = 4096
_MAX_TENSORS = 16_384
_MAX_STRINGS = 4_000_000
_MAX_SHARDS = 1000
_MAX_KEY = 256
_MAX_TEXT = 4096
_PIECE = 256 * 1024

_VERSIONS = (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
# The other value types of GGUF, as struct(3) formats.
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {number: struct.Struct(f"<{letter}") for number, letter in _FORMATS.items()}
_LENGTH = struct.Struct("<Q")
_COUNT = struct.Struct("<I")
_MAGIC = struct.Struct("<4s")
_HEAD = struct.Struct("<IQQ")

_TOKENS = "tokenizer.ggml.tokens"
# What `general.type` says of files that are parts of a model or made for one; most models say "model" or nothing.
_PARTS = frozenset({"adapter", "mmproj", "vocab", "imatrix"})
Input = Literal["image", "audio"]
_ENCODERS: dict[Input, str] = {"image": "clip.has_vision_encoder", "audio": "clip.has_audio_encoder"}
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")


def read(path: str) -> Shape:
    """The shape of the model in `path` and, if it is the first of several shards, in those beside it.

    Raises CannotReadModel, and NotAModel where another file has to be there for a model, IncompleteModel where a longer
    one has to be. Blocks for some 10 ms a file, more where a disk is slow.
    """
    header = _read_header(path)
    if (kind := header.pairs.get("general.type")) in _PARTS:
        raise NotAModel(path, f"it is of type {kind}, which is not a model by itself")
    tensors = list(header.tensors)
    count = header.pairs.get("split.count")
    if isinstance(count, int) and count > 1:
        if header.pairs.get("split.no", 0) != 0:
            raise CannotReadModel(path, "it is not the first shard of its model; name the one with -00001-of- in it")
        for shard in _shards(path, count):
            tensors += _read_header(shard).tensors
    try:
        return shape(header.pairs, tensors, header.tokens)
    except ValueError as error:
        raise CannotReadModel(path, str(error)) from None


def inputs(path: str) -> list[Input]:
    """What the projector in `path` can be given beside text: "image", "audio", both. Raises CannotReadModel.

    The keys are those of llama.cpp's tools/mtmd/clip-impl.h.
    """
    pairs = _read_header(path).pairs
    return [kind for kind, key in _ENCODERS.items() if pairs.get(key) is True]


def shard(name: str) -> tuple[str, int] | None:
    """The stem and the number, from 1, of a file that is named as one of several shards; None for others."""
    match = _SHARD.fullmatch(name)
    return (match["stem"], int(match["number"])) if match else None


def files(path: str) -> list[str]:
    """`path` and, where its name says that it is the first of several, the paths of the other shards."""
    match = _SHARD.fullmatch(path.rpartition("/")[2])
    is_first = match is not None and int(match["number"]) == 1 and int(match["count"]) <= _MAX_SHARDS
    return [path, *_shards(path, int(match["count"]))] if match and is_first else [path]


def cut_short(size: int, takes: int) -> str:
    """What is wrong with a file of `size` bytes that has to have more, as words that follow its name."""
    return f"it has {size} bytes, and its tensors take {takes}; it is incomplete"


def file_type_name(number: int) -> str | None:
    """What people call a general.file_type, such as "Q4_K_M"; None for one that `gguf` does not know."""
    try:
        name: str = _constants().LlamaFileType(number).name
    except ValueError:
        return None
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _shards(path: str, count: int) -> list[str]:
    """The second to the last shard, as llama_split_path names them."""
    match = _SHARD.fullmatch(Path(path).name)
    if count > _MAX_SHARDS:
        raise CannotReadModel(path, f"it claims to be one of {count} shards; it is damaged")
    if match is None or int(match["count"]) != count:
        raise CannotReadModel(path, f"it is one of {count} shards, so its name must end in -00001-of-{count:05}.gguf")
    stem = Path(path).with_name(match["stem"])
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(2, count + 1)]


def _read_header(path: str) -> _Header:
    """Raises CannotReadModel."""
    try:
        # Opening a device can do things, and a FIFO would wait for a writer if it took the place of the file.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - Path would accept "" as "."
            raise CannotReadModel(path, "it is not a regular file")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:  # noqa: PTH123
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise CannotReadModel(path, "it is not a regular file")
            return _Header(_Pieces(file, about.st_size))
    except FileNotFoundError as error:
        raise IncompleteModel(path, error.strerror or str(error), None) from None
    except OSError as error:
        raise CannotReadModel(path, error.strerror or str(error)) from None
    except _Incomplete as error:
        raise IncompleteModel(path, str(error), error.takes) from None
    except ValueError as error:  # _Malformed, or a path that no file can have
        raise CannotReadModel(path, str(error)) from None


class _Malformed(ValueError):
    """What is wrong with a file, as words that follow its name."""


class _Incomplete(_Malformed):
    """It is not a GGUF file, or only the beginning of one that `takes` more bytes: they may be written to it."""

    def __init__(self, why: str, takes: int | None = None) -> None:
        super().__init__(why)
        self.takes = takes


class _Pieces:
    """A file read forwards, a piece at a time."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self._file = file
        self._piece = b""
        self._start = 0  # of the piece in the file
        self._at = 0  # within the piece

    @property
    def position(self) -> int:
        return self._start + self._at

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        self._need(form.size)
        values = form.unpack_from(self._piece, self._at)
        self._at += form.size
        return values

    def number(self, form: struct.Struct) -> int:
        return int(self.take(form)[0])

    def string(self, most: int) -> str | None:
        """A string of at most `most` bytes; a longer one is skipped and None."""
        length = self.number(_LENGTH)
        if length > most:
            self.skip(length)
            return None
        self._need(length)
        text = self._piece[self._at : self._at + length].decode("utf-8", "replace")
        self._at += length
        return text

    def skip(self, count: int) -> None:
        if self.position + count > self.size:
            raise _Incomplete(f"it ends at byte {self.size}, in the middle of its header; it is incomplete")
        self._at += count

    def skip_strings(self, count: int) -> None:
        """This is where the time goes: there are two or three strings for each token."""
        length_at = _LENGTH.unpack_from
        while count:
            self._need(_LENGTH.size)
            piece, at = self._piece, self._at
            last = len(piece) - _LENGTH.size
            while count and at <= last:
                at += 8 + length_at(piece, at)[0]
                count -= 1
            self._at = at
            if self.position > self.size:
                self.skip(0)

    def _need(self, count: int) -> None:
        """Have `count` bytes at hand. Raises _Malformed where the file or the patience with it ends."""
        if self._at + count <= len(self._piece):
            return
        self._start, self._at = self.position, 0
        self._bound()
        self._file.seek(self._start)
        self._piece = b""
        while len(self._piece) < count:
            more = self._file.read(max(_PIECE, count) - len(self._piece))
            if not more:
                self.size = self._start + len(self._piece)
                self.skip(count)
            self._piece += more

    def _bound(self) -> None:
        if self.position > _MAX_HEADER:
            raise _Malformed(f"its header goes on after {readable_size(_MAX_HEADER)}; it is damaged")


class _Header:
    """What a file's header holds: scalar metadata, short arrays of numbers, and where the tensors are."""

    def __init__(self, pieces: _Pieces) -> None:
        self.pairs: dict[str, Value] = {}
        self.tokens = 0
        self.tensors: list[Tensor] = []
        self._pieces = pieces
        self._strings = 0
        tensors, pairs = self._head()
        for _ in range(pairs):
            self._read_pair()
        infos = [self._read_tensor() for _ in range(tensors)]
        self._check_extent(infos)
        self.tensors = [tensor for tensor, _ in infos]

    def _head(self) -> tuple[int, int]:
        """The numbers of tensors and of metadata pairs."""
        if not self._pieces.size:
            raise _Incomplete("the file is empty")
        (magic,) = self._pieces.take(_MAGIC)
        if magic != b"GGUF":
            raise _Incomplete(f"it is not a GGUF file: it begins with {shown(magic)}")
        version, tensors, pairs = self._pieces.take(_HEAD)
        if version not in _VERSIONS:
            if int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS:
                raise _Malformed("it is in big-endian byte order; convert it for this machine")
            raise _Malformed(f"it is of GGUF version {version}, and llama.cpp reads 2 and 3; convert the model anew")
        if tensors > _MAX_TENSORS or pairs > _MAX_PAIRS:
            raise _Malformed(f"it claims to have {tensors} tensors and {pairs} pairs of metadata; it is damaged")
        return tensors, pairs

    def _read_pair(self) -> None:
        key = self._pieces.string(_MAX_KEY)
        kind = self._pieces.number(_COUNT)
        if kind == _ARRAY:
            self._read_array(key)
        elif kind == _STRING:
            text = self._pieces.string(_MAX_TEXT)
            if key is not None and text is not None:
                self.pairs[key] = text
        else:
            (value,) = self._pieces.take(self._scalar(kind))
            if key is not None:
                self.pairs[key] = value

    def _read_array(self, key: str | None) -> None:
        kind, count = self._pieces.number(_COUNT), self._pieces.number(_LENGTH)
        if key == _TOKENS:
            self.tokens = count
        if kind == _STRING:
            self._strings += count
            if self._strings > _MAX_STRINGS:
                raise _Malformed(f"it claims to have {self._strings} strings or more; it is damaged")
            self._pieces.skip_strings(count)
            return
        form = self._scalar(kind)
        if key is None or count > MAX_LAYERS:
            self._pieces.skip(count * form.size)
            return
        self.pairs[key] = [self._pieces.take(form)[0] for _ in range(count)]

    def _scalar(self, kind: int) -> struct.Struct:
        if kind not in _SCALARS:
            raise _Malformed(f"it has a value of type {kind} at byte {self._pieces.position}; it is damaged")
        return _SCALARS[kind]

    def _read_tensor(self) -> tuple[Tensor, int]:
        """A tensor, and where its data begin, counted from where all of them begin."""
        name = self._pieces.string(_MAX_KEY) or ""
        depth = self._pieces.number(_COUNT)
        if depth > 4:
            raise _Malformed(f"its tensor {shown(name)} has {depth} dimensions, and GGML_MAX_DIMS is 4; it is damaged")
        dimensions = tuple(self._pieces.number(_LENGTH) for _ in range(depth))
        kind = self._pieces.number(_COUNT)
        elements = 1
        for dimension in dimensions:
            elements *= dimension
        if kind not in _type_sizes():
            raise _Malformed(f"its tensor {shown(name)} is of a type that is not known here, {kind}")
        block, size = _type_sizes()[kind]
        return Tensor(name, dimensions, kind, elements // block * size), self._pieces.number(_LENGTH)

    def _check_extent(self, infos: list[tuple[Tensor, int]]) -> None:
        alignment = self.pairs.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _PIECE:
            raise _Malformed(f"its alignment is {shown(alignment)}; it is damaged")
        begin = -(-self._pieces.position // alignment) * alignment
        end = max((begin + offset + tensor.size for tensor, offset in infos), default=0)
        if end > self._pieces.size:
            raise _Incomplete(cut_short(self._pieces.size, end), end)


@cache
def _type_sizes() -> dict[int, tuple[int, int]]:
    """Elements and bytes of a block, by the number of a ggml type."""
    return {int(kind): sizes for kind, sizes in _constants().GGML_QUANT_SIZES.items()}


@cache
def _constants() -> ModuleType:
    """gguf.constants, without the rest of the package."""
    package = importlib.util.find_spec("gguf")
    assert package is not None and package.submodule_search_locations, "llama-router depends on gguf"
    path = Path(package.submodule_search_locations[0]) / "constants.py"
    spec = importlib.util.spec_from_file_location("gguf_constants", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
