"""How times and numbers are worded."""

from __future__ import annotations

import pytest

from admin.words import ago, count, duration, rate

AGES = [(-5.0, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60.0, "1 min"), (7199.0, "1 h"), (86400.0, "1 d"), (1e6, "11 d")]
DURATIONS = [
    *((-1.0, "0 ms"), (0.25, "250 ms"), (0.9994, "999 ms"), (0.9995, "1.00 s"), (9.96, "9.96 s"), (9.996, "10.0 s")),
    *((59.94, "59.9 s"), (59.96, "1 min 0 s"), (125.0, "2 min 5 s"), (3599.7, "1 h 0 min"), (3725.0, "1 h 2 min")),
    *((1e6, "11 d 13 h"), (None, "–")),
]


@pytest.mark.parametrize("seconds, words", AGES)
def test_how_long_ago(seconds: float, words: str) -> None:
    assert ago(seconds) == words


@pytest.mark.parametrize("seconds, words", DURATIONS)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_numbers() -> None:
    assert [count(value) for value in (None, 0, 1234567)] == ["–", "0", "1\u202f234\u202f567"]
    assert [rate(value) for value in (None, 0.04, 99.94, 99.96)] == ["–", "0.0", "99.9", "100"]
