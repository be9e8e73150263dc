"""What the supervisor tells of its models beside their states, and when that is another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from harness import Supervisor
from made_gguf import LLAMA, made, make

from supervisor import gguf_file
from supervisor.errors import CannotReadModel


def facts(supervisor: Supervisor) -> dict[str, Any]:
    """By the name of the model."""
    return {each["facts"].pop("model"): each["facts"] for each in supervisor.client().stream("facts")}


def projector(path: Path, **encoders: bool) -> str:
    metadata = {"general.architecture": "clip", **{f"clip.has_{name}_encoder": has for name, has in encoders.items()}}
    path.write_bytes(made(metadata))
    return str(path)


@pytest.mark.parametrize(
    "encoders, expected",
    [
        ({}, []),
        ({"vision": True}, ["image"]),
        ({"audio": True, "vision": False}, ["audio"]),
        ({"audio": True, "vision": True}, ["image", "audio"]),
    ],
)
def test_what_a_projector_takes(tmp_path: Path, encoders: dict[str, bool], expected: list[str]) -> None:
    assert gguf_file.inputs(projector(tmp_path / "mmproj.gguf", **encoders)) == expected


def test_a_projector_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for name in ("x", "missing"):
        with pytest.raises(CannotReadModel):
            gguf_file.inputs(str(tmp_path / name))


def test_facts_come_from_the_files(supervisor: Supervisor, tmp_path: Path) -> None:
    model = make(tmp_path / "model.gguf")
    eyes = projector(tmp_path / "mmproj.gguf", vision=True)
    keys = {"model": model, "mmproj": eyes, "context": 512, "options": {"chat_format": "mtmd"}}
    supervisor.write("seeing", {"models": {"seeing": keys}})
    for name in ("broken", "broken.gguf"):
        (tmp_path / name).write_text("no GGUF")
    supervisor.write("blind", {"models": {"blind": {"model": model, "mmproj": str(tmp_path / "broken")}}})
    supervisor.write("broken", {"models": {"broken": {"model": str(tmp_path / "broken.gguf")}}})
    supervisor.call("reload")
    told = facts(supervisor)
    assert told["seeing"]["architecture"]["input_modalities"] == ["text", "image"]
    assert told["blind"]["architecture"]["input_modalities"] == ["text"]
    assert told["broken"]["meta"] is None
    meta = told["seeing"]["meta"]
    assert (meta["n_ctx"], meta["n_ctx_train"]) == (512, LLAMA["llama.context_length"])
    assert (meta["n_vocab"], meta["ftype"]) == (10, "Q4_0")
    assert told["seeing"]["preset"].startswith(f"[seeing]\nmodel = {model}\nmmproj = {eyes}\n")
    assert told["seeing"]["args"][:3] == ["llama-cpp-python", "--model", model]


def test_each_configuration_has_a_revision(supervisor: Supervisor) -> None:
    supervisor.add("m")
    first = supervisor.status()["revision"]
    assert supervisor.status()["revision"] == first
    supervisor.add("n", idle_timeout="1h")
    assert supervisor.status()["revision"] != first
    assert set(facts(supervisor)) >= {"m", "n"}


def test_a_server_that_runs_shows_where_and_how_it_was_started(supervisor: Supervisor) -> None:
    supervisor.add("m", "listen={socket}", "notify=READY=1", "serve", "--api-key=secret")
    assert (supervisor.model("m")["address"], supervisor.model("m")["args"]) == (None, None)
    assert "{socket}" in facts(supervisor)["m"]["args"][-4]
    supervisor.load("m")
    about = supervisor.model("m")
    place = about["address"].removeprefix("unix:")
    assert Path(place).is_socket()
    assert f"listen={place}" in about["args"]
    assert "secret" not in str(about["args"]) + str(facts(supervisor)["m"])


def test_a_file_that_changes_is_read_again_with_the_next_configuration(supervisor: Supervisor, tmp_path: Path) -> None:
    model = make(tmp_path / "model.gguf")
    supervisor.write("m", {"models": {"m": {"model": model}}})
    supervisor.call("reload")
    assert facts(supervisor)["m"]["meta"]["n_ctx_train"] == 1024
    shutil.move(make(tmp_path / "other.gguf", llama__context_length=4096), model)
    supervisor.call("reload")
    assert facts(supervisor)["m"]["meta"]["n_ctx_train"] == 4096
