"""Durations and sizes: tables of both ways, and that nothing else than a ValueError comes out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.quantities import (
    MAX_DURATION,
    MAX_SIZE,
    duration,
    duration_or_never,
    format_duration,
    format_size,
    shown,
    size,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30),
        ("30 s", 30),
        ("30sec", 30),
        ("15min", 900),
        ("15m", 900),
        ("1h", 3600),
        ("1h30min", 5400),
        ("1h 30min", 5400),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("2d", 172_800),
        ("1w", 604_800),
        ("0", 0),
        ("42", 42),
        (42, 42),
        (0.25, 0.25),
        (" 30s ", 30),
        ("3650d", MAX_DURATION),
    ],
)
def test_durations_are_seconds(written: object, seconds: float) -> None:
    assert duration(written) == seconds
    assert type(duration(written)) is float


BAD = ["", " ", "3x", "s", "-1s", "1h-30min", "1e3s", "nan", "inf", "30S", "1..5s", "٣s", "1h30", True, False, [], {}]
BAD += [math.nan, math.inf, -math.inf, -1, -0.5, 10**400, -(10**400), "9" * 500, b"1s"]


@pytest.mark.parametrize("written", [*BAD, None, "never", "11000d", 3.2e8, 6 * 2**60], ids=repr)
def test_what_is_no_duration_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match=r"cannot read .* as a duration: .*write 30s, 15min, 1h or 1h30min$"):
        duration(written)


@pytest.mark.parametrize("written", [*BAD, "Never"], ids=repr)
def test_never_is_offered_where_it_is_allowed(written: object) -> None:
    with pytest.raises(ValueError, match=r"1h30min or never$"):
        duration_or_never(written)


def test_never_and_null_are_none() -> None:
    assert duration_or_never("never") is None
    assert duration_or_never(None) is None
    assert duration_or_never("1s") == 1.0


@pytest.mark.parametrize(
    ("written", "in_bytes"),
    [
        ("512M", 512 * 2**20),
        ("512MiB", 512 * 2**20),
        ("512MB", 512 * 10**6),
        ("6GiB", 6 * 2**30),
        ("6G", 6 * 2**30),
        ("24GB", 24 * 10**9),
        ("24 GB", 24 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("0.3K", 307),
        ("1T", 2**40),
        ("1PiB", 2**50),
        ("1024PiB", MAX_SIZE),
        ("7B", 7),
        ("7", 7),
        (7, 7),
        (7.0, 7),
        (0, 0),
    ],
)
def test_sizes_are_bytes(written: object, in_bytes: int) -> None:
    assert size(written) == in_bytes
    assert type(size(written)) is int


@pytest.mark.parametrize("written", [*BAD, None, "1025PiB", "6gib", "6GIB", "6 Gi", 1.5, "1.5", "6GiB6"], ids=repr)
def test_what_is_no_size_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match=r"cannot read .* as a size: .*write 512M, 6GiB or 24GB$"):
        size(written)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.5, "500ms"), (90.0, "1min30s"), (5400.0, "1h30min"), (86400.0, "1d"), (1e-7, "0.0000001s")],
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_no_duration_is_written_never() -> None:
    assert format_duration(None) == "never"


@pytest.mark.parametrize(("in_bytes", "text"), [(0, "0B"), (1000, "1000B"), (1024, "1KiB"), (6 * 2**30, "6GiB")])
def test_sizes_are_written_as_people_do(in_bytes: int, text: str) -> None:
    assert format_size(in_bytes) == text


@given(st.none() | st.floats(0, MAX_DURATION) | st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000))
def test_every_duration_survives_being_written(seconds: float | None) -> None:
    assert duration_or_never(format_duration(seconds)) == seconds


@given(st.integers(0, MAX_SIZE) | st.integers(0, 1024).map(lambda count: count * 2**30))
def test_every_size_survives_being_written(in_bytes: int) -> None:
    assert size(format_size(in_bytes)) == in_bytes


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.from_regex(r"[0-9.]{1,5} ?[a-zA-Z]{1,3}"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(ANYTHING)
def test_anything_is_a_finite_duration_or_refused(value: object) -> None:
    try:
        seconds = duration(value)
    except ValueError as error:
        assert len(str(error)) < 300
    else:
        assert 0 <= seconds <= MAX_DURATION


@given(ANYTHING)
def test_anything_is_a_size_within_bounds_or_refused(value: object) -> None:
    try:
        in_bytes = size(value)
    except ValueError as error:
        assert len(str(error)) < 300
    else:
        assert 0 <= in_bytes <= MAX_SIZE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("3x", "'3x'"),
        (None, "null"),
        (True, "true"),
        ({"port": None}, "{'port': null}"),
        ([1, "a"], "[1, 'a']"),
        ([[[1]]], "[[[…]]]"),
        (10**100, "a number of 333 bits"),
        (b"root", "'root'"),
        (b"\x7fELF", "7f 45 4c 46"),
        (b"\xff\xfe", "ff fe"),
    ],
)
def test_values_are_quoted_as_yaml_has_them(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"x" * 10**6, bytes(10**6), ["y" * 10**6] * 1000, dict.fromkeys(map(str, range(10**5)))],
    ids=type,
)
def test_large_values_are_cut(value: object) -> None:
    assert len(shown(value)) <= 62
    assert shown(value).endswith("…")
