"""A directory of models beside presets: which of them a preset configures, who wins, and what is told of the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_gguf import put

from supervisor.cli import program
from supervisor.configuration import Configuration, Origin
from supervisor.errors import ConfigurationError
from supervisor.memory import Memory
from supervisor.presets_dir import load


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.yaml beside an empty directory of models and an empty presets.d."""
    (tmp_path / "models").mkdir()
    (tmp_path / "presets.d").mkdir()
    (tmp_path / "config.yaml").write_text("models_dir: models\n")
    return tmp_path / "config.yaml"


@pytest.fixture
def models(config: Path) -> Path:
    return config.parent / "models"


def read(config: Path, presets: str = "# none\n") -> Configuration:
    (config.parent / "presets.d" / "a.yaml").write_text(presets)
    return load(config, Memory(None))


def problems(config: Path, presets: str = "# none\n") -> list[str]:
    """What `check` tells."""
    try:
        found = list(read(config, presets).faults)
    except ConfigurationError as error:
        found = error.problems
    assert found
    return [str(problem).replace(f"{config.parent}/", "") for problem in found]


def told_by(configuration: Configuration) -> list[str]:
    return [str(notice).replace(f"{configuration.path.parent}/", "") for notice in configuration.notices]


def test_a_model_that_no_preset_names(config: Path, models: Path) -> None:
    put(models, "v/m.gguf", "v/mmproj.gguf")
    configuration = read(config)
    preset = configuration.presets["v"]
    assert (preset.backend, preset.context) == ("llama-cpp-python", None)
    assert (preset.model, preset.mmproj) == (f"{models}/v/m.gguf", f"{models}/v/mmproj.gguf")
    assert configuration.origins == {"v": Origin(f"{models}/v/m.gguf", None, "models_dir")}
    assert configuration.models_dir == models
    assert (configuration.found(), configuration.written()) == (["v"], [])


def test_a_preset_of_its_name_configures_it(config: Path, models: Path) -> None:
    put(models, "v/m.gguf", "v/mmproj.gguf", "w/m.gguf", "w/mmproj.gguf", "x.gguf")
    text = "defaults: {threads: 3}\nmodels:\n  v: {context: 512, aliases: [x]}\n  w: {mmproj: null, model: null}\n"
    configuration = read(config, text)
    v, w = configuration.presets["v"], configuration.presets["w"]
    assert (v.model, v.mmproj, v.context, v.threads) == (f"{models}/v/m.gguf", f"{models}/v/mmproj.gguf", 512, 3)
    assert (w.model, w.mmproj) == (f"{models}/w/m.gguf", None)
    assert configuration.origins["v"] == Origin("presets.d/a.yaml", 3)
    assert configuration.presets.keys() == {"v", "w"}
    assert told_by(configuration) == [
        "models/x.gguf: passed over: the name 'x' is taken by presets.d/a.yaml:3; rename one of them"
    ]


def test_defaults_of_a_file_apply_to_its_own_models_only(config: Path, models: Path) -> None:
    put(models, "a.gguf", "b.gguf")
    presets = read(config, "defaults: {context: 512}\nmodels: {a: }\n").presets
    assert (presets["a"].context, presets["b"].context) == (512, None)


def test_a_preset_with_files_of_its_own_wins(config: Path, models: Path) -> None:
    put(models, "m.gguf", "n.gguf", "../other.gguf")
    text = 'models:\n  m: {model: ../other.gguf}\n  n: {backend: command, command: [sh, "{port}"]}\n'
    configuration = read(config, text)
    assert configuration.presets["m"].model == str(models.parent / "other.gguf")
    assert configuration.presets["n"].model is None
    assert told_by(configuration) == [
        "models/m.gguf: passed over: the name 'm' is taken by presets.d/a.yaml:2; rename one of them",
        "models/n.gguf: passed over: the name 'n' is taken by presets.d/a.yaml:3; rename one of them",
    ]
    assert told_by(read(config, "models:\n  m: {model: ../models/m.gguf}\n")) == []


