"""The models API of llama-server's router: list, look up, load, unload; /health; and the queue, which is our own.

Shapes: llama.cpp b11434, server-models.cpp. llama-router adds what it knows under `status.detail`.
"""

from __future__ import annotations

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
DETAIL = (
    *("state", "reason", "pid", "since", "in_flight", "restarts"),
    *("waiting", "waiting_since", "waiting_for", "memory", "replicas"),
)
EXIT_FAILURE = 1

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


@blueprint.get("/queue")
@blueprint.get("/v1/queue")
def queue() -> Json:
    """The requests that have waited longest, oldest first, and how many wait."""
    answer = status()
    waiting = sum(model["waiting"] for model in answer["models"])
    return {"object": "list", "data": answer.get("queue", []), "waiting": waiting}


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
    """llama-server's status. `failed` and `exit_code` are there only for a model that is not started again by itself:
    one that was evicted, idle or unloaded on request has not failed."""
    detail = {key: model.get(key) for key in DETAIL}
    result: Json = {"value": VALUES[model["state"]], "args": [], "preset": "", "detail": detail}
    if model["state"] == "failed":
        result |= {"failed": True, "exit_code": exit_code(model["reason"])}
    return result


def exit_code(reason: Json | None) -> int:
    """The process's code; EXIT_FAILURE for a signal, as llama-server has it (subprocess_join of its subprocess.h), and
    for an end that has no code: out of memory, timeouts, the watchdog, a program that can't be started.

    Never 0: to llama-server's clients that would be no failure. `detail.reason` has the end as it was.
    """
    code: int | None = reason["code"] if reason else None
    return code or EXIT_FAILURE
