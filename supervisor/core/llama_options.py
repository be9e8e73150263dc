"""What a preset tells llama.cpp that decides on memory, from its common keys and from `options`, for either backend.

`options` go to the backend as they are, so they win. llama-cpp-python takes the fields of its ModelSettings
("type_k": 8), llama-server its own arguments ("cache-type-k": q8_0); a name means the same in both, or is in one only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.core.preset import Preset

# What a preset without `context` gets, or less where the model was trained for less. 2048, llama-cpp-python's own
# default, is a page or two of chat; a model's own context can be 131072 tokens, whose KV cache takes 16 GiB for an
# 8B model (32 layers, 8 KV heads of 128, f16). 8192 tokens take 1 GiB there.
DEFAULT_CONTEXT = 8192

_FLAGS = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}

# Bytes of 32 elements, by the name of a ggml type and by its number: the types a KV cache can have.
# Source: kv_cache_types in llama.cpp's common/arg.cpp, and ggml-common.h.
_CACHE_TYPES = {
    **{"f32": 128, "f16": 64, "bf16": 64, "q8_0": 34, "q4_0": 18, "q4_1": 20, "iq4_nl": 18, "q5_0": 22, "q5_1": 24},
    **{"0": 128, "1": 64, "30": 64, "8": 34, "2": 18, "3": 20, "20": 18, "6": 22, "7": 24},
}
_CONTEXT_STEP = 256


@dataclass(frozen=True)
class LlamaOptions:
    """Tokens of context, sequences and batches as llama.cpp rounds them, and where things go.

    `context` is all sequences' together. `key_bytes` and `value_bytes` are of 32 elements. Of a micro-batch `outputs`
    tokens get logits; `result_rows` results are kept to be handed out, each with `result_vectors` embeddings.
    `gpu_layers` counts the output as one layer more; `split` holds a share for each GPU, or nothing for equal ones.
    `prompt_cache` is bytes.
    """

    context: int
    sequences: int
    unified: bool
    batch: int
    micro_batch: int
    outputs: int
    result_rows: int
    result_vectors: int
    key_bytes: int
    value_bytes: int
    flash_attention: bool
    whole_window: bool
    mapped: bool
    repack: bool
    gpu_layers: int
    experts_on_host: int
    cache_on_gpu: bool
    split: tuple[float, ...]
    main_gpu: int | None
    prompt_cache: int
    scores: bool


def llama_options(preset: Preset, trained_context: int) -> LlamaOptions:
    """What a server of `preset` would run with, for a model that was trained for `trained_context` tokens."""
    options = _Options(preset.options)
    is_python = preset.backend == "llama-cpp-python"
    embedding = options.flag("embedding", "embeddings") or preset.embedding
    # Left to itself llama-server has 4 slots, which share their cells (tools/server/server.cpp).
    parallel = 1 if is_python else max(options.number("parallel", "np") or preset.parallel or 4, 1)
    slots_by_itself = not is_python and options.number("parallel", "np") is None and preset.parallel is None
    unified = slots_by_itself or options.flag("kv_unified", "kvu")
    scores = is_python and options.flag("logits_all")
    context = _context(preset, options, trained_context)
    batch, micro_batch = _batches(preset, options, context, embedding)
    if is_python and embedding:
        parallel, unified = min(batch, 256), True  # LLAMA_MAX_SEQ
    asked = options.number("n_gpu_layers", "gpu_layers", "ngl")
    layers = asked if asked is not None else preset.gpu_layers
    if layers is None:
        layers = 0 if is_python else -1
    split = _split(options.first("tensor_split", "ts"))
    only = str(options.first("split_mode", "sm")) in ("0", "none")
    return LlamaOptions(
        context=_context_cells(context, parallel, unified),
        sequences=parallel,
        unified=unified,
        batch=batch,
        micro_batch=micro_batch,
        outputs=micro_batch if embedding or scores else parallel,
        # Every token of an input to embed is an output, with logits and all (llama_context::output_reserve).
        result_rows=batch if embedding or scores else parallel,
        result_vectors=1 if embedding else 0,
        key_bytes=_cache_type(options.first("type_k", "cache_type_k", "ctk")),
        value_bytes=_cache_type(options.first("type_v", "cache_type_v", "ctv")),
        flash_attention=options.flag("flash_attn", "fa", otherwise=not is_python),
        whole_window=options.flag("swa_full", otherwise=is_python),
        mapped=_is_mapped(options),
        repack=options.flag("repack", otherwise=True) and not options.flag("no_repack", "nr"),
        gpu_layers=10**6 if layers < 0 else layers,
        experts_on_host=10**6 if options.flag("cpu_moe", "cmoe") else options.number("n_cpu_moe", "ncmoe") or 0,
        cache_on_gpu=options.flag("offload_kqv", "kv_offload", otherwise=True)
        and not options.flag("no_kv_offload", "nkvo"),
        split=split,
        main_gpu=(options.number("main_gpu", "mg") or 0) if only else None,
        prompt_cache=_prompt_cache(options) if is_python else _cache_ram(options),
        scores=scores,
    )


def cached_files(preset: Preset) -> tuple[str, ...]:
    """The files that a server of `preset` reads through the page cache to load: the model (of several shards the
    first), the projector and an adapter. None where they are not known, or are read past it (direct I/O)."""
    options = _Options(preset.options)
    direct = options.flag("direct_io", "dio") or str(options.first("load_mode", "lm")) == "dio"
    named = () if direct else (preset.model, preset.mmproj, options.first("lora", "lora_path"))
    return tuple(path for path in named if isinstance(path, str))


class _Options:
    """A preset's options by the names both backends use: no dashes before, underscores within."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {name.lstrip("-").replace("-", "_"): value for name, value in options.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._options

    def first(self, *names: str) -> Any:
        """The value of the first of `names` that is given; None if none is."""
        if not self._options:
            return None
        return next((self._options[name] for name in names if self._options.get(name) is not None), None)

    def number(self, *names: str) -> int | None:
        """A whole number of 32 bits, which may be written in quotes; None for anything else."""
        value = self.first(*names)
        try:
            number = int(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except ValueError:
            return None
        return None if number is None else min(max(number, -(2**31)), 2**31 - 1)

    def flag(self, *names: str, otherwise: bool = False) -> bool:
        value = self.first(*names)
        if value is None:
            # An option without a value is on: `no-mmap:` in YAML.
            return True if any(name in self._options for name in names) else otherwise
        return bool(_FLAGS.get(value.lower(), otherwise)) if isinstance(value, str) else bool(value)


def _context(preset: Preset, options: _Options, trained: int) -> int:
    """Tokens in all sequences together, as asked for."""
    asked = options.number("n_ctx", "ctx_size", "c")
    if asked is None:
        asked = preset.context
    if asked is None:
        return min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT) if preset.backend == "llama-cpp-python" else trained
    return max(asked, 0) or trained


