"""What is changed in the chunks of a stream; a table, without a model."""

from __future__ import annotations

import copy
from typing import Any

from supervisor.model_server_stream import completed

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}


def call(arguments: str, index: int = 0) -> dict[str, Any]:
    """As llama-cpp-python 0.3.36 puts each piece of a call."""
    function = {"name": "weather", "arguments": arguments}
    calls = [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]
    return chunk({"role": None, "content": None, "function_call": dict(function), "tool_calls": calls})


def test_a_call_is_named_once() -> None:
    nothing = chunk({"role": None, "content": None, "function_call": None, "tool_calls": None}, "tool_calls")
    pieces = [chunk({"role": "assistant"}), call('{"city"'), call(': "Paris"'), call("}"), call("{}", 1), nothing]
    told = list(completed(copy.deepcopy(pieces), None))
    assert [told[0], told[1], told[4], told[5]] == [pieces[0], pieces[1], pieces[4], pieces[5]]
    for piece, arguments in ((told[2], ': "Paris"'), (told[3], "}")):
        delta = piece["choices"][0]["delta"]
        assert delta["tool_calls"] == [{"index": 0, "function": {"arguments": arguments}}]
        assert delta["function_call"] == {"arguments": arguments}


def test_usage_is_the_last_chunk() -> None:
    pieces = [chunk({"role": "assistant"}), chunk({"content": "hi"}), chunk({}, "stop")]
    *told, last = completed(copy.deepcopy(pieces), lambda: USAGE)
    assert told == [{**piece, "usage": None} for piece in pieces]
    assert last == {**HEAD, "choices": [], "usage": USAGE}


def test_usage_is_counted_when_all_is_said() -> None:
    counted: list[int] = []

    def chunks() -> Any:
        for number in range(3):
            counted.append(number)
            yield chunk({"content": "x"})

    *_, last = completed(chunks(), lambda: {"completion_tokens": len(counted)})
    assert last["usage"] == {"completion_tokens": 3}
