"""The playground: chat with any model that takes messages.

The page itself is empty: conversations stay in the browser, and messages go to the public API. What is served here is
what the page has to know of the models, and the load that choosing one starts.
"""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Response, current_app, render_template, request
from werkzeug.exceptions import RequestEntityTooLarge

from admin.dashboard.access import Role, needs
from admin.dashboard.pages import new_blueprint
from admin.entries import Entries
from admin.models import find
from admin.origin import refuse_foreign_pages
from admin.supervision import ask, status
from admin.view import words
from supervisor.errors import Refused

blueprint = new_blueprint("playground")

# Options of llama.cpp's servers with which they compute vectors or ranks, and no text.
_NO_CHAT = re.compile(r"^(embeddings?|rerank|reranking) = (true|on|1)$", re.MULTILINE)
ENDED = frozenset({"failed", "backoff"})
# Keys of a request that the page has a field for.
SETTINGS = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop")

Json = dict[str, Any]


@blueprint.get("/ui/playground")
@needs(Role.VIEWER)
def index() -> str:
    """The page. It asks the supervisor nothing, so that conversations can be read while that is away."""
    return render_template("playground.html")


@blueprint.get("/ui/playground/models")
@needs(Role.VIEWER)
def models() -> Json:
    """What can be chosen: {"models": [choice(…)], "autoload": bool}. Raises NotRunning, ProtocolError or Refused."""
    answer = status()
    entries: Entries = current_app.extensions["models.entries"]
    told = zip(answer["models"], entries.of(answer["models"], answer), strict=True)
    return {"models": [choice(model, entry) for model, entry in told], "autoload": answer["autoload"]}


@blueprint.get("/ui/playground/request")
@needs(Role.VIEWER)
def decided() -> Json:
    """What the preset of ?model= decides whatever the page sends: {"set": {key: value as text}, "removed": [key]}.

    Raises Refused: 404 unknown.
    """
    rows = ask("preset", model=request.args.get("model", ""))["preset"]
    values = {row["key"]: row["value"] for row in rows}
    removed = values.get("request.remove", "none")
    gone = frozenset() if removed == "none" else frozenset(json.loads(removed))
    given = {key: values[f"request.set.{key}"] for key in SETTINGS if f"request.set.{key}" in values}
    return {"set": given, "removed": [key for key in SETTINGS if key in gone and key not in given]}


@blueprint.post("/ui/playground/load")
@needs(Role.VIEWER)
def load() -> Response:
    """Start what a request would start: nothing that has failed, and nothing where requests load no models.

    Raises Refused: 404 unknown, 403 no autoload, 503 failed.
    """
    name = _named()
    answer = status()
    model = find(answer["models"], name)
    if model is None:
        raise Refused(f"model '{name}' not found", status=404, error_type="not_found_error")
    if model["state"] == "failed":
        why = model["reason"]["text"] if model["reason"] else "it has failed"
        raise Refused(f"cannot load '{name}': {why}; an admin can try again", status=503)
    if not answer["autoload"]:
        message = f"cannot load '{name}': autoload is off in config.yaml; an admin can load it on the page of models"
        raise Refused(message, status=403, error_type="permission_error")
    ask("load", model=model["name"], wait=False)
    return Response(status=204)


@blueprint.post("/ui/playground/retry")
@needs(Role.ADMIN)
def retry() -> Response:
    """Start a model whatever happened to it before. Raises Refused."""
    ask("load", model=_named(), wait=False)
    return Response(status=204)


def choice(model: Json, entry: Json) -> Json:
    """A model as the page shows it, from the status object's and the models API's view of it.

    `percent` is None where no progress is known, `context` (tokens of one request) where no file tells it. `chat` is
    False only where the preset says so: of a command nothing is known.
    """
    reason, progress = model["reason"], model["progress"]
    meta = entry["status"]["detail"]["meta"] or {}
    return {
        "name": model["name"],
        "aliases": model["aliases"],
        "description": model["description"],
        "state": model["state"],
        "label": model["state"],
        "words": words(model),
        "percent": round(100 * progress) if model["state"] == "starting" and progress is not None else None,
        "lines": reason["last_lines"] if reason is not None and model["state"] in ENDED else [],
        "chat": _NO_CHAT.search(entry["status"]["preset"] or "") is None,
        "inputs": entry["architecture"]["input_modalities"],
        "context": meta.get("n_ctx"),
    }


def _named() -> str:
    refuse_foreign_pages(request.environ)
    try:
        return request.form.get("model", "")
    except RequestEntityTooLarge:
        raise Refused("the form is too large", status=413, error_type="invalid_request_error") from None
