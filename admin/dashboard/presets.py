"""The presets: their files, an editor for each, what was in them before, and new ones for models without a preset.

It works without JavaScript: Check and Save are buttons of a form. With it, the same is asked as one types. Files may
hold secrets in `env`, so all of it is for admins.
"""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Response, jsonify, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from admin.dashboard.access import Role, needs
from admin.dashboard.pages import new_blueprint
from admin.supervision import ask, connect, status
from admin.words import times
from supervisor.core.quantities import readable_size
from supervisor.errors import Refused
from supervisor.protocol import CONFIG, Message

blueprint = new_blueprint("presets")

# A file has 1 MiB at most; JSON and forms may take six bytes for one.
MAX_BODY = 8 * 2**20
# Headers of model files may have to be read for it, and programs asked.
SAVE_SECONDS = 90.0
EMPTY = "models:\n"
# Valid as it is: what is to be filled in is a comment.
TEMPLATE = """\
# Take the "#" away below, and name the model and its file.
models:
#  my-model:
#    model: /srv/models/my-model.gguf
#    context: 8192
"""
MOST_CONTEXT = 16384
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


@blueprint.before_request
def _take_files() -> None:
    request.max_content_length = MAX_BODY
    request.max_form_memory_size = MAX_BODY


@blueprint.get("/ui/presets")
@needs(Role.ADMIN)
def index() -> str:
    """The page: of the file that is asked for, as it is or was `at` some time; of a new one for the model `new`; or of
    the first file."""
    known = ask("files")
    name = request.args.get("file")
    if "new" in request.args:
        return _new(known, request.args["new"])
    if name is None:
        name = next((file["file"] for file in known["files"] if file["why_not"] is None), None)
    return _page(known) if name is None else _page(known, **_opened(known, name))


@blueprint.post("/ui/presets")
@needs(Role.ADMIN)
def act() -> BaseResponse | str:
    """A button of the form, without JavaScript."""
    form = request.form
    name, text, base, action = (form.get(key, "") for key in ("file", "text", "base", "action"))
    edited: Message = {"file": name, "text": text.replace("\r\n", "\n"), "sha": base or None}
    try:
        if action == "check":
            return _page(ask("files"), **edited, answer=_try(name, text))
        answer = _save(name, None if action == "delete" else text, base or None)
    except Refused as refusal:
        return make_response(_page(ask("files"), **edited, error=str(refusal)), refusal.status)
    if answer["outcome"] == "saved":
        return redirect(url_for("presets.index", file=None if action == "delete" else name), code=303)
    if answer["outcome"] == "conflict":
        edited |= {"sha": answer["sha"], "theirs": answer["text"] or "(the file was removed)"}
        answer = _try(name, None if action == "delete" else text)
    return make_response(_page(ask("files"), **edited, answer=answer), 409 if "theirs" in edited else 422)


@blueprint.get("/ui/presets/schema")
@needs(Role.ADMIN)
def schema() -> Response:
    """The JSON Schema of a file of presets."""
    return jsonify(ask("schema")["schema"])


@blueprint.get("/ui/presets/file/<name>")
@needs(Role.ADMIN)
def file(name: str) -> Response:
    """A file's text and sha, both null if there is none; or its text `at` some time."""
    at = request.args.get("at", type=int)
    try:
        return jsonify(ask("file", file=name) if at is None else ask("history", file=name, at=at))
    except Refused as refusal:
        if refusal.status != 404 or at is not None:
            raise
        return jsonify({"text": None, "sha": None})


@blueprint.post("/ui/presets/try")
@needs(Role.ADMIN)
def check() -> Response:
    """What is wrong with a text, or what saving it would do."""
    body = _body()
    return jsonify(_try(body.get("file"), body.get("text")))


@blueprint.post("/ui/presets/save")
@needs(Role.ADMIN)
def save() -> Response:
    """Save a text, or say why not."""
    body = _body()
    return jsonify(_save(body.get("file"), body.get("text"), body.get("base")))


