"""A directory of models that changes while a supervisor runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from changing import LONG_ENOUGH, left_alone, link, reloads, told, watches
from harness import Supervisor
from made_gguf import WHOLE, put

Start = Callable[..., Supervisor]


@pytest.fixture
def running(supervisors: Start) -> Iterator[Supervisor]:
    supervisor = supervisors(config="models_dir: models\n")
    (supervisor.directory / "models").mkdir()
    supervisor.replace_web_tier("notify=READY=1", "pause")
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
