"""Files that are replaced, whatever else is written, killed or put in their place meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import file_writing

KILLED = """
import os, signal, sys
from pathlib import Path
from supervisor import file_writing
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[1])
file_writing.replace(path, b"new", file_writing.present(path))
"""


def killed_in_a_save(path: Path) -> None:
    """Have a process killed while it replaces `path`."""
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=30)
    assert ended.returncode == -signal.SIGKILL


def hidden(directory: Path) -> list[Path]:
    return sorted(directory.glob(".llama-router-*"))


@pytest.mark.parametrize("mode", [0o644, 0o400])
def test_what_a_kill_left_is_cleared_away_by_the_next_save(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"old")
    path.chmod(mode)
    killed_in_a_save(path)
    assert path.read_bytes() == b"old"
    [left] = hidden(tmp_path)
    killed_in_a_save(tmp_path / "b.yaml")
    assert len(hidden(tmp_path)) == 1 and not left.exists()
    file_writing.replace(tmp_path / "c.yaml", b"c", None)
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "c.yaml"]


def test_what_another_is_writing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, sync = tmp_path / "a.yaml", tmp_path / "b.yaml", os.fsync

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        file_writing.replace(b, b"b", None)
        assert len(hidden(tmp_path)) == 1

    monkeypatch.setattr(os, "fsync", meanwhile)
    file_writing.replace(a, b"a", None)
    assert (a.read_bytes(), b.read_bytes(), hidden(tmp_path)) == (b"a", b"b", [])


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    name = file_writing.TEMPORARY.format("0123456789abcdef")
    (tmp_path / f"{name}.txt").touch()
    (tmp_path / name).symlink_to(tmp_path / f"{name}.txt")
    os.mkfifo(tmp_path / name.replace("0", "1"))
    (tmp_path / name.replace("0", "2")).mkdir()
    before = set(tmp_path.iterdir()) - {tmp_path / name.replace("0", "1")}
    file_writing.replace(tmp_path / "a.yaml", b"a", None)
    assert before < set(tmp_path.iterdir())


def test_a_file_that_is_cleared_away_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    opened = os.open

    def open_and_lose(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = opened(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT:
            made.append(path)
            if len(made) == 1:
                os.unlink(path, dir_fd=dir_fd)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    file_writing.replace(tmp_path / "a.yaml", b"a", None)
    assert len(made) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def test_an_edit_of_the_same_size_at_the_same_time_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"one")
    old = file_writing.present(path)
    path.write_bytes(b"two")
    monkeypatch.setattr(
        file_writing, "_stamp", lambda about: (about.st_ino, about.st_size)
    )  # a clock that stands still
    with pytest.raises(FileExistsError):
        file_writing.replace(path, b"mine", old)
    assert old is not None
    with pytest.raises(FileExistsError):
        file_writing.remove(path, old)
    assert path.read_bytes() == b"two"


def test_a_new_file_takes_no_name_from_one_that_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    check = file_writing._check

    def late(name: str, directory: int, old: file_writing.Present | None) -> None:
        check(name, directory, old)
        path.write_bytes(b"theirs")

    monkeypatch.setattr(file_writing, "_check", late)
    with pytest.raises(FileExistsError):
        file_writing.replace(path, b"mine", None)
    assert (path.read_bytes(), hidden(tmp_path)) == (b"theirs", [])


def test_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    file_writing.replace(tmp_path / "a.yaml", b"mine", None)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.yaml", b"mine")]


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_takes_a_file_s_place_is_neither_replaced_nor_removed(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "a.yaml", tmp_path / "other"
    path.write_bytes(b"one")
    other.write_bytes(b"one")
    old = file_writing.present(path)
    assert old is not None
    path.unlink()
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to(other),
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
    }
    make[kind]()
    with pytest.raises(FileExistsError):
        file_writing.replace(path, b"mine", old)
    with pytest.raises(FileExistsError):
        file_writing.remove(path, old)
    with pytest.raises(OSError):
        file_writing.present(path)
    assert (other.read_bytes(), path.is_file(), hidden(tmp_path)) == (b"one", kind == "link", [])
