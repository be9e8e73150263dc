"""Requests as OpenAI's clients write them, made into what llama-cpp-python's application understands.

Where that is not possible the request is refused: an answer to another question than the one asked is worse than none.
"""

from __future__ import annotations

import json
from typing import Any

Fields = dict[str, Any]


def adapted(path: str, body: bytes, *, takes_images: bool) -> bytes:
    """The body to hand on; `path` is the request's. What is no JSON object is left to the application's own checks.

    Raises ValueError, with a message for the client, for what could only be answered wrongly.
    """
    chat = path.endswith("/chat/completions")
    if not chat and not path.endswith("/completions"):
        return body
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(fields, dict):
        return body
    if fields.get("n") not in (None, 1):
        raise ValueError(f"n is {fields['n']}, and this server gives one choice; ask again for another")
    if "max_completion_tokens" in fields:
        limit = fields.pop("max_completion_tokens")
        fields.setdefault("max_tokens", limit)
    if chat:
        fields["messages"] = _messages(fields.get("messages"), takes_images)
    elif not fields.get("prompt"):
        raise ValueError("prompt is missing or empty")
    return json.dumps(fields).encode()


def _messages(messages: Any, takes_images: bool) -> Any:
    if not messages:
        raise ValueError("messages is missing or empty")
    if not isinstance(messages, list):
        return messages
    return [
        _message(message, f"messages.{number}", takes_images) if isinstance(message, dict) else message
        for number, message in enumerate(messages)
    ]


def _message(message: Fields, place: str, takes_images: bool) -> Fields:
    """1. "developer" is what OpenAI calls "system" now. 2. Text in parts is joined as llama.cpp joins it."""
    adapted = dict(message)
    if adapted.get("role") == "developer":  # 1
        adapted["role"] = "system"
    if isinstance(adapted.get("content"), list) and not takes_images:  # 2
        adapted["content"] = "\n".join(
            _text(part, f"{place}.content.{number}") for number, part in enumerate(adapted["content"])
        )
    return adapted


def _text(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(text, str):
        raise ValueError(f"{place} is of type {kind!r}, and this model takes text only")
    return text
