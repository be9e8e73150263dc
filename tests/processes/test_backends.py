"""What each backend makes of a preset: command line, environment, address and settings file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.backends import Place, Plan, plan
from supervisor.core.preset import Preset
from supervisor.errors import CannotStart
from supervisor.memory import Memory

KNOWN = Memory(None)


def place_in(folder: Path) -> Place:
    return Place(folder / "1.sock", folder / "1.json", lambda: 40123)


def llama(**keys: Any) -> Preset:
    return Preset(name="tiny", model="/models/tiny.gguf", **keys)


def settings_of(preset: Preset, folder: Path) -> Any:
    plan(preset, place_in(folder), KNOWN)
    return json.loads((folder / "1.json").read_text())


def command(arguments: list[str], folder: Path, env: dict[str, str] | None = None) -> Plan:
    return plan(
        Preset(name="other", backend="command", command=tuple(arguments), env=env or {}), place_in(folder), KNOWN
    )


def test_llama_cpp_python_runs_the_model_server(tmp_path: Path) -> None:
    made = plan(llama(), place_in(tmp_path), KNOWN)
    assert made.argv[0] == sys.executable
    assert "supervisor.model_server" in made.argv
    assert made.argv[-4:] == ("--socket", str(tmp_path / "1.sock"), "--settings", str(tmp_path / "1.json"))
    assert made.address == f"unix:{tmp_path / '1.sock'}"


def test_common_keys_become_model_settings(tmp_path: Path) -> None:
    keys = {"context": 4096, "gpu_layers": 99, "threads": 3, "embedding": True, "mmproj": "/models/eyes.gguf"}
    settings = settings_of(llama(**keys), tmp_path)
    assert settings["model"] == "/models/tiny.gguf"
    assert settings["model_alias"] == "tiny"
    assert settings["n_ctx"] == 4096
    assert settings["n_gpu_layers"] == 99
    assert settings["n_threads"] == settings["n_threads_batch"] == 3
    assert settings["embedding"] is True
    assert settings["clip_model_path"] == "/models/eyes.gguf"
    assert settings["chat_format"] == "mtmd"


def test_what_is_not_given_is_left_to_the_model_server(tmp_path: Path) -> None:
    settings = settings_of(llama(), tmp_path)
    assert settings.keys() & {"n_ctx", "n_gpu_layers", "n_threads", "clip_model_path", "chat_format"} == set()


def test_options_are_passed_on_and_win(tmp_path: Path) -> None:
    options = {"flash-attn": True, "n_batch": 64, "logits-all": True, "chat_format": "qwen2.5-vl"}
    settings = settings_of(llama(mmproj="/models/eyes.gguf", options=options), tmp_path)
    assert settings["flash_attn"] is True
    assert settings["n_batch"] == 64
    assert settings["logits_all"] is True
    assert settings["chat_format"] == "qwen2.5-vl"


def test_every_setting_is_one_that_llama_cpp_python_has(tmp_path: Path) -> None:
    fields = pytest.importorskip("llama_cpp.server.settings").ModelSettings.model_fields
    keys = {"context": 1, "gpu_layers": 1, "threads": 1, "mmproj": "/x"}
    assert settings_of(llama(**keys), tmp_path).keys() <= fields.keys()


@pytest.mark.parametrize("link", [False, True])
def test_settings_are_private_whatever_lay_there(tmp_path: Path, link: bool) -> None:
    target = tmp_path / "other"
    target.write_text("kept")
    target.chmod(0o644)
    if link:
        (tmp_path / "1.json").symlink_to(target)
    else:
        (tmp_path / "1.json").write_text("{}")
        (tmp_path / "1.json").chmod(0o644)
    before = os.umask(0)
    try:
        plan(llama(), place_in(tmp_path), KNOWN)
    finally:
        os.umask(before)
    assert (tmp_path / "1.json").lstat().st_mode & 0o7777 == 0o600
    assert target.read_text() == "kept"


def test_settings_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"cannot start tiny: cannot write settings .*No such file"):
        plan(llama(), place_in(tmp_path / "missing"), KNOWN)


def test_the_child_finds_this_package_and_not_the_directory_it_runs_in(tmp_path: Path) -> None:
    (tmp_path / "supervisor").mkdir()
    (tmp_path / "supervisor" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    made = plan(llama(env={"PYTHONPATH": "/nonexistent", "MARK": "x"}), place_in(tmp_path), KNOWN)
    assert made.env["MARK"] == "x"
    assert "/nonexistent" in made.env["PYTHONPATH"].split(os.pathsep)
    interpreter = made.argv[: made.argv.index("-m")]
    # -S: without the site packages only PYTHONPATH can lead to it.
    ran = subprocess.run(
        [*interpreter, "-S", "-c", "import supervisor; print(supervisor.__file__)"],
        cwd=tmp_path,
        env={**os.environ, **made.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(ran.stdout.strip()).samefile(Path(sys.modules["supervisor"].__file__ or ""))


def test_command_with_a_port(tmp_path: Path) -> None:
    made = command(["serve", "--port={port}", "-p", "{port}", '{"a": {"b": 1}}'], tmp_path, {"URL": "http://h:{port}"})
    assert made.argv == ("serve", "--port=40123", "-p", "40123", '{"a": {"b": 1}}')
    assert made.env == {"URL": "http://h:40123"}
    assert made.address == "tcp:127.0.0.1:40123"


def test_command_with_a_socket_picks_no_port(tmp_path: Path) -> None:
    def no_port() -> int:
        raise AssertionError("no port is needed")

    preset = Preset(name="other", backend="command", command=("serve", "unix:{socket}"))
    made = plan(preset, Place(tmp_path / "1.sock", tmp_path / "1.json", no_port), KNOWN)
    assert made.argv == ("serve", f"unix:{tmp_path / '1.sock'}")
    assert made.address == f"unix:{tmp_path / '1.sock'}"


def test_a_token_in_the_environment_is_enough(tmp_path: Path) -> None:
    assert command(["serve"], tmp_path, {"PORT": "{port}"}).env == {"PORT": "40123"}


@pytest.mark.parametrize("arguments", [(), ("serve", "{ port }", "{PORT}")])
def test_command_that_says_not_where_to_listen(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    # A preset like this does not validate; it must not start something unreachable either.
    preset = Preset.model_construct(name="other", backend="command", command=arguments, env={})
    with pytest.raises(CannotStart, match="cannot start other: "):
        plan(preset, place_in(tmp_path), KNOWN)


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), max_size=4))
def test_nothing_but_the_token_changes(arguments: list[str]) -> None:
    others = [text.replace("{port}", "").replace("{socket}", "") for text in arguments]
    others = [text for text in others if "{port}" not in text and "{socket}" not in text]
    made = command(["serve", "{port}", *others], Path("/nonexistent"))
    assert made.argv == ("serve", "40123", *others)
