"""Requests as OpenAI's clients write them, made into what llama-cpp-python's application understands.

Where that is not possible the request is refused: an answer to another question than the one asked is worse than none.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

Fields = dict[str, Any]

_KNOWS_NULL = re.compile(r"content(?:['\"]\])?\s+is\s+(?:not\s+)?none", re.IGNORECASE)


class Adapted(NamedTuple):
    """The body to hand on, and whether a stream is to end with what the answer took."""

    body: bytes
    include_usage: bool = False


def adapted(path: str, body: bytes, *, takes_images: bool) -> Adapted:
    """What to hand on; `path` is the request's. What is no JSON object is left to the application's own checks.

    Raises ValueError, with a message for the client, for what could only be answered wrongly.
    """
    chat = path.endswith("/chat/completions")
    if not chat and not path.endswith("/completions"):
        return Adapted(body)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return Adapted(body)
    if not isinstance(fields, dict):
        return Adapted(body)
    if fields.get("n") not in (None, 1):
        raise ValueError(f"n is {fields['n']}, and this server gives one choice; ask again for another")
    if "max_completion_tokens" in fields:
        limit = fields.pop("max_completion_tokens")
        fields.setdefault("max_tokens", limit)
    if chat:
        fields["messages"] = _messages(fields.get("messages"), takes_images)
        if isinstance(fields.get("response_format"), dict):
            fields["response_format"] = _response_format(fields["response_format"])
    else:
        _check_prompt(fields.get("prompt"))
    options = fields.get("stream_options")
    include_usage = isinstance(options, dict) and options.get("include_usage") is True
    return Adapted(json.dumps(fields).encode(), include_usage)


def for_template(messages: list[Any], template: str) -> list[Any]:
    """The messages as a chat template needs them: 1. one that asks whether a content is null shall find it null where
    there are only calls, or it passes over the calls. 2. Others would fail on null, or write "None"."""
    if not _KNOWS_NULL.search(template):  # 2
        return messages
    return [{**message, "content": None} if _only_calls(message) else message for message in messages]  # 1


def _only_calls(message: Any) -> bool:
    return isinstance(message, dict) and not message.get("content") and bool(message.get("tool_calls"))


def _check_prompt(prompt: Any) -> None:
    if not prompt:
        raise ValueError("prompt is missing or empty")
    if isinstance(prompt, list) and len(prompt) > 1:
        raise ValueError(f"prompt is a list of {len(prompt)}, and this server takes one text; send a request for each")
    if isinstance(prompt, list) and not isinstance(prompt[0], str):
        raise ValueError("prompt holds tokens, and this server takes text; a llama-server takes both")


def _response_format(given: Fields) -> Fields:
    """llama-cpp-python knows a schema as part of "json_object"."""
    if given.get("type") != "json_schema":
        return given
    wrapped = given.get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    if not isinstance(schema, dict):
        raise ValueError("response_format.json_schema.schema is missing, or no JSON schema")
    return {"type": "json_object", "schema": schema}


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
    """1. "developer" is what OpenAI calls "system" now. 2. Text in parts is joined as llama.cpp joins it. 3. Null is as
    good as missing, and a message of the assistant that calls tools has no content."""
    adapted = {key: value for key, value in message.items() if value is not None}  # 3
    if "content" in message or adapted.get("role") == "assistant":  # 3
        adapted.setdefault("content", "")
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
