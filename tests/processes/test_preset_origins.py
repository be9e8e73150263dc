"""Where each value of a preset comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from configuration_on_disk import lay_out, read
from harness import Supervisor, refused
from made_gguf import make

from supervisor.configuration import Configuration
from supervisor.needs import read as read_header
from supervisor.preset_origins import origins

PRESETS = """\
defaults:
  idle_timeout: 15min
  env: {HF_TOKEN: secret-1, PLAIN: secret-2}
  restart: {delay: 2s, limit: 3}
  command: [a-default, "{port}"]
models:
  chat:
    model: ../m.gguf
    aliases: [a, b]
    env: {PLAIN: secret-3}
    options: {flash-attn: on, api_key: secret-4}
    memory: {host: 6GiB}
    restart:
      limit: 7
    request: {set: {temperature: 0.2}, remove: [user]}
  plain: {model: ../m.gguf, restart: null}
  program: {backend: command, command: [x, --api-key, secret-5, "{port}"], idle_timeout: never}
"""


@pytest.fixture
def written(tmp_path: Path) -> Configuration:
    """Three models with defaults, in presets.d/a.yaml."""
    return read(lay_out(tmp_path), PRESETS)


def told(configuration: Configuration, name: str) -> dict[str, Any]:
    """By key: the value, the source and the line."""
    rows = origins(configuration, name, None)
    assert all((row["file"] is None) is (row["line"] is None) for row in rows)
    assert {row["file"] for row in rows} <= {"presets.d/a.yaml", None}
    found = {row["key"]: (row["value"], row["source"], row["line"]) for row in rows}
    assert len(found) == len(rows)
    return found


def test_what_is_written_has_its_line(written: Configuration) -> None:
    found = told(written, "chat")
    assert found["aliases"] == ('["a", "b"]', "preset", 9)
    assert found["memory.host"] == ("6GiB", "preset", 12)
    assert found["restart.limit"] == ("7", "preset", 14)
    assert found["request.set.temperature"] == ("0.2", "preset", 15)
    assert found["model"][1:] == ("preset", 8)


def test_what_the_defaults_of_the_file_say_has_theirs(written: Configuration) -> None:
    found = told(written, "chat")
    assert found["idle_timeout"] == ("15min", "defaults", 2)
    assert found["restart.delay"] == ("2s", "defaults", 4)
    assert told(written, "program")["idle_timeout"] == ("never", "preset", 17)


def test_defaults_that_do_not_count_for_a_model(written: Configuration) -> None:
    assert told(written, "chat")["command"] == ("none", "default", None)
    assert told(written, "plain")["restart.delay"] == ("1s", "default", None)


def test_what_nobody_wrote(written: Configuration) -> None:
    found = told(written, "plain")
    assert found["start_timeout"] == ("5min", "default", None)
    assert found["threads"] == ("none", "backend", None)
    assert found["pinned"] == ("false", "default", None)
    assert told(written, "program")["threads"] == ("none", "default", None)


def test_secrets_are_nobodys_business(written: Configuration) -> None:
    everything = str([origins(written, name, None) for name in written.presets])
    assert "secret-" not in everything
    found = told(written, "chat")
    assert (found["env.HF_TOKEN"], found["env.PLAIN"]) == (("***", "defaults", 3), ("***", "preset", 10))
    assert found["options.api_key"] == ("***", "preset", 11)
    assert found["options.flash-attn"] == ("on", "preset", 11)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", ("512", "gguf", None)),
        (", context: 0", ("0, which is 512", "preset", 2)),
        (", context: 256", ("256", "preset", 2)),
        (", backend: llama-server", ("512", "gguf", None)),
    ],
)
def test_the_context_of_the_file(tmp_path: Path, keys: str, expected: object) -> None:
    directory = lay_out(tmp_path)
    path = make(tmp_path / "m.gguf", llama__context_length=512)
    configuration = read(directory, f"models:\n  m: {{model: ../m.gguf{keys}}}\n")
    rows = origins(configuration, "m", read_header(path))
    assert [(row["value"], row["source"], row["line"]) for row in rows if row["key"] == "context"] == [expected]


def test_what_is_found_in_models_dir(tmp_path: Path) -> None:
    directory = lay_out(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("found", "completed"):
        make(tmp_path / "models" / f"{name}.gguf")
    (directory / "config.yaml").write_text("models_dir: models\n")
    configuration = read(directory, "models:\n  completed: {pinned: true}\n")
    path = str(tmp_path / "models" / "completed.gguf")
    assert told(configuration, "completed")["model"] == (path, "models_dir", None)
    assert told(configuration, "completed")["pinned"] == ("true", "preset", 2)
    assert told(configuration, "found")["model"][1:] == ("models_dir", None)
    assert told(configuration, "found")["mmproj"] == ("none", "default", None)


def test_the_supervisor_tells_it(supervisor: Supervisor) -> None:
    supervisor.add("m", aliases=["also m"], idle_timeout="1h")
    rows = {row["key"]: row for row in supervisor.call("preset", model="also m")["preset"]}
    assert rows["idle_timeout"]["file"] == "presets.d/m.yaml"
    assert rows["idle_timeout"]["source"] == "preset"
    with refused():
        supervisor.call("preset", model="nothing")
    with refused():
        supervisor.call("preset", model=7)
