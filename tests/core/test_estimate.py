"""Estimates of memory: against sizes out of llama.cpp's log, where things go, and for whatever a preset may say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.estimate import _GPU_CONTEXT, _PROCESS, _TOKEN, estimate
from supervisor.core.llama_options import DEFAULT_CONTEXT, llama_options
from supervisor.core.misfits import Misfit, misfits
from supervisor.core.need import UNKNOWN, Need
from supervisor.core.preset import Preset
from supervisor.core.shape import MAX_LAYERS, Layer, Shape, Tensor, shape

MIB = 2**20
GIB = 2**30


def smollm2() -> Shape:
    """SmolLM2 135M, Q4_1."""
    layer = Layer(weights=2_216_448, heads=9, key_width=192, value_width=192)
    return Shape("llama", (layer,) * 30, 8192, 576, 1536, 49152, input_weights=30_081_024, other_weights=2304)


def gemma() -> Shape:
    """Gemma 3 270M: one layer of six sees the whole context, the others 512 tokens."""
    layers = [Layer(3_700_000, 0, 0, 4, 256, 256, windowed=index % 6 != 5) for index in range(18)]
    return Shape("gemma3", tuple(layers), 32768, 640, 2048, 262_144, 178_257_920, window=512)


def preset(**keys: Any) -> Preset:
    return Preset(**{"name": "m", "model": "/m.gguf", **keys})


def cache(model: Shape, asked: Preset) -> float:
    """MiB of the KV cache: what keys and values of no width would save."""
    without = [Layer(**{**vars(layer), "key_width": 0, "value_width": 0}) for layer in model.layers]
    lean = Shape(**{**vars(model), "layers": tuple(without)})
    sizes = [sum(estimate(asked, each).total(1).values()) for each in (model, lean)]
    return (sizes[0] - sizes[1]) / MIB


# Against llama.cpp's log


@pytest.mark.parametrize(
    ("model", "keys", "mebibytes"),
    [
        (smollm2(), {"context": 512}, 11.25),
        (smollm2(), {"context": 2048}, 45.0),
        (smollm2(), {"context": 8192}, 180.0),
        (smollm2(), {"context": 8000}, 180.0),
        (smollm2(), {"context": 1}, 5.625),
        (smollm2(), {"context": 0}, 180.0),
        (smollm2(), {}, 180.0),
        (smollm2(), {"context": 8192, "options": {"type_k": 8}}, 137.8125),
        (smollm2(), {"context": 8192, "options": {"type_k": 8, "type_v": 8, "flash_attn": True}}, 95.625),
        (smollm2(), {"options": {"n_ctx": 512}, "context": 8192}, 11.25),
        (gemma(), {"context": 512}, 1.5 + 7.5),
        (gemma(), {"context": 8192}, 24.0 + 120.0),
        (gemma(), {"context": 8192, "options": {"swa_full": False}}, 24.0 + 15.0),
        (gemma(), {"backend": "llama-server", "context": 8192, "parallel": 1}, 24.0 + 15.0),
        (gemma(), {"backend": "llama-server", "context": 8192, "parallel": 1, "options": {"swa-full": True}}, 144.0),
        (gemma(), {"backend": "llama-server", "parallel": 1}, 96.0 + 15.0),
        (
            gemma(),
            {"backend": "llama-server", "context": 8192, "options": {"cache-type-k": "q8_0"}},
            18.375 + 28.7109375,
        ),
    ],
    ids=lambda value: value.architecture if isinstance(value, Shape) else str(value),
)
def test_the_cache_is_as_llama_cpp_logs_it(model: Shape, keys: dict[str, Any], mebibytes: float) -> None:
    assert cache(model, preset(**keys)) == pytest.approx(mebibytes)


@pytest.mark.parametrize(
    ("model", "keys", "mebibytes"),
    [
        # What its processes had at 512, 2048 and 8192 tokens, less what they had before: Pss_Anon in /proc.
        (smollm2(), {"context": 512}, 72 - 51),
        (smollm2(), {"context": 2048}, 150 - 86),
        (smollm2(), {"context": 8192}, 454 - 221),
        (gemma(), {"context": 2048}, 163 - 116),
        # 48.6 and 256.6 MiB of the buffer for results are there from the beginning.
        (smollm2(), {"context": 2048, "embedding": True}, 949 - 140 + 48.6),
        (gemma(), {"context": 2048, "embedding": True}, 4257 - 378 + 256.6),
    ],
)
def test_buffers_are_as_measured(model: Shape, keys: dict[str, Any], mebibytes: float) -> None:
    asked = preset(**keys)
    rest = _PROCESS["llama-cpp-python"] + _TOKEN * model.vocabulary
    buffers = (estimate(asked, model).each["host"] - rest) / MIB - cache(model, asked)
    assert buffers == pytest.approx(mebibytes, rel=0.1, abs=12)


def test_the_parts_are_said_in_words() -> None:
    need = estimate(preset(context=8192), smollm2())
    assert need.source == "estimated"
    assert need.parts == "weights 92 MiB, KV cache 180 MiB, buffers 239 MiB, process 90 MiB"
    assert need.shared == {"host": 30 * 2_216_448 + 30_081_024 + 2304}


# Architectures


def header(architecture: str, **keys: Any) -> Shape:
    own = {"block_count": 4, "embedding_length": 64, "attention.head_count": 4, "context_length": 4096}
    given = own | {name.replace("__", "."): value for name, value in keys.items()}
    return shape({"general.architecture": architecture} | {f"{architecture}.{k}": v for k, v in given.items()}, [])


@pytest.mark.parametrize(
    ("architecture", "keys", "windowed"),
    [
        ("gemma2", {}, "#-#-"),
        ("gemma3", {"attention__sliding_window": 512}, "####"),
        ("gemma3", {}, "----"),
        ("gemma3", {"attention__sliding_window": 512, "attention__sliding_window_pattern": 2}, "#-#-"),
        ("gpt-oss", {"attention__sliding_window": 128}, "#-#-"),
        ("smallthinker", {}, "-###"),
        ("gemma4", {"attention__sliding_window": 9, "attention__sliding_window_pattern": [True, False]}, "#---"),
        ("qwen2", {"attention__sliding_window": 4096}, "----"),
    ],
)
def test_which_layers_look_back_a_window_only(architecture: str, keys: dict[str, Any], windowed: str) -> None:
    layers = header(architecture, **keys).layers
    assert "".join("#" if layer.windowed else "-" for layer in layers) == windowed


@pytest.mark.parametrize(
    ("architecture", "keys", "layers"),
    [
        ("llama", {}, [(64, 64, 0)] * 4),
        ("llama", {"attention__head_count_kv": 1, "attention__key_length": 32}, [(32, 16, 0)] * 4),
        ("deepseek2", {"attention__head_count_kv": 1, "attention__key_length": 576, "attention__key_length_mla": 192},
         [(576, 0, 0)] * 4),
        ("mamba", {"attention__head_count": 0, "ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16},
         [(0, 0, 3 * 128 + 16 * 128)] * 4),
        ("lfm2", {"attention__head_count_kv": [0, 0, 2, 0], "shortconv__l_cache": 3},
         [(0, 0, 128), (0, 0, 128), (32, 32, 0), (0, 0, 128)]),
        ("qwen3next", {"ssm__conv_kernel": 4, "ssm__inner_size": 10, "ssm__state_size": 2, "ssm__group_count": 3},
         [(0, 0, 3 * 22 + 20)] * 3 + [(64, 64, 0)]),
        ("rwkv7", {"attention__head_count": 0, "wkv__head_size": 64}, [(0, 0, 64 * 66)] * 4),
        ("gemma4", {"attention__shared_kv_layers": 3}, [(64, 64, 0)] + [(0, 0, 0)] * 3),
    ],
)  # fmt: skip
def test_what_a_layer_keeps(architecture: str, keys: dict[str, Any], layers: list[tuple[int, int, int]]) -> None:
    found = header(architecture, **keys).layers
    assert [(layer.key_width, layer.value_width, layer.state) for layer in found] == layers


def test_models_that_only_embed_keep_nothing() -> None:
    bert, llama = header("bert", vocab_size=1000), header("llama", vocab_size=1000)
    assert cache(bert, preset()) == 0
    assert cache(llama, preset()) > 0
    assert not bert.has_logits


def test_a_state_counts_for_each_sequence() -> None:
    model = header("mamba", attention__head_count=0, ssm__conv_kernel=1, ssm__inner_size=2**10, ssm__state_size=2**10)
    sizes = [
        estimate(preset(backend="llama-server", parallel=slots, context=256), model).each["host"] for slots in (1, 3)
    ]
    assert sizes[1] - sizes[0] == pytest.approx(2 * 4 * 4 * MIB, abs=MIB)


def test_what_ggml_repacks_is_there_twice() -> None:
    tensors = [Tensor("blk.0.ffn_up.weight", (256, 256), 12, 10 * MIB), Tensor("blk.1.norm.weight", (256,), 0, 5)]
    model = shape({"general.architecture": "llama", "llama.block_count": 2}, tensors)
    plain = estimate(preset(options={"no_repack": True}), model)
    assert plain.shared == estimate(preset(), model).shared == {"host": 10 * MIB + 5}
    assert estimate(preset(), model).each["host"] - plain.each["host"] == 10 * MIB
    unmapped = estimate(preset(options={"use_mmap": False}), model)
    assert unmapped.shared == {}
    assert unmapped.each["host"] - plain.each["host"] == 10 * MIB + 5


# GPUs


def devices(need: Need) -> set[str]:
    return set(need.total(1))


@pytest.mark.parametrize(
    ("keys", "gpus", "expected"),
    [
        ({}, 2, ["host"]),
        ({"gpu_layers": -1}, 0, ["host"]),
        ({"gpu_layers": 99}, 1, ["host", "gpu0"]),
        ({"gpu_layers": -1}, 3, ["host", "gpu0", "gpu1", "gpu2"]),
        ({"gpu_layers": 1}, 2, ["host", "gpu0"]),
        ({"options": {"n_gpu_layers": 99}}, 1, ["host", "gpu0"]),
        ({"gpu_layers": 99, "options": {"n_gpu_layers": 0}}, 1, ["host"]),
        ({"backend": "llama-server"}, 2, ["host", "gpu0", "gpu1"]),
        ({"backend": "llama-server", "options": {"-ngl": "0"}}, 2, ["host"]),
        ({"gpu_layers": 99, "env": {"CUDA_VISIBLE_DEVICES": "1"}}, 2, ["host", "gpu1"]),
        ({"gpu_layers": 99, "env": {"CUDA_VISIBLE_DEVICES": "2, 0"}}, 3, ["host", "gpu0", "gpu2"]),
        ({"gpu_layers": 99, "env": {"CUDA_VISIBLE_DEVICES": ""}}, 3, ["host"]),
        ({"gpu_layers": 99, "env": {"CUDA_VISIBLE_DEVICES": "1,-1,2"}}, 3, ["host", "gpu1"]),
        ({"gpu_layers": 99, "env": {"CUDA_VISIBLE_DEVICES": "7"}}, 3, ["host"]),
        ({"gpu_layers": 99, "options": {"split_mode": 0, "main_gpu": 1}}, 3, ["host", "gpu1"]),
        ({"gpu_layers": 99, "options": {"split-mode": "none"}}, 3, ["host", "gpu0"]),
        ({"gpu_layers": 99, "options": {"tensor_split": [0, 1]}}, 3, ["host", "gpu1"]),
        ({"gpu_layers": 99, "options": {"tensor-split": "1,0,3"}}, 3, ["host", "gpu0", "gpu2"]),
        ({"gpu_layers": 99, "options": {"tensor_split": "much"}}, 2, ["host", "gpu0", "gpu1"]),
    ],
    ids=str,
)
def test_where_things_go(keys: dict[str, Any], gpus: int, expected: list[str]) -> None:
    assert devices(estimate(preset(**keys), smollm2(), gpus=gpus)) == set(expected)


def test_no_number_of_gpus_is_too_large() -> None:
    assert len(devices(estimate(preset(gpu_layers=99), smollm2(), gpus=10**12))) == 1 + 31


def test_offloaded_layers_leave_the_host() -> None:
    model = smollm2()
    on_host = estimate(preset(context=512), model, gpus=1)
    half = estimate(preset(context=512, gpu_layers=16), model, gpus=1)
    whole = estimate(preset(context=512, gpu_layers=31), model, gpus=1)
    assert on_host.shared["host"] - half.shared["host"] == 15 * 2_216_448
    # Token embeddings stay, and this model's are its output as well.
    assert whole.shared["host"] == model.input_weights + model.other_weights
    at_least = model.weights + 11.25 * MIB + _GPU_CONTEXT
    assert at_least < whole.each["gpu0"] < at_least + 130 * MIB
    assert whole.each["host"] < on_host.each["host"]
    assert estimate(preset(context=512, gpu_layers=10**6), model, gpus=1) == whole


def test_the_cache_may_stay_on_the_host() -> None:
    asked = {"context": 8192, "gpu_layers": 99}
    there = estimate(preset(**asked), smollm2(), gpus=1)
    here = estimate(preset(**asked, options={"offload_kqv": False}), smollm2(), gpus=1)
    assert here.each["host"] - there.each["host"] == there.each["gpu0"] - here.each["gpu0"] == 180 * MIB


def test_layers_are_split_as_llama_cpp_does() -> None:
    model = Shape("llama", tuple(Layer(weights=GIB) for _ in range(9)), 256, 1, 1, 1, output_weights=GIB)
    asked = preset(gpu_layers=10, options={"tensor_split": [3, 1]})
    each = estimate(asked, model, gpus=2).each
    assert (each["gpu0"] // GIB, each["gpu1"] // GIB) == (8, 2)


def test_experts_can_stay_on_the_host() -> None:
    model = Shape("qwen3moe", tuple(Layer(weights=10, experts=8) for _ in range(4)), 256, 1, 1, 1)
    given = {"backend": "llama-server", "context": 256}
    shared = [
        estimate(preset(**given, options=options), model, gpus=1).shared.get("host", 0)
        for options in ({}, {"n-cpu-moe": 3}, {"cpu-moe": True})
    ]
    assert shared == [0, 24, 32]


# Anything that a preset may say


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
NAMES = st.sampled_from(
    [
        *("n_ctx", "ctx-size", "n_batch", "ub", "n_gpu_layers", "type_k", "cache-type-v", "fa", "no-mmap", "swa_full"),
        *("tensor_split", "split_mode", "main-gpu", "parallel", "kv-unified", "embedding", "logits_all", "cache"),
        *("cache_size", "offload_kqv", "n-cpu-moe", "cpu-moe", "--no-repack", "x"),
    ]
)


@settings(max_examples=300)
@given(
    options=st.dictionaries(NAMES, PLAIN | st.lists(PLAIN, max_size=4), max_size=6),
    keys=st.fixed_dictionaries(
        {},
        optional={
            "backend": st.sampled_from(["llama-cpp-python", "llama-server"]),
            "context": st.integers(0, 2**31 - 1),
            "gpu_layers": st.integers(-1, 2**31 - 1),
            "parallel": st.integers(1, 2**31 - 1),
            "embedding": st.booleans(),
        },
    ),
    model=st.sampled_from([smollm2(), gemma(), header("bert"), header("mamba", attention__head_count=0)]),
    gpus=st.integers(0, 4),
)
def test_there_is_always_an_estimate(options: dict[str, Any], keys: dict[str, Any], model: Shape, gpus: int) -> None:
    need = estimate(preset(**keys, options=options), model, 5, gpus)
    assert all(isinstance(size, int) and size > 0 for size in need.total(1).values())
    assert need.total(1).keys() <= {"host", *(f"gpu{number}" for number in range(gpus))}
    assert sum(need.total(1).values()) > model.weights
    assert need.parts.startswith("weights ")


@given(contexts=st.lists(st.integers(1, 200_000), min_size=2, max_size=2), model=st.sampled_from([smollm2(), gemma()]))
def test_more_context_never_takes_less(contexts: list[int], model: Shape) -> None:
    less, more = (estimate(preset(context=context), model).each["host"] for context in sorted(contexts))
    assert less <= more


@given(st.dictionaries(st.text(), PLAIN | st.lists(PLAIN), max_size=5), st.data())
def test_any_header_has_a_shape_or_a_fault(strange: dict[str, Any], data: st.DataObject) -> None:
    keys = ["attention.head_count", "attention.head_count_kv", "attention.sliding_window_pattern", "context_length"]
    keys += ["block_count", "embedding_length", "ssm.state_size", "ssm.inner_size", "expert_used_count"]
    odd = {f"gemma3.{key}": data.draw(PLAIN | st.lists(PLAIN)) for key in data.draw(st.sets(st.sampled_from(keys)))}
    usual = {"general.architecture": "gemma3", "gemma3.block_count": 2, "gemma3.attention.sliding_window": 5}
    try:
        found = shape(strange | usual | odd, [Tensor(data.draw(st.text()), (2, 2), 1, 8)])
    except ValueError as error:
        assert str(error).startswith("it has ")
    else:
        assert 0 < len(found.layers) <= MAX_LAYERS
        assert estimate(preset(), found).total(1)["host"] > 0


def test_a_context_that_is_not_given() -> None:
    assert llama_options(preset(), 10**6).context == DEFAULT_CONTEXT
    assert llama_options(preset(), 2048).context == 2048
    assert llama_options(preset(), 0).context == DEFAULT_CONTEXT
    assert llama_options(preset(backend="llama-server", parallel=1), 40960).context == 40960
    assert llama_options(preset(backend="llama-server", parallel=3, context=1000), 40960).context == 3 * 512


# What does not fit


def of(**sizes: int) -> Need:
    return Need("estimated", {}, sizes)


def test_replicas_that_do_not_fit_together() -> None:
    presets = {"m": preset(replicas=4), "n": preset(name="n")}
    needs = {"m": Need("estimated", {"host": GIB}, {"host": 2 * GIB}), "n": of(host=GIB)}
    message = "cannot run 4 replicas: they need 9.0 GiB of host, and memory allows 8.0 GiB; 3 fit"
    assert misfits(presets, needs, {"host": 8 * GIB}) == [Misfit("m", "replicas", message, fatal=True)]
    assert misfits(presets, needs, {"host": 9 * GIB}) == []
    assert misfits(presets, needs, {}) == []
    assert misfits(presets, needs, {"host": 3 * GIB})[0].message.endswith("allows 3.0 GiB; 1 fits")


def test_a_model_that_does_not_fit_is_a_notice_while_another_does() -> None:
    presets = {"m": preset(), "n": preset(name="n", memory={"gpu0": 5 * GIB}), "o": preset(name="o")}
    needs = {"m": of(host=9 * GIB, gpu0=GIB), "n": UNKNOWN, "o": of(host=GIB)}
    assert misfits(presets, needs, {"host": 8 * GIB, "gpu0": 4 * GIB}) == [
        Misfit("m", "model", "cannot run it: it needs 9.0 GiB of host, and memory allows 8.0 GiB", fatal=False),
        Misfit("n", "memory", "cannot run it: it needs 5.0 GiB of gpu0, and memory allows 4.0 GiB", fatal=False),
    ]


def test_nothing_fits() -> None:
    presets = {"m": preset(replicas=3), "n": preset(name="n"), "o": preset(name="o")}
    needs = {"m": of(host=10 * GIB), "n": of(host=9 * GIB), "o": UNKNOWN}
    message = "cannot run any model: n, which needs least, needs 9.0 GiB of host, and memory allows 8.0 GiB; "
    message += "allow more, or use smaller models"
    assert misfits(presets, needs, {"host": 8 * GIB}) == [Misfit(None, "memory", message, fatal=True)]
    assert [misfit.fatal for misfit in misfits(presets, needs, {"host": 9 * GIB})] == [False]
    assert misfits({}, {}, {"host": 0}) == []


def test_a_measure_makes_nothing_invalid() -> None:
    presets = {"m": preset(replicas=3), "n": preset(name="n")}
    needs = {"m": Need("measured", {}, {"host": 7 * GIB}), "n": of(host=9 * GIB)}
    assert [misfit.fatal for misfit in misfits(presets, needs, {"host": 8 * GIB})] == [False]
    declared = {"m": preset(replicas=3, memory={"host": 3 * GIB})}
    assert [misfit.key for misfit in misfits(declared, needs, {"host": 8 * GIB})] == ["replicas"]
