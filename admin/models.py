"""The models API of llama-server's router: list, look up, load, unload, watch; /health; and our own /queue.

Shapes: llama.cpp b11434, server-models.cpp. llama-router adds what it knows under `status.detail`, paths under /v1
where llama-server has none, and a model by its name.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Blueprint, Response, current_app, request

from admin.body import request_body
from admin.callers import Caller, caller_of
from admin.connection import watch
from admin.entries import Entries
from admin.errors import EMPTY, invalid, type_of
from admin.feed import Feed, Watcher
from admin.followers import For, endless
from admin.origin import refuse_foreign_pages
from admin.supervision import ANSWER_SECONDS, ask, status
from supervisor.errors import Refused

blueprint = Blueprint("models_api", __name__)

MAX_BODY = 64 * 1024
HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")

Json = dict[str, Any]


@blueprint.record_once
def set_up(state: Any) -> None:
    """What the models API of an application remembers."""
    runtime_dir = state.app.config["RUNTIME_DIR"]
    entries = Entries(runtime_dir, ANSWER_SECONDS, state.app.json.piece)
    state.app.extensions["models.entries"] = entries
    state.app.extensions["models.feed"] = Feed(runtime_dir, ANSWER_SECONDS, state.app.extensions["latest"], entries.one)


@blueprint.get("/health")
@blueprint.get("/v1/health")
def health() -> Json:
    """Whether the web tier answers; says nothing about the supervisor or a model."""
    return {"status": "ok"}


@blueprint.get("/models")
@blueprint.get("/v1/models")
def list_models() -> Response:
    """Every model; any ?reload= rereads the presets first. Raises Refused when they can't be used."""
    caller = caller_of(request.environ)
    if request.args.get("reload"):
        refuse_foreign_pages(request.environ)
        caller.check_manages_all()
        ask("reload")
    answer = status()
    return Response(_entries().written(seen(caller, answer["models"]), answer), mimetype="application/json")


@blueprint.get("/models/<path:name>")
@blueprint.get("/v1/models/<path:name>")
def get_model(name: str) -> Json:
    """One model by its name or an alias. Raises Refused (404)."""
    answer = status()
    model = find(answer["models"], name)
    if model is None:
        raise Refused(f"model '{name}' not found", status=404, error_type="not_found_error")
    caller_of(request.environ).check_sees(name, names_of(model))
    return _entries().of([model], answer)[0]


@blueprint.get("/models/sse")
@blueprint.get("/v1/models/sse")
@endless(For.ANYBODY)
def watch_models() -> Response:
    """Server-sent events without an end, see frames.py. Raises NotRunning, ProtocolError or Refused."""
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    if request.method == "HEAD":
        return Response(headers=headers)
    feed: Feed = current_app.extensions["models.feed"]
    caller, keys = caller_of(request.environ), current_app.extensions["keys"]

    def tells(names: Iterable[str]) -> bool | None:
        """Of a model. None when the key is none any more."""
        return caller.sees(names) if caller.key is None or keys.is_good(caller.key) else None

    return Response(_watch(feed, feed.join(tells), request.environ.get("gunicorn.socket")), headers=headers)


@blueprint.get("/queue")
@blueprint.get("/v1/queue")
def queue() -> Json:
    """The requests that have waited longest, oldest first, and how many wait."""
    answer = status()
    caller, waiting = caller_of(request.environ), answer.get("queue", [])
    models = seen(caller, answer["models"])
    if not caller.sees_all:
        names = {model["name"] for model in models}
        waiting = [each for each in waiting if each["model"] in names]
    return {"object": "list", "data": waiting, "waiting": sum(model["waiting"] for model in models)}


@blueprint.post("/models/load")
@blueprint.post("/v1/models/load")
def load_model() -> Json:
    """Start a model, and do not wait for it. Raises Refused: 404 unknown, 400 running already."""
    return order("load", unknown=404)


@blueprint.post("/models/unload")
@blueprint.post("/v1/models/unload")
def unload_model() -> Json:
    """Stop a model, loading or not, and do not wait for it. Raises Refused (400): unknown, or not running."""
    return order("unload", unknown=400)


@blueprint.post("/models")
def download_model() -> Json:
    """What llama-server's router downloads, llama-router does not. Raises Refused (400 or 501)."""
    refuse_foreign_pages(request.environ)
    with request_body(request.environ, MAX_BODY) as body:
        name = named(body)
    if name is None:
        raise invalid("model must be a non-empty string")
    message = f"cannot download '{name}': llama-router downloads no models; put the GGUF file into models_dir"
    raise Refused(message, status=501, error_type="not_supported_error")


@blueprint.delete("/models")
def remove_model() -> Json:
    """What was not downloaded can't be removed. Raises Refused (400 or 500), with llama-server's words and statuses."""
    refuse_foreign_pages(request.environ)
    name = request.args.get("model")
    if not name:
        raise invalid("model must be a non-empty string")
    known = any(model["name"] == name for model in status()["models"])
    why = "is not removable (not from cache)" if known else "is not found"
    raise Refused(f"model name={name} {why}", status=500)


def order(op: str, unknown: int) -> Json:
    """Ask for `op` on the model that the body names. `unknown` is the status llama-server has for an unknown one, and
    for none."""
    refuse_foreign_pages(request.environ)
    with request_body(request.environ, MAX_BODY) as body:
        name = named(body)
    not_found = Refused("model is not found", status=unknown, error_type=type_of(unknown))
    caller = caller_of(request.environ)
    caller.check_manages()
    if name is None:
        raise not_found
    if not caller.sees_all and (model := find(status()["models"], name)) is not None:
        caller.check_sees(name, names_of(model))
    try:
        ask(op, model=name, wait=False, strict=True)
    except Refused as refusal:
        if refusal.status == 404:
            raise not_found from None
        raise
    return {"success": True}


def named(body: bytes | bytearray) -> str | None:
    """The "model" of a body; None where it is no string or empty, or the body no object: llama-server then takes it
    for a name that it does not know. Raises Refused (400) for a body that is no JSON."""
    if not body or body.isspace():
        raise invalid(EMPTY)
    try:
        document = json.loads(bytes(body).decode())
    except (ValueError, RecursionError) as error:
        raise invalid(f"cannot parse the request body as JSON: {error}") from None
    name = document.get("model") if isinstance(document, dict) else None
    whole = isinstance(name, str) and not HALF_A_CHARACTER.search(name)
    return name if whole and name else None


def names_of(model: Json) -> tuple[str, ...]:
    """The name of a model of the status object, and its aliases."""
    return (model["name"], *model["aliases"])


def seen(caller: Caller, models: list[Json]) -> list[Json]:
    """Those that the caller may use."""
    return [model for model in models if caller.sees(names_of(model))]


def find(models: list[Json], name: str) -> Json | None:
    """By name first, then by alias."""
    by_alias = (model for model in models if name in model["aliases"])
    return next((model for model in models if model["name"] == name), next(by_alias, None))


def _entries() -> Entries:
    entries: Entries = current_app.extensions["models.entries"]
    return entries


def _watch(feed: Feed, watcher: Watcher, client: socket.socket | None) -> Iterator[bytes]:
    """Runs until the supervisor hangs up, the client goes away or falls behind, or the worker stops."""
    try:
        with watch(client):
            yield b""  # sends the head
            yield from watcher.read()
    finally:
        feed.leave(watcher)
