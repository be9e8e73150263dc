"""Starts `python -m supervisor.model_server`, or has it forked: the llama-cpp-python installed next to llama-router.

llama_cpp is never imported here: option names and values are checked by the model server itself, which says what is
wrong with them and ends with exit code 78.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.backends import Place, Plan
from supervisor.core.llama_options import DEFAULT_CONTEXT
from supervisor.core.preset import Preset
from supervisor.errors import CannotStart

MODULE = "supervisor.model_server"
# -P: the current directory must not stand in for any of the modules imported.
PYTHON = (sys.executable, "-P", "-m")

# What the dynamic linker, the C library, Python and the libraries that a model server imports read when the process
# starts or when they are loaded, seen with a getenv(3) that tells: too early for a process that is forked after that.
READ_AT_START = frozenset({"GCONV_PATH", "GGML_NO_BACKTRACE", "HOME", "LANG", "LANGUAGE", "LOCPATH", "TMPDIR", "TZ"})
READ_AT_START_PREFIXES = (
    *("LD_", "GLIBC_", "MALLOC_", "LC_", "MIMALLOC_", "TCMALLOC_"),
    *("OMP_", "GOMP_", "KMP_", "ACC_", "GFORTRAN_"),
    *("OPENBLAS_", "GOTO", "MKL_", "BLIS_", "NPY_", "NUMPY_", "OPENSSL_", "SQLITE_"),
    *("PYTHON", "_PYTHON", "PYDANTIC_", "OTEL_", "COVERAGE_", "LLAMA_CPP_LIB"),
)


def plan(preset: Preset, place: Place) -> Plan:
    """Write the settings file and say how to start the model server. Raises CannotStart if it can't be written."""
    try:
        _write_private(place.settings, json.dumps(settings(preset)))
    except OSError as error:
        raise CannotStart(
            f"cannot start {preset.name}: cannot write settings {place.settings}: {error.strerror}"
        ) from error
    argv = (*PYTHON, MODULE, "--socket", str(place.socket), "--settings", str(place.settings))
    call = {"settings": settings(preset), "socket": str(place.socket)} if can_be_forked(preset) else None
    return Plan(argv, _environment(preset.env), f"unix:{place.socket}", call)


def forkserver() -> tuple[tuple[str, ...], dict[str, str]]:
    """The command line and the variables of the forkserver: those of a model server whose preset has none."""
    return (*PYTHON, "supervisor.forkserver", f"{MODULE}:serve"), _environment({})


def can_be_forked(preset: Preset) -> bool:
    """False where the preset's variables would come too late for a process that has everything imported."""
    return preset.backend == "llama-cpp-python" and not any(map(_read_at_start, preset.env))


def _read_at_start(variable: str) -> bool:
    return variable in READ_AT_START or variable.startswith(READ_AT_START_PREFIXES)


def settings(preset: Preset) -> dict[str, Any]:
    """The preset as fields of llama_cpp.server.settings.ModelSettings; its `options` win over what is derived.

    `parallel` has no field: llama-cpp-python serves one request at a time. `n_ctx` is left out for DEFAULT_CONTEXT.
    """
    fields: dict[str, Any] = {
        "model": preset.model,
        "model_alias": preset.name,
        "embedding": preset.embedding,
        # ModelSettings defaults to true. Every prompt token's logits are then computed and kept: n_ctx × n_vocab × 4
        # bytes, 5 GB for 8192 tokens of a 150000-token vocabulary. Only answering with logprobs needs them.
        "logits_all": False,
        # ModelSettings defaults to true: the kernel could never take the weights back when memory is short.
        "use_mlock": False,
        "verbose": False,
    }
    if preset.context is not None:
        fields["n_ctx"] = preset.context
    if preset.embedding:
        # An input must fit into one batch, and llama-cpp-python cuts off what does not; its default is 512.
        fields["n_batch"] = fields["n_ubatch"] = preset.context or DEFAULT_CONTEXT
    if preset.gpu_layers is not None:
        fields["n_gpu_layers"] = preset.gpu_layers
    if preset.threads is not None:
        fields["n_threads"] = fields["n_threads_batch"] = preset.threads
    if preset.mmproj is not None:
        # A projector is ignored without a chat format that reads images; mtmd suits all of them.
        fields |= {"clip_model_path": preset.mmproj, "chat_format": "mtmd"}
    return fields | {name.replace("-", "_"): value for name, value in preset.options.items()}


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The preset's variables, and where to find this package when it does not lie where Python looks by itself."""
    env = {"PYTHONUNBUFFERED": "1", **variables}
    root = str(Path(__file__).resolve().parents[2])
    if root != sysconfig.get_path("purelib"):
        given = env.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
        env["PYTHONPATH"] = os.pathsep.join([root, given] if given else [root])
    return env


def _write_private(path: Path, text: str) -> None:
    """Replace `path` by a new file of mode 0600: an old file's mode, or a link in its place, must not count."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
