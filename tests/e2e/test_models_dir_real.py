"""A real model that is only put into the directory of models, and talked to."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served

NAME = "SmolLM2-135M-Instruct.Q4_1"


@pytest.fixture
def empty(gguf: Path) -> Iterator[Served]:
    """A supervisor whose directory of models is empty."""
    with Served(config="models_dir: models\n") as supervisor:
        (supervisor.directory / "models").mkdir()
        yield supervisor.start(until="READY=1")


def chat(served: Served, model: str) -> str:
    """What the model of that name says about Paris."""
    question = "Say: Paris is the capital of France."
    answer = served.openai().chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=20, temperature=0
    )
    assert answer.model == model
    return answer.choices[0].message.content or ""


def listed(served: Served) -> dict[str, str]:
    """The `source` of each model that the API lists."""
    with urllib.request.urlopen(f"{served.url}/v1/models") as answer:
        return {model["id"]: model["source"] for model in json.load(answer)["data"]}


def test_a_model_that_is_put_there_answers(empty: Served, gguf: Path) -> None:
    models, watch = empty.directory / "models", empty.watch()
    assert listed(empty) == {}
    (models / f"{NAME}.gguf").symlink_to(gguf)
    watch.text(f"{NAME} added")
    assert listed(empty) == {NAME: "models_dir"}
    assert "Paris" in chat(empty, NAME)
    assert empty.model(NAME)["file"] == str(models / f"{NAME}.gguf")


def test_a_folder_configured_by_a_preset_answers(empty: Served, gguf: Path) -> None:
    models, watch = empty.directory / "models", empty.watch()
    (models / "org" / "smol").mkdir(parents=True)
    (models / "org" / "smol" / "any.gguf").symlink_to(gguf)
    watch.text("org/smol added")
    empty.write("a", "models: {org/smol: {context: 512, aliases: [small]}}\n")
    watch.text("org/smol changed")
    assert listed(empty) == {"org/smol": "preset"}
    assert "Paris" in chat(empty, "org/smol")
    with urllib.request.urlopen(f"{empty.url}/v1/models/org/smol") as answer:
        assert json.load(answer)["aliases"] == ["small"]
    assert "512 tokens of context" in empty.model("org/smol")["message"]


def test_a_model_whose_file_is_taken_away_is_unloaded(empty: Served, gguf: Path) -> None:
    file, watch = empty.directory / "models" / f"{NAME}.gguf", empty.watch()
    file.symlink_to(gguf)
    watch.text(f"{NAME} added")
    chat(empty, NAME)
    file.unlink()
    watch.text(f"{NAME} removed")
    empty.eventually(lambda: not empty.status()["models"], "it is gone")
