"""What the models API tells of a preset beside its state: what its model is, and what its server is started with.

Shapes and words are those of llama-server's router (llama.cpp b11434: server-models.cpp, get_res_model_info of
server-context.cpp, llama_ftype_name of llama-model-loader.cpp), so that its clients find what they know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from supervisor.core.llama_options import llama_options
from supervisor.core.preset import Preset
from supervisor.core.secrets import is_secret, without_secrets
from supervisor.core.shape import Shape

# enum llama_ftype, in llama.cpp's words.
FILE_TYPES = {
    **{0: "all F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K - Medium"},
    **{11: "Q3_K - Small", 12: "Q3_K - Medium", 13: "Q3_K - Large", 14: "Q4_K - Small", 15: "Q4_K - Medium"},
    **{16: "Q5_K - Small", 17: "Q5_K - Medium", 18: "Q6_K", 19: "IQ2_XXS - 2.0625 bpw", 20: "IQ2_XS - 2.3125 bpw"},
    **{21: "Q2_K - Small", 22: "IQ3_XS - 3.3 bpw", 23: "IQ3_XXS - 3.0625 bpw", 24: "IQ1_S - 1.5625 bpw"},
    **{25: "IQ4_NL - 4.5 bpw", 26: "IQ3_S - 3.4375 bpw", 27: "IQ3_S mix - 3.66 bpw", 28: "IQ2_S - 2.5 bpw"},
    **{29: "IQ2_M - 2.7 bpw", 30: "IQ4_XS - 4.25 bpw", 31: "IQ1_M - 1.75 bpw", 32: "BF16"},
    **{36: "TQ1_0 - 1.69 bpw ternary", 37: "TQ2_0 - 2.06 bpw ternary", 38: "MXFP4 MoE", 39: "NVFP4"},
    **{40: "Q1_0", 41: "Q2_0"},
}
UNKNOWN_FILE_TYPE = "unknown, may not work"

Json = dict[str, Any]


def meta(preset: Preset, shape: Shape) -> Json:
    """llama-server's `meta` of a model, as its header has it. `n_ctx` is what one request may use, `size` bytes."""
    options = llama_options(preset, shape.context)
    return {
        "vocab_type": shape.vocabulary_type,
        "n_vocab": shape.vocabulary,
        "n_ctx": options.context if options.unified else options.context // options.sequences,
        "n_ctx_train": shape.context,
        "n_embd": shape.embedding,
        "n_params": shape.parameters,
        "size": shape.weights,
        "ftype": FILE_TYPES.get(-1 if shape.file_type is None else shape.file_type, UNKNOWN_FILE_TYPE),
    }


def architecture(inputs: Iterable[str]) -> Json:
    """What goes in and comes out. llama-server says "text" of every output, that of embedding models included."""
    return {"input_modalities": ["text", *inputs], "output_modalities": ["text"]}


def ini(preset: Preset) -> str:
    """The keys that a server of `preset` is started with, as a section of llama-server's models.ini.

    Common keys have llama-server's names, `options` win over them. Secrets are left out, and so is `env`, whose
    values may be some.
    """
    lines = [f"{name} = {_text(value)}" for name, value in _options(preset).items()]
    return "\n".join([f"[{_text(preset.name)}]", *lines, "", ""])


def llama_server_args(preset: Preset) -> list[str]:
    """The command line that llama-server would be given for `preset`, without secrets and without its address."""
    given = {"alias": preset.name, **_options(preset)}
    return [
        preset.binary or preset.backend,
        *(part for name, value in given.items() for part in _argument(name, value)),
    ]


def settings_args(program: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings by name as arguments of a command line, without secrets."""
    shown = {name: value for name, value in settings.items() if not is_secret(name)}
    return [program, *(part for name, value in shown.items() for part in (f"--{name}", _text(value)))]


def _options(preset: Preset) -> dict[str, Any]:
    """What the server is started with, by llama-server's names."""
    common = {
        "model": preset.model,
        "mmproj": preset.mmproj,
        "ctx-size": preset.context,
        "n-gpu-layers": preset.gpu_layers,
        "parallel": preset.parallel,
        "threads": preset.threads,
        "embeddings": preset.embedding or None,
        "command": without_secrets(preset.command) if preset.command else None,
    }
    options: dict[str, Any] = {name: value for name, value in common.items() if value is not None}
    options |= {name.lstrip("-").replace("_", "-"): value for name, value in preset.options.items()}
    return {name: value for name, value in options.items() if not is_secret(name)}


def _argument(name: str, value: Any) -> list[str]:
    if value is None or value is True:
        return [f"--{name}"]
    return [f"--no-{name}"] if value is False else [f"--{name}", _text(value)]


def _text(value: Any) -> str:
    """A value on one line, strings as they are."""
    if isinstance(value, str) and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=isinstance(value, str))
