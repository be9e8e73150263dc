"""Reading request bodies: bounded, whole or not at all, and the one thing the router wants of them, "model"."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from admin.connection import ClientGone
from admin.errors import Unreadable, invalid, missing_model

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

MAX_MODEL_NAME = 1024  # characters; far above any preset's, far below a control message's limit


def read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """The whole request body, at most `limit` bytes. Raises Unreadable (413, 408), or ClientGone when it ends early."""
    declared = environ.get("CONTENT_LENGTH") or ""
    length = int(declared) if declared.isdecimal() else None
    if length is not None and length > limit:
        raise Unreadable(413, f"the request body is larger than {limit} bytes")
    try:
        # Without a length there is no body, or a chunked one; gunicorn ends it where it ends.
        body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    except TimeoutError:
        raise Unreadable(408, "the request body did not arrive in time") from None
    if len(body) > limit:
        raise Unreadable(413, f"the request body is larger than {limit} bytes")
    if length is not None and len(body) < length:
        raise ClientGone
    return body


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is, in UTF-8. Raises Refused (400)."""
    try:
        document = json.loads(body.decode())
    except RecursionError:
        raise invalid("cannot parse the request body as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"cannot parse the request body as JSON: {error}") from None
    if not isinstance(document, dict):
        raise invalid("cannot use the request body: it must be a JSON object")
    return document


def model_of(document: dict[str, Any]) -> str | None:
    """The "model" of a request; None when it names none. Raises Refused (400)."""
    model = document.get("model")
    if model is None or model == "":
        return None
    if not isinstance(model, str):
        raise missing_model()
    if len(model) > MAX_MODEL_NAME or not is_unicode(model):
        raise invalid(f"model '{model[:80]}' not found")
    return model


def is_unicode(text: str) -> bool:
    r"""False for a lone surrogate, which JSON can write ("\ud800") and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
