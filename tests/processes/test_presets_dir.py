"""Whole configurations on a real disk, and what they mean."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from configuration_on_disk import MINIMAL, lay_out, problems, read

from supervisor.configuration import Origin
from supervisor.core.preset import HttpReady
from supervisor.presets_dir import load


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


def test_another_reading_parses_what_is_new(directory: Path) -> None:
    first = load(directory / "config.yaml")
    same = load(directory / "config.yaml", files=first.files)
    assert same == first
    assert [each is first.presets[name] for name, each in same.presets.items()] == [True] * len(first.presets)
    (directory / "presets.d" / "new.yaml").write_text("models: {new: {model: ../m.gguf}}")
    more = load(directory / "config.yaml", files=same.files)
    assert more.presets.keys() == first.presets.keys() | {"new"}


def test_the_documented_example_is_read(directory: Path) -> None:
    (directory / "p.gguf").write_bytes(b"")
    (directory / "config.yaml").write_text("listen: '[::1]:80'\npresets: models\nautoload: off\nmemory: {}\n")
    (directory / "presets.d").rename(directory / "models")
    (directory / "models" / "a.yaml").write_text("""\
defaults:
  stop_timeout: 20s
models:
  qwen3-8b:
    description: general chat
    aliases: [qwen, gpt-4o-mini]
    model: ../m.gguf
    mmproj: ../p.gguf
    context: 16384
    gpu_layers: 99
    parallel: 4
    threads: null
    options: {flash-attn: on}
    env: {CUDA_VISIBLE_DEVICES: 0}
    replicas: 1
    restart: {policy: no, limit: 3}
  whisper:
    backend: command
    command: [whisper-server, --port, "{port}"]
    ready: {http: /health}
""")
    configuration = load(directory / "config.yaml")
    assert str(configuration.config.listen) == "[::1]:80"
    assert configuration.config.autoload is False
    assert configuration.path == directory / "config.yaml"
    assert configuration.presets_dir == directory / "models"
    assert configuration.aliases == {"qwen": "qwen3-8b", "gpt-4o-mini": "qwen3-8b"}
    assert configuration.origins == {"qwen3-8b": Origin("models/a.yaml", 4), "whisper": Origin("models/a.yaml", 17)}
    qwen, whisper = configuration.presets["qwen3-8b"], configuration.presets["whisper"]
    assert qwen.restart.policy == "no"
    assert qwen.options == {"flash-attn": "on"}
    assert qwen.env == {"CUDA_VISIBLE_DEVICES": "0"}
    assert Path(qwen.model or "").samefile(directory / "m.gguf")
    assert (qwen.stop_timeout, whisper.stop_timeout) == (20, 20)
    assert whisper.ready == HttpReady(http="/health")
    assert [fault.field for fault in configuration.faults] in ([], ["models.whisper.command"])  # as it may be there
    assert len(configuration.notices) == len(configuration.faults)


@pytest.mark.parametrize("text", ["# nothing yet\n", "models:\n", "models: {}\ndefaults:\n", "---\n"])
def test_a_file_without_models_is_fine(directory: Path, text: str) -> None:
    assert read(directory, text).presets == {}


def test_hidden_backup_and_other_files_are_not_read(directory: Path) -> None:
    for name in (".x.yaml", ".#a.yaml", "#a.yaml#", "a.yaml~", "a.yaml.bak", "a.yaml.dpkg-old", ".a.yaml.swp", "a.txt"):
        (directory / "presets.d" / name).write_text("[broken")
    (directory / "presets.d" / "sub").mkdir()
    (directory / "presets.d" / "sub" / "b.yaml").write_text("[broken")
    (directory / "presets.d" / "b.yml").write_text(MINIMAL)
    assert list(read(directory).presets) == ["qwen"]


def test_the_presets_may_lie_beside_config_yaml(directory: Path) -> None:
    (directory / "config.yaml").write_text("presets: .\n")
    (directory / "a.yaml").write_text("models: {qwen: {model: m.gguf}}\n")
    assert list(read(directory).presets) == ["qwen"]


def test_relative_paths_lead_from_their_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.chdir(directory)
    (directory / "presets.d" / "a.yaml").write_text("""\
models:
  one: {model: ~/m.gguf}
  two: {model: ../m.gguf}
  three: {backend: command, command: [./serve, "{port}"]}
  four: {backend: command, command: [serve, "{port}", ./x]}
  five: {backend: command, command: [~/serve, "{port}"]}
