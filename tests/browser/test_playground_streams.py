"""What the playground asks and is answered, in the browser that runs it: streams, answers, requests, settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page

CHUNKS = """async ([bytes, cuts, type, status]) => {
  const { answered } = await import('/static/playground/sse.js');
  const data = Uint8Array.from(bytes);
  const stream = new ReadableStream({ start(controller) {
    let at = 0;
    for (const cut of [...cuts, data.length]) { controller.enqueue(data.slice(at, cut)); at = cut; }
    controller.close();
  }});
  const found = [];
  try {
    const response = new Response(stream, { status, headers: { 'Content-Type': type } });
    for await (const chunk of answered(response)) found.push(chunk);
  } catch (error) { return [found, error.message, error.status]; }
  return [found, null, null];
}"""
EVENTS = "text/event-stream; charset=utf-8"


def chunks(page: Page, data: str, cuts: list[int], kind: str = EVENTS, status: int = 200) -> Any:
    return page.evaluate(CHUNKS, [list(data.encode()), cuts, kind, status])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_cut_anywhere(page: Page, end: str) -> None:
    data = end.join([": hello", 'data: {"a":"é🦙"}', "", "id: 1", 'data: {"b":', "data:1}", "", "data: [DONE]", "", ""])
    for cut in range(len(data.encode())):
        assert chunks(page, data, [cut]) == [[{"a": "é🦙"}, {"b": 1}], None, None]
    assert chunks(page, data, list(range(1, len(data.encode())))) == [[{"a": "é🦙"}, {"b": 1}], None, None]


BROKEN = [
    ('data: {"a":1}\n\ndata: {"error":{"message":"died","code":503}}\n\n', [{"a": 1}], "died"),
    ('data: {"a":1}\n\nevent: error\ndata: {"message":"gone"}\n\n', [{"a": 1}], "gone"),
    ('data: {"a":1}\n\n', [{"a": 1}], "the answer broke off: its connection ended too early"),
    ('data: {"a":1}\n\ndata: [DON', [{"a": 1}], "the answer broke off: its connection ended too early"),
    ("data: nonsense\n\n", [], "the answer has an event that is no JSON: nonsense"),
    ("", [], "the answer broke off: its connection ended too early"),
]


@pytest.mark.parametrize("data, found, words", BROKEN)
def test_a_stream_that_breaks(page: Page, data: str, found: Any, words: str) -> None:
    assert chunks(page, data, []) == [found, words, None]


def test_answers_that_are_no_stream(page: Page) -> None:
    error = json.dumps({"error": {"message": "it failed to load", "code": 503, "type": "x"}})
    assert chunks(page, error, [], "application/json", 503) == [[], "it failed to load", 503]
    assert chunks(page, "<h1>Bad Gateway</h1>", [], "text/html", 502) == [[], "502", 502]
    whole = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})
    expected = [{"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}]
    assert chunks(page, whole, [], "application/json") == [expected, None, None]


def test_the_longest_event_is_read_in_time(page: Page) -> None:
    data = 'data: {"a":"' + "x" * 1_000_000 + '"}\n\ndata: [DONE]\n\n'
    [found, error, _] = chunks(page, data, list(range(1000, 1_000_000, 1000)))
    assert (len(found[0]["a"]), error) == (1_000_000, None)


ANSWER = """async chunks => {
  const { Answer } = await import('/static/playground/answer.js');
  const answer = new Answer(1000);
  chunks.forEach((chunk, index) => answer.take(chunk, 1500 + 100 * index));
  return { ...answer.message, finish: answer.finish };
}"""


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": finish}]}


def test_an_answer_is_counted(page: Page) -> None:
    told = [delta(role="assistant"), delta(content="a"), delta(content="b"), delta(content="c"), delta("length")]
    answer = page.evaluate(ANSWER, told)
    assert (answer["content"], answer["finish"]) == ("abc", "length")
    assert answer["stats"] == {"tokens": 3, "exact": False, "prompt": None, "rate": 10, "first": 600}
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 11}}
    assert page.evaluate(ANSWER, [*told, usage])["stats"] == {
        "tokens": 11, "exact": True, "prompt": 7, "rate": 50, "first": 600,
    }  # fmt: skip
    timings = delta("stop") | {"timings": {"predicted_n": 3, "predicted_per_second": 42.5}}
    assert page.evaluate(ANSWER, [*told, timings])["stats"]["rate"] == 42.5


def test_reasoning_and_tool_calls(page: Page) -> None:
    answer = page.evaluate(ANSWER, [delta(reasoning_content="hm"), delta(content="yes")])
    assert (answer["reasoning"], answer["content"]) == ("hm", "yes")
    tags = ["<thi", "nk>\nhm", "\n</th", "ink>\n\nyes"]
    answer = page.evaluate(ANSWER, [delta(content=part) for part in tags])
    assert (answer["reasoning"], answer["content"]) == ("hm", "yes")
    assert page.evaluate(ANSWER, [delta(content="<think>hm")])["reasoning"] == "hm"
    assert page.evaluate(ANSWER, [delta(content="a <think>b</think>")])["content"] == "a <think>b</think>"
    first = {"index": 0, "id": "x", "function": {"name": "add", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"a":1}'}}
    calls = page.evaluate(ANSWER, [delta(tool_calls=[first]), delta(tool_calls=[rest])])["calls"]
    assert calls == [{"name": "add", "arguments": '{"a":1}'}]


@pytest.mark.parametrize("chunk", [{}, {"choices": None}, {"choices": [{}]}, {"choices": [{"delta": {"content": 5}}]}])
def test_chunks_of_no_known_shape_are_nothing(page: Page, chunk: Any) -> None:
    assert page.evaluate(ANSWER, [chunk])["content"] == ""


REQUEST = """async ([settings, path, inputs]) => {
  const { requestOf } = await import('/static/playground/request.js');
  return requestOf('m', settings, path, inputs);
}"""


def test_a_request_has_what_is_set(page: Page) -> None:
    image = {"kind": "image", "name": "x", "url": "data:image/png;base64,AA"}
    sound = {"kind": "audio", "name": "y", "url": "data:audio/wav;base64,BB", "format": "wav"}
    path = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "", "error": "died"},
        {"role": "user", "content": "two", "attachments": [image, sound]},
    ]
    text = page.evaluate(REQUEST, [{"system": "be kind", "temperature": 0, "stop": ["x"]}, path, ["text"]])
    assert text == {
        "model": "m",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "one\n\ntwo"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "stop": ["x"],
    }
    seen = page.evaluate(REQUEST, [{}, path[2:], ["text", "image", "audio"]])["messages"]
    assert seen[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "input_audio", "input_audio": {"data": "BB", "format": "wav"}},
        {"type": "text", "text": "two"},
    ]


SETTINGS = """async texts => {
  const { settingsOf } = await import('/static/playground/request.js');
  return settingsOf(texts);
}"""


def test_settings_from_fields(page: Page) -> None:
    given = {
        "system": " ",
        "temperature": "0.5",
        "top_p": "2",
        "top_k": "1.5",
        "min_p": "",
        "seed": "0",
        "stop": "a\n\nb",
    }
    assert page.evaluate(SETTINGS, given) == {"temperature": 0.5, "seed": 0, "stop": ["a", "b"]}
