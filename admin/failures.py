"""The event that tells an event stream's reader that it breaks off, in the form of the API that was asked.

OpenAI's completions have no such form of their own; their clients take an object with "error" for a failure
(openai-python, _streaming.py). Anthropic's Messages and OpenAI's Responses have an event "error".
"""

from __future__ import annotations

import json
import re

from admin import errors

_SEQUENCE = re.compile(rb'"sequence_number": ?([0-9]{1,15})')


def failure(path: str, status: int, message: str, last: bytes) -> bytes:
    """One event. `path` is the request's, without its query; `last` is what the stream brought last."""
    if path.endswith("/messages"):
        error = {"type": "api_error", "message": message}
        return _event("error", {"type": "error", "error": error})
    if path.endswith("/responses"):
        fields = {"type": "error", "code": errors.SERVER, "message": message, "param": None}
        return _event("error", {**fields, "sequence_number": _next_number(last)})
    return b"data: " + errors.error_object(status, message, errors.SERVER) + b"\n\n"


def _event(name: str, data: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _next_number(last: bytes) -> int:
    """The number after that of the last event; 0 when none was seen."""
    numbers = _SEQUENCE.findall(last)
    return int(numbers[-1]) + 1 if numbers else 0