""")
    configuration = load(Path("config.yaml"))
    presets = configuration.presets
    assert configuration.path == directory / "config.yaml"
    assert configuration.presets_dir == directory / "presets.d"
    assert presets["one"].model == str(directory / "m.gguf")
    assert presets["two"].model == str(directory / "m.gguf")
    assert presets["three"].command == (str(directory / "presets.d" / "serve"), "{port}")
    assert presets["four"].command == ("serve", "{port}", "./x")
    assert presets["five"].command == (str(directory / "serve"), "{port}")
    assert configuration.origins["two"] == Origin("presets.d/a.yaml", 3)


def test_a_fallback_must_be_a_model_or_an_alias(directory: Path) -> None:
    (directory / "config.yaml").write_text("autoload: true\nfallback: qwem\n")
    models = "models:\n  qwen: {model: ../m.gguf, aliases: [gpt]}\n"
    assert problems(directory, models) == [
        "config.yaml:2: fallback: cannot fall back on 'qwem': no model has that name; did you mean 'qwen'?"
    ]
    (directory / "config.yaml").write_text("fallback: gpt\n")
    assert load(directory / "config.yaml").config.fallback == "gpt"


def test_a_path_through_a_symbolic_link_keeps_its_meaning(directory: Path, tmp_path: Path) -> None:
    far = tmp_path / "far" / "away"
    far.mkdir(parents=True)
    (far.parent / "m.gguf").write_text("there")
    (directory / "presets.d" / "link").symlink_to(far)
    (directory / "presets.d" / "a.yaml").write_text("models:\n  one: {model: link/../m.gguf}\n")
    model = load(directory / "config.yaml").presets["one"].model
    assert model is not None and Path(model).read_text() == "there"


def test_presets_elsewhere_have_absolute_origins(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "a.yaml").write_text(f"models: {{qwen: {{model: {directory}/m.gguf}}}}\n")
    (directory / "config.yaml").write_text(f"presets: {other}\n")
    assert read(directory).origins == {"qwen": Origin(f"{other}/a.yaml", 1)}


def test_defaults_lie_under_every_model_key_by_key(directory: Path) -> None:
    presets = read(
        directory,
        """\
defaults:
  model: ../m.gguf
  env: {A: a, B: b}
  restart: {limit: 9, delay: 2s}
  context: 4096
  ready: notify
models:
  plain:
  own: {env: {B: mine}, restart: {limit: 1}, context: null}
  cleared: {env: null}
  other: {backend: command, command: [x, "{port}"]}
""",
    ).presets
    assert presets["plain"].env == {"A": "a", "B": "b"}
    assert presets["own"].env == {"A": "a", "B": "mine"}
    assert (presets["own"].restart.limit, presets["own"].restart.delay) == (1, 2)
    assert (presets["plain"].context, presets["own"].context) == (4096, None)
    assert presets["cleared"].env == {}
    assert presets["other"].env == {"A": "a", "B": "b"}


def test_defaults_that_mean_nothing_to_a_backend_are_left_out(directory: Path) -> None:
    presets = read(
        directory,
        """\
defaults: {context: 4096, parallel: 2, ready: {http: /up}, command: [x, "{port}"], stop_timeout: 3s}
models:
  llama: {model: ../m.gguf}
  other: {backend: command}
""",
    ).presets
    assert (presets["llama"].context, presets["llama"].command, presets["llama"].ready) == (4096, (), "notify")
    assert (presets["other"].context, presets["other"].command) == (None, ("x", "{port}"))
    assert presets["other"].ready == HttpReady(http="/up")
    assert presets["llama"].stop_timeout == presets["other"].stop_timeout == 3


def test_a_thousand_presets_are_read_quickly(directory: Path) -> None:
    text = """\
defaults: {{stop_timeout: 20s}}
models:
  m{n}:
    description: general chat
    aliases: [a{n}, b{n}]
    model: ../m.gguf
    context: 16384
    options: {{flash-attn: on}}
    env: {{CUDA_VISIBLE_DEVICES: 0}}
    restart: {{policy: on-failure, delay: 1s, max_delay: 1min, limit: 5, within: 10min}}
"""
    for n in range(1000):
        (directory / "presets.d" / f"{n}.yaml").write_text(text.format(n=n))
    start = time.process_time()
    configuration = read(directory)
    assert time.process_time() - start < 2
    assert len(configuration.presets) == 1000
    assert len(configuration.aliases) == 2000
