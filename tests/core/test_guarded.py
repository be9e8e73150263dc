"""What of a preset a browser may not add or change."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core.guarded import refused
from supervisor.core.preset import Preset


def preset(**keys: Any) -> Preset:
    return Preset.model_validate({"name": "m", "model": "/m.gguf", **keys})


def command(**keys: Any) -> Preset:
    return Preset.model_validate({"name": "m", "backend": "command", "command": ["x", "{port}"], **keys})


def keys_of(old: Preset | None, new: Preset) -> list[tuple[str, ...]]:
    return [keys for keys, _ in refused(old, new)]


def test_what_runs() -> None:
    assert keys_of(None, command()) == [("command",)]
    assert keys_of(preset(), command()) == [("command",)]
    assert keys_of(command(), command(description="other words")) == []
    assert keys_of(command(), preset()) == []
    server = preset(backend="llama-server", binary="/opt/llama-server")
    assert keys_of(preset(), server) == [("binary",)]
    assert keys_of(server, preset(backend="llama-server")) == []


def test_variables_one_by_one() -> None:
    old = preset(env={"A": "1", "B": "2"})
    assert keys_of(old, preset(env={"A": "1"})) == []
    assert keys_of(old, preset(env={"A": "1", "B": "3", "C": "4"})) == [("env", "B"), ("env", "C")]


FILES: list[tuple[str, Any]] = [
    *(("log-file", "x"), ("--log-file", "x"), ("log_file", "x"), ("slot-save-path", "x"), ("rpc", "h:1")),
    *(("lookup-cache-dynamic", "x"), ("lcd", "x"), ("-lcd", "x"), ("lora", "x"), ("path", "x"), ("tools", "all")),
    *(
        ("ag", True),
        ("-ag", True),
        ("AG", True),
        ("hfrd", "x/y"),
        ("hfv", "x/y"),
        ("model-draft", "x.gguf"),
        ("md", "x"),
    ),
    *(("model", "x.gguf"), ("spec-draft-model", "x.gguf"), ("no-mmap", "--agent"), ("flash-attn", "-ag")),
    *(("unheard-of", 1), ("samplers", ["top_k", "--tools"]), ("jinja", "--agent")),
    *(("chat-template-file", "x"), ("rpc_servers", "h:1"), ("hf_tokenizer_config_path", "x"), ("hff", "x")),
    *(
        ("cache_type", "disk"),
        ("grammar", "/x"),
        ("grammar", "~/x"),
        ("chat-template", "./x"),
        ("samplers", ["a", "../x"]),
    ),
]


@pytest.mark.parametrize(("name", "value"), FILES)
def test_options_that_name_files(name: str, value: Any) -> None:
    new = preset(options={name: value})
    assert keys_of(preset(), new) == keys_of(None, new) == [("options", name)]
    assert keys_of(new, preset(options={name: value}, context=5)) == []
    # Another backend may do something else with it.
    assert keys_of(new, preset(options={name: value}, backend="llama-server")) == [("options", name)]


PLAIN: list[tuple[str, Any]] = [
    *(("n_batch", 512), ("flash-attn", True), ("cache-type-k", "q8_0"), ("cache_type", "ram"), ("temp", 0.5)),
    *(("slot-prompt-similarity", 0.1), ("tensor-split", "3,1"), ("chat-template", "chatml"), ("no-mmap", None)),
    *(("seed", -1), ("seed", "-1"), ("temp", "-.5"), ("c", 4096), ("-c", 4096), ("n_gpu_layers", "-1")),
]


@pytest.mark.parametrize(("name", "value"), PLAIN)
def test_options_that_do_not(name: str, value: Any) -> None:
    assert keys_of(preset(), preset(options={name: value})) == []
