"""Files that are replaced and remembered, and configurations that are on disk but for one file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import file_history, file_writing, preset_files, presets_dir
from supervisor.errors import ConfigurationError
from supervisor.file_history import History
from supervisor.files import Edited, Files


@pytest.mark.parametrize(
    "code, words",
    [
        (errno.ENOSPC, "cannot save a.yaml: the disk is full; make room on the file system of /d"),
        (errno.EDQUOT, "cannot save a.yaml: the disk quota is used up; make room on the file system of /d"),
        (errno.EROFS, "write ReadWritePaths=/d into a drop-in"),
        (errno.EACCES, "Permission denied; make the directory /d writable"),
    ],
)
def test_what_keeps_a_file_from_being_saved_is_told_with_what_to_do(code: int, words: str) -> None:
    told = preset_files.unwritable(Path("/d/a.yaml"), OSError(code, os.strerror(code)))
    assert words in str(told)
    assert str(told).endswith("; nothing was changed")
    assert told.status == (507 if code in (errno.ENOSPC, errno.EDQUOT) else 500)


def kept(history: History, file: str = "a.yaml") -> list[bytes | None]:
    return [history.content(file, version.at) for version in history.versions(file)]


def test_history_keeps_each_content_once_in_a_row(tmp_path: Path) -> None:
    history = History(tmp_path / "h")
    for data in (b"1", b"2", b"2", b"1"):
        history.keep("a.yaml", data)
    assert kept(history) == [b"1", b"2", b"1"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "h").rglob("*") if path.is_file()} == {0o600}
    assert kept(History(tmp_path / "h"), "b.yaml") == []


def test_history_knows_what_a_save_changed_and_where_it_came_from(tmp_path: Path) -> None:
    history = History(tmp_path / "h")
    history.keep("a.yaml", b"1\n2\n2\n", b"2\n1\n3\n4\n", "2001:db8::7")
    history.keep("a.yaml", b"2\n1\n3\n4\n", b"", "../../etc/x")
    folder = tmp_path / "h" / "a.yaml"
    (folder / f"5-{file_history.sha_of(b'old')}").write_bytes(b"old")
    found = [(version.added, version.removed, version.by) for version in history.versions("a.yaml")]
    assert found == [(0, 4, None), (2, 1, "2001:db8::7"), (None, None, None)]
    assert kept(history) == [b"2\n1\n3\n4\n", b"1\n2\n2\n", b"old"]


def test_history_forgets_the_oldest_of_a_file(tmp_path: Path) -> None:
    history = History(tmp_path / "h")
    for number in range(60):
        history.keep("a.yaml", str(number).encode())
    history.keep("b.yaml", b"b")
    assert kept(history) == [str(number).encode() for number in range(59, 9, -1)]
    assert kept(history, "b.yaml") == [b"b"]


def test_history_forgets_the_oldest_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_history, "MOST_BYTES", 5 * 4096)
    history = History(tmp_path / "h")
    for number in range(8):
        history.keep(f"{number}.yaml", b"x")
    assert sorted(path.name for path in (tmp_path / "h").iterdir()) == [f"{number}.yaml" for number in range(3, 8)]


def test_history_when_the_clock_is_set_back(tmp_path: Path) -> None:
    times = iter([100, 50, 10])
    history = History(tmp_path / "h", lambda: next(times))
    for data in (b"1", b"2", b"3"):
        history.keep("a.yaml", data)
    assert kept(history) == [b"3", b"2", b"1"]


def test_history_that_is_damaged(tmp_path: Path) -> None:
    history = History(tmp_path / "h")
    history.keep("a.yaml", b"1")
    history.keep("a.yaml", b"2")
    [two, one] = history.versions("a.yaml")
    two.path.write_bytes(b"other")
    one.path.unlink()
    one.path.symlink_to("/etc/passwd")
    (tmp_path / "h" / "a.yaml" / "stranger").write_bytes(b"x")
    assert kept(history) == [None]
    history.keep("a.yaml", b"3")
    assert kept(history) == [b"3", None]


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"old")
    old = file_writing.present(path)

    def full(_descriptor: int) -> None:
        assert path.read_bytes() == b"old"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file_writing.replace(path, b"new", old)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_meanwhile_is_not_known_to_the_readers_of_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    sync = os.fsync

    def synced(descriptor: int) -> None:
        names.extend(path.name for path in tmp_path.iterdir())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    file_writing.replace(tmp_path / "a.yaml", b"x", None)
    assert names
    assert [name for name in names if presets_dir.is_presets_name(name)] == ["a.yaml"]  # when it is there


def test_another_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"1")
    old = file_writing.present(path)
    path.write_bytes(b"22")
    with pytest.raises(FileExistsError):
        file_writing.replace(path, b"mine", old)
    with pytest.raises(FileExistsError):
        file_writing.replace(path, b"mine", None)
    assert old is not None
    with pytest.raises(FileExistsError):
        file_writing.remove(path, old)
    path.unlink()
    with pytest.raises(FileExistsError):
        file_writing.replace(path, b"mine", old)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "f.yaml")
    (tmp_path / "d.yaml").mkdir()
    for name in ("l.yaml", "f.yaml", "d.yaml"):
        with pytest.raises(OSError):
            file_writing.present(tmp_path / name)


def write(directory: Path, files: dict[str, str]) -> Path:
    (directory / "presets.d").mkdir(exist_ok=True)
    config = directory / "config.yaml"
    config.write_text("max_models: 0\n")
    for name, text in files.items():
        (directory / "presets.d" / name).write_text(text)
    return config


def command(*names: str, extra: str = "") -> str:
    return "models:\n" + "".join(f'  {name}: {{backend: command, command: [x, "{{port}}"]{extra}}}\n' for name in names)


def outcome(config: Path, files: Files | None) -> object:
    try:
        return presets_dir.load(config, files=files)
    except ConfigurationError as error:
        return error.problems


CONTENT = st.sampled_from(
    [
        command("a"),
        command("b"),
        command("a", "b"),
        command("a", extra=", aliases: [b]"),
        command("a", extra=", pinned: 1.0"),
        command("a", extra=", pinned: true"),
        "models: [",
        "models: {a: {contxt: 5}}",
        "defaults: {backend: command}\nmodels: {c: {command: [x, '{socket}']}}",
        None,
    ]
)


@given(st.lists(st.tuples(st.sampled_from(["1.yaml", "2.yaml"]), CONTENT), max_size=8))
def test_an_edited_configuration_is_that_which_it_would_be_on_disk(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[str, str | None]]
) -> None:
    """However often the same files were read before."""
    directory = tmp_path_factory.mktemp("c")
    config, files = write(directory, {"1.yaml": command("a")}), Files()
    for name, content in edits:
        path = directory / "presets.d" / name
        tried = outcome(config, Edited(files, path, None if content is None else content.encode()))
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(content)
        assert tried == outcome(config, None) == outcome(config, files)


def test_the_same_content_is_parsed_once(tmp_path: Path) -> None:
    config, files = write(tmp_path, {"1.yaml": command("a"), "2.yaml": command("b")}), Files()
    first = presets_dir.load(config, files=files)
    edited = Edited(files, tmp_path / "presets.d" / "2.yaml", command("c").encode())
    second = presets_dir.load(config, files=edited)
    third = presets_dir.load(config, files=files)
    assert first.presets["a"] is second.presets["a"] is third.presets["a"]
    assert (first.presets["b"] == third.presets["b"], "c" in second.presets) == (True, True)


def test_the_same_content_may_mean_another_model(tmp_path: Path) -> None:
    config, files = write(tmp_path, {"1.yaml": "models: {a: {context: 512}}\n"}), Files()
    config.write_text("models_dir: m\n")
    (tmp_path / "m" / "a").mkdir(parents=True)
    (tmp_path / "m" / "a.gguf").write_bytes(b"x")
    assert presets_dir.load(config, files=files).presets["a"].model == str(tmp_path / "m" / "a.gguf")
    (tmp_path / "m" / "a.gguf").rename(tmp_path / "m" / "a" / "b.gguf")
    assert presets_dir.load(config, files=files).presets["a"].model == str(tmp_path / "m" / "a" / "b.gguf")
