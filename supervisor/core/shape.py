"""The shape of a model: what the header of its GGUF file says, as far as memory and the models API depend on it.

Reading the file is supervisor/gguf_file.py's part. The rules for each architecture are those of llama.cpp's
src/llama-hparams.cpp and src/models/: what a file leaves out is what llama.cpp takes for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
_MAX_NUMBER = 2**32 - 1

Value = int | float | bool | str | Sequence[int | float | bool]

# Every how many layers one has full attention, where the file does not say; the others look back `sliding_window`
# tokens. Negative: the first of each group is the full one, else the last. Architectures that are not here (and have
# no pattern in their file) keep the whole context, whatever sliding_window says.
_WINDOW_PATTERN = {
    **{"afmoe": 4, "cohere2": 4, "cohere2moe": -4, "exaone4": 4, "exaone-moe": 4, "gemma2": 2, "gemma3": 6},
    **{"gemma3n": 5, "gemma-embedding": 6, "gpt-oss": 2, "laguna": -4, "llama4": 4, "mellum": 4, "modern-bert": -3},
    **{"olmo2": 4, "plamo3": 8, "smallthinker": -4},
}
_WINDOW = {"gemma2": 4096, "exaone4": 4096, "llama4": 8192, "smallthinker": 4096}
_PATTERN_IN_FILE = {"gemma4", "granite-swa", "lfm2", "maple", "mimo2", "step35"} | _WINDOW_PATTERN.keys()

# These read a whole input at once and keep nothing of it: no KV cache.
_WITHOUT_CACHE = {
    *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert"),
    *("gemma-embedding", "dream", "llada", "llada-moe", "rnd1", "wavtokenizer-dec"),
}
_WITHOUT_LOGITS = {name for name in _WITHOUT_CACHE if "bert" in name} | {"gemma-embedding", "t5encoder"}
# Layers without attention are the others of each group of this many.
_FULL_ATTENTION_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
_FIRST_LAYERS_WITH_CACHE = {"gemma3n": 20}

# enum llama_vocab_type, by tokenizer.ggml.model.
_VOCABULARY_TYPE = {"llama": 1, "gpt2": 2, "gemma4": 2, "bert": 3, "t5": 4, "rwkv": 5, "plamo2": 6}

# The numbers (enum ggml_type) of what ggml's CPU backend stores anew, interleaved for AVX2: Q4_0, Q4_K, IQ4_NL, MXFP4.
# Source: ggml_repack_get_optimal_repack_type in ggml/src/ggml-cpu/repack.cpp. Arm does so with more types.
_REPACKED_TYPES = frozenset({2, 12, 20, 39})


class Tensor(NamedTuple):
    """A tensor's name, dimensions (elements in a row first), number of its ggml type, and bytes."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    size: int


@dataclass(frozen=True)
class Layer:
    """One layer of a model. Widths are elements for each token of context, state elements for each sequence.

    `weights` is bytes, of which `experts` belong to a mixture of experts and `repacked` are copied when run by the CPU.
    """

    weights: int = 0
    experts: int = 0
    repacked: int = 0
    heads: int = 0
    key_width: int = 0
    value_width: int = 0
    windowed: bool = False
    state: int = 0


@dataclass(frozen=True)
class Shape:
    """A model as its files have it. Sizes are bytes.

    `input_weights` are the token embeddings, `output_weights` what turns the last layer into logits (0: the token
    embeddings do it), `other_weights` all that belongs to no layer. `file_type` is llama.cpp's enum llama_ftype,
    `vocabulary_type` its enum llama_vocab_type, `pooling` its enum llama_pooling_type.
    """

    architecture: str
    layers: tuple[Layer, ...]
    context: int
    embedding: int
    feed_forward: int
    vocabulary: int
    input_weights: int = 0
    output_weights: int = 0
    output_repacked: int = 0
    other_weights: int = 0
    window: int = 0
    caches: bool = True
    has_logits: bool = True
    parameters: int = 0
    experts: int = 0
    experts_used: int = 0
    pooling: int | None = None
    vocabulary_type: int = 0
    file_type: int | None = None
    name: str | None = None
    size_label: str | None = None

    @property
    def weights(self) -> int:
        """All tensors together."""
        return sum(layer.weights for layer in self.layers) + (
            self.input_weights + self.output_weights + self.other_weights
        )


