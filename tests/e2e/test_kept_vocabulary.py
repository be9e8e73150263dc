"""The real model server with a vocabulary that was kept says what it says without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from served import Served, Weights, gguf

OTHER = "other"
PROMPT = "Names of three cities in France:"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
GEMMAS_TOKENS = 262144
WITHOUT = "but for its vocabulary"


@pytest.fixture
def swapping() -> Iterator[Served]:
    """Room for one model; what a test serves makes room for OTHER."""
    with Served(max_models=1) as served:
        served.serve(OTHER)
        served.start(until="READY=1")
        served.eventually(lambda: "forkserver ready" in served.log.read_text(), "the forkserver is ready")
        yield served


def load(served: Served, name: str) -> None:
    served.call("load", model=name, wait=True)


def made_room(served: Served, name: str) -> None:
    """Swap a model that is loaded for OTHER, and wait until its vocabulary is kept."""
    load(served, OTHER)
    said = f"the vocabulary of {name} is kept"
    served.eventually(lambda: said in served.log.read_text(), said)


def loads(served: Served, name: str) -> list[bool]:
    """Whether each of its loads went without the vocabulary."""
    return [WITHOUT in line for line in served.logs(name) if line.startswith("loading ")]


def tokens(served: Served, name: str) -> Any:
    """What a model makes of a text."""
    text = "Wörter, 東京 🙂 <|im_start|>user\n<start_of_turn>"
    url = f"{served.url}/upstream/{name}/extras/tokenize"
    return requests.post(url, json={"model": name, "input": text}).json()


def answers(served: Served, name: str) -> list[Any]:
    """What a model says, of which no part is up to chance."""
    client = served.openai()
    told = client.completions.create(model=name, prompt=PROMPT, max_tokens=24, temperature=0, logprobs=3)
    assert told.choices[0].logprobs
    limited = client.chat.completions.create(
        model=name,
        messages=[openai.types.chat.ChatCompletionUserMessageParam(role="user", content="A city of France, in JSON.")],
        max_tokens=32,
        temperature=0,
        response_format={"type": "json_object", "schema": SCHEMA},  # type: ignore[misc, list-item]  # llama.cpp's form
    )
    assert json.loads(limited.choices[0].message.content or "")["city"]
    read = tokens(served, name)
    url = f"{served.url}/upstream/{name}/extras/detokenize"
    back = requests.post(url, json={"model": name, "tokens": read["tokens"]}).json()
    return [told.choices[0], limited.choices[0].message.content, limited.usage, read, back]


@pytest.mark.parametrize("weights", ["smollm2", "gemma"])
def test_it_answers_as_it_does_with_all_read(swapping: Served, weights: Weights) -> None:
    swapping.serve("m", weights, options={"logits_all": True}, context=512)
    load(swapping, "m")
    before = answers(swapping, "m")
    made_room(swapping, "m")
    load(swapping, "m")
    assert answers(swapping, "m") == before
    assert loads(swapping, "m") == [False, True]


def test_embeddings(swapping: Served) -> None:
    def embedded() -> list[float]:
        return (
            swapping.openai().embeddings.create(model="m", input="a house", encoding_format="float").data[0].embedding
        )

    swapping.serve("m", embedding=True, context=512)
    load(swapping, "m")
    before = embedded()
    made_room(swapping, "m")
    load(swapping, "m")
    assert embedded() == before
    assert loads(swapping, "m") == [False, True]


def test_a_file_that_was_replaced_is_read_anew(swapping: Served) -> None:
    """The other model under the same name: its own vocabulary, or it would talk nonsense."""
    path = swapping.directory / "m.gguf"
    shutil.copy(gguf(), path)
    swapping.write("m", {"models": {"m": {"model": str(path), "context": 512}}})
    swapping.call("reload")
    load(swapping, "m")
    made_room(swapping, "m")
    put_in_place(gguf("gemma"), path)
    swapping.call("reload")
    load(swapping, "m")
    assert loads(swapping, "m") == [False, False]
    said = swapping.openai().completions.create(
        model="m", prompt="The capital of France is", max_tokens=8, temperature=0
    )
    assert "France" in said.choices[0].text


REPLACED_AMID = """
import os, sys
from supervisor import model_server_load as loading

path, new = sys.argv[1:]
settings = {"model": path, "n_ctx": 64}

def replace_it(done):
    if os.path.exists(new):
        os.replace(new, path)

loading.keep(settings)
model, _ = loading.load(settings, replace_it)
print(model.llama.n_vocab())
"""


def test_a_file_that_is_replaced_amid_its_load(tmp_path: Path) -> None:
    """What is served is the new one with its own vocabulary, whichever of the two the weights were read from."""
    path, new = tmp_path / "m.gguf", tmp_path / "new.gguf"
    shutil.copy(gguf(), path)
    shutil.copy(gguf("gemma"), new)
    command = [sys.executable, "-c", REPLACED_AMID, str(path), str(new)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(run.stdout) == GEMMAS_TOKENS, run.stderr
    assert f"loading {path} with its vocabulary: {path} has changed" in run.stderr


CHANGED_IN_PLACE = """
import os, sys
from supervisor import model_server_load as loading

path = sys.argv[1]
before = os.stat(path)
check = loading.keep({"model": path})
check()
with open(path, "r+b") as file:
    file.seek(-1, os.SEEK_END)
    file.write(b"x")
os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
check()
"""


def test_a_file_that_is_changed_in_place_is_another_one_though_its_time_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    shutil.copy(gguf(), path)
    command = [sys.executable, "-c", CHANGED_IN_PLACE, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.stderr.rstrip().endswith(f"OSError: {path} has changed")
    assert run.stderr.count("in check") == 1


def put_in_place(new: Path, path: Path) -> None:
    """Replace a file at once, as a download does when it is done."""
    shutil.copy(new, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def test_options_that_change_what_is_read(swapping: Served) -> None:
    """Of such a model nothing is kept, nor is it given what was kept of another one of the same file."""
    other = {"kv_overrides": ["tokenizer.ggml.add_bos_token=bool:true", "tokenizer.ggml.bos_token_id=int:5"]}
    swapping.serve("m", "gemma", context=512, options=other)
    swapping.serve("plain", "gemma", context=512)
    load(swapping, "m")
    before = tokens(swapping, "m")
    load(swapping, "plain")
    made_room(swapping, "plain")
    load(swapping, "m")
    assert tokens(swapping, "m") == before
    load(swapping, "plain")
    assert tokens(swapping, "plain") != before
    assert loads(swapping, "m") == [False, False]
    assert loads(swapping, "plain") == [False, True]
