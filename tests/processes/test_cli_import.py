"""`llama-router import`: what it prints or writes, when it refuses, and how scripts can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from supervisor import presets_dir, yaml_positions
from supervisor.cli import program

SAMPLES = Path(__file__).resolve().parents[1] / "importing"
ROOT = Path(__file__).resolve().parents[2]
WHOLE = "models: {a: {cmd: 'x --port ${PORT}'}}\n"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner(env={"LLAMA_ROUTER_DEBUG": None}).invoke(program, [str(argument) for argument in arguments])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A file of which everything can be carried over."""
    path = tmp_path / "config.yaml"
    path.write_text(WHOLE)
    return path


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    """A directory of presets beside a config.yaml of llama-router."""
    (tmp_path / "router/presets.d").mkdir(parents=True)
    (tmp_path / "router/config.yaml").write_text("max_models: 2\n")
    return tmp_path / "router/presets.d"


def test_all_carried_over_is_0_and_the_yaml_goes_to_standard_output(whole: Path) -> None:
    result = invoke("import", whole)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("# Imported from llama-swap's config.yaml by llama-router import.\n")
    assert "  # config.yaml:1\n  a:\n    backend: command\n" in result.stdout
    assert "# max_models: 1\n" in result.stdout


@pytest.mark.parametrize("sample", ["models.ini", "swap.yaml"])
def test_remarks_go_to_standard_error_and_make_it_1(sample: str) -> None:
    result = invoke("import", SAMPLES / sample)
    assert result.exit_code == 1
    yaml_positions.parse(result.stdout.encode(), "stdout")
    places = [line.removeprefix(f"{SAMPLES / sample}:").partition(":")[0] for line in result.stderr.splitlines()]
    lines = [int(place) for place in places if place.isdigit()]
    assert lines == sorted(lines)
    assert len(lines) > 5


def test_what_is_written_is_what_check_and_run_read(whole: Path, presets: Path) -> None:
    result = invoke("import", whole, "--output", presets)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"wrote {presets / 'imported-config.yaml'}: 1 model",
        "config.yaml should say: max_models: 1",
    ]
    configuration = presets_dir.load(presets.parent / "config.yaml")
    assert configuration.presets["a"].command == ("x", "--port", "{port}")
    assert oct((presets / "imported-config.yaml").stat().st_mode) == "0o100644"
    assert names(presets) == ["imported-config.yaml"]


def test_nothing_is_ever_overwritten(whole: Path, presets: Path) -> None:
    there = presets / "imported-config.yaml"
    there.write_text("# mine\n")
    result = invoke("import", whole, "--output", presets)
    assert (result.exit_code, result.stdout) == (73, "")
    assert f"cannot write {there}: it exists; remove it" in result.stderr
    assert there.read_text() == "# mine\n"
    assert names(presets) == ["imported-config.yaml"]


def test_of_many_at_once_one_writes(whole: Path, presets: Path) -> None:
    from supervisor.cli.import_ import _write
    from supervisor.errors import CannotCreate

    done: list[object] = []
    together = threading.Barrier(8)

    def write(text: str) -> None:
        together.wait(10)
        try:
            done.append(_write(presets, "imported-x.yaml", text * 1000))
        except CannotCreate as error:
            done.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(isinstance(each, Path) for each in done) == 1
    assert names(presets) == ["imported-x.yaml"]
    assert len(set((presets / "imported-x.yaml").read_text())) == 1


def test_a_full_disk_leaves_nothing_behind(whole: Path, presets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); from supervisor.cli import main; main()"
    )
    command = [sys.executable, "-c", limited, "import", str(whole), "--output", str(presets)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert result.returncode == 73
    assert "cannot write" in result.stderr and "File too large" in result.stderr
    assert names(presets) == []


@pytest.mark.parametrize("where", ["missing", "file"])
def test_a_directory_that_is_none(whole: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("import", whole, "--output", tmp_path / where)
    assert (result.exit_code, result.stdout) == (73, "")
    assert f"cannot write {tmp_path / where / 'imported-config.yaml'}: " in result.stderr


def test_any_name_of_a_file_becomes_one_of_presets(tmp_path: Path, presets: Path) -> None:
    path = tmp_path / "ä #1\n: x.yml"
    path.write_text(WHOLE)
    result = invoke("import", path, "--output", presets)
    assert result.exit_code == 0
    assert names(presets) == ["imported--1-x.yaml"]
    text = (presets / "imported--1-x.yaml").read_text()
    assert text.splitlines()[0] == "# Imported from llama-swap's ä #1?: x.yml by llama-router import."
    assert presets_dir.is_presets_name(names(presets)[0])
    presets_dir.load(presets.parent / "config.yaml")


def test_json_has_everything_for_programs(whole: Path, presets: Path) -> None:
    told = json.loads(invoke("import", SAMPLES / "swap.yaml", "--json").stdout)
    assert told["from"] == "llama-swap"
    assert told["models"] == ["writer", "vectors", "hub", "boxed", "speech"]
    assert told["config"] == {"max_models": 2}
    assert {"file", "line", "field", "message"} == told["remarks"][0].keys()
    assert yaml_positions.parse(told["yaml"].encode(), "yaml").value["models"].keys() == set(told["models"])  # type: ignore[index, union-attr]
    written = json.loads(invoke("import", whole, "--output", presets, "--json").stdout)
    assert (written["yaml"], written["written"]) == (None, str(presets / "imported-config.yaml"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cannot use an empty file"),
        (b"hello: world\n", "has no 'models:'"),
        (b"[a]\nmodel /m\nk = v\n", ":2: cannot read this line"),
        (b"\x00\x01\xff\xfe" * 100, "save the file as UTF-8 text"),
        (b"models:\n\t- x", "indent with spaces"),
    ],
)
def test_what_is_neither_is_65(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    result = invoke("import", path)
    assert (result.exit_code, result.stdout) == (65, "")
    assert why in result.stderr


def test_a_file_that_cannot_be_read_is_66(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"[a]\n" * (10 * 2**20 // 4))
    os.mkfifo(tmp_path / "fifo")
    for name, why in [("none", "No such file"), (".", "directory"), ("fifo", "regular file"), ("big", "4 MiB")]:
        result = invoke("import", tmp_path / name)
        assert (result.exit_code, result.stdout) == (66, "")
        assert f"cannot read {tmp_path / name}: " in result.stderr
        assert why in result.stderr


def test_from_says_whose_file_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("[a]\nmodel = /m\n")
    assert invoke("import", path, "--from", "llama-swap").exit_code == 65
    assert invoke("import", path, "--from", "llama-server").exit_code == 1
    assert invoke("import", path, "--from", "ollama").exit_code == 64


def test_relative_paths_count_from_the_imported_file(tmp_path: Path, presets: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "models.ini").write_text("[a]\nmodel = m.gguf\n")
    result = invoke("import", tmp_path / "models.ini", "--output", presets)
    assert "No such file" not in result.stderr
    assert presets_dir.load(presets.parent / "config.yaml").presets["a"].model == str(tmp_path / "m.gguf")


def test_control_characters_of_a_file_reach_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text('models: {"a\\e[2J": {cmd: "x ${PORT}", "k\\u202e": 1}}\n')
    result = invoke("import", path)
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout + result.stderr
    assert "\u202e" not in result.stdout + result.stderr


def test_a_path_that_is_no_text_is_66(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"\xff")
    directory.mkdir()
    (directory / "models.ini").write_text("[a]\nmodel = m.gguf\n")
    result = invoke("import", directory / "models.ini")
    assert (result.exit_code, result.stdout) == (66, "")
    assert "is not UTF-8" in result.stderr
