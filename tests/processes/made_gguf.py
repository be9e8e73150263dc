"""GGUF files made by hand, so that they can be made wrong. The format: docs/gguf.md of ggml."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10
F16_TYPE, Q4_0_TYPE = 1, 2
_BLOCKS = {0: (1, 4), F16_TYPE: (1, 2), Q4_0_TYPE: (32, 18)}

# A llama of two layers, 64 wide, with 4 heads of which 2 have keys and values, and 10 tokens.
LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.size_label": "1K",
    "general.file_type": 2,
    "llama.block_count": 2,
    "llama.context_length": 1024,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [f"t{number}" for number in range(10)],
    "tokenizer.ggml.scores": [0.5] * 10,
}
TENSORS: dict[str, tuple[tuple[int, ...], int]] = {
    "token_embd.weight": ((64, 10), F16_TYPE),
    "blk.0.attn_q.weight": ((64, 64), Q4_0_TYPE),
    "blk.0.attn_norm.weight": ((64,), 0),
    "blk.1.attn_q.weight": ((64, 64), Q4_0_TYPE),
    "blk.1.ffn_down_exps.weight": ((64, 64, 2), F16_TYPE),
    "output.weight": ((64, 10), F16_TYPE),
    "output_norm.weight": ((64,), 0),
}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(given: Any) -> bytes:
    """A typed value: bool, int (uint32), float (float32), str, or an array of one of these."""
    match given:
        case bool():
            return struct.pack("<I?", BOOL, given)
        case int():
            return struct.pack("<II", U32, given)
        case float():
            return struct.pack("<If", F32, given)
        case str():
            return struct.pack("<I", STRING) + text(given)
        case _:
            entries = [value(entry) for entry in given]
            kind = entries[0][:4] if entries else struct.pack("<I", U32)
            return struct.pack("<I", ARRAY) + kind + struct.pack("<Q", len(given)) + b"".join(e[4:] for e in entries)


def size_of(dimensions: Sequence[int], kind: int) -> int:
    elements = 1
    for dimension in dimensions:
        elements *= dimension
    block, size = _BLOCKS[kind]
    return elements // block * size


def made(
    metadata: Mapping[str, Any] = LLAMA,
    tensors: Mapping[str, tuple[tuple[int, ...], int]] = TENSORS,
    *,
    version: int = 3,
) -> bytes:
    """A whole file, whose weights are zeros."""
    infos, offset = b"", 0
    for name, (dimensions, kind) in tensors.items():
        infos += text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        infos += struct.pack("<IQ", kind, offset)
        offset += -(-size_of(dimensions, kind) // 32) * 32
    pairs = b"".join(text(key) + value(given) for key, given in metadata.items())
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata)) + pairs + infos
    return header + bytes(-len(header) % 32) + bytes(offset)


def make(path: Path, **changes: Any) -> str:
    """Write a file with LLAMA's metadata, some changed (dots as __), or left out if None; returns its path."""
    given = LLAMA | {name.replace("__", "."): change for name, change in changes.items()}
    path.write_bytes(made({name: change for name, change in given.items() if change is not None}))
    return str(path)


WHOLE = made()


def put(directory: Path, *names: str) -> None:
    """Write a whole model of each name."""
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(WHOLE)
