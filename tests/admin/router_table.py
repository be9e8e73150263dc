"""What llama-server's router mode answers, recorded from llama.cpp's llama-server (ggml 0.26) with

    llama-server --models-dir models --models-preset router.ini --models-max 2

where models/ held SmolLM2 135M as "smol" and a file "broken" that is no model, and router.ini gave "smol" the aliases
s1 and s2 and ctx-size = 512. Paths and ports are left out; bodies are as they were, and headers that matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]

INVALID, NOT_FOUND, SERVER, DISABLED = "invalid_request_error", "not_found_error", "server_error", "feature_disabled"
PARSER = "…"  # the parser's own words


class Row(NamedTuple):
    """A request and the error it was answered with; without a type, it was answered well."""

    method: str
    target: str
    body: bytes | None
    status: int
    type: str | None = None
    message: str | None = None


def _rows(method: str, targets: str, *answer: Any, body: bytes | None = None) -> list[Row]:
    return [Row(method, target, body, *answer) for target in targets.split()]


FILE_NOT_FOUND = (404, NOT_FOUND, "File Not Found")
KNOWN = "/models /v1/models /health /v1/health"

METHODS = [
    *_rows("GET", f"{KNOWN} /props", 200),
    *_rows("HEAD", f"{KNOWN} /props /models/sse", 200),
    *_rows("GET", "/props?model= /props?autoload=true", 200),
    *_rows("GET", "/models?reload=1 /models?reload=0 /models?reload=true /models?reload= /models?reload", 200),
    *_rows("GET", "/nope /v1/nope", *FILE_NOT_FOUND),
    *_rows("HEAD", "/nope /models/load", 404),
    *_rows("POST", "/v1/models /models/sse /health /v1/health /nope /v1/nope", *FILE_NOT_FOUND, body=b"{}"),
    *_rows("PUT", f"{KNOWN} /models/load /models/unload /models/sse /nope", *FILE_NOT_FOUND, body=b"{}"),
    *_rows("PATCH", f"{KNOWN} /models/load /models/unload /models/sse /nope", *FILE_NOT_FOUND, body=b"{}"),
    *_rows("DELETE", "/v1/models /models/load /models/unload /models/sse /health /nope", *FILE_NOT_FOUND),
    *_rows("GET", "/cors-proxy /tools", 403, DISABLED, "this feature is disabled"),
    *_rows("POST", "/cors-proxy /tools", 403, DISABLED, "this feature is disabled", body=b"{}"),
    *_rows("HEAD", "/cors-proxy /tools", 403),
]

# Its 404 is said with "File Not Found", which its error handler puts in the place of "model is not found".
_UNKNOWN = (
    b"[]",
    b"{}",
    b'"x"',
    b"3",
    b"null",
    b'{"model":3}',
    b'{"model":null}',
    b'{"model":""}',
    b'{"model":"nope"}',
)
_UNREADABLE = (b"", b"{", b"\xff")
ORDERS = [
    *[Row("POST", "/models/load", body, 404, NOT_FOUND, "model is not found") for body in _UNKNOWN],
    *[Row("POST", "/models/unload", body, 400, INVALID, "model is not found") for body in _UNKNOWN],
    *[Row("POST", f"/models/{op}", body, 400, INVALID, PARSER) for op in ("load", "unload") for body in _UNREADABLE],
    Row("POST", "/models/load", b'{"model":"smol","model":"nope"}', 404, NOT_FOUND, "model is not found"),
    Row("POST", "/models/unload", b'{"model":"smol","model":"nope"}', 400, INVALID, "model is not found"),
    *[Row("POST", "/models", body, 400, INVALID, PARSER) for body in _UNREADABLE],
    *[
        Row("POST", "/models", body, 400, INVALID, "model must be a non-empty string")
        for body in (b"{}", b'{"model":""}', b'{"model":3}')
    ],
    *_rows("DELETE", "/models /models?model=", 400, INVALID, "model must be a non-empty string"),
    Row("DELETE", "/models?model=nope", None, 500, SERVER, "model name=nope is not found"),
    Row("DELETE", "/models?model=s1", None, 500, SERVER, "model name=s1 is not found"),
    Row("DELETE", "/models?model=smol", None, 500, SERVER, "model name=smol is not removable (not from cache)"),
]

SUCCESS = b'{"success":true}'
HEALTH = b'{"status":"ok"}'

META: Json = {
    "vocab_type": 2,
    "n_vocab": 49152,
    "n_ctx": 512,
    "n_ctx_train": 8192,
    "n_embd": 576,
    "n_params": 134515008,
    "size": 96576768,
    "ftype": "Q4_1",
}
# What it has of gemma-3-270m.gguf.
GEMMA_META: Json = {
    "vocab_type": 1,
    "n_vocab": 262144,
    "n_ctx": 32768,
    "n_ctx_train": 32768,
    "n_embd": 640,
    "n_params": 268098176,
    "size": 246587904,
    "ftype": "Q4_K - Medium",
}
ARCHITECTURE: Json = {"input_modalities": ["text"], "output_modalities": ["text"]}

UNLOADED: Json = {
    "id": "smol",
    "aliases": ["s1", "s2"],
    "tags": [],
    "object": "model",
    "owned_by": "llamacpp",
    "created": 1795376455,
    "status": {
        "value": "unloaded",
        "args": ["llama-server", "--alias", "smol", "--ctx-size", "512", "--model", "smol.gguf"],
        "preset": "[smol]\nctx-size = 512\nmodel = smol.gguf\n\n",
    },
    "architecture": ARCHITECTURE,
    "source": "preset",
    "can_remove": False,
}
LOADING: Json = UNLOADED | {"status": UNLOADED["status"] | {"value": "loading"}}
LOADED: Json = UNLOADED | {"status": UNLOADED["status"] | {"value": "loaded"}, "meta": META}
FAILED: Json = UNLOADED | {"status": UNLOADED["status"] | {"exit_code": 1, "failed": True}}
LIST = ["data", "object"]

PROPS: Json = {
    "role": "router",
    "max_instances": 2,
    "models_autoload": True,
    "model_alias": "llama-server",
    "model_path": "none",
    "default_generation_settings": {"params": None, "n_ctx": 0},
    "ui_settings": {},
    "build_info": "b0-unknown",
    "cors_proxy_enabled": False,
}

SSE_HEADERS = {"content-type": "text/event-stream", "x-accel-buffering": "no", "transfer-encoding": "chunked"}
INFO: Json = {
    "id": "smol",
    "aliases": ["smol"],
    "tags": [],
    "object": "model",
    "architecture": ARCHITECTURE,
    "created": 1795376458,
    "owned_by": "llamacpp",
    "meta": META,
}

_START = b'data: {"model":"smol","event":"model_status","data":{"status":"loading"}}\n\n'
_CHANGE = b'data: {"model":"smol","event":"status_change","data":'
_PROGRESS = (
    _CHANGE + b'{"status":"loading","progress":{"stages":["text_model"],"current":"text_model","value":%s}}}\n\n'
)
_READY = (
    _CHANGE
    + b'{"status":"loaded","info":{"id":"smol","aliases":["smol"],"tags":[],"object":"model",'
    + b'"architecture":{"input_modalities":["text"],"output_modalities":["text"]},"created":1795376458,'
    + b'"owned_by":"llamacpp","meta":{"vocab_type":2,"n_vocab":49152,"n_ctx":512,"n_ctx_train":8192,"n_embd":576,'
    + b'"n_params":134515008,"size":96576768,"ftype":"Q4_1"}}}}\n\n'
)
_ENDED = _CHANGE + b'{"status":"unloaded","exit_code":%d}}\n\n'

# The bytes of each scenario, chunks of HTTP taken apart.
LOAD = _START + _PROGRESS % b"0.0" + _PROGRESS % b"1.0" + _READY
LOAD_FAILS = _START + _PROGRESS % b"0.0" + _ENDED % 1
UNLOAD = _ENDED % 0
UNLOAD_WHILE_LOADING = _START + _PROGRESS % b"0.0" + _ENDED % 1
RELOAD = b'data: {"model":"*","event":"models_reload"}\n\n'
