"""How much memory a model server will take, worked out from the shape of its model before it is ever started.

It is what the processes' memory comes to once they have been used to the full: a context that is full, a longest
prompt. The arithmetic is llama.cpp's (llama_kv_cache, llama_memory_recurrent, llama_context::output_reserve and
sched_reserve), and was held against the sizes in its log and against /proc for SmolLM2 135M and Gemma 3 270M;
tests/e2e/test_estimate_vs_real.py does so again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

from supervisor.core.llama_options import LlamaOptions, llama_options
from supervisor.core.need import HOST, Need
from supervisor.core.preset import Preset
from supervisor.core.quantities import readable_size
from supervisor.core.shape import Layer, Shape

_FLOAT = 4
_HALF = 2

# What a process has before it has a model, and what each token of a vocabulary takes in llama.cpp. Measured as
# Pss_Anon + Pss_File of supervisor.model_server, less weights, KV cache and buffers, for 49,152 and 262,144 tokens:
# llama-cpp-python 0.3.36, Python 3.11, x86-64; llama-server b11434.
_PROCESS = {"llama-cpp-python": 84 * 2**20, "llama-server": 32 * 2**20}
_TOKEN = 120
# An allowance, not measured: a CUDA context with its kernels, and what cuBLAS works with.
_GPU_CONTEXT = 400 * 2**20
# More than llama.cpp uses (GGML_CUDA_MAX_DEVICES is 16); a budget may be written for any number.
_MAX_GPUS = 64
# What is alive beside the largest tensors while a layer is computed: its input, its output, queries, keys, values.
_VECTORS = 6


@dataclass
class _Tally:
    """Bytes by device, of each kind."""

    shared: Counter[str]
    weights: Counter[str]
    cache: Counter[str]
    buffers: Counter[str]
    process: Counter[str]


def estimate(preset: Preset, model: Shape, mmproj_bytes: int = 0, gpus: int = 0) -> Need:
    """What servers of `preset` take. `mmproj_bytes` is the size of its projector's file; with no GPUs all is host."""
    options = llama_options(preset, model.context)
    places = _Places(options, len(model.layers), _visible(preset, min(gpus, _MAX_GPUS)))
    tally = _Tally(Counter(), Counter(), Counter(), Counter(), Counter())
    _count_weights(tally, model, options, places)
    tally.weights[places.output or HOST] += mmproj_bytes
    _count_cache(tally, model, options, places)
    _count_buffers(tally, model, options, places)
    tally.process[HOST] += _PROCESS.get(preset.backend, 0) + _TOKEN * model.vocabulary + options.prompt_cache
    for device in places.devices:
        tally.process[device] += _GPU_CONTEXT
    each = tally.weights + tally.cache + tally.buffers + tally.process
    return Need("estimated", dict(+tally.shared), dict(each), _in_parts(tally))


def _in_parts(tally: _Tally) -> str:
    parts = [
        ("weights", (tally.shared + tally.weights).total()),
        ("KV cache", tally.cache.total()),
        ("buffers", tally.buffers.total()),
        ("process", tally.process.total()),
    ]
    return ", ".join(f"{name} {readable_size(size)}" for name, size in parts if size)


def _visible(preset: Preset, gpus: int) -> tuple[str, ...]:
    """The GPUs that the server will see, in its order. Numbers that are no GPU end the list, as CUDA has it."""
    listed = preset.env.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return tuple(f"gpu{number}" for number in range(gpus))
    seen: list[str] = []
    for entry in listed.split(","):
        number = entry.strip()
        if not (number.isascii() and number.isdigit()) or len(number) > 9 or int(number) >= gpus:
            break
        seen.append(f"gpu{int(number)}")
    return tuple(seen)


class _Places:
    """Which device each layer and the output are on; None is the host."""

    def __init__(self, options: LlamaOptions, layers: int, gpus: tuple[str, ...]) -> None:
        offloaded = min(options.gpu_layers, layers + 1) if gpus else 0
        if options.main_gpu is not None and gpus:
            gpus = (gpus[min(max(options.main_gpu, 0), len(gpus) - 1)],)
        shares = options.split[: len(gpus)] if sum(options.split[: len(gpus)]) else (1.0,) * len(gpus)
        shares += (0.0,) * (len(gpus) - len(shares))
        ends = [end / sum(shares) for end in accumulate(shares)]
        first = layers + 1 - offloaded
        # llama_model::load_tensors puts a layer where its place among the offloaded ones falls in the shares.
        self._of = [None] * first + [
            gpus[min(bisect_right(ends, index / offloaded), len(gpus) - 1)] for index in range(offloaded)
        ]
        self.devices = sorted({device for device in self._of if device})

    def __getitem__(self, layer: int) -> str | None:
        return self._of[layer]

    @property
    def output(self) -> str | None:
        return self._of[-1]

    @property
    def are_all_on_gpu(self) -> bool:
        return None not in self._of


