"""Whatever is wrong with a configuration on a real disk is told with file, line and field, however hostile it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from configuration_on_disk import MINIMAL, lay_out, problems, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor import presets_dir
from supervisor.core.fields import unknown_key
from supervisor.errors import ConfigurationError
from supervisor.presets_dir import load
from supervisor.yaml_positions import MAX_PROBLEMS
from supervisor.yaml_source import MAX_BYTES

DEEP_SECONDS = 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


def test_what_is_wrong_in_defaults_is_told_once_and_there(directory: Path) -> None:
    text = "defaults:\n  idle_timeout: 3x\n  restart: {limit: -1}\n  nope: 1\nmodels:\n"
    assert problems(directory, text + "".join(f"  m{n}: {{model: ../m.gguf}}\n" for n in range(9))) == [
        "presets.d/a.yaml:2: defaults.idle_timeout: cannot read '3x' as a duration: "
        "write 30s, 15min, 1h, 1h30min or never",
        "presets.d/a.yaml:3: defaults.restart.limit: cannot be -1: it must be 0 or more",
        "presets.d/a.yaml:4: defaults.nope: " + unknown_key("nope", presets_dir.MODEL_KEYS),
    ]


def test_the_problems_of_all_files_come_at_once_and_sorted(directory: Path) -> None:
    (directory / "config.yaml").write_text("autoload: 1\nlistn: x\n")
    first = "models:\n  a:\n    model: ../m.gguf\n    contxt: 3\n    context: x\n  b: {model: ../none.gguf}\n"
    assert problems(directory, first, b="[broken", c="models:\n  c: 3\nmodls: 3\n") == [
        "config.yaml:1: autoload: cannot read 1 as true or false: write true or false",
        "config.yaml:2: listn: cannot use unknown key 'listn': did you mean 'listen'?",
        "presets.d/a.yaml:4: models.a.contxt: cannot use unknown key 'contxt': did you mean 'context'?",
        "presets.d/a.yaml:5: models.a.context: cannot read 'x' as a whole number: write it in digits, without quotes",
        "presets.d/a.yaml:6: models.b.model: cannot read 'none.gguf': No such file or directory; correct the path",
        "presets.d/b.yaml:1: cannot read as YAML: while parsing a flow sequence, did not find expected ',' or ']'",
        "presets.d/c.yaml:2: models.c: cannot use 3 as a model: write 'key: value' lines below its name",
        "presets.d/c.yaml:3: modls: cannot use unknown key 'modls': did you mean 'models'?; "
        "the models' names belong below 'models:'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1]", "a.yaml:1: cannot use [1] as presets"),
        ("hello", "a.yaml:1: cannot use 'hello' as presets"),
        ("", "a.yaml: cannot use an empty file"),
        ("models: [a]", "a.yaml:1: models: cannot use ['a'] as models"),
        ("defaults: 3\nmodels: {}", "a.yaml:1: defaults: cannot use 3 as defaults"),
        ("qwen: {}", "a.yaml:1: qwen: cannot use unknown key 'qwen': known are defaults, models"),
        ("defaults: {name: x}", "a.yaml:1: defaults.name: cannot use unknown key 'name'"),
        ("models: {a: {model: ../m.gguf, name: b}}", "a.yaml:1: models.a.name: cannot use unknown key 'name'"),
        ("models: {a: {model: ../m.gguf, model: x}}", "a.yaml:1: cannot use key 'model' twice"),
        ("models: {'a#': {model: ../m.gguf}}", "a.yaml:1: models.a#: cannot use 'a#' as a name"),
        ("models: {'': {model: ../m.gguf}}", "a.yaml:1: models.: cannot use '' as a name"),
        ("models: {a: {}}", "a.yaml:1: models.a.model: cannot be missing for backend llama-cpp-python"),
        ("models:\n  a: {model: ..}", "a.yaml:2: models.a.model: cannot read "),
        ("models: {a: {model: ../m.gguf/x}}", "Not a directory; correct the path"),
        ("models: {a: {model: ../m.gguf, mmproj: ../p}}", "a.yaml:1: models.a.mmproj: cannot read "),
        (f"models: {{a: {{model: {'x' * 5000}}}}}", "File name too long; correct the path"),
        ('models: {a: {model: "\\0"}}', "NUL"),
        ("models: {a: {model: ~nobody-here/x}}", "No such file or directory; correct the path"),
    ],
)
def test_one_problem(directory: Path, text: str, problem: str) -> None:
    found = problems(directory, text)
    assert len(found) == 1
    assert problem in found[0]


def test_a_name_can_be_taken_only_once(directory: Path) -> None:
    assert problems(directory, MINIMAL, b="models:\n\n  qwen: {model: ../m.gguf}\n") == [
        "presets.d/b.yaml:3: models.qwen: cannot use the name 'qwen': it is taken by presets.d/a.yaml:2; "
        "rename one of them"
    ]


def test_an_alias_can_be_taken_only_once(directory: Path) -> None:
    one = "models:\n  one: {model: ../m.gguf, aliases: [x, two]}\n"
    two = "models:\n  two: {model: ../m.gguf, aliases:\n    [y,\n     x]}\n"
    assert problems(directory, one, b=two) == [
        "presets.d/a.yaml:2: models.one.aliases.1: cannot use alias 'two': it is taken by 'two' at presets.d/b.yaml:2; "
        "remove one of them",
        "presets.d/b.yaml:4: models.two.aliases.1: cannot use alias 'x': it is taken by 'one' at presets.d/a.yaml:2; "
        "remove one of them",
    ]


def test_the_aliases_of_an_invalid_model_count(directory: Path) -> None:
    found = problems(directory, "models:\n  a: {aliases: [x]}\n  b: {model: ../m.gguf, aliases: [x]}\n")
    assert [line.split(": ")[1] for line in found] == ["models.a.model", "models.b.aliases.0"]


def test_a_missing_directory_of_presets(directory: Path) -> None:
    (directory / "config.yaml").write_text("# x\npresets: nowhere\n")
    assert problems(directory) == [
        "config.yaml:2: presets: cannot read the directory 'nowhere': No such file or directory; "
        "create it or correct the path"
    ]


@pytest.mark.parametrize("written", ['"a\\0b"', "''", "3", "[a]", "null"])
def test_a_directory_of_presets_that_is_no_path(directory: Path, written: str) -> None:
    (directory / "config.yaml").write_text(f"presets: {written}\n")
    found = problems(directory, "[not read")
    assert len(found) == 1
    assert found[0].startswith("config.yaml:1: presets: cannot ")


@pytest.mark.parametrize("text", [None, "[broken", "- a\n"])
def test_without_a_readable_config_yaml_the_presets_are_checked_all_the_same(directory: Path, text: str | None) -> None:
    config = directory / "config.yaml"
    config.unlink() if text is None else config.write_text(text)
    found = problems(directory, "models: {a: {}}\n")
    assert len(found) == 2
    assert found[0].startswith("config.yaml")
    assert "models.a.model" in found[1]


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**30)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["presets.d/x.yaml", "config.yaml"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_fifo, "it is not a regular file"),
        (make_directory, "Is a directory"),
        (make_dangling, "No such file or directory"),
        (make_loop, "Too many levels of symbolic links"),
        (make_huge, f"it is larger than {MAX_BYTES // 2**20} MiB"),
        (make_device, "it is not a regular file"),
    ],
)
@pytest.mark.timeout(DEEP_SECONDS)
def test_what_is_no_file_of_text(directory: Path, make: Callable[[Path], None], message: str, name: str) -> None:
    (directory / name).unlink(missing_ok=True)
    make(directory / name)
    found = problems(directory)
    assert len(found) == 1
    assert found[0].startswith(f"{name}: cannot read the file: ")
    assert message in found[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files(directory: Path) -> None:
    (directory / "m.gguf").chmod(0)
    (directory / "presets.d" / "b.yaml").touch(mode=0)
    found = problems(directory, MINIMAL)
    assert "permission denied" in found[0]
    assert found[1] == "presets.d/b.yaml: cannot read the file: Permission denied"


def test_a_file_that_vanishes_before_it_is_opened(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "presets.d" / "b.yaml").write_text(MINIMAL)
    listed = presets_dir._presets_files

    def list_then_remove(*arguments: object) -> list[Path]:
        paths = listed(*arguments)  # type: ignore[arg-type]
        (directory / "presets.d" / "b.yaml").unlink()
        return paths

    monkeypatch.setattr(presets_dir, "_presets_files", list_then_remove)
    assert problems(directory) == ["presets.d/b.yaml: cannot read the file: No such file or directory"]


def test_a_file_that_is_changed_while_it_is_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "presets.d" / "a.yaml"
    path.write_text(MINIMAL)
    fstat = os.fstat

    def grow_after(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if os.path.samestat(found, path.stat()):
            path.write_text(path.read_text() + "# more\n")
        return found

    monkeypatch.setattr(os, "fstat", grow_after)
    assert problems(directory) == [
        "presets.d/a.yaml: cannot read the file: it was changed while it was read; try again"
    ]


def test_a_file_whose_name_is_not_utf_8(directory: Path) -> None:
    path = os.fsencode(directory / "presets.d") + b"/\xff.yaml"
    Path(os.fsdecode(path)).write_text("models: {a: {}}\n")
    assert problems(directory)[0].startswith("presets.d/\N{REPLACEMENT CHARACTER}.yaml:1: models.a.model: ")
    Path(os.fsdecode(path)).write_text(MINIMAL)
    assert read(directory).origins["qwen"].file == "presets.d/\N{REPLACEMENT CHARACTER}.yaml"


@pytest.mark.parametrize(
    "text",
    [
        "models:\n" + "".join(f"  m{n}: 3\n" for n in range(5000)),
        "models:\n  a:\n    model: ../m.gguf\n" + "".join(f"    k{n}: 3\n" for n in range(5000)),
        "".join(f"k{n}: 3\n" for n in range(5000)),
        "defaults:\n" + "".join(f"  k{n}: 3\n" for n in range(5000)),
        "models:\n" + "".join(f"  m{n}: {{model: ../m.gguf, aliases: [x]}}\n" for n in range(5000)),
    ],
    ids=["models", "keys", "top", "defaults", "aliases"],
)
@pytest.mark.timeout(DEEP_SECONDS)
def test_endless_problems_are_cut(directory: Path, text: str) -> None:
    found = problems(directory, text)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[0] == f"presets.d/a.yaml: only the first {MAX_PROBLEMS} problems of this file are listed"


def test_a_huge_name_makes_no_huge_message(directory: Path) -> None:
    assert len(problems(directory, f"models:\n  ? {'x' * 10**6}\n  : {{model: ../m.gguf}}\n")[0]) < 500


WORDS = st.sampled_from(
    [
        *(
            "models",
            "defaults",
            "qwen",
            "model",
            "../m.gguf",
            "env",
            "restart",
            "limit",
            "aliases",
            "backend",
            "command",
        ),
        *("{port}", "ready", "http", "request", "set", "options", "memory", "host", "presets", "listen", "web"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
MODELS = st.dictionaries(st.just("models"), st.dictionaries(WORDS, st.dictionaries(WORDS, VALUES, max_size=6)))


def as_yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


@given(
    config=st.text() | st.just("# x") | VALUES.map(as_yaml),
    presets=st.text() | VALUES.map(as_yaml) | MODELS.map(as_yaml),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_a_configuration_or_a_configuration_error(directory: Path, config: str, presets: str) -> None:
    (directory / "config.yaml").write_text(config, errors="surrogatepass")
    (directory / "presets.d" / "a.yaml").write_text(presets, errors="surrogatepass")
    try:
        configuration = load(directory / "config.yaml")
    except ConfigurationError as error:
        assert error.problems
        assert all(problem.message and len(str(problem)) < 2000 for problem in error.problems)
    else:
        assert configuration.presets.keys() == configuration.origins.keys()
