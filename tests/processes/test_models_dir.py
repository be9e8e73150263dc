"""Directories full of models: which files are models, their names, what is passed over, and what changes meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from changing import LONG_ENOUGH, left_alone, link, reloads, told, watches
from click.testing import CliRunner
from harness import Supervisor
from hypothesis import given
from hypothesis import strategies as st
from made_gguf import LLAMA, made, make

from supervisor import gguf_file, models_dir
from supervisor.cli import program
from supervisor.configuration import Configuration, Origin
from supervisor.errors import ConfigurationError
from supervisor.memory import Memory
from supervisor.models_dir import MAX_DEPTH, Found, look, may_matter
from supervisor.needs import Needs
from supervisor.presets_dir import load

Start = Callable[..., Supervisor]
WHOLE = made()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory without models."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def put(directory: Path, *names: str) -> None:
    """Write a whole model of each name."""
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(WHOLE)


def found(directory: Path) -> dict[str, tuple[str, str | None]]:
    """The model and the projector of each name, below the directory."""

    def short(path: str) -> str:
        return path.removeprefix(f"{directory}/")

    each = look(directory, Memory(None).why_no_model).found.values()
    return {one.name: (short(one.model), short(one.mmproj) if one.mmproj else None) for one in each}


def notices(directory: Path) -> list[str]:
    seen = look(directory, Memory(None).why_no_model)
    return [str(notice).replace(f"{directory}/", "") for notice in seen.notices]


# Names


def test_a_file_is_a_model_named_after_it(models: Path) -> None:
    put(models, "Qwen3-8B-Q4_K_M.gguf", "a.gguf.b.gguf")
    assert found(models) == {
        "Qwen3-8B-Q4_K_M": ("Qwen3-8B-Q4_K_M.gguf", None),
        "a.gguf.b": ("a.gguf.b.gguf", None),
    }
    assert notices(models) == []


def test_a_folder_is_a_model_named_after_it(models: Path) -> None:
    put(models, "gemma/gemma-Q8_0.gguf", "gemma/mmproj-F16.gguf", "v1.5/any.gguf")
    assert found(models) == {
        "gemma": ("gemma/gemma-Q8_0.gguf", "gemma/mmproj-F16.gguf"),
        "v1.5": ("v1.5/any.gguf", None),
    }
    assert notices(models) == []


def shards(directory: Path, stem: str, count: int = 2) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        make(directory / f"{stem}-{number + 1:05}-of-{count:05}.gguf", split__count=count, split__no=number)


def test_shards_are_one_model(models: Path) -> None:
    shards(models, "top")
    shards(models / "folder", "inside", 3)
    assert found(models) == {
        "top": ("top-00001-of-00002.gguf", None),
        "folder": ("folder/inside-00001-of-00003.gguf", None),
    }
    assert notices(models) == []


def test_shards_come_first_in_a_folder(models: Path) -> None:
    shards(models / "folder", "s")
    put(models, "folder/a.gguf", "folder/z.gguf")
    assert list(found(models)) == ["folder", "folder/a", "folder/z"]
    assert notices(models) == [
        "folder/s-00001-of-00002.gguf: is the model 'folder', as there are 3 in this folder",
        "folder/a.gguf: is the model 'folder/a', as there are 3 in this folder",
        "folder/z.gguf: is the model 'folder/z', as there are 3 in this folder",
    ]


def test_folders_in_folders(models: Path) -> None:
    deepest = "/".join("abcdefgh"[:MAX_DEPTH])
    put(models, "lmstudio/Qwen3/q.gguf", f"{deepest}/m.gguf", f"{deepest}/deeper/n.gguf", f"{deepest}/too/n.gguf")
    assert found(models) == {"lmstudio/Qwen3": ("lmstudio/Qwen3/q.gguf", None), deepest: (f"{deepest}/m.gguf", None)}
    assert notices(models) == [f"{deepest}/deeper: passed over: it is more than 4 folders deep, as others may be"]


def test_the_first_of_two_projectors_is_used(models: Path) -> None:
    put(models, "v/m.gguf", "v/mmproj-F32.gguf", "v/mmproj-F16.gguf")
    assert found(models) == {"v": ("v/m.gguf", "v/mmproj-F16.gguf")}
    assert notices(models) == ["v/mmproj-F16.gguf: is the projector that is used, as the first of 2"]


def test_a_file_goes_before_a_folder_of_its_name(models: Path) -> None:
    put(models, "m.gguf", "m/n.gguf")
    assert found(models) == {"m": ("m.gguf", None)}
    assert notices(models) == ["m/n.gguf: passed over: the name 'm' is taken by m.gguf; rename one"]


# Links


def test_links_keep_their_names(models: Path, tmp_path: Path) -> None:
    """As in the cache of huggingface_hub: the files' own names are checksums, and the links' say what they are."""
    put(tmp_path, "blobs/8fa1", "blobs/27c0")
    repository = models / "models--org--m" / "snapshots" / "3e2f"
    repository.mkdir(parents=True)
    (repository / "m.gguf").symlink_to(tmp_path / "blobs" / "8fa1")
    (models / "folder").symlink_to(repository)
    (models / "top.gguf").symlink_to("../blobs/27c0")
    assert found(models) == {
        "top": ("top.gguf", None),
        "folder": ("folder/m.gguf", None),
        "models--org--m/snapshots/3e2f": ("models--org--m/snapshots/3e2f/m.gguf", None),
    }


def test_links_in_a_circle_or_to_nothing(models: Path) -> None:
    put(models, "f/m.gguf")
    (models / "f" / "up").symlink_to("..")
    (models / "self.gguf").symlink_to("self.gguf")
    (models / "gone.gguf").symlink_to("nowhere")
    assert list(found(models)) == ["f"]
    assert notices(models) == [
        "gone.gguf: passed over: it leads to nothing",
        "self.gguf: passed over: Too many levels of symbolic links",
    ]


# What is passed over


def test_what_is_hidden_or_no_gguf_is_not_mentioned(models: Path) -> None:
    put(models, ".m.gguf", "._m.gguf", ".cache/m.gguf", "m.bin", "README.md", "sub/config.json", "M.GGUF")
    (models / "empty").mkdir()
    assert (found(models), notices(models)) == ({}, [])


@pytest.mark.parametrize("end", ["part", "incomplete", "tmp", "crdownload", "downloadInProgress"])
def test_downloads_under_another_name(models: Path, end: str) -> None:
    put(models, f"m.gguf.{end}")
    assert found(models) == {}
    assert notices(models) == [f"m.gguf.{end}: passed over: its name says that its download is not complete"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"GGUF", "it ends at byte 4, in the middle of its header; it is incomplete"),
        (WHOLE[:200], "it ends at byte 200, in the middle of its header; it is incomplete"),
        (WHOLE[:-1], f"it has {len(WHOLE) - 1} bytes, and its tensors take {len(WHOLE)}; it is incomplete"),
        (bytes(100), "it is not a GGUF file: it begins with b'\\x00\\x00\\x00\\x00'"),
        (made({**LLAMA, "general.type": "adapter"}), "it is of type adapter, which is not a model by itself"),
    ],
)
def test_files_that_are_not_whole_or_no_models(models: Path, content: bytes, why: str) -> None:
    (models / "m.gguf").write_bytes(content)
    assert found(models) == {}
    assert notices(models) == [f"m.gguf: passed over: {why}"]


def test_what_only_fails_to_load_is_a_model(models: Path) -> None:
    """Its log tells more than could be told here, and another backend may take it."""
    (models / "m.gguf").write_bytes(made(version=9))
    assert list(found(models)) == ["m"]


def test_files_that_are_no_files(models: Path) -> None:
    os.mkfifo(models / "fifo.gguf")
    put(models, "folder.gguf/m.gguf")
    assert list(found(models)) == ["folder.gguf"]
    assert notices(models) == ["fifo.gguf: passed over: it is not a regular file"]


def test_shards_that_are_missing(models: Path) -> None:
    shards(models, "a", 3)
    (models / "a-00002-of-00003.gguf").unlink()
    shards(models, "b", 3)
    (models / "b-00001-of-00003.gguf").unlink()
    assert found(models) == {}
    assert notices(models) == [
        "b-00002-of-00003.gguf: passed over: the first shard of its model is not there",
        "a-00001-of-00003.gguf: passed over: its shard a-00002-of-00003.gguf is not there",
    ]


def test_a_shard_that_is_not_whole(models: Path) -> None:
    shards(models, "a")
    os.truncate(models / "a-00002-of-00002.gguf", 500)
    assert found(models) == {}
    assert "incomplete" in notices(models)[0]


def test_a_file_that_aria2_fills(models: Path) -> None:
    put(models, "m.gguf", "f/m.gguf")
    (models / "m.gguf.aria2").touch()
    (models / "f" / "m.gguf.aria2").touch()
    assert found(models) == {}
    assert notices(models)[0] == "m.gguf: passed over: aria2 has not completed it: m.gguf.aria2 is there"


def test_what_is_not_whole_takes_no_name(models: Path) -> None:
    put(models, "f/b.gguf", "f/imatrix.gguf")
    (models / "f" / "a.gguf").write_bytes(WHOLE[:-1])
    make(models / "f" / "imatrix.gguf", general__type="imatrix")
    assert found(models) == {"f": ("f/b.gguf", None)}


def test_projectors_without_a_model(models: Path) -> None:
    put(models, "mmproj-F16.gguf", "f/mmproj-F16.gguf")
    assert found(models) == {}
    why = "passed over: a projector (mmproj) belongs into a folder with its model"
    assert notices(models) == [f"mmproj-F16.gguf: {why}", f"f/mmproj-F16.gguf: {why}"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(models: Path) -> None:
    put(models, "a.gguf", "closed/m.gguf", "open/m.gguf")
    (models / "closed").chmod(0)
    (models / "a.gguf").chmod(0)
    assert list(found(models)) == ["open"]
    assert notices(models) == [
        "closed: passed over: Permission denied",
        "a.gguf: passed over: permission denied; make it readable for this user",
    ]
    (models / "closed").chmod(0o700)


def test_a_folder_that_vanishes_meanwhile(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(models, "a/m.gguf", "b/m.gguf")
    scandir = os.scandir

    def vanishing(path: str | int) -> object:
        if path == f"{models}/a":
            monkeypatch.undo()
            shutil.rmtree(models / "a")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert list(found(models)) == ["b"]


# How much


def test_a_thousand_models_among_ten_thousand_files(models: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for number in range(1000):
        put(models, f"{number // 100}/{number}/m.gguf")
        for junk in range(9):
            (models / f"{number // 100}" / f"{number}" / f"{junk}.json").touch()
    why_no_model = Needs(tmp_path / "state", 0).why_no_model
    assert len(look(models, why_no_model).found) == 1000
    before = time.process_time()
    assert len(look(models, why_no_model).found) == 1000
    assert time.process_time() - before < 1


def test_there_is_an_end_to_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_dir, "MAX_ENTRIES", 20)
    put(models, *(f"{number:02}/m.gguf" for number in range(15)))
    assert len(found(models)) == 5
    assert notices(models) == ["05: passed over in part: only 20 files and folders are looked at in all"]


def test_very_many_notices(models: Path) -> None:
    for number in range(300):
        (models / f"{number}.gguf").touch()
    assert len(notices(models)) == models_dir.MAX_NOTICES


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20), max_size=8))
def test_whatever_they_are_called(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    directory = tmp_path_factory.mktemp("models")
    (directory / "presets.d").mkdir()
    (directory / "models").mkdir()
    (directory / "config.yaml").write_text("models_dir: models\n")
    for number, name in enumerate({*names} - {".", ".."}):
        put(directory / "models", f"{name}.gguf" if number % 2 else f"{name}/x.gguf")
    configuration = load(directory / "config.yaml")
    told_of = {notice.file for notice in configuration.notices}
    for file in [*(directory / "models").glob("*.gguf"), *(directory / "models").glob("*/*.gguf")]:
        hidden = any(part.startswith(".") for part in file.relative_to(directory / "models").parts)
        if file.is_file() and not hidden:
            assert str(file) in told_of or str(file) in {preset.model for preset in configuration.presets.values()}


# With presets


@pytest.fixture
def config(models: Path) -> Path:
    """A config.yaml beside `models` and an empty presets.d."""
    (models.parent / "presets.d").mkdir()
    (models.parent / "config.yaml").write_text("models_dir: models\n")
    return models.parent / "config.yaml"


def read(config: Path, presets: str = "# none\n") -> Configuration:
    (config.parent / "presets.d" / "a.yaml").write_text(presets)
    return load(config, Memory(None))


def problems(config: Path, presets: str = "# none\n") -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(config, presets)
    return [str(problem).replace(f"{config.parent}/", "") for problem in caught.value.problems]


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
    text = 'models:\n  m: {model: ../other.gguf}\n  n: {backend: command, command: [n, "{port}"]}\n'
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
    assert problems(config, "models:\n  m: {}\n  n: {}\n") == [
        f"presets.d/a.yaml:2: models.m.{missing}; 'm' in models_dir is none: the file is empty",
        f"presets.d/a.yaml:3: models.n.{missing}, or put one of its name into models_dir",
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
    monkeypatch.setattr("supervisor.presets_dir._DEFAULT_MODELS", "models")
    models.rmdir()
    assert told_by(read(config)) == []
    models.touch()
    assert told_by(read(config)) == ["config.yaml:1: models_dir: cannot read the directory 'models': Not a directory"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_the_one_by_default_may_be_out_of_sight(config: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user who checks the configuration of a service, whose state is private."""
    monkeypatch.setattr("supervisor.presets_dir._DEFAULT_MODELS", "private/models")
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


