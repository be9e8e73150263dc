"""What programs that were written for other servers do, unchanged: OpenAI's and Anthropic's packages, and litellm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import requests
from served import MODEL, Served
from test_llama_server import llama_server

NATIVE, SLASHED = "native", "org/native:q4"
COLD = {"temperature": 0}  # the package knows no temperature
HELLO: Any = [{"role": "user", "content": "Say hello."}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": CITY}}
LITELLM = "litellm==1.106.2"


@pytest.fixture(scope="module")
def both() -> Iterator[Served]:
    """The same model with two backends; "llama-server" is skipped where there is no binary."""
    with Served() as supervisor:
        supervisor.serve(MODEL, options={"logits_all": True}, context=512)
        supervisor.serve("embedder", embedding=True, context=512)
        try:
            binary = llama_server()
        except pytest.skip.Exception:
            binary = None
        if binary is not None:
            native = {"backend": "llama-server", "binary": binary, "threads": 1, "context": 4096}
            supervisor.serve(NATIVE, aliases=["claude-sonnet", SLASHED], **native)
            embedding = {"embedding": True, "options": {"pooling": "mean"}, "request": {"set": {"user": "nobody"}}}
            supervisor.serve("native-embedder", **native, **embedding)
        yield supervisor.start(until="READY=1")


@pytest.fixture(params=["llama-cpp-python", "llama-server"])
def name(request: pytest.FixtureRequest) -> str:
    """The model of one backend."""
    if request.param == "llama-server":
        llama_server()
        return NATIVE
    return MODEL


@pytest.fixture
def claude(both: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=both.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_chat_and_its_stream(both: Served, name: str) -> None:
    create = both.openai().chat.completions.create
    whole = create(model=name, messages=HELLO, max_tokens=12, temperature=0)
    stream = create(model=name, messages=HELLO, max_tokens=12, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.choices[0].message.content
    assert whole.usage is not None and whole.usage.completion_tokens > 0


def test_a_tool_is_called(both: Served) -> None:
    """By llama-cpp-python; llama-server (b11434) leaves it to the model, and this one is too small."""
    answer = both.openai().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=60,
        temperature=0,
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_a_tools_result_is_understood(both: Served) -> None:
    llama_server()
    call: Any = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    messages: Any = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    answer = both.openai().chat.completions.create(model=NATIVE, messages=messages, tools=[WEATHER], max_tokens=8)
    assert answer.choices[0].message.content


def test_an_answer_that_fits_a_schema(both: Served, name: str) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}
    if name == MODEL:  # llama-cpp-python's own spelling
        form = {"type": "json_object", "schema": CITY}
    answer = both.openai().chat.completions.create(
        model=name, messages=HELLO, response_format=form, max_tokens=60, temperature=0
    )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["city"], str)


def test_logprobs(both: Served, name: str) -> None:
    answer = both.openai().chat.completions.create(
        model=name, messages=HELLO, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )
    found = answer.choices[0].logprobs
    assert found is not None and found.content
    assert all(each.logprob <= 0 for each in found.content)


def test_an_image_for_a_model_of_text_is_a_clear_error(both: Served, name: str) -> None:
    image: Any = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    with pytest.raises(openai.APIStatusError, match=r"text only|image input is not supported") as error:
        both.openai().chat.completions.create(model=name, messages=[{"role": "user", "content": image}])
    assert error.value.status_code in (400, 500)
    assert both.openai().chat.completions.create(model=name, messages=HELLO, max_tokens=1).choices


@pytest.mark.parametrize("embedder", ["embedder", "native-embedder"])
def test_embeddings(both: Served, embedder: str) -> None:
    if embedder != "embedder":
        llama_server()
    answer = both.openai().embeddings.create(model=embedder, input=["one", "other"])
    one, other = (each.embedding for each in answer.data)
    assert len(one) == len(other) == 576 and one != other


def test_responses(both: Served) -> None:
    llama_server()
    create = both.openai().responses.create
    whole = create(model=NATIVE, input="Say hello.", max_output_tokens=12, temperature=0)
    assert whole.output_text
    stream = create(model=NATIVE, input="Say hello.", max_output_tokens=8, temperature=0, stream=True)
    kinds = [event.type for event in stream]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") > 2


def test_an_api_that_a_backend_lacks_is_a_clear_error(both: Served, claude: anthropic.Anthropic) -> None:
    with pytest.raises(openai.NotFoundError, match="which has no /responses; backend llama-server has"):
        both.openai().responses.create(model=MODEL, input="Say hello.")
    with pytest.raises(anthropic.NotFoundError, match="which has no /messages; backend llama-server has"):
        claude.messages.create(model=MODEL, max_tokens=5, messages=HELLO)


def test_messages_and_their_stream(claude: anthropic.Anthropic) -> None:
    llama_server()
    whole = claude.messages.create(model="claude-sonnet", max_tokens=12, messages=HELLO, extra_body=COLD)
    assert whole.content[0].type == "text" and whole.content[0].text
    assert whole.usage.output_tokens > 0
    with claude.messages.stream(model=NATIVE, max_tokens=12, messages=HELLO, extra_body=COLD) as stream:
        pieces = list(stream.text_stream)
        assert len(pieces) > 3
        assert "".join(pieces) == whole.content[0].text
        assert stream.get_final_message().stop_reason in ("end_turn", "max_tokens")


def test_a_tools_result_in_messages(claude: anthropic.Anthropic) -> None:
    llama_server()
    messages: Any = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Paris"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "sunny"}]},
    ]
    tool: Any = {"name": "weather", "description": "Weather", "input_schema": CITY}
    answer = claude.messages.create(model=NATIVE, max_tokens=8, messages=messages, tools=[tool])
    assert answer.content[0].type == "text" and answer.content[0].text


def test_counting_tokens(claude: anthropic.Anthropic) -> None:
    llama_server()
    few, more = (
        claude.messages.count_tokens(model=NATIVE, messages=[{"role": "user", "content": text}]).input_tokens
        for text in ("one", "one two three four five")
    )
    assert 0 < few < more


def test_errors_of_messages(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="model 'nope' not found"):
        claude.messages.create(model="nope", max_tokens=5, messages=HELLO)


def test_what_llama_servers_own_clients_ask(both: Served) -> None:
    llama_server()
    url = both.url
    tokens = requests.post(f"{url}/tokenize", json={"model": NATIVE, "content": "hello there"}, timeout=60).json()
    back = requests.post(f"{url}/detokenize", json={"model": NATIVE, **tokens}, timeout=60).json()
    assert back == {"content": "hello there"}
    prompt = requests.post(f"{url}/apply-template", json={"model": NATIVE, "messages": HELLO}, timeout=60).json()
    assert "Say hello." in prompt["prompt"]
    assert requests.get(f"{url}/props?model=org%2Fnative%3Aq4", timeout=60).json()["default_generation_settings"][
        "n_ctx"
    ]
    assert requests.get(f"{url}/slots?model={NATIVE}", timeout=60).json()[0]["id"] == 0
    own = requests.post(f"{url}/completion", json={"model": NATIVE, "prompt": "One", "n_predict": 3}, timeout=60).json()
    assert own["content"] and own["tokens_predicted"] == 3
    refused = requests.post(f"{url}/v1/audio/transcriptions", {"model": NATIVE}, files={"file": b"RIFF"}, timeout=60)
    assert "audio" in refused.json()["error"]["message"]
    beneath = requests.get(f"{url}/upstream/{SLASHED}/v1/models", timeout=60)
    assert beneath.json()["data"][0]["id"] == NATIVE
    assert "sandbox" in beneath.headers["Content-Security-Policy"]


LITELLM_DOES = """
import json, sys, litellm
litellm.telemetry = False
url, models, embedder = sys.argv[1], sys.argv[2].split(), sys.argv[3]
hello = [{"role": "user", "content": "Say hello."}]
for model in models:
    about = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none", "max_tokens": 8, "temperature": 0}
    whole = litellm.completion(messages=hello, **about).choices[0].message.content
    stream = litellm.completion(messages=hello, stream=True, **about)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert len(pieces) > 3 and "".join(pieces) == whole, (pieces, whole)
    try:
        litellm.completion(messages=hello, **(about | {"model": "openai/nope"}))
    except litellm.BadRequestError as error:
        assert "model 'nope' not found" in str(error)
    else:
        raise AssertionError("nope is a model")
answer = litellm.embedding(model=f"openai/{embedder}", input=["one"], api_base=f"{url}/v1", api_key="none")
assert len(answer.data[0]["embedding"]) == 576
print("all done")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_litellm(both: Served) -> None:
    """In an environment of its own: it brings 33 packages, and an OpenAI client older than the one tested above."""
    python = Path(sys.prefix) / "litellm" / "bin" / "python"
    pin = python.parents[1] / "pin"
    if not pin.exists() or pin.read_text() != LITELLM:
        subprocess.run([sys.executable, "-m", "venv", "--clear", python.parents[1]], check=True)
        made = subprocess.run([python, "-m", "pip", "install", "--quiet", LITELLM], capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"cannot install {LITELLM}: {made.stderr[-500:]}")
        pin.write_text(LITELLM)
    names = [model["name"] for model in both.status()["models"] if "embedder" not in model["name"]]
    command = [python, "-c", LITELLM_DOES, both.url, " ".join(names), "embedder"]
    offline = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=offline)
    assert done.stdout.endswith("all done\n"), done.stdout + done.stderr
