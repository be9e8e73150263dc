"""What a model server answers when a request fails: every exception of the app as an OpenAI error object."""

from __future__ import annotations

import json
import traceback
from typing import Any

from fastapi.exceptions import RequestValidationError
from jinja2 import TemplateError
from llama_cpp.server.errors import RouteErrorHandler
from llama_cpp.server.types import CreateChatCompletionRequest, CreateCompletionRequest
from starlette.exceptions import HTTPException

# What llama-cpp-python raises for a request that this model, or this way of loading it, can't serve.
_REFUSALS = {
    "embedding=True": "this model was loaded without embeddings; set embedding: true in its preset",
    "logits_all=False": "this model was loaded without logprobs; set options: {logits_all: true} in its preset",
}


def describe(error: Exception, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """The HTTP status and OpenAI's error object {message, type, param, code} for an exception of the app.

    `body` is the request's, for llama-cpp-python's own wording of what it knows ("context_length_exceeded").
    """
    if isinstance(error, HTTPException):
        return _refusal(error.status_code, str(error.detail))
    if isinstance(error, RequestValidationError):
        return _validation(error)
    if isinstance(error, json.JSONDecodeError):
        return _refusal(400, f"cannot read the request: invalid JSON: {error}")
    known = _known(error, body)
    if known is not None:
        return known
    for sign, message in _REFUSALS.items():
        if sign in str(error):
            return _refusal(400, message)
    if isinstance(error, TemplateError):
        return _refusal(400, f"cannot apply the model's chat template: {error}")
    if isinstance(error, ValueError | AssertionError):
        return _refusal(400, f"cannot serve the request: {str(error) or _failed_line(error)}")
    return _refusal(500, str(error) or type(error).__name__)


def _refusal(status: int, message: str, param: str | None = None) -> tuple[int, dict[str, Any]]:
    kinds = {401: "authentication_error", 404: "not_found_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return status, {"message": message, "type": kind, "param": param, "code": status}


def _failed_line(error: Exception) -> str:
    """The source line that raised: all there is to say for an assertion without a message."""
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].line if frames else None) or type(error).__name__


def _validation(error: RequestValidationError) -> tuple[int, dict[str, Any]]:
    """400 with the first three places that are wrong; `param` is the first of them, such as "messages.0.role"."""
    problems: dict[str, list[str]] = {}
    for each in error.errors():
        # After "body"; a union adds the names of its members, which mean nothing to a client.
        place = ".".join(str(part) for part in each["loc"][1:] if not str(part)[:1].isupper())
        messages = problems.setdefault(place, [])
        if each["msg"] not in messages:
            messages.append(each["msg"])
    texts = [f"{place}: {', or '.join(why)}" if place else ", or ".join(why) for place, why in problems.items()]
    return _refusal(400, f"cannot read the request: {'; '.join(texts[:3])}", next(iter(problems), "") or None)


def _known(error: Exception, body: bytes) -> tuple[int, dict[str, Any]] | None:
    """What llama-cpp-python has its own status and words for."""
    for pattern, words in RouteErrorHandler.pattern_and_formatters.items():
        match = pattern.search(str(error))
        if match is not None:
            fields = json.loads(body)
            kind = CreateChatCompletionRequest if "messages" in fields else CreateCompletionRequest
            status, payload = words(kind(**fields), match)
            return int(status), dict(payload)
    return None