def test_headers_are_read_once(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir()
    put(models, "a.gguf")
    (models / "b.gguf").write_bytes(WHOLE[:-1])
    needs = Needs(tmp_path / "state", 0)
    first = look(models, needs.why_no_model)
    needs.of({})  # which is when they are saved
    monkeypatch.setattr(gguf_file, "read", None)
    for book in (needs, Needs(tmp_path / "state", 0)):
        assert look(models, book.why_no_model) == first


def test_check_counts_them(config: Path, models: Path) -> None:
    put(models, "a.gguf", "b.gguf", "c.gguf")
    (config.parent / "presets.d" / "a.yaml").write_text("models: {b: {context: 512}}\n")
    result = CliRunner().invoke(program, ["check", "--config", str(config)])
    assert result.stdout.splitlines()[0] == f"1 model in 1 file, 2 in {models} are fine"


# While it runs


@pytest.fixture
def running(supervisors: Start) -> Iterator[Supervisor]:
    supervisor = supervisors(config="models_dir: models\n")
    (supervisor.directory / "models").mkdir()
    supervisor.replace_web_tier("notify=READY=1", "serve")
    yield supervisor.start()


def names(supervisor: Supervisor) -> list[str]:
    return [model["name"] for model in supervisor.status()["models"]]


def test_files_that_come_and_go(running: Supervisor) -> None:
    models, watch = running.directory / "models", running.watch()
    put(running.directory, "elsewhere.gguf")
    (running.directory / "elsewhere.gguf").rename(models / "m.gguf")
    told(watch, "m added")
    model = running.model("m")
    assert (model["file"], model["line"], model["source"]) == (str(models / "m.gguf"), None, "models_dir")
    put(running.directory, "new/deep/n.gguf")
    (running.directory / "new").rename(models / "f")
    told(watch, "f/deep added")
    put(models, "f/deep/deeper/o.gguf")
    told(watch, "f/deep/deeper added")
    (models / "m.gguf").unlink()
    told(watch, "m removed")
    shutil.rmtree(models / "f")
    told(watch, "f/deep, f/deep/deeper removed")


def test_a_file_that_is_copied_for_long(running: Supervisor) -> None:
    models, watch = running.directory / "models", running.watch()
    with (models / "m.gguf").open("wb", buffering=0) as file:
        file.write(WHOLE[:100])
        left_alone(running)
        for at in range(100, len(WHOLE) - 1):
            file.write(WHOLE[at : at + 1])
        assert running.cpu_seconds_in(LONG_ENOUGH) < 0.02, "it looks at each write"
        assert running.call("reload")["changes"]["added"] == []
        file.write(WHOLE[-1:])
    told(watch, "m added")


def test_a_link_to_a_file_that_is_still_written(running: Supervisor) -> None:
    models, watch = running.directory / "models", running.watch()
    (models / "f").mkdir()
    (models / "f" / "m.gguf").symlink_to("../../blobs/27c0")
    left_alone(running)
    (running.directory / "blobs").mkdir()
    with (running.directory / "blobs" / "27c0").open("wb", buffering=0) as file:
        file.write(WHOLE[:-1])
        left_alone(running)
        assert names(running) == []
        file.write(WHOLE[-1:])
    told(watch, "f added")
    link(models / "linked", running.directory / "blobs")
    put(running.directory, "blobs/new.gguf")
    told(watch, "linked added")


def test_aria2_completes_a_file(running: Supervisor) -> None:
    models, watch = running.directory / "models", running.watch()
    (models / "m.gguf.aria2").touch()
    put(models, "m.gguf")
    left_alone(running)
    assert names(running) == []
    (models / "m.gguf.aria2").unlink()
    told(watch, "m added")


def test_what_is_no_model_wakes_nobody(running: Supervisor) -> None:
    models = running.directory / "models"
    put(models, "m.gguf")
    told(running.watch(), "m added")
    left_alone(running)
    for name in ("m.gguf.part", ".m.gguf.Xy12", "README.md", ".cache"):
        (models / name).touch()
    (models / "m.gguf").read_bytes()
    assert running.cpu_seconds_in(LONG_ENOUGH) < 0.02


def test_the_directory_vanishes_and_comes_back(running: Supervisor) -> None:
    models, watch, before = running.directory / "models", running.watch(), watches(running)
    put(models, "m.gguf")
    told(watch, "m added")
    models.rename(running.directory / "away")
    assert "models': No such file or directory" in told(watch, "cannot reload")
    assert names(running) == ["m"]
    models.mkdir()
    told(watch, "is gone, or replaced by one without models")
    assert names(running) == ["m"]
    models.rmdir()
    (running.directory / "away").rename(models)
    told(watch, "in order again")
    put(models, "n.gguf")
    told(watch, "n added")
    assert watches(running) == before


def test_an_empty_one_in_its_place_is_taken_when_asked(running: Supervisor) -> None:
    models, watch = running.directory / "models", running.watch()
    put(models, "m.gguf")
    told(watch, "m added")
    shutil.rmtree(models)
    models.mkdir()
    told(watch, "is gone, or replaced by one without models")
    assert running.call("reload")["changes"]["removed"] == ["m"]
    put(models, "n.gguf")
    told(watch, "n added")
    (models / "n.gguf").unlink()
    told(watch, "n removed")


def test_another_directory_without_models_is_taken(running: Supervisor) -> None:
    put(running.directory / "models", "m.gguf")
    watch = running.watch()
    told(watch, "m added")
    (running.directory / "other").mkdir()
    running.config.write_text(running.config.read_text().replace("models_dir: models", "models_dir: other"))
    told(watch, "m removed")


def test_a_storm_of_files(running: Supervisor) -> None:
    watch = running.watch()
    put(running.directory / "models", *(f"{number}/m.gguf" for number in range(300)))
    told(watch, "added")
    running.eventually(lambda: len(names(running)) == 300, "all are there")
    assert len(reloads(running)) <= 20


def test_what_may_matter() -> None:
    assert may_matter("m.gguf", is_folder=False) and may_matter("m.gguf.aria2", is_folder=False)
    assert may_matter("folder", is_folder=True)
    assert not any(may_matter(name, is_folder=False) for name in ("m.gguf.part", ".m.gguf", "folder"))
    assert not may_matter(".hidden", is_folder=True)
    assert Found("m", "/m.gguf").mmproj is None
