"""Importing configurations of other programs: whose file it is, what no reader takes, and what is written."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import importing, presets_dir, yaml_positions
from supervisor.errors import CannotImport
from supervisor.importing import written, yaml_check
from supervisor.importing.draft import Draft, Imported
from tests.core.imported import read

SAMPLES = Path(__file__).resolve().parents[1] / "importing"


# Which of the two it is


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("[a]\nmodel = /m\n", "llama-server"),
        ("; comment\n\nmodel = /m\n", "llama-server"),
        ("version = 1\r\n[a]\r\nmodel = /m\r\n", "llama-server"),
        ("models:\n  a: {cmd: 'x --port ${PORT}'}\n", "llama-swap"),
        ("# comment\r\nmodels:\r\n  a:\r\n    cmd: |\r\n      x ${PORT}\r\n      [b]\r\n      k = v\r\n", "llama-swap"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_content_tells_whose_file_it_is(text: str, origin: str, mark: bytes) -> None:
    assert read(mark + text.encode()).origin == origin


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"# nothing",
        b"models:",
        b"models: []",
        b"[1, 2]",
        b"hello",
        b"[a]\n",
        b"\x00\x01\x02",
        b"\x7fELF\xff\xfe",
        "[a]\nmodel = ä".encode("utf-16"),
        b"{" * 5000,
        b"[" * 5000,
        b"a: &a [*a]",
        b"--- 1\n--- 2\n",
        b"GGUF" * 1000,
    ],
)
@pytest.mark.parametrize("kind", [None, *importing.KINDS])
def test_what_is_neither_is_refused_with_what_to_do(data: bytes, kind: str | None) -> None:
    with pytest.raises(CannotImport) as caught:
        read(data, kind)
    assert caught.value.exit_code == 65
    assert all(problem.message.startswith("cannot ") for problem in caught.value.problems)
    assert kind is not None or "--from" in str(caught.value)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for kind in (None, *importing.KINDS):
        try:
            read(data, kind)
        except CannotImport as error:
            assert error.problems


def test_an_alias_bomb_is_refused() -> None:
    levels = "\n".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 9))
    with pytest.raises(CannotImport, match="more than 200000 values"):
        read(f"x0: &x0 [1]\n{levels}\nmodels: {{a: {{cmd: x}}}}\n")


def test_duplicate_keys_of_yaml_are_refused_with_their_lines() -> None:
    with pytest.raises(CannotImport, match=r":3: cannot use key 'a' twice"):
        read("models:\n  a: {cmd: x}\n  a: {cmd: y}\n")


# What is written

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    st.sampled_from(
        ["1e5", "on", "No", "~", "null", "0x1F", "022", "1_000", "1:30", "2024-01-01", "- a", "a: b", "a #b"]
    ),
    st.sampled_from(
        ["'", '"', "\n", "\ta", "!x", "&a", "*a", "{port}", "|", ">", "%", "@", "`", "=", "<<", "a\u2028b", "\x85"]
    ),
    st.sampled_from(["--port", "-c", "30s", "1min30s", "5", "5.", ".5", "-", "--", "?", ", ", "]", "\ufeffx", "😀"]),
)
VALUES = st.recursive(
    TEXTS | st.integers(-(10**9), 10**9) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, TEXTS)
def test_what_is_written_reads_as_it_was(value: Any, name: str) -> None:
    found = Imported("llama-swap", f"/x/{name}", [Draft("a", 1, "a", {"request": value})], config={"max_models": 1})
    text = written.to_yaml(found)
    assert yaml_positions.parse(text.encode(), "y").value == {"models": {"a": {"request": value}}}


@given(VALUES)
def test_what_is_left_to_complete_is_all_comments(value: Any) -> None:
    found = Imported("llama-swap", "/x", [Draft("a", 1, "a", {"request": value}, is_usable=False)])
    assert yaml_positions.parse(written.to_yaml(found).encode(), "y").value == {"models": {}}


@pytest.mark.parametrize("sample", ["models.ini", "swap.yaml"])
def test_the_samples_become_presets_that_check_takes_but_for_missing_files(sample: str) -> None:
    found = importing.read((SAMPLES / sample).read_bytes(), PurePath("/etc/x") / sample, None, {})
    yaml_check.check(found, Path("/etc/x"))
    problems = presets_dir.look_through(Path("/etc/x/p.yaml"), written.to_yaml(found))
    assert [problem for problem in problems if "No such file" not in problem.message] == []
    lines = (SAMPLES / sample).read_text().splitlines()
    for draft in found.drafts:
        assert f"# {sample}:{draft.line}" in written.to_yaml(found)
        assert draft.place.strip("[]").removeprefix("models.") in lines[draft.line - 1]