def shape(metadata: Mapping[str, Value], tensors: Iterable[Tensor], tokens: int = 0) -> Shape:
    """The Shape of what a header holds; `tokens` is the length of its vocabulary. Raises ValueError: "it has …"."""
    header = _Header(metadata)
    layers = _layers(header)
    sizes = _Sizes(len(layers))
    for tensor in tensors:
        sizes.add(tensor)
    width = header.number("embedding_length")
    experts = header.number("expert_count")
    used = header.largest("expert_used_count")
    dense = header.largest("feed_forward_length")
    return Shape(
        architecture=header.architecture,
        layers=tuple(
            Layer(**{**vars(layer), "weights": weights, "experts": of_experts, "repacked": repacked})
            for layer, weights, of_experts, repacked in zip(
                layers, sizes.weights, sizes.experts, sizes.repacked, strict=True
            )
        ),
        context=header.number("context_length"),
        embedding=width,
        feed_forward=max(dense, used * header.largest("expert_feed_forward_length")),
        vocabulary=tokens or header.number("vocab_size"),
        input_weights=sizes.input,
        output_weights=sizes.output,
        output_repacked=sizes.output_repacked,
        other_weights=sizes.other,
        window=header.window,
        caches=header.architecture not in _WITHOUT_CACHE,
        has_logits=header.architecture not in _WITHOUT_LOGITS,
        parameters=sizes.parameters,
        experts=experts,
        experts_used=used,
        pooling=header.optional("pooling_type"),
        vocabulary_type=_VOCABULARY_TYPE.get(header.text("tokenizer.ggml.model") or "", 0),
        file_type=_whole(metadata.get("general.file_type")),
        name=header.text("general.name"),
        size_label=header.text("general.size_label"),
    )


def _layers(header: _Header) -> list[Layer]:
    """The layers without their weights, as llama_hparams has them."""
    count = header.number("block_count")
    if not 0 < count <= MAX_LAYERS:
        raise ValueError(f"it has {count} layers, and a model has 1 to {MAX_LAYERS}")
    heads = header.each("attention.head_count", [0] * count)
    kv_heads = header.each("attention.head_count_kv", heads)
    windowed = header.windowed(count)
    recurrent = header.recurrent(count, kv_heads)
    cached = count - header.number("attention.shared_kv_layers")
    cached = _FIRST_LAYERS_WITH_CACHE.get(header.architecture, cached)
    state = header.state()
    if state > _MAX_NUMBER:
        raise ValueError(f"it has a state of {state} elements in each layer")
    layers = []
    for index in range(count):
        usual = header.number("embedding_length") // (heads[index] or 1)
        kind = "_swa" if windowed[index] else ""
        key = header.optional(f"attention.key_length{kind}") or header.optional("attention.key_length") or usual
        value = header.optional(f"attention.value_length{kind}") or header.optional("attention.value_length") or usual
        without = index >= cached or (recurrent[index] and header.interval)
        groups = 0 if without else kv_heads[index]
        layers.append(
            Layer(
                heads=heads[index],
                key_width=key * groups,
                # Multi-head latent attention keeps one compressed vector a token, which is key and value.
                value_width=0 if header.optional("attention.key_length_mla") else value * groups,
                windowed=windowed[index],
                state=state if recurrent[index] else 0,
            )
        )
    return layers


