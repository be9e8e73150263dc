"""The model server with a real model, as programs use it that call tools, want JSON, or count tokens."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alone import ASK, Server, finish, launch

CHAT = "/v1/chat/completions"
WEATHER = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": WEATHER}}]
CHOICE = {"type": "function", "function": {"name": "weather"}}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
FIRST: dict[str, Any] = {"messages": [QUESTION], "tools": TOOLS, "tool_choice": CHOICE, "temperature": 0}


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="ms-") as folder:
        started = launch(Path(folder), {"model": str(gguf), "model_alias": "smol", "logits_all": False, "n_ctx": 1024})
        try:
            started.notices.wait_for("READY=1")
            yield started
        finally:
            finish(started)


def test_a_call_goes_back_as_it_came_and_its_result_is_answered(server: Server) -> None:
    status, first = server.request(FIRST, CHAT)
    assert status == 200, first
    called = first["choices"][0]["message"]
    assert called["content"] is None and json.loads(called["tool_calls"][0]["function"]["arguments"])["city"]
    result = {
        "role": "tool",
        "tool_call_id": called["tool_calls"][0]["id"],
        "content": "The weather in Paris is sunny.",
    }
    bare = {"role": "assistant", "tool_calls": called["tool_calls"]}
    padded = {**called, "refusal": None, "audio": None, "function_call": None}
    answers = []
    for message in (called, padded, bare, {**bare, "content": ""}):
        status, second = server.request(
            {"messages": [QUESTION, message, result], "tools": TOOLS, "max_tokens": 24, "temperature": 0}, CHAT
        )
        assert status == 200, second
        answers.append(second["choices"][0]["message"]["content"])
    assert answers[0] and answers == [answers[0]] * 4


def test_a_streamed_call_is_put_together_from_its_pieces(server: Server) -> None:
    *events, done = server.events(FIRST, CHAT)
    assert done == "[DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    pieces = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    assert len(pieces) > 2
    names = [piece["function"]["name"] for piece in pieces if "name" in piece["function"]]
    identities = [piece["id"] for piece in pieces if "id" in piece]
    assert names == ["weather"] and len(identities) == 1
    assert json.loads("".join(piece["function"]["arguments"] for piece in pieces))["city"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", ASK),
        ("/v1/completions", {**ASK, "stop": ["is"]}),
        (CHAT, {"messages": [QUESTION], "max_tokens": 12, "temperature": 0}),
        (CHAT, {"messages": [{"role": "user", "content": "Say only: yes"}], "temperature": 0}),
        (CHAT, FIRST),
    ],
)
def test_a_stream_ends_with_what_it_took(server: Server, path: str, body: dict[str, Any]) -> None:
    status, whole = server.request(body, path)
    assert status == 200
    *events, last, done = server.events({**body, "stream_options": {"include_usage": True}}, path)
    assert done == "[DONE]"
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert (last["id"], last["model"], last["object"]) == (events[0]["id"], "smol", events[0]["object"])
    assert all(event["usage"] is None for event in events)
    assert not [event for event in server.events(body, path)[:-1] if "usage" in event]


def test_json_of_a_schema(server: Server) -> None:
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    status, answer = server.request({"messages": [QUESTION], "response_format": wanted, "temperature": 0}, CHAT)
    assert status == 200, answer
    assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"sunny"}


def test_several_prompts_are_refused_in_words(server: Server) -> None:
    status, answer = server.request({"prompt": ["a", "b"]})
    assert status == 400
    assert "prompt is a list of 2" in answer["error"]["message"]
    assert server.request({"prompt": ["The capital"], "max_tokens": 1})[0] == 200