def test_a_preset_of_another_name_leaves_the_file_a_model(config: Path, models: Path) -> None:
    put(models, "m.gguf")
    assert read(config, "models:\n  chat: {model: ../models/m.gguf}\n").presets.keys() == {"chat", "m"}


def test_a_preset_whose_file_is_not_there(config: Path, models: Path) -> None:
    (models / "m.gguf").touch()
    missing = "model: cannot be missing for backend llama-cpp-python: write the path of a GGUF file"
    then = "; until then the model is left out"
    assert problems(config, "models:\n  m: {}\n  n: {}\n") == [
        f"presets.d/a.yaml:2: models.m.{missing}; 'm' in models_dir is none: the file is empty{then}",
        f"presets.d/a.yaml:3: models.n.{missing}, or put one of its name into models_dir{then}",
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [("a#2", "it must hold no '#' and not"), ("@web", "not start with '@'"), ("a\nb", "printable text")],
)
def test_names_that_no_model_can_have(config: Path, models: Path, name: str, why: str) -> None:
    put(models, f"{name}.gguf", f"f/{name}/m.gguf", "fine.gguf")
    configuration = read(config)
    assert why in told_by(configuration)[0]
    assert configuration.presets.keys() == {"fine", *([f"f/{name}"] if name == "@web" else [])}


def test_a_name_that_is_too_long_or_not_text(config: Path, models: Path) -> None:
    put(models, f"{'x' * 101}/{'y' * 101}/m.gguf", os.fsdecode(b"\xff.gguf"), os.fsdecode(b"f/\xff.gguf"))
    configuration = read(config)
    assert configuration.presets == {}
    assert [notice.message for notice in configuration.notices if "longer than 200" in notice.message]
    assert len([notice for notice in configuration.notices if "not UTF-8" in notice.message]) == 2
    json.dumps([vars(notice) for notice in configuration.notices]).encode()


def test_it_can_be_the_fallback(config: Path, models: Path) -> None:
    put(models, "m.gguf")
    config.write_text("models_dir: models\nfallback: m\n")
    assert read(config).config.fallback == "m"


def test_a_directory_that_is_not_there(config: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.rmdir()
    assert problems(config) == [
        "config.yaml:1: models_dir: cannot read the directory 'models': No such file or directory; "
        "create it or correct the path"
    ]
    models.touch()
    assert "Not a directory" in problems(config)[0]


def test_the_one_by_default_may_be_missing(config: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.presets_dir.DEFAULT_MODELS", "models")
    models.rmdir()
    assert told_by(read(config)) == []
    models.touch()
    assert told_by(read(config)) == ["config.yaml:1: models_dir: cannot read the directory 'models': Not a directory"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_the_one_by_default_may_be_out_of_sight(config: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user who checks the configuration of a service, whose state is private."""
    monkeypatch.setattr("supervisor.presets_dir.DEFAULT_MODELS", "private/models")
    config.write_text("models_dir: private/models\n")
    (models.parent / "private" / "models").mkdir(parents=True)
    (models.parent / "private" / "models").chmod(0)
    assert "Permission denied" in told_by(read(config))[0]
    (models.parent / "private").chmod(0)
    assert told_by(read(config)) == []
    (models.parent / "private").chmod(0o700)


def test_a_model_that_never_fits_is_no_error(config: Path, models: Path) -> None:
    put(models, "m.gguf")
    config.write_text("models_dir: models\nmemory: {host: 1M}\n")
    configuration = read(config)
    assert configuration.presets.keys() == {"m"}
    assert "cannot run any model" in told_by(configuration)[0]


def test_check_counts_them(config: Path, models: Path) -> None:
    put(models, "a.gguf", "b.gguf", "c.gguf")
    (config.parent / "presets.d" / "a.yaml").write_text("models: {b: {context: 512}}\n")
    result = CliRunner().invoke(program, ["check", "--config", str(config)])
    assert result.stdout.splitlines()[0] == f"1 model in 1 file, 2 in {models} are fine"
