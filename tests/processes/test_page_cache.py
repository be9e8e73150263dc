"""What is read into the page cache, and what is left alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from observed import cached_bytes, comes_to_be_cached, dropped_from_cache

from supervisor.page_cache import SPARE, STEP, fill
from supervisor.usage import cache_room

MIB = 2**20


class Room:
    """So many bytes; `asked` is how often it was asked for, which is before each STEP that is read."""

    def __init__(self, size: int = 2**40) -> None:
        self.size = size
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.size


def written(path: Path, mebibytes: int) -> Path:
    """A file that is on the disk and not in the page cache."""
    path.write_bytes(os.urandom(MIB) * mebibytes)
    return dropped_from_cache(path)


def test_all_of_each_file_is_read(tmp_path: Path) -> None:
    paths = [written(tmp_path / name, 40) for name in "ab"]
    fill(map(str, paths), Room())
    for path in paths:
        comes_to_be_cached(path)


def test_what_is_cached_is_not_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "1", 40)
    assert any(nothing_is_left_of(path) for _ in range(10)), "but for what the kernel takes back meanwhile"
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), STEP, STEP, os.POSIX_FADV_DONTNEED)
    fill([str(path)], room := Room())
    assert room.asked
    comes_to_be_cached(path)


def nothing_is_left_of(path: Path) -> bool:
    """Whether a file that was read just before is not read again."""
    path.read_bytes()
    fill([str(path)], room := Room())
    return room.asked == 0


@pytest.mark.parametrize("size", [0, SPARE, SPARE + STEP - 1])
def test_what_others_may_need_is_left_to_them(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "1", 40)
    fill([str(path), str(path)], room := Room(size))
    assert room.asked == 1
    assert cached_bytes(path) < 20 * MIB, "but for what the kernel read around the samples"


def test_it_ends_when_what_it_has_read_fills_the_room(tmp_path: Path) -> None:
    path = written(tmp_path / "1", 200)
    fill([str(path)] * 10, room := Room(SPARE + STEP))
    assert room.asked == 2


def test_what_is_no_file_to_read_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    (tmp_path / "empty").touch()
    (tmp_path / "round").symlink_to("round")
    odd = ["fifo", "socket", "empty", "round", "missing", "", "a\0b", "\udc80", "x" * 5000]
    path = written(tmp_path / "1", 40)
    fill([*(str(tmp_path / name) for name in odd), "/dev/zero", str(path)], Room())
    comes_to_be_cached(path)


def test_a_file_that_is_mostly_not_there(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.write_bytes(os.urandom(MIB))
    os.truncate(path, 100 * 2**30)
    with path.open("rb") as file:
        if os.lseek(file.fileno(), 2 * MIB, os.SEEK_HOLE) > 2 * MIB:
            pytest.skip(f"the file system of {tmp_path} knows no holes")
    fill([str(path)], room := Room())
    assert room.asked <= 1


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    path = written(tmp_path / "1", 40)

    def room() -> int:
        os.truncate(path, MIB)
        return 2**40

    fill([str(path)], room)
    assert path.stat().st_size == MIB


def test_the_room_of_this_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < cache_room() < total
