"""`check` and `run`: the commands that read the configuration instead of asking a supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result
from made_gguf import make

import supervisor
from supervisor import errors
from supervisor.cli import program
from supervisor.configuration import Configuration
from supervisor.directories import Directories
from supervisor.errors import RouterError

BROKEN = "models:\n  a:\n    contxt: 1\n  b:\n    parallel: many\n"


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"LLAMA_ROUTER_DEBUG": None}).invoke(program, list(arguments))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.yaml with three models in two files."""
    presets = tmp_path / "presets.d"
    presets.mkdir()
    weights = make(tmp_path / "weights.gguf")
    (presets / "one.yaml").write_text(f"models:\n  a: {{model: {weights}}}\n  b: {{model: {weights}}}\n")
    (presets / "two.yaml").write_text(f"models:\n  c: {{model: {weights}}}\n")
    (tmp_path / "config.yaml").write_text("listen: 127.0.0.1:8080\n")
    return tmp_path / "config.yaml"


def test_check_counts_what_is_fine(config: Path) -> None:
    result = invoke("check", "--config", str(config))
    assert result.stdout.splitlines()[0] == "3 models in 2 files are fine"
    assert (result.exit_code, result.stderr) == (0, "")


def test_check_of_one_model(config: Path) -> None:
    (config.parent / "presets.d/one.yaml").unlink()
    assert invoke("check", "--config", str(config)).stdout.splitlines()[0] == "1 model in 1 file is fine"


def test_check_json(config: Path) -> None:
    told = json.loads(invoke("check", "--config", str(config), "--json").stdout)
    assert (told["ok"], told["problems"], told["models"]) == (True, [], ["a", "b", "c"])
    assert isinstance(told["notices"], list)


def test_check_shows_notices_below(config: Path) -> None:
    config.write_text("models_dir: models\n")
    (config.parent / "models").mkdir()
    (config.parent / "models" / "no-model.gguf").write_bytes(b"GGUF")
    text, told = invoke("check", "--config", str(config)), invoke("check", "--config", str(config), "--json")
    notices = json.loads(told.stdout)["notices"]
    assert [line.split(":")[0] for line in text.stdout.splitlines()[1:]] == ["notice"] * len(notices)
    assert notices
    assert text.exit_code == 0


def test_check_finds_its_configuration_in_the_environment(config: Path) -> None:
    result = CliRunner(env={"LLAMA_ROUTER_CONFIG": str(config)}).invoke(program, ["check"])
    assert result.exit_code == 0


def test_check_prints_all_problems_and_ends_78(config: Path) -> None:
    (config.parent / "presets.d/one.yaml").write_text(BROKEN)
    result = invoke("check", "--config", str(config))
    assert (result.exit_code, result.stdout) == (78, "")
    first, *problems = result.stderr.splitlines()
    assert first == "llama-router: cannot use the configuration:"
    assert any("presets.d/one.yaml:3: models.a.contxt: " in line for line in problems)
    assert any("presets.d/one.yaml:5: models.b.parallel: " in line for line in problems)


def test_check_json_of_a_broken_one(config: Path) -> None:
    (config.parent / "presets.d/one.yaml").write_text(BROKEN)
    result = invoke("check", "--config", str(config), "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], told["models"]) == (78, False, [])
    assert ("models.a.contxt", 3) in [(problem["field"], problem["line"]) for problem in told["problems"]]


def test_check_as_a_process(config: Path) -> None:
    arguments = [sys.executable, "-m", "supervisor.cli", "check", "--config"]
    fine = subprocess.run([*arguments, str(config)], capture_output=True, timeout=60, check=False)
    gone = subprocess.run([*arguments, f"{config}.gone"], capture_output=True, timeout=60, check=False)
    assert (fine.returncode, gone.returncode) == (0, 78)
    assert b"config.yaml.gone" in gone.stderr


class Daemon(ModuleType):
    """Stands in for supervisor.daemon: notes what it is called with, and ends as told."""

    def __init__(self) -> None:
        super().__init__("supervisor.daemon")
        self.ends: int | RouterError = 0
        self.called: tuple[Configuration, Directories, str | None] | None = None

    def run(
        self,
        configuration: Configuration,
        directories: Directories,
        listen: str | None,
        memory: object,
        hashes: object,
        passed: object,
    ) -> int:
        self.called = (configuration, directories, listen)
        if isinstance(self.ends, RouterError):
            raise self.ends
        return self.ends


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    stand_in = Daemon()
    monkeypatch.setitem(sys.modules, "supervisor.daemon", stand_in)
    monkeypatch.setattr(supervisor, "daemon", stand_in, raising=False)
    return stand_in


def test_run_hands_over_what_it_was_told(config: Path, daemon: Daemon, tmp_path: Path) -> None:
    daemon.ends = 7
    options = ("--config", str(config), "--listen", "127.0.0.1:9000", "--state-dir", str(tmp_path / "s"))
    result = invoke("run", *options, "--runtime-dir", str(tmp_path / "r"))
    assert result.exit_code == 7
    assert daemon.called is not None
    configuration, directories, listen = daemon.called
    assert set(configuration.presets) == {"a", "b", "c"}
    assert directories == Directories(tmp_path / "r", tmp_path / "s", config)
    assert listen == "127.0.0.1:9000"
    assert not (tmp_path / "r").exists()


def test_run_does_not_start_with_a_broken_configuration(config: Path, daemon: Daemon) -> None:
    (config.parent / "presets.d/one.yaml").write_text(BROKEN)
    result = invoke("run", "--config", str(config))
    assert (result.exit_code, daemon.called) == (78, None)
    assert "presets.d/one.yaml:3: models.a.contxt: " in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.CannotCreate("cannot create directory /r: no"), 73),
        (errors.CannotListen("cannot listen on :80: no"), 69),
        (errors.AlreadyRunning("cannot start: pid 1 has it"), 75),
        (errors.WebTierFailed("cannot start the web tier: no"), 70),
    ],
)
def test_run_ends_with_the_code_of_the_error(config: Path, daemon: Daemon, error: RouterError, code: int) -> None:
    daemon.ends = error
    result = invoke("run", "--config", str(config))
    assert (result.exit_code, result.stderr) == (code, f"llama-router: {error}\n")


@pytest.mark.parametrize("command", ["status", "load", "logs", "events", "queue", "reload"])
def test_clients_do_not_wait_for_the_daemons_imports(command: str) -> None:
    heavy = {"pydantic", "yaml", "gunicorn", "gevent", "sqlite3", "supervisor.cli.run", "supervisor.cli.check"}
    program = (
        f"import sys, supervisor.cli; supervisor.cli.program.commands[{command!r}]; "
        f"sys.exit(bool({heavy!r} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], env=dict(os.environ), check=False).returncode == 0