class _Header:
    """The metadata, with the architecture's own keys by their short names."""

    def __init__(self, metadata: Mapping[str, Value]) -> None:
        self._metadata = metadata
        architecture = self.text("general.architecture")
        if not architecture:
            raise ValueError("it has no general.architecture, so it is no model")
        self.architecture = architecture

    def text(self, key: str) -> str | None:
        value = self._metadata.get(key)
        return value if isinstance(value, str) else None

    def _value(self, key: str) -> Value | None:
        return self._metadata.get(f"{self.architecture}.{key}")

    def optional(self, key: str) -> int | None:
        return _whole(self._value(key))

    def number(self, key: str) -> int:
        """The number, or 0 where there is none."""
        return self.optional(key) or 0

    def each(self, key: str, otherwise: list[int]) -> list[int]:
        """A number for each layer, from an array or one for all of them; `otherwise` where there is none."""
        value, count = self._value(key), len(otherwise)
        if isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) < count:
                raise ValueError(f"it has {len(value)} values of {key} for {count} layers")
            return [_whole(entry) or 0 for entry in value[:count]]
        number = _whole(value)
        return otherwise if number is None else [number] * count

    def largest(self, key: str) -> int:
        value = self._value(key)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return max((_whole(entry) or 0 for entry in values), default=0)

    @property
    def window(self) -> int:
        return self.optional("attention.sliding_window") or _WINDOW.get(self.architecture, 0)

    @property
    def interval(self) -> int:
        """One layer in so many has attention, the others a state; 0 where that is not how they are told apart."""
        return self.number("full_attention_interval") or _FULL_ATTENTION_INTERVAL.get(self.architecture, 0)

    def windowed(self, count: int) -> list[bool]:
        """Which layers look back `window` tokens only."""
        given = self._value("attention.sliding_window_pattern")
        if not self.window or self.architecture not in _PATTERN_IN_FILE:
            return [False] * count
        if isinstance(given, Sequence) and not isinstance(given, str):
            return [bool(flag) for flag in given[:count]] + [False] * (count - len(given))
        usual = _WINDOW_PATTERN.get(self.architecture, 1)
        group = _whole(given) or abs(usual)
        full = 0 if usual < 0 else group - 1
        return [index % group != full for index in range(count)]

    def recurrent(self, count: int, kv_heads: Sequence[int]) -> list[bool]:
        """Which layers keep a state of fixed size."""
        if self.interval:
            return [(index + 1) % self.interval != 0 for index in range(count)]
        if any(kv_heads) and not all(kv_heads):
            return [not heads for heads in kv_heads]
        return [True] * count

    def state(self) -> int:
        """Elements of a recurrent layer's state, n_embd_r + n_embd_s of llama_hparams; 0 without such layers."""
        width = self.number("embedding_length")
        if head := self.number("wkv.head_size"):
            return width * (head + (self.optional("token_shift_count") or 2))
        if cache := self.number("shortconv.l_cache"):
            return width * (cache - 1)
        kernel, inner = self.number("ssm.conv_kernel"), self.number("ssm.inner_size")
        depth, groups = self.number("ssm.state_size"), self.number("ssm.group_count")
        return max(kernel - 1, 0) * (inner + 2 * groups * depth) + depth * inner


class _Sizes:
    """Bytes of the tensors, by where llama.cpp puts them."""

    def __init__(self, layers: int) -> None:
        self.weights = [0] * layers
        self.experts = [0] * layers
        self.repacked = [0] * layers
        self.input = self.output = self.output_repacked = self.other = self.parameters = 0

    def add(self, tensor: Tensor) -> None:
        elements = 1
        for dimension in tensor.dimensions:
            elements *= dimension
        self.parameters += elements
        repacked = tensor.size if _is_repacked(tensor) else 0
        first, _, rest = tensor.name.partition(".")
        number, _, kind = rest.partition(".")
        layer = int(number) if number.isascii() and number.isdigit() and len(number) <= 3 else MAX_LAYERS
        if first == "blk" and layer < len(self.weights):
            self.weights[layer] += tensor.size
            self.repacked[layer] += repacked
            # llama.cpp's --cpu-moe means the tensors of these names.
            self.experts[layer] += tensor.size if "_exps" in kind or "_chexps" in kind else 0
        elif first == "token_embd" or first == "per_layer_token_embd":
            self.input += tensor.size
        elif first == "output":
            self.output += tensor.size
            self.output_repacked += repacked
        else:
            self.other += tensor.size


def _is_repacked(tensor: Tensor) -> bool:
    columns = tensor.dimensions[1] if len(tensor.dimensions) in (2, 3) else 0
    return tensor.type in _REPACKED_TYPES and columns > 0 and columns % 8 == 0


def _whole(value: object) -> int | None:
    """A number that can be a count; None for anything else. Raises ValueError for one that llama.cpp can't hold."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"it has {value} where a number from 0 to {_MAX_NUMBER} belongs")
    return value
