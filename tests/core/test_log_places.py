"""Where the log goes, by the configuration and by what stderr is; the names of files, and which of them go."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.config import Log
from supervisor.core.log_places import MAX_FILE_NAME, Places, Stderr, file_name, is_ours, places, surplus


@pytest.mark.parametrize(
    ("written", "stderr", "expected"),
    [
        ({}, "journal", Places(journal=True, stderr=False, models_too=False, files=None)),
        ({}, "elsewhere", Places(journal=False, stderr=True, models_too=True, files=None)),
        ({}, "nowhere", Places(journal=False, stderr=True, models_too=True, files="usual")),
        ({"journal": True}, "journal", Places(journal=True, stderr=False, models_too=False, files=None)),
        ({"journal": True}, "elsewhere", Places(journal=True, stderr=True, models_too=True, files=None)),
        ({"journal": True}, "nowhere", Places(journal=True, stderr=True, models_too=True, files=None)),
        ({"journal": False}, "journal", Places(journal=False, stderr=True, models_too=False, files=None)),
        ({"journal": False}, "elsewhere", Places(journal=False, stderr=True, models_too=True, files=None)),
        ({"journal": False}, "nowhere", Places(journal=False, stderr=True, models_too=True, files="usual")),
        ({"directory": "d"}, "journal", Places(journal=True, stderr=False, models_too=False, files="d")),
        ({"directory": "d"}, "nowhere", Places(journal=False, stderr=True, models_too=True, files="d")),
    ],
    ids=str,
)
def test_where_the_log_goes(written: dict[str, object], stderr: str, expected: Places) -> None:
    assert places(Log.model_validate(written), Stderr(stderr), "usual") == expected


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (None, "llama-router.log"),
        ("@web", "llama-router.@web.log"),
        ("qwen3-8b", "llama-router.qwen3-8b.log"),
        ("org/gemma", "llama-router.org%2Fgemma.log"),
        ("../../etc/passwd", "llama-router...%2F..%2Fetc%2Fpasswd.log"),
        ("..", "llama-router....log"),
        ("100%", "llama-router.100%25.log"),
        ("🦙 llama", "llama-router.🦙 llama.log"),
        ("x.log.1", "llama-router.x.log.1.log"),
        ("a" * 200, f"llama-router.{'a' * 200}.log"),
    ],
)
def test_names_of_files(name: str | None, file: str) -> None:
    assert file_name(name) == file


def test_a_long_name_ends_in_its_hash() -> None:
    digest = sha256(b"/" * 200).hexdigest()[:16]
    assert file_name("/" * 200) == f"llama-router.{'%2F' * 60}%2%-{digest}.log"


@given(st.lists(st.text(max_size=200), unique=True, max_size=5))
def test_every_name_has_a_file_of_its_own_in_the_directory(names: list[str]) -> None:
    files = [file_name(name) for name in (None, *names)]
    assert len(set(files)) == len(files)
    for file in files:
        assert "/" not in file and len(file.encode(errors="replace")) <= MAX_FILE_NAME + len("llama-router..log")
        assert is_ours(file) and is_ours(f"{file}.1")
    assert not {f"{file}.1" for file in files} & set(files)


@pytest.mark.parametrize("file", ["syslog", "auth.log", "auth.log.1", "llama-router", "llama-router.x.log.2", "x"])
def test_files_of_others_are_none_of_ours(file: str) -> None:
    assert not is_ours(file)


def test_those_go_that_were_not_written_to_for_the_longest() -> None:
    files = [("old", 30, 1.0), ("new", 30, 3.0), ("middle", 30, 2.0)]
    assert surplus(files, 90) == []
    assert surplus(files, 89) == ["old"]
    assert surplus(files, 59) == ["middle", "old"]
    assert surplus(files, 0) == ["new", "middle", "old"]
    assert surplus([("small", 1, 1.0), *files], 31) == ["middle", "small", "old"], "not what happens to fit"