def _body() -> Message:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise Refused("cannot read the request: expected a JSON object", status=400)
    return body


def _try(name: Any, text: Any) -> Message:
    with connect() as client:
        client.wait_at_most(SAVE_SECONDS)
        return _worded(client.call("try", file=name, text=text))


def _save(name: Any, text: Any, base: Any) -> Message:
    with connect() as client:
        client.wait_at_most(SAVE_SECONDS)
        return _worded(client.call("save", file=name, text=text, base=base, by=request.remote_addr or None))


def _worded(answer: Message) -> Message:
    """Such as "A save would: …"."""
    words = answer.get("words")
    if words is not None:
        answer["words"] = words.replace("a reload would", "A save would", 1).replace("reloaded:", "Saved:", 1)
    return answer


def _opened(known: Message, name: str) -> Message:
    """A file for the page: editable, unless it is config.yaml or something keeps it from being edited."""
    about = next((file for file in known["files"] if file["file"] == name), None)
    if about is not None and about["why_not"]:
        return {"file": name, "text": "", "sha": None, "read_only": True, "error": f"{name}: {about['why_not']}"}
    found = ask("file", file=name)
    if name == CONFIG:
        return {"file": name, "text": found["text"], "sha": found["sha"], "read_only": True, "path": found["path"]}
    at = request.args.get("at", type=int)
    text = found["text"] if at is None else ask("history", file=name, at=at)["text"]
    return {"file": name, "text": text, "sha": found["sha"], "restored": at is not None}


def _page(known: Message, *, file: str | None = None, answer: Message | None = None, **shown: Any) -> str:
    versions = ask("history", file=file)["versions"] if file and file != CONFIG and not shown.get("read_only") else []
    for version in versions:
        version |= times(version["at"] / 1e9) | {"words": _changed(version)}
    return render_template(
        "presets.html", known=known, file=file, answer=answer, versions=versions, config=CONFIG, found=_found(), **shown
    )


def _changed(version: Message) -> str:
    """What the save that ended a version did, such as "3 lines added, 1 removed"."""
    added, removed = version["added"], version["removed"]
    if added is None:
        return "replaced"
    lines = f"{added or removed} {'line' if (added or removed) == 1 else 'lines'}"
    if added and removed:
        return f"{lines} added, {removed} removed"
    return f"{lines} added" if added else f"{lines} removed" if removed else "lines moved"


def _found() -> list[Message]:
    """The models that are there because of their GGUF files only, with what their headers say."""
    models = [model for model in status()["models"] if model.get("source") == "models_dir"]
    if not models:
        return []
    with connect() as client:
        metas = {told["facts"]["model"]: told["facts"]["meta"] or {} for told in client.stream("facts")}
    return [_about(model["name"], metas.get(model["name"], {})) for model in models]


def _about(name: str, meta: Message) -> Message:
    size, context, kind = meta.get("size"), meta.get("n_ctx_train"), meta.get("ftype")
    words = [readable_size(size) if size else None, kind, f"{context} tokens" if context else None]
    return {"name": name, "words": ", ".join(word for word in words if word), "context": context}


def _new(known: Message, model: str) -> str:
    """A file that is not there yet, for a model that has no preset, or for none ("")."""
    names = {each["file"] for each in known["files"]}
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip(".-_")[:80] or "new"
    name = next(each for number in range(1, 10**6) if (each := _numbered(stem, number)) not in names)
    found = next((each for each in _found() if each["name"] == model), None)
    text = TEMPLATE
    if found is not None:
        key = model if _PLAIN.fullmatch(model) else json.dumps(model, ensure_ascii=False)
        context = min(found["context"] or MOST_CONTEXT, MOST_CONTEXT)
        text = f"{EMPTY}  {key}:  # its file is in models_dir\n    context: {context}\n"
    return _page(known, file=name, text=text, sha=None, is_new=True)


def _numbered(stem: str, number: int) -> str:
    return f"{stem}.yaml" if number == 1 else f"{stem}-{number}.yaml"
