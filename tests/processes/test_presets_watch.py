"""Files of the configuration that change under a running supervisor: what is taken over, when, and what is said."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from changing import left_alone, link, preset, reloads, replace, told, watches
from harness import Supervisor

from supervisor.presets_watch import _way
from supervisor.protocol import Message

Start = Callable[..., Supervisor]


# What is taken over


def test_a_new_a_changed_and_a_removed_file(supervisor: Supervisor) -> None:
    watch = supervisor.watch()
    supervisor.add("m", reload=False)
    told(watch, "m added")
    before = supervisor.load("m")["pid"]
    supervisor.add("m", reload=False, env={"X": "1"})
    told(watch, "m changed")
    watch.state("ready")
    assert supervisor.model("m")["pid"] != before
    (supervisor.presets / "m.yaml").unlink()
    told(watch, "m removed")
    supervisor.eventually(lambda: not supervisor.status()["models"], "it is gone")


def test_a_file_that_an_editor_replaces(supervisor: Supervisor) -> None:
    supervisor.add("m")
    replace(supervisor.presets / "m.yaml", preset("m", description="other words"))
    told(supervisor.watch(), "m adjusted")
    assert supervisor.model("m")["description"] == "other words"


def test_a_file_that_becomes_readable(supervisors: Start) -> None:
    supervisor = supervisors().start()
    watch = supervisor.watch()
    os.mkfifo(supervisor.presets / "m.yaml")
    told(watch, "it is not a regular file")
    replace(supervisor.presets / "m.yaml", preset("m"))
    told(watch, "m added")
    (supervisor.presets / "m.yaml").chmod(0o640)
    (supervisor.presets / "n.yaml").symlink_to("nowhere")
    told(watch, "n.yaml: cannot read the file: No such file")
    (supervisor.presets / "nowhere").write_text(preset("n"))
    told(watch, "n added")


@pytest.mark.parametrize("write", [replace, Path.write_text])
def test_config_yaml(supervisors: Start, write: Callable[[Path, str], None]) -> None:
    supervisor = supervisors(config="autoload: true\n").start()
    write(supervisor.config, supervisor.config.read_text().replace("autoload: true", "autoload: false"))
    told(supervisor.watch(), "configuration reloaded")
    assert supervisor.status()["autoload"] is False


def test_another_directory_of_presets(supervisors: Start) -> None:
    supervisor = supervisors().start()
    watch, other = supervisor.watch(), supervisor.directory / "other" / "presets"
    replace(supervisor.config, f"{supervisor.config.read_text()}presets: other/presets\n")
    told(watch, "other/presets': No such file")
    other.mkdir(parents=True)
    told(watch, "configuration reloaded")
    (other / "m.yaml").write_text(preset("m"))
    told(watch, "m added")
    before = watches(supervisor)
    supervisor.add("unseen", reload=False)
    (other / "n.yaml").write_text(preset("n"))
    told(watch, "n added")
    assert [model["name"] for model in supervisor.status()["models"]] == ["m", "n"]
    assert watches(supervisor) == before


def test_what_changed_while_it_started(supervisors: Start) -> None:
    supervisor = supervisors()
    late = str(supervisor.presets / "m.yaml")
    supervisor.prefix = (
        "import supervisor.presets_dir as p; load = p.load\n"
        f"def and_write(): p.load = load; open({late!r}, 'w').write({preset('m')!r})\n"
        "p.load = lambda *args: (load(*args), and_write())[0]"
    )
    supervisor.start()
    told(supervisor.watch(), "m added")


# Links


def test_the_directory_is_a_link_that_is_swapped(supervisors: Start) -> None:
    supervisor = supervisors()
    for name in ("old", "new"):
        (supervisor.directory / name).mkdir()
        (supervisor.directory / name / "m.yaml").write_text(preset("m", description=name))
    supervisor.presets.rmdir()
    supervisor.presets.symlink_to("old")
    supervisor.start()
    watch, before = supervisor.watch(), watches(supervisor)
    link(supervisor.presets, supervisor.directory / "new")
    told(watch, "m adjusted")
    assert supervisor.model("m")["description"] == "new"
    (supervisor.directory / "new" / "n.yaml").write_text(preset("n"))
    told(watch, "n added")
    assert watches(supervisor) == before


def test_a_mounted_config_map(supervisors: Start) -> None:
    """As Kubernetes lays it out: files are links through ..data, and ..data is swapped."""
    supervisor = supervisors()
    for name in ("..1", "..2"):
        (supervisor.presets / name).mkdir()
        (supervisor.presets / name / "m.yaml").write_text(preset("m", description=name))
    (supervisor.presets / "..data").symlink_to("..1")
    (supervisor.presets / "m.yaml").symlink_to("..data/m.yaml")
    supervisor.start()
    assert supervisor.model("m")["description"] == "..1"
    link(supervisor.presets / "..data", "..2")
    shutil.rmtree(supervisor.presets / "..1")
    told(supervisor.watch(), "m adjusted")
    assert supervisor.model("m")["description"] == "..2"


@pytest.mark.parametrize("write", [replace, Path.write_text])
def test_a_file_that_is_a_link_to_elsewhere(supervisor: Supervisor, write: Callable[[Path, str], None]) -> None:
    elsewhere = supervisor.directory / "elsewhere"
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    (elsewhere / "some.name").write_text(preset("m"))
    watch = supervisor.watch()
    (supervisor.presets / "m.yaml").symlink_to(elsewhere / "some.name")
    told(watch, "m added")
    write(elsewhere / "some.name", preset("m", description="other words"))
    told(watch, "m adjusted")


def test_links_in_a_circle(supervisor: Supervisor) -> None:
    watch = supervisor.watch()
    (supervisor.presets / "a.yaml").symlink_to("b.yaml")
    (supervisor.presets / "b.yaml").symlink_to("a.yaml")
    told(watch, "Too many levels of symbolic links")
    (supervisor.presets / "a.yaml").unlink()
    (supervisor.presets / "b.yaml").unlink()
    told(watch, "in order again")


def test_the_way_ends_where_the_kernel_ends(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "file").touch()
    (tmp_path / "relative").symlink_to("real/../real/./deep")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    (tmp_path / "real" / "up").symlink_to("..")
    for written in ("real/deep/file", "relative/file", "absolute/file", "real/up/absolute/../deep//file"):
        path = tmp_path / written
        directory, name = list(_way(Path(f"{tmp_path}/{written}")))[-1]
        assert f"{directory}/{name}" == os.path.realpath(path)


# What is passed over


@contextmanager
def changed_unseen(supervisor: Supervisor) -> Iterator[None]:
    """A preset `unseen` changes without an event within this, and is taken over by the next reading, not before."""
    file, hidden = supervisor.presets / "unseen.yaml", supervisor.directory / "hard link"
    hidden.unlink(missing_ok=True)
    supervisor.add("unseen")
    hidden.hardlink_to(file)
    left_alone(supervisor)
    hidden.write_text(preset("unseen", description="other words"))
    yield
    left_alone(supervisor)
    assert supervisor.model("unseen")["description"] is None
    supervisor.add("m", reload=False)
    told(supervisor.watch(), "m added; unseen")
    assert supervisor.model("unseen")["description"] == "other words"


def test_files_that_are_no_presets(supervisor: Supervisor) -> None:
    with changed_unseen(supervisor):
        for name in (".m.yaml.swp", ".#m.yaml", "#m.yaml#", "m.yaml~", "m.yaml.dpkg-new", "m.json", "4913", ".m.yaml"):
            (supervisor.presets / name).write_text(preset("m"))
            (supervisor.directory / f"config.yaml{name}").write_text("nonsense")


def test_looking_at_the_files(supervisor: Supervisor) -> None:
    with changed_unseen(supervisor):
        for path in (*supervisor.presets.iterdir(), supervisor.config):
            path.read_text()
        supervisor.call("reload", dry_run=True)


def test_the_same_configuration_says_nothing(supervisor: Supervisor) -> None:
    supervisor.add("m")
    before = reloads(supervisor)
    file = supervisor.presets / "m.yaml"
    line = supervisor.model("m")["line"]
    file.write_text(f"# a comment\n{file.read_text()}")
    supervisor.eventually(lambda: bool(supervisor.model("m")["line"] == line + 1), "the file is read")
    assert reloads(supervisor) == before
    assert "llama-router" not in supervisor.log.read_text().rpartition("configuration reloaded")[2]


def test_a_command_does_the_job_of_a_gathered_change(supervisor: Supervisor) -> None:
    supervisor.add("m", reload=False)
    assert supervisor.call("reload")["changes"]["added"] == ["m"]
    left_alone(supervisor)
    assert len(reloads(supervisor)) == 1


# What is wrong


def test_a_wrong_file_changes_nothing_and_is_told_once(supervisor: Supervisor) -> None:
    before = supervisor.load("m")["pid"]
    watch = supervisor.watch()
    supervisor.write("bad", "models:\n  b: {modle: x}\n")
    text = told(watch, "cannot reload")
    assert "bad.yaml:2: models.b" in text
    assert "running configuration is kept" in text
    left_alone(supervisor)
    supervisor.write("bad", "models:\n  b: {modle: x}\n")
    left_alone(supervisor)
    assert supervisor.log.read_text().count("cannot reload") == 1
    assert supervisor.log.read_text().count("bad.yaml:2: models.b.modle") == 1
    assert supervisor.model("m")["pid"] == before
    assert "models.b.modle" in [problem["field"] for problem in supervisor.status()["problems"]]
    (supervisor.presets / "bad.yaml").unlink()
    told(watch, "in order again")
    assert supervisor.status()["problems"] == []
    supervisor.write("bad", "models:\n  b: {modle: x}\n")
    told(watch, "cannot reload")


def test_another_error_is_told(supervisor: Supervisor) -> None:
    watch = supervisor.watch()
    supervisor.write("bad", "models:\n  b: {model: /nowhere}\n")
    told(watch, "models.b.model")
    supervisor.write("bad", "models: [\n")
    told(watch, "cannot read as YAML")


def test_an_error_that_a_client_was_told_is_not_told_again(supervisor: Supervisor) -> None:
    supervisor.write("bad", "models: [\n")
    with pytest.raises(Exception, match="cannot reload"):
        supervisor.call("reload")
    left_alone(supervisor)
    assert len(reloads(supervisor)) == 1


def test_very_many_errors(supervisor: Supervisor) -> None:
    supervisor.write("bad", {"models": {f"m{number}": {"modle": 1} for number in range(90)}})
    supervisor.write("worse", {"models": {f"w{number}": {"modle": 1} for number in range(90)}})
    text = told(supervisor.watch(), "cannot reload")
    supervisor.status()
    assert len(text) < 1000
    assert len(supervisor.log.read_text().splitlines()) < 120
    assert " more; run: llama-router check" in supervisor.log.read_text()


def test_a_half_written_file(supervisor: Supervisor) -> None:
    whole, watch = preset("m"), supervisor.watch()
    with (supervisor.presets / "m.yaml").open("w") as file:
        file.write(whole[:20])
        file.flush()
        told(watch, "m.yaml")
        file.write(whole[20:])
    told(watch, "m added")


def test_a_file_that_is_written_over_slowly_loses_no_model(supervisor: Supervisor) -> None:
    supervisor.add("m")
    with (supervisor.presets / "m.yaml").open("w") as file:
        file.write("# as valid as the whole\n")
        file.flush()
        left_alone(supervisor)
        file.write(preset("m", description="other words"))
    told(supervisor.watch(), "m adjusted")
    assert not [text for text in reloads(supervisor) if "removed" in text]


# What a reload can't change


def test_keys_that_are_read_at_start(supervisors: Start) -> None:
    supervisor = supervisors().start()
    watch, old = supervisor.watch(), supervisor.config.read_text()
    supervisor.config.write_text(old.replace("web.sock", "other.sock").replace("max_models: 0", "max_models: 7"))
    assert "takes effect after a restart" in told(watch, "listen changed")
    changes: Message = supervisor.call("reload")["changes"]
    assert (changes["needs_restart"], changes["needs_reexec"], changes["settings"]) == (["listen"], [], [])
    assert supervisor.status()["needs_restart"] == ["listen"]
    supervisor.config.write_text(old)
    assert supervisor.call("reload")["changes"]["needs_restart"] == []
    told(watch, "changed in config.yaml: max_models")
    assert supervisor.log.read_text().count("takes effect after a restart") == 1
    assert stat.S_ISSOCK((supervisor.directory / "web.sock").stat().st_mode)


def test_an_address_from_the_command_line_is_not_in_the_file(supervisors: Start, tmp_path: Path) -> None:
    supervisor = supervisors()
    argv = supervisor.argv
    supervisor.argv = lambda *options: argv("--listen", supervisor.listen, *options)  # type: ignore[method-assign]
    supervisor.start()
    supervisor.config.write_text(supervisor.config.read_text().replace("web.sock", "other.sock"))
    assert supervisor.call("reload")["changes"]["needs_restart"] == []
