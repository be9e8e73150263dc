"""Loads the model of a model server, shows llama.cpp's log, and tells the failures apart.

llama.cpp says why it failed in its log only, so its error lines are kept to explain what llama_cpp raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import errno
import functools
import os
import re
import stat
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from llama_cpp import _internals
from llama_cpp import llama_cpp as bindings
from llama_cpp.server.settings import ModelSettings, ServerSettings
from pydantic import ValidationError

from supervisor import model_server_app, model_server_vocabulary
from supervisor.core.llama_options import DEFAULT_CONTEXT
from supervisor.core.quantities import shown
from supervisor.core.vocabularies import suits
from supervisor.errors import RouterError
from supervisor.model_server_app import Model
from supervisor.model_server_vocabulary import CannotKeep, Vocabulary

_GGUF_VERSIONS = range(2, 0x10000)  # beyond: a version in the other byte order
_DEBUG, _INFO, _WARNING, _ERROR, _CONTINUED = 1, 2, 3, 4, 5  # enum ggml_log_level
_NO_VOCABULARY = re.compile(r"adding \d+ dummy tokens")  # a warning, of one whose vocabulary was kept
_WORTH_READING = re.compile(
    r"print_info: (general\.name|arch|file type|file size|model params|n_ctx_train) "
    r"|offloaded \d+/|using device|: n_ctx  |(model|KV|compute) buffer size|ggml_\w+_init: found"
    r"|loaded \w+ backend"
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cannot allocate|bad_alloc|ErrorOutOfDeviceMemory", re.I
)
_UNSUITABLE = re.compile(r"requires|not supported|unsupported|must be|incompatible", re.I)
_UNREADABLE = re.compile(r"read error|input/output error|mmap failed|failed to open", re.I)


class CannotLoad(RouterError):
    """The model can't be loaded; the process ends with `exit_code`. `number` is the errno to report, if any."""

    def __init__(self, what: object, why: str, exit_code: int, number: int | None = None) -> None:
        super().__init__(f"cannot load {what}: {why}")
        self.exit_code = exit_code
        self.number = number


@functools.cache
def application() -> FastAPI:
    """The ASGI application, which answers once a model is loaded. Always the same."""
    return model_server_app.application(_ServerSettings(interrupt_requests=False))


def load(settings: Mapping[str, Any], on_progress: Callable[[float], None]) -> tuple[Model, str]:
    """The model, loaded for `application`, and a line about it. Raises CannotLoad.

    `settings` are ModelSettings fields; without `n_ctx` the context is DEFAULT_CONTEXT, or what the model was trained
    for if that is less. `on_progress` is called with the part of the weights that is loaded, 0 to 1.
    """
    path = settings.get("model")
    model_settings = _checked(settings)
    _check_files(model_settings)
    kept = _kept if _kept is not None and _kept.path == path and suits(settings) else None
    print(f"loading {path}{', but for its vocabulary' if kept else ''}", file=sys.stderr, flush=True)
    application()
    log = _NativeLog(verbose=model_settings.verbose)
    _load_ggml_backends()
    cap_context = "n_ctx" not in settings
    model = None
    if kept is not None:
        model = _load_with(kept, model_settings, on_progress, cap_context=cap_context)
    try:
        if model is None:
            with _hooked(on_progress, cap_context=cap_context):
                model = model_server_app.load(model_settings)
    except Exception as error:
        raise _explain(path, error, list(log.errors)) from error
    log.is_muted = model.is_aborting
    llama = model.llama
    status = f"{llama._model.desc()}, {llama.n_ctx()} tokens of context"
    print(f"loaded {path}: {status}", file=sys.stderr, flush=True)
    return model, status


def keep(settings: Mapping[str, Any]) -> Callable[[], None]:
    """Read the vocabulary of the model that `settings` name, for whatever this process's forks are to `load`.

    Returns a function that raises OSError once the file is another one. Raises RouterError.
    """
    global _kept
    path = settings.get("model")
    log = _NativeLog(verbose=False)
    log.is_muted = lambda: True
    try:
        _check_files(_checked(settings))
        _kept = model_server_vocabulary.read(settings)
    except (CannotLoad, CannotKeep, OSError) as error:
        why = log.errors[0] if log.errors else str(error).removeprefix(f"cannot load {path}: ")
        raise RouterError(f"cannot keep the vocabulary of {path}: {why}") from None
    return _kept.check


