"""Directories full of models: which files are models, their names, and what is passed over."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_gguf import LLAMA, WHOLE, made, make, put

from supervisor import gguf_file, models_dir
from supervisor.memory import Memory
from supervisor.models_dir import MAX_DEPTH, Found, look, may_matter
from supervisor.needs import Needs
from supervisor.presets_dir import load


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory without models."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


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
    put(models, ".m.gguf", "._m.gguf", ".cache/m.gguf", "m.bin", "README.md", "sub/config.json")
    (models / "empty").mkdir()
    assert (found(models), notices(models)) == ({}, [])


def test_capital_letters_are_told_as_llama_server_passes_them_over(models: Path) -> None:
    put(models, "M.GGUF", "f/Half.Gguf")
    assert found(models) == {}
    why = "passed over: models end in .gguf, in small letters; rename it"
    assert notices(models) == [f"M.GGUF: {why}", f"f/Half.Gguf: {why}"]


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
        (b"hello\n", "it is not a GGUF file: it begins with 'hell'"),
        (bytes(100), "it is not a GGUF file: it begins with 00 00 00 00"),
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


def test_what_may_matter() -> None:
    assert may_matter("m.gguf", is_folder=False) and may_matter("m.gguf.aria2", is_folder=False)
    assert may_matter("folder", is_folder=True)
    assert not any(may_matter(name, is_folder=False) for name in ("m.gguf.part", ".m.gguf", "folder"))
    assert not may_matter(".hidden", is_folder=True)
    assert Found("m", "/m.gguf").mmproj is None