def _count_weights(tally: _Tally, model: Shape, options: LlamaOptions, places: _Places) -> None:
    """Mapped weights are one copy for all replicas; what a GPU has, or the CPU stores anew, is each replica's own."""
    on_host = tally.shared if options.mapped else tally.weights
    on_host[HOST] += model.input_weights + model.other_weights
    for index, layer in enumerate(model.layers):
        device = places[index]
        if device is None:
            on_host[HOST] += layer.weights
            tally.weights[HOST] += layer.repacked if options.repack and options.mapped else 0
        else:
            kept = layer.experts if index < options.experts_on_host else 0
            on_host[HOST] += kept
            tally.weights[device] += layer.weights - kept
    if places.output is None:
        on_host[HOST] += model.output_weights
        tally.weights[HOST] += model.output_repacked if options.repack and options.mapped else 0
    else:
        # Token embeddings that are the output as well are on both sides.
        tally.weights[places.output] += (model.output_weights or model.input_weights) + model.other_weights


def _count_cache(tally: _Tally, model: Shape, options: LlamaOptions, places: _Places) -> None:
    """Keys and values of each layer for as many tokens as it looks back, and the states of recurrent layers."""
    widest = max(layer.value_width for layer in model.layers)
    for index, layer in enumerate(model.layers):
        device = places[index] if options.cache_on_gpu else None
        size = layer.state * _FLOAT * options.sequences
        if model.caches and layer.key_width:
            # Without flash attention values are stored transposed, as wide for each layer as for the widest.
            values = layer.value_width if options.flash_attention or not layer.value_width else widest
            row = layer.key_width * options.key_bytes + values * options.value_bytes
            size += _cells(layer, model, options) * row // 32
        tally.cache[device or HOST] += size


def _cells(layer: Layer, model: Shape, options: LlamaOptions) -> int:
    """Tokens of all sequences that a layer's cache has room for (llama_kv_cache_iswa)."""
    if not layer.windowed or options.whole_window:
        return options.context
    streams = 1 if options.unified else options.sequences
    window = model.window * (options.sequences if options.unified else 1) + options.micro_batch
    return min(options.context // streams, -(-window // 256) * 256) * streams


def _count_buffers(tally: _Tally, model: Shape, options: LlamaOptions, places: _Places) -> None:
    """What computing a micro-batch takes, where the layers are, and the results that are handed out, on the host.

    A GPU's buffer is reserved as sched_reserve has it: for as many outputs as tokens. On the host only what is used
    counts, since the kernel gives no page before it is written to: one output unless all are asked for.
    """
    tokens = options.micro_batch
    heads = max(layer.heads for layer in model.layers)
    attended = options.context if model.caches else tokens
    mask = attended * (_FLOAT + (_HALF if options.flash_attention else 0))
    scores = 0 if options.flash_attention else attended * heads * _FLOAT
    attention = scores + mask + _VECTORS * model.embedding * _FLOAT
    feed_forward = (3 * model.feed_forward + _VECTORS // 2 * model.embedding) * _FLOAT
    layer = tokens * max(attention, feed_forward)
    output = ((model.vocabulary if model.has_logits else 0) + 2 * model.embedding) * _FLOAT
    for device in places.devices:
        tally.buffers[device] += max(layer, tokens * output if device == places.output else 0)
    if places.are_all_on_gpu:
        tally.buffers[HOST] += tokens * (mask + model.embedding * _FLOAT)
    else:
        # The CPU backend multiplies by the scores in the type that the values have, and keeps a copy for it.
        copied = 0 if options.flash_attention else attended * heads * _HALF
        outputs = 0 if places.output else options.outputs * output
        tally.buffers[HOST] += max(layer, outputs) + tokens * copied
    tally.buffers[HOST] += options.result_rows * (model.vocabulary + options.result_vectors * model.embedding) * _FLOAT
    if options.scores:
        tally.buffers[HOST] += options.context * model.vocabulary * _FLOAT
