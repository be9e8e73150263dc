"""The models API of llama-server's router: list, look up, load, unload; and /health.

Shapes: llama.cpp b11434, server-models.cpp. llama-router adds what it knows under `status.detail`.
"""

from __future__ import annotations

import signal
from typing import Any

from flask import Blueprint, request

from admin.body import model_of, request_body
from admin.errors import missing_model, type_of
from admin.origin import refuse_foreign_pages
from admin.supervision import ask, status
from supervisor.errors import Refused

blueprint = Blueprint("models", __name__)

MAX_BODY = 64 * 1024

# (1) backoff: a restart is scheduled, so a request waits and is served, as while loading.
# (2) stopping: it takes no more requests and may be loaded again. The process may live on for a moment: see detail.
VALUES = {
    "stopped": "unloaded",
    "failed": "unloaded",
    "starting": "loading",
    "backoff": "loading",  # (1)
    "ready": "loaded",
    "stopping": "unloaded",  # (2)
}
INTENDED_ENDS = frozenset(["requested", "evicted", "idle", "preset_changed", "shutdown"])
DETAIL = ("state", "reason", "pid", "since", "in_flight", "waiting", "restarts")

Json = dict[str, Any]


@blueprint.get("/health")
@blueprint.get("/v1/health")
def health() -> Json:
    """Whether the web tier answers; says nothing about the supervisor or a model."""
    return {"status": "ok"}


@blueprint.get("/models")
@blueprint.get("/v1/models")
def list_models() -> Json:
    """Every model; ?reload=1 rereads the presets first. Raises Refused when they can't be used."""
    if request.args.get("reload") == "1":
        refuse_foreign_pages(request.environ)
        ask("reload")
    answer = status()
    return {"object": "list", "data": [entry(model, answer) for model in answer["models"]]}


@blueprint.get("/models/<path:name>")
@blueprint.get("/v1/models/<path:name>")
def get_model(name: str) -> Json:
    """One model by its name or an alias. Raises Refused (404)."""
    answer = status()
    model = find(answer["models"], name)
    if model is None:
        raise Refused(f"model '{name}' not found", status=404, error_type="not_found_error")
    return entry(model, answer)


@blueprint.post("/models/load")
def load_model() -> Json:
    """Start a model, and do not wait for it. Raises Refused: 404 unknown, 400 running already."""
    return order("load", unknown=404)


@blueprint.post("/models/unload")
def unload_model() -> Json:
    """Stop a model, loading or not, and do not wait for it. Raises Refused (400): unknown, or not running."""
    return order("unload", unknown=400)


def order(op: str, unknown: int) -> Json:
    """Ask for `op` on the model that the body names. `unknown` is the status llama-server has for an unknown one."""
    refuse_foreign_pages(request.environ)
    with request_body(request.environ, MAX_BODY) as body:
        name = model_of(body)
    if name is None:
        raise missing_model()
    try:
        ask(op, model=name, wait=False, strict=True)
    except Refused as refusal:
        if refusal.status == 404:
            raise Refused("model is not found", status=unknown, error_type=type_of(unknown)) from None
        raise
    return {"success": True}


def find(models: list[Json], name: str) -> Json | None:
    """By name first, then by alias."""
    by_alias = (model for model in models if name in model["aliases"])
    return next((model for model in models if model["name"] == name), next(by_alias, None))


def entry(model: Json, answer: Json) -> Json:
    """A model of the status object in llama-server's shape; `created` is when the supervisor started (Unix seconds)."""
    return {
        "id": model["name"],
        "aliases": model["aliases"],
        "tags": [],
        "object": "model",
        "owned_by": "llamacpp",
        "created": int(answer["since"]),
        "status": status_of(model),
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "source": "preset",
        "can_remove": False,
    }


def status_of(model: Json) -> Json:
    """llama-server's status; `failed` and `exit_code` are there only when a failure is why nothing is loaded."""
    value = VALUES[model["state"]]
    result: Json = {"value": value, "args": [], "preset": "", "detail": {key: model[key] for key in DETAIL}}
    reason = model["reason"]
    if value == "unloaded" and reason is not None and failed(model["state"], reason):
        result |= {"failed": True, "exit_code": exit_code(reason)}
    return result


def failed(state: str, reason: Json) -> bool:
    """Whether the last end was nobody's wish. A clean exit fails only what has not come back from it."""
    if reason["kind"] in INTENDED_ENDS:
        return False
    return state == "failed" or reason["code"] != 0


def exit_code(reason: Json) -> int:
    """The code; 128 + the number of the signal, as shells have it; 1 when there was no process to end."""
    if reason["code"] is not None:
        return int(reason["code"])
    try:
        return 128 + signal.Signals[str(reason["signal"])].value
    except KeyError:
        return 1
