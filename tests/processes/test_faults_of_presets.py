"""Presets that can't be served at the moment, as their model or their program is not there: all others are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from harness import Supervisor, Watch, refused
from made_gguf import put

from supervisor.cli import program
from supervisor.configuration import Configuration
from supervisor.errors import EX_CONFIG, ConfigurationError
from supervisor.memory import Memory
from supervisor.presets_dir import load


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.yaml beside a directory with the model gem, and an empty presets.d."""
    (tmp_path / "models").mkdir()
    (tmp_path / "presets.d").mkdir()
    (tmp_path / "config.yaml").write_text("models_dir: models\n")
    put(tmp_path / "models", "gem.gguf")
    return tmp_path / "config.yaml"


def read(config: Path, presets: str) -> Configuration:
    (config.parent / "presets.d" / "a.yaml").write_text(presets)
    return load(config, Memory(None))


def checked(config: Path) -> tuple[int, list[str]]:
    result = CliRunner().invoke(program, ["check", "--config", str(config)])
    return result.exit_code, (result.stdout + result.stderr).replace(f"{config.parent}/", "").splitlines()


def test_a_misspelt_name_is_told_and_stops_nobody(config: Path) -> None:
    configuration = read(config, "models:\n  gme: {context: 512, aliases: [g]}\n  gem: {context: 256}\n")
    assert configuration.presets.keys() == configuration.origins.keys() == {"gem"}
    assert configuration.aliases == {}
    [fault] = configuration.faults
    assert fault in configuration.notices
    assert (fault.line, fault.field) == (2, "models.gme.model")
    code, lines = checked(config)
    assert code == EX_CONFIG
    [line] = [line for line in lines if "gme" in line]
    assert "presets.d/a.yaml:2: models.gme.model: cannot be missing" in line
    assert "did you mean 'gem', which is in models_dir?" in line
    result = CliRunner().invoke(program, ["check", "--json", "--config", str(config)])
    told = json.loads(result.stdout)
    assert (told["ok"], [problem["line"] for problem in told["problems"]]) == (False, [2])


def test_what_else_is_wrong_with_it_is_an_error(config: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(config, "models:\n  gme: {contxt: 512}\n")
    assert [problem.field for problem in caught.value.problems] == ["models.gme.contxt", "models.gme.model"]


def test_a_program_that_is_not_there(config: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mine").symlink_to(sys.executable)
    words: dict[str, Any] = {"a": "${nosuch}", "b": "./nosuch", "c": str(tmp_path / "plain"), "d": sys.executable}
    lines = [f"  {name}: {{backend: command, command: ['{word}', '{{port}}']}}" for name, word in words.items()]
    lines.append(f"  e: {{backend: command, command: [mine, '{{port}}'], env: {{PATH: '{tmp_path}/bin'}}}}")
    configuration = read(config, "\n".join(["models:", *lines]))
    assert configuration.presets.keys() == {*words, "e", "gem"}
    told = {fault.field: fault.message.partition(";")[0] for fault in configuration.faults}
    assert told == {
        "models.a.command": "cannot run '${nosuch}': it is not on PATH",
        "models.b.command": f"cannot run '{tmp_path}/presets.d/nosuch': No such file or directory",
        "models.c.command": f"cannot run '{tmp_path}/plain': it can't be executed",
    }
    assert checked(config)[0] == EX_CONFIG


def test_all_that_is_wrong_is_told_at_once(config: Path, tmp_path: Path) -> None:
    config.write_text("listen: nowhere\nmodels_dir: nosuch\nfallback: nobody\n")
    binary = tmp_path / "llama-server"
    text = f"models:\n  x: {{backend: llama-server, binary: {binary}, model: models/none.gguf, contxt: 1}}\n"
    with pytest.raises(ConfigurationError) as caught:
        read(config, text)
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"listen", "models_dir", "fallback", "models.x.contxt", "models.x.model", "models.x.binary"}


def test_a_file_that_is_taken_away_takes_its_model_along_and_no_other(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(config="models_dir: models\n")
    models = supervisor.directory / "models"
    models.mkdir()
    put(models, "gem.gguf", "other.gguf")
    supervisor.add("runs")
    supervisor.write("overrides", {"models": {"gem": {"context": 512}, "gme": {"context": 512}}})
    supervisor.start()
    assert {model["name"] for model in supervisor.status()["models"]} == {"runs", "gem", "other"}
    supervisor.load("runs")
    watch = supervisor.watch(None)
    (models / "gem.gguf").unlink()
    watch.next(lambda event: "models.gem.model: cannot be missing" in event["text"])
    supervisor.eventually(lambda: len(supervisor.status()["models"]) == 2, "the model goes")
    put(models, "gem.gguf")
    supervisor.eventually(lambda: len(supervisor.status()["models"]) == 3, "the model is back")
    assert supervisor.model("runs")["state"] == "ready"
    history = Watch(supervisor.client(), None, 0)
    history.text("configuration reloaded: gem added")
    told = [event["text"] for event in history.seen]
    assert len([text for text in told if "models.gme.model" in text]) == 1
    assert len([text for text in told if "models.gem.model" in text]) == 1


def test_nobody_is_evicted_for_a_program_that_is_not_there(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(max_models=1)
    supervisor.add("healthy")
    supervisor.write("sick", {"models": {"sick": {"backend": "command", "command": ["${nosuch}", "{port}"]}}})
    supervisor.start()
    supervisor.load("healthy")
    with refused() as caught:
        supervisor.call("load", model="sick", wait=True)
    assert "${nosuch}" in str(caught[0])
    with refused() as again:
        supervisor.lease("sick").grant()
    assert "${nosuch}" in str(again[0])
    assert supervisor.model("healthy")["state"] == "ready"
    assert supervisor.model("sick")["state"] == "failed"
