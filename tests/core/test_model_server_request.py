"""What is rewritten of a request, and what is refused; a table, without a model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.model_server_request import adapted, for_template

CHAT = "/v1/chat/completions"
HI = {"role": "user", "content": "hi"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def chat(**fields: Any) -> Any:
    return json.loads(adapted(CHAT, json.dumps({"messages": [HI], **fields}).encode(), takes_images=False).body)


@pytest.mark.parametrize(
    ("given_fields", "expected"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 7}, {"max_tokens": 7}),
        ({"messages": [{"role": "developer", "content": "x"}]}, {"messages": [{"role": "system", "content": "x"}]}),
        ({"n": 1}, {"n": 1}),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            {"messages": [{"role": "user", "content": "a\nb"}]},
        ),
        (
            {"messages": [{"role": "tool", "content": None}]},
            {"messages": [{"role": "tool", "content": ""}]},
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL], "function_call": None}]},
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [CALL]}]},
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL]}]},
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [CALL]}]},
        ),
        ({"messages": [{"role": "user"}]}, {"messages": [{"role": "user"}]}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
            {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
        ),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"messages": ["odd"]}, {"messages": ["odd"]}),
    ],
)
def test_what_openai_clients_write_is_understood(given_fields: dict[str, Any], expected: dict[str, Any]) -> None:
    result = chat(**given_fields)
    assert {key: result[key] for key in expected} == expected
    assert "max_completion_tokens" not in result


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        (CHAT, {"messages": []}, "messages is missing"),
        (CHAT, {}, "messages is missing"),
        (CHAT, {"messages": [HI], "n": 2}, "n is 2"),
        (
            CHAT,
            {"messages": [HI, {"role": "user", "content": [IMAGE]}]},
            "messages.1.content.0 is of type 'image_url'",
        ),
        (CHAT, {"messages": [{"role": "user", "content": ["text"]}]}, "messages.0.content.0 is of type None"),
        (CHAT, {"messages": [HI], "response_format": {"type": "json_schema"}}, "json_schema.schema is missing"),
        ("/v1/completions", {"prompt": ["a", "b"]}, "prompt is a list of 2, and this server takes one text"),
        ("/v1/completions", {"prompt": [1]}, "prompt holds tokens"),
        ("/v1/completions", {}, "prompt is missing"),
        ("/v1/completions", {"prompt": ""}, "prompt is missing"),
    ],
)
def test_what_could_only_be_answered_wrongly_is_refused(path: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted(path, json.dumps(fields).encode(), takes_images=False)


def test_a_model_that_takes_images_gets_the_parts_as_they_are() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": [IMAGE]}]}).encode()
    assert json.loads(adapted(CHAT, body, takes_images=True).body) == json.loads(body)


@given(path=st.sampled_from([CHAT, "/v1/completions", "/v1/embeddings"]), body=st.binary(max_size=60))
def test_what_is_no_json_object_is_left_to_the_application(path: str, body: bytes) -> None:
    try:
        is_object = isinstance(json.loads(body), dict)
    except ValueError:
        is_object = False
    if not is_object:
        assert adapted(path, body, takes_images=False) == (body, False)


@pytest.mark.parametrize(
    ("template", "content"),
    [
        ("{% if message['content'] is none %}{{ message['tool_calls'] }}{% endif %}", None),
        ("{% if message.content is not none %}{{ message.content }}{% endif %}", None),
        ("{{ message['role'] + message['content'] }}", ""),
        ("{% if message.tool_calls is none %}{{ message.content }}{% endif %}", ""),
    ],
)
def test_a_template_finds_the_missing_content_that_it_understands(template: str, content: str | None) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    said, empty = {**called, "content": "I look"}, {"role": "assistant", "content": ""}
    assert for_template([HI, called, said, empty], template) == [HI, {**called, "content": content}, said, empty]


@pytest.mark.parametrize(
    ("options", "asked"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), (None, False), ([], False)],
)
def test_usage_is_told_to_who_asks(options: Any, asked: bool) -> None:
    body = json.dumps({"prompt": "x", "stream_options": options}).encode()
    assert adapted("/v1/completions", body, takes_images=False).include_usage is asked
