"""What `status` shows of a llama-server that has put its model away, and which configuration `check` means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_control import FakeControl, invoke, model, replica, status
from harness import Supervisor

from supervisor.cli import program
from supervisor.core import facts
from supervisor.core.preset import Preset


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sleeping": True}, "sleeping"),
        ({"sleeping": True, "progress": 0.5}, "waking up 50%"),
        ({"sleeping": True, "draining": True}, "ready, draining"),
        ({"sleeping": True, "state": "failed"}, "failed"),
        ({"replicas": [replica("qwen", sleeping=True), replica("qwen#2", sleeping=True)]}, "sleeping 2/2"),
        ({"replicas": [replica("qwen", sleeping=True), replica("qwen#2")]}, "ready 2/2"),
    ],
)
def test_one_that_sleeps_is_shown_so(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with FakeControl(tmp_path, status=status(model("qwen", **fields))):
        table, one = invoke(tmp_path, "status"), invoke(tmp_path, "status", "qwen")
    [row] = [line for line in table.stdout.splitlines() if line.startswith("qwen")]
    assert words in row and ("ready" in row) == ("ready" in words)
    assert f"State: {words}" in one.stdout


def test_its_command_line_begins_with_its_program() -> None:
    preset = Preset(name="m", backend="llama-server", model="/m.gguf", binary="/opt/llama-server")
    assert facts.llama_server_args(preset)[0] == "/opt/llama-server"


def test_check_means_the_configuration_of_the_llama_router_that_commands_talk_to(
    supervisors: type[Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervisors()
    supervisor.add("one")
    supervisor.start()
    for name in ("CONFIGURATION_DIRECTORY", "LLAMA_ROUTER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("LLAMA_ROUTER_RUNTIME_DIR", str(supervisor.runtime))
    assert CliRunner().invoke(program, ["check"]).stdout.startswith("1 model in 1 file is fine")
    other = tmp_path / "other.yaml"
    other.write_text("max_models: 3\n")
    (tmp_path / "presets.d").mkdir()
    monkeypatch.setenv("LLAMA_ROUTER_CONFIG", str(other))
    assert "0 models" in CliRunner().invoke(program, ["check"]).stdout
    monkeypatch.delenv("LLAMA_ROUTER_CONFIG")
    assert "0 models" in CliRunner().invoke(program, ["check", "--config", str(other)]).stdout
    supervisor.stop()
    (tmp_path / "llama-router").mkdir()
    (tmp_path / "llama-router" / "config.yaml").write_text("presets: ../presets.d\n")
    assert "0 models" in CliRunner().invoke(program, ["check"]).stdout
