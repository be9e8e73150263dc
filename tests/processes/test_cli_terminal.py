"""Laying out foreign text: nothing a terminal would obey survives, and columns keep their width."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.terminal import Cell, Column, clock, escape, fit, span, table, width

ANY_TEXT = st.text(alphabet=st.characters())
SPECIAL = st.text(alphabet=st.sampled_from("a\x1b\n\r\x7f\x9b\u202e\u2028\ud800模🦙é\u0301\u200d\ufe0f"))


@given(ANY_TEXT | SPECIAL)
def test_escaped_text_has_nothing_to_obey(text: str) -> None:
    escaped = escape(text)
    assert not [char for char in escaped if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(escaped) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    assert escape(escaped) == escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1b[31m", "a\\x1b[31m"), ("a\nb\tc", "a\\nb\\tc"), ("\u202e", "\\u202e"), ("模型 🦙 é", "模型 🦙 é")],
)
def test_escapes(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_escape_keeps_what_it_is_told_to() -> None:
    assert escape("a\tb\x07", keep="\t") == "a\tb\\x07"


@pytest.mark.parametrize(("text", "cells"), [("abc", 3), ("模型", 4), ("🦙", 2), ("e\u0301", 1), ("", 0)])
def test_width(text: str, cells: int) -> None:
    assert width(text) == cells


@given((ANY_TEXT | SPECIAL).map(escape), st.integers(0, 30))
def test_fitted_text_has_that_width(text: str, cells: int) -> None:
    fitted = fit(text, cells)
    assert width(fitted) == cells
    assert width(text) > cells or fitted.rstrip(" ") == text.rstrip(" ")


COLUMNS = (Column("NAME", minimum=6), Column("STATE", minimum=6), Column("COUNT", right=True))


@given(st.lists(st.tuples(ANY_TEXT | SPECIAL, ANY_TEXT | SPECIAL, st.integers(0))), st.integers(1, 60) | st.none())
def test_tables_keep_their_shape(rows: list[tuple[str, str, int]], cells: int | None) -> None:
    lines = table(COLUMNS, [tuple(Cell(str(value)) for value in row) for row in rows], cells)
    assert len(lines) == len(rows) + 1
    assert not any("\n" in line for line in lines)
    if cells is not None:
        assert max(map(width, lines)) <= cells
    else:
        assert len({width(line) for line in lines}) == 1


def test_the_last_flexible_column_gives_way_first() -> None:
    row = (Cell("a-long-name"), Cell("failed: exited with code 65"), Cell("7"))
    assert table(COLUMNS, [row], 26) == ["NAME         STATE   COUNT", "a-long-name  faile…      7"]
    assert table(COLUMNS, [row], 20) == ["NAME    STATE", "a-lon…  faile…"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (59.9, "59s"),
        (60, "1min"),
        (3599, "59min"),
        (3600, "1h"),
        (7800, "2h 10min"),
        (86400, "1d"),
        (100000, "1d 3h"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_clock_survives_times_that_no_calendar_has() -> None:
    assert clock(1e300) == "?"
    assert clock(1760000000.0)[3:4] == " "