def _batches(preset: Preset, options: _Options, context: int, embedding: bool) -> tuple[int, int]:
    """Tokens of a batch and of a micro-batch (ubatch)."""
    usual, usual_micro = (512, 512) if preset.backend == "llama-cpp-python" else (2048, 512)
    if preset.embedding and (preset.context or preset.backend == "llama-cpp-python"):
        # The backends see to it that an input fits into one batch.
        usual = usual_micro = preset.context or DEFAULT_CONTEXT
    batch = max(options.number("n_batch", "batch_size", "b") or usual, 1)
    micro_batch = max(options.number("n_ubatch", "ubatch_size", "ub") or usual_micro, 1)
    if embedding and preset.backend == "llama-server":
        batch = min(batch, micro_batch)
    batch = min(batch, max(context, 1))
    return batch, min(batch, micro_batch)


def _context_cells(context: int, sequences: int, unified: bool) -> int:
    """llama_context rounds up each sequence's share, or all of them together if they share the cells."""
    if unified:
        return _rounded_up(context)
    return _rounded_up(max(context // sequences, 1)) * sequences


def _rounded_up(tokens: int) -> int:
    return -(-tokens // _CONTEXT_STEP) * _CONTEXT_STEP


def _cache_type(value: object) -> int:
    return _CACHE_TYPES.get(str(value).lower(), _CACHE_TYPES["f16"])


def _is_mapped(options: _Options) -> bool:
    """Whether replicas share the pages of the weights."""
    if str(options.first("load_mode", "lm")) in ("none", "mlock", "dio"):
        return False
    return options.flag("use_mmap", "mmap", otherwise=True) and not options.flag("no_mmap", "direct_io", "dio")


def _split(value: Any) -> tuple[float, ...]:
    """Shares from [3, 1] or "3,1"; none where they make no sense."""
    entries = value.split(",") if isinstance(value, str) else value
    try:
        shares = tuple(float(entry) for entry in entries)
    except (TypeError, ValueError):
        return ()
    return shares if all(0 <= share < 1e9 for share in shares) and any(shares) else ()


def _prompt_cache(options: _Options) -> int:
    """Bytes that llama-cpp-python keeps finished prompts in."""
    if not options.flag("cache") or options.first("cache_type") == "disk":
        return 0
    size = options.number("cache_size")
    return 2**31 if size is None else max(size, 0)


def _cache_ram(options: _Options) -> int:
    """Bytes that llama-server keeps finished prompts in, as far as it is told.

    The 8 GiB that it may fill by itself would keep most models from being loaded at all; what is filled is measured.
    """
    return max(options.number("cache_ram", "cram") or 0, 0) * 2**20
