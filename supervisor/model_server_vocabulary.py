"""A model's vocabulary, read once and kept for all servers of the model that are forked afterwards.

To read it is most of what loading a small model takes, and a good part with any that has 100,000 tokens and more.
llama.cpp gives a model the vocabulary of its file and knows no other way. So the file is loaded twice, both within
llama.cpp's API: with `vocab_only`, and, for each server, as a model that has no vocabulary ("no_vocab", of
llama_vocab::impl::load in src/llama-vocab.cpp) but as many tokens. All of llama.cpp's functions that need a vocabulary
are given it, and llama_cpp passes the one of LlamaModel.vocab; what takes it from the model is not offered here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_cpp import llama_cpp as bindings

_DEVICE_CPU = 0  # enum ggml_backend_dev_type

Identity = tuple[int, ...]


class CannotKeep(Exception):
    """The vocabulary can't be kept, or not used; says why."""


@dataclass(frozen=True)
class Vocabulary:
    """`pointer` is llama.cpp's vocabulary of the model in the file `path`, `identity` is the file, `architecture` the
    model's; it has `tokens`."""

    path: str
    identity: Identity
    pointer: Any
    tokens: int
    architecture: bytes

    def check(self) -> None:
        """Raises OSError if the file is another one by now."""
        if _identity(self.path) != self.identity:
            raise OSError(f"{self.path} has changed")

    def overrides(self) -> Any:
        """Of the file's metadata, what makes llama.cpp read no vocabulary: an array of llama_model_kv_override."""
        array = (bindings.llama_model_kv_override * 3)()  # the last one is the end
        array[0].key, array[0].tag = b"tokenizer.ggml.model", bindings.LLAMA_KV_OVERRIDE_TYPE_STR
        array[0].value.val_str = b"no_vocab"
        array[1].key, array[1].tag = _size_key(self.architecture), bindings.LLAMA_KV_OVERRIDE_TYPE_INT
        array[1].value.val_i64 = self.tokens
        return array


def read(settings: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of the model with these settings. Raises CannotKeep, and OSError if there is no such file."""
    path = str(settings["model"])
    identity = _identity(path)
    params = bindings.llama_model_default_params()
    params.vocab_only = True
    bindings.llama_backend_init()
    model = bindings.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise CannotKeep("llama.cpp does not read it")
    _refuse_devices()
    pointer = bindings.llama_model_get_vocab(model)
    tokens = bindings.llama_vocab_n_tokens(pointer)
    architecture = _metadata(model, b"general.architecture")
    if bindings.llama_vocab_type(pointer) == bindings.LLAMA_VOCAB_TYPE_NONE or not architecture:
        raise CannotKeep("it has none")
    told = _metadata(model, _size_key(architecture))
    if told is not None and int(told) != tokens:
        raise CannotKeep(f"it has {tokens} tokens, and its metadata says {int(told)}")
    vocabulary = Vocabulary(path, identity, pointer, tokens, architecture)
    vocabulary.check()
    return vocabulary


def _refuse_devices() -> None:
    """Raises CannotKeep if a GPU's driver was loaded, which does not work in a fork."""
    ggml = bindings._lib
    for function in (ggml.ggml_backend_dev_count, ggml.ggml_backend_dev_get):
        function.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.argtypes = ggml.ggml_backend_dev_type.argtypes = (ctypes.c_size_t,)
    for index in range(ggml.ggml_backend_dev_count()):
        if ggml.ggml_backend_dev_type(ggml.ggml_backend_dev_get(index)) != _DEVICE_CPU:
            raise CannotKeep("llama.cpp has a GPU's driver loaded, which cannot be forked")


def _size_key(architecture: bytes) -> bytes:
    return architecture + b".vocab_size"


def _metadata(model: Any, key: bytes) -> bytes | None:
    text = ctypes.create_string_buffer(128)
    size = bindings.llama_model_meta_val_str(model, key, text, len(text))
    return text.value if size >= 0 else None


def _identity(path: str) -> Identity:
    found = os.stat(path)  # noqa: PTH116 - Path would accept "" as "."
    # ctime too: rsync and `touch -r` set the other one.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