def _load_with(
    kept: Vocabulary, settings: Any, on_progress: Callable[[float], None], *, cap_context: bool
) -> Model | None:
    """The model, with this vocabulary; None if it can't be loaded so: what is wrong with a file is found again when
    all of it is loaded."""
    try:
        with _hooked(on_progress, cap_context=cap_context, vocabulary=kept):
            model = model_server_app.load(settings)
        try:
            kept.check()  # behind the load, during which the file may have been replaced
        except OSError:
            model.llama.close()
            raise
        return model
    except Exception as error:
        print(f"loading {settings.model} with its vocabulary: {error}", file=sys.stderr, flush=True)
        return None


class _OnlyArguments:
    """pydantic-settings without the environment: API_KEY, MODEL or SEED there are not meant for this server."""

    @classmethod
    def settings_customise_sources(cls, _cls: Any, init_settings: Any, **_others: Any) -> tuple[Any, ...]:
        return (init_settings,)


class _ModelSettings(_OnlyArguments, ModelSettings):  # type: ignore[misc]  # llama_cpp is untyped
    pass


class _ServerSettings(_OnlyArguments, ServerSettings):  # type: ignore[misc]  # llama_cpp is untyped
    pass


def _checked(settings: Mapping[str, Any]) -> Any:
    """The settings as ModelSettings. Raises CannotLoad for an unknown option or a value that does not fit."""
    known = list(ModelSettings.model_fields)
    path = settings.get("model")
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"llama-cpp-python knows {', '.join(sorted(known))}"
            raise CannotLoad(path, f"unknown option {name!r}: {hint}", os.EX_CONFIG)
    try:
        return _ModelSettings(**{"n_ctx": DEFAULT_CONTEXT, "verbose": False, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        value = "missing" if first["type"] == "missing" else repr(first["input"])
        raise CannotLoad(path, f"option {name!r} cannot be {value}: {first['msg']}", os.EX_CONFIG) from None


def _check_files(settings: Any) -> None:
    """Look at each file that llama.cpp will be given, for its own words on these are poor. Raises CannotLoad."""
    paths = [settings.clip_model_path, settings.lora_path]
    if settings.hf_model_repo_id is None:
        paths.insert(0, settings.model)
    for path in paths:
        if path is not None:
            _check_gguf(path)


def _load_ggml_backends() -> None:
    """Have llama.cpp choose among its ggml backends, where these are libraries of their own (GGML_BACKEND_DL).

    The Debian package has one for each kind of CPU. Left to itself, llama.cpp looks for them beside the executable,
    which here is Python, and in the current directory (ggml_backend_load_all in ggml/src/ggml-backend-reg.cpp).
    """
    ggml = bindings._lib
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if not ggml.ggml_backend_reg_count():
        ggml.ggml_backend_load_all_from_path.argtypes = (ctypes.c_char_p,)
        ggml.ggml_backend_load_all_from_path.restype = None
        ggml.ggml_backend_load_all_from_path(os.fsencode(os.path.dirname(ggml._name)))  # noqa: PTH120


def _check_gguf(path: str) -> None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - Path would accept "" as "."
            raise CannotLoad(path, "it is not a regular file; give the path of a GGUF file", os.EX_NOINPUT)
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(8)
    except OSError as error:
        passing = error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
        code = os.EX_IOERR if passing else os.EX_NOINPUT
        raise CannotLoad(path, error.strerror or str(error), code) from None
    magic, version = head[:4], int.from_bytes(head[4:8], "little")
    if not head:
        raise CannotLoad(path, "the file is empty", os.EX_DATAERR)
    if magic != b"GGUF":
        raise CannotLoad(path, f"it is not a GGUF file: it begins with {shown(magic)}, not 'GGUF'", os.EX_DATAERR)
    if version not in _GGUF_VERSIONS:
        raise CannotLoad(path, f"GGUF version {version} can't be read; convert the model anew", os.EX_DATAERR)


def _explain(path: object, error: Exception, lines: Sequence[str]) -> CannotLoad:
    """Tell failures apart by llama.cpp's error lines; llama_cpp's own exceptions say only that it failed."""
    memory = next((line for line in lines if _OUT_OF_MEMORY.search(line)), None)
    if memory or isinstance(error, MemoryError):
        return CannotLoad(path, f"out of memory: {memory or error}", os.EX_OSERR, errno.ENOMEM)
    if lines:
        if any(_UNREADABLE.search(line) for line in lines):
            return CannotLoad(path, lines[0], os.EX_IOERR)
        if str(error).startswith("Failed to load model"):
            return CannotLoad(path, lines[0], os.EX_DATAERR)
        return CannotLoad(path, lines[0], os.EX_CONFIG if _UNSUITABLE.search(lines[0]) else os.EX_SOFTWARE)
    if isinstance(error, ValueError | AssertionError):
        return CannotLoad(path, str(error), os.EX_CONFIG)
    traceback.print_exception(error)
    return CannotLoad(path, f"{type(error).__name__}: {error}", os.EX_SOFTWARE)


@contextlib.contextmanager
def _hooked(
    report: Callable[[float], None], *, cap_context: bool, vocabulary: Vocabulary | None = None
) -> Iterator[None]:
    """While a model is loaded: report progress, keep stderr open, cap the context at what it was trained for, pool
    embeddings as OpenAI's API needs it where the model does not say how, and use a `vocabulary` that was kept.

    llama_cpp.Llama has no parameters for these. It makes its llama.cpp structures itself, by functions looked up in
    the bindings' module, so that is where they can be changed.
    """
    default_params, init, vocabulary_of, suppress = (
        bindings.llama_model_default_params,
        bindings.llama_init_from_model,
        bindings.llama_model_get_vocab,
        _internals.suppress_stdout_stderr,
    )
    overrides = vocabulary.overrides() if vocabulary else None

    @bindings.llama_progress_callback  # type: ignore[untyped-decorator]  # llama_cpp is untyped
    def on_progress(done: float, _data: Any) -> bool:
        report(done)
        return True

    def with_progress() -> Any:
        params = default_params()
        params.progress_callback = on_progress
        if overrides is not None:
            params.kv_overrides = overrides
        return params

    def with_context(model: Any, params: Any) -> Any:
        if cap_context:
            params.n_ctx = min(params.n_ctx, bindings.llama_model_n_ctx_train(model))
        unspecified = params.pooling_type == bindings.LLAMA_POOLING_TYPE_UNSPECIFIED
        if params.embeddings and unspecified and not _names_pooling(model):
            params.pooling_type = bindings.LLAMA_POOLING_TYPE_MEAN  # else there would be a vector for each token
        return init(model, params)

    bindings.llama_model_default_params = with_progress
    bindings.llama_init_from_model = with_context
    if vocabulary is not None:
        bindings.llama_model_get_vocab = lambda _model: vocabulary.pointer
    # It would send the words of a crash (GGML_ASSERT, a driver's) to /dev/null with all the rest.
    _internals.suppress_stdout_stderr = lambda disable=True: contextlib.nullcontext()
    try:
        yield
    finally:
        bindings.llama_model_default_params = default_params
        bindings.llama_init_from_model = init
        bindings.llama_model_get_vocab = vocabulary_of
        _internals.suppress_stdout_stderr = suppress


def _names_pooling(model: Any) -> bool:
    """Whether the GGUF says how its embeddings are pooled; models made for embedding do."""
    text = ctypes.create_string_buffer(64)
    bindings.llama_model_meta_val_str(model, b"general.architecture", text, len(text))
    return bool(bindings.llama_model_meta_val_str(model, text.value + b".pooling_type", text, len(text)) >= 0)


class _NativeLog:
    """llama.cpp's log, line by line to stderr: warnings, errors and what was loaded; all but debugging if verbose.

    `errors` are the latest error lines, without the names of functions.
    """

    def __init__(self, *, verbose: bool) -> None:
        self.errors: deque[str] = deque(maxlen=20)
        self.is_muted: Callable[[], bool] = lambda: False
        self._verbose = verbose
        self._level = _INFO
        self._pending = ""
        # llama.cpp calls it until the process ends, and llama_cpp keeps no reference.
        global _log_callback
        _log_callback = bindings.llama_log_callback(self._on_text)
        bindings.llama_log_set(_log_callback, ctypes.c_void_p(0))

    def _on_text(self, level: int, text: bytes, _data: Any) -> None:
        if level != _CONTINUED:
            self._level = level
        if self._level == _DEBUG:  # some 2,000 lines a load, which nobody wants
            return
        self._pending += text.decode("utf-8", "replace")
        *lines, self._pending = self._pending.split("\n")
        for line in lines:
            self._on_line(self._level, line.rstrip())

    def _on_line(self, level: int, line: str) -> None:
        if line and level == _ERROR:
            self.errors.append(re.sub(r"^\w+: (error loading model: )?", "", line))
        if not line or self.is_muted() or _NO_VOCABULARY.search(line):
            return
        if level >= _WARNING or (level == _INFO and (self._verbose or _WORTH_READING.search(line))):
            sys.stderr.write(f"{line}\n")  # print() would write, and wake the reader, twice


_log_callback: Any = None
_kept: Vocabulary | None = None
