"""What an OpenAI client does, on the real model: nothing of it knows about llama-router."""

from __future__ import annotations

import concurrent.futures
import http.client
import json

import openai
import pytest
import requests
from served import MODEL, Served

HELLO = [{"role": "user", "content": "Say hello."}]


def test_chat_loads_the_model_and_answers(served: Served) -> None:
    answer = served.openai().chat.completions.create(model=MODEL, messages=HELLO, max_tokens=16, temperature=0)
    assert answer.model == MODEL
    assert answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert served.model(MODEL)["state"] == "ready"


def test_chat_streams_token_by_token(served: Served) -> None:
    client = served.openai()
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=24, temperature=0)
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=24, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 5
    assert "".join(pieces) == whole.choices[0].message.content


def test_completions(served: Served) -> None:
    client = served.openai()
    whole = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert "Paris" in whole.choices[0].text
    stream = client.completions.create(model=MODEL, prompt="One two three", max_tokens=8, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream)


def test_embeddings(served: Served) -> None:
    answer = served.openai().embeddings.create(model="embedder", input=["a sentence", "another"])
    one, other = (item.embedding for item in answer.data)
    assert len(one) == len(other) > 100
    assert any(one) and one != other


def test_a_long_input_is_embedded_to_its_end(served: Served) -> None:
    create = served.openai().embeddings.create
    ends = [create(model="embedder", input="word " * 700 + end).data[0].embedding for end in ("cat", "dog")]
    assert ends[0] != ends[1]


def test_an_alias_serves_its_model(served: Served) -> None:
    answer = served.openai().chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=4)
    assert answer.choices[0].message.content


def test_models_are_listed_and_found(served: Served) -> None:
    client = served.openai()
    assert {"embedder", MODEL} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


def test_unknown_model_missing_model_and_bad_json_are_openai_errors(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="model 'nope' not found"):
        served.openai().chat.completions.create(model="nope", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="model name is missing from the request"):
        served.openai().chat.completions.create(model="", messages=HELLO)
    answer = requests.post(f"{served.url}/v1/chat/completions", data="{nonsense", timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_refused_unread(served: Served) -> None:
    connection = http.client.HTTPConnection(served.status()["listen"], timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str(300 * 1024 * 1024))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["type"] == "invalid_request_error"
    connection.close()


def test_a_prompt_that_does_not_fit_is_the_servers_own_error(served: Served) -> None:
    words = [{"role": "user", "content": "word " * 3000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="maximum context length is 2048"):
            served.openai().chat.completions.create(model=MODEL, messages=words, stream=stream)
    assert served.model(MODEL)["restarts"] == 0


def test_text_in_parts_a_developer_and_max_completion_tokens_are_understood(served: Served) -> None:
    parts = [{"type": "text", "text": "Say hello."}]
    answer = served.openai().chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}],
        max_completion_tokens=3,
    )
    assert answer.usage is not None and answer.usage.completion_tokens == 3


def test_an_image_for_a_text_model_is_a_clear_error(served: Served) -> None:
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    with pytest.raises(openai.BadRequestError, match="this model takes text only"):
        served.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": image}])


def test_curl_without_a_content_type_is_understood(served: Served) -> None:
    body = json.dumps({"model": MODEL, "messages": HELLO, "max_tokens": 4})
    head = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = requests.post(f"{served.url}/v1/chat/completions", data=body, headers=head, timeout=60)
    assert answer.status_code == 200, answer.text


def test_a_preset_changes_what_is_asked(served: Served) -> None:
    served.serve("brief", request={"set": {"max_tokens": 3}, "remove": ["stop"]})
    answer = served.openai().chat.completions.create(model="brief", messages=HELLO, max_tokens=50, stop=["l"])
    assert answer.usage is not None and answer.usage.completion_tokens == 3
    served.serve("brief", request={"set": {"max_tokens": 5}})
    answer = served.openai().chat.completions.create(model="brief", messages=HELLO, max_tokens=50)
    assert answer.usage is not None and answer.usage.completion_tokens == 5
    assert served.model("brief")["restarts"] == 0


def test_many_clients_at_once_are_all_served(served: Served) -> None:
    def ask(number: int) -> str:
        answer = served.openai().chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": f"Number {number}"}], max_tokens=4
        )
        return answer.choices[0].message.content or ""

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(32)))
    served.eventually(lambda: served.model(MODEL)["in_flight"] == 0, "all leases are given back")
