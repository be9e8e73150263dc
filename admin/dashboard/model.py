"""A model's page: its state, log, charts, history, preset, and how to use it.

What changes is fetched anew from /ui/model-part/NAME when the event stream says that something changed; its log has a
stream of its own, see log.py.
"""

from __future__ import annotations

from flask import current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from admin.dashboard.access import Role, needs
from admin.dashboard.pages import new_blueprint
from admin.entries import Entries
from admin.keys import Keys
from admin.model_view import gguf, history, preset, started, usage
from admin.models import find
from admin.supervision import ask, connect, status
from admin.view import row
from supervisor.errors import Refused
from supervisor.protocol import Message

blueprint = new_blueprint("model")


@blueprint.get("/ui/model/<path:name>")
@needs(Role.VIEWER)
def index(name: str) -> str | Response:
    """The page; an alias leads to the model's own. Raises Refused (404), NotRunning or ProtocolError."""
    answer, model = _found(name)
    if model["name"] != name:
        return redirect(url_for("model.index", name=model["name"]))
    return render_template("model.html", **_view(answer, model))


@blueprint.get("/ui/model-part/<path:name>")
@needs(Role.VIEWER)
def part(name: str) -> str:
    """The parts of the page that change. Raises as `index`."""
    return render_template("model_parts.html", **_view(*_found(name)))


def _found(name: str) -> tuple[Message, Message]:
    """The status object, and the model of that name or alias in it. Raises Refused (404)."""
    answer = status()
    model = find(answer["models"], name)
    if model is None:
        raise Refused(f"there is no model {name!r}; it may have been renamed or removed", status=404)
    return answer, model


def _view(answer: Message, model: Message) -> Message:
    """What the templates need. Raises NotRunning, ProtocolError or Refused."""
    name = model["name"]
    entries: Entries = current_app.extensions["models.entries"]
    keys: Keys = current_app.extensions["keys"]
    entry = entries.of([model], answer)[0]
    with connect() as client:
        events = [message["event"] for message in client.stream("events", since=0)]
    return {
        "model": row(model),
        "place": {"file": model.get("file"), "line": model.get("line"), "source": model.get("source")},
        "history": history(events, name),
        "preset": _preset(name, model["backend"]),
        "gguf": gguf(entry["status"]["detail"]["meta"]),
        "started": started(model, entry["status"]["args"], current_app.config["RUNTIME_DIR"]),
        "usage": usage(name, entry["status"]["preset"], request.host_url.rstrip("/"), needs_key=keys.are_needed()),
    }


def _preset(name: str, backend: str) -> Message | None:
    """None for a model that is not configured any more, and only finishes its requests."""
    try:
        return preset(ask("preset", model=name)["preset"], backend)
    except Refused as refusal:
        if refusal.status == 404:
            return None
        raise
