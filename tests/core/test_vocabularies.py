"""Whose vocabulary is kept, and which goes when they take too much."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.commands import KeepVocabulary, Spawn
from supervisor.core.events import Goal, PresetsChanged
from supervisor.core.policy import Policy
from supervisor.core.vocabularies import MOST, suits, surplus
from tests.core.driver import Driver, preset

ONE = Policy(max_models=1)


def test_of_a_model_that_made_room() -> None:
    """Last, as it forks: the model that the room was made for is started first."""
    driver = Driver(preset("a"), preset("b"), policy=ONE)
    driver.release(driver.lease("a"))
    driver.ready("a")
    driver.release(driver.lease("a"))
    driver.lease("b")
    commands = driver.ends("a", code=0)
    assert commands[-1] == KeepVocabulary(preset("a"))
    assert any(isinstance(command, Spawn) and command.model == "b" for command in commands[:-1])


@pytest.mark.parametrize("why", ["unload", "reload", "crash", "removed"])
def test_not_of_one_that_ended_otherwise(why: str) -> None:
    driver = Driver(preset("a"), preset("b"), policy=ONE)
    driver.lease("a")
    driver.ready("a")
    driver.release(driver.granted()[0])
    if why == "unload":
        driver.ask(Goal.UNLOAD, "a")
    elif why == "reload":
        driver.send(PresetsChanged({"a": preset("a", context=7), "b": preset("b")}, {}, ONE, {}))
    elif why == "removed":
        driver.lease("b")
        driver.send(PresetsChanged({"b": preset("b")}, {}, ONE, {}))
    driver.ends("a", code=1 if why == "crash" else 0)
    assert not driver.last(KeepVocabulary)


@pytest.mark.parametrize(
    ("sizes", "limit", "gone"),
    [
        ({}, 0, []),
        ({"a": 3, "b": 3}, 6, []),
        ({"a": 3, "b": 3}, 5, ["a"]),
        ({"a": 1, "b": 3, "c": 3}, 5, ["a", "b"]),
        ({"a": 9, "b": 3}, 5, ["a"]),
        ({"b": 3, "a": 9}, 5, ["a"]),
        ({"a": 3, "b": 3}, 0, ["a", "b"]),
        ({"a": 0}, 0, []),
        ({str(number): 1 for number in range(MOST + 2)}, 100, ["0", "1"]),
        ({"a": 9, **{str(number): 0 for number in range(MOST)}}, 5, ["a"]),
    ],
)
def test_which_go(sizes: dict[str, int], limit: int, gone: list[str]) -> None:
    assert surplus(sizes, limit) == gone


def test_of_which_settings() -> None:
    assert suits({"model": "/m.gguf", "n_ctx": 7, "clip_model_path": None, "vocab_only": False})
    assert not suits({"model": "/m.gguf", "clip_model_path": "/p.gguf"})
    assert not suits({"model": "/m.gguf", "kv_overrides": ["a=int:1"]})


@given(st.lists(st.integers(0, 20), max_size=6), st.integers(0, 40))
def test_what_stays_fits_and_was_used_last(sizes: list[int], limit: int) -> None:
    kept = dict(enumerate(sizes))
    gone = surplus({str(name): size for name, size in kept.items()}, limit)
    assert len(gone) == len(set(gone))
    stays = [size for name, size in kept.items() if str(name) not in gone]
    small = [size for size in sizes if size <= limit]
    assert sum(stays) <= limit
    assert stays == next(list(small[start:]) for start in itertools.count() if sum(small[start:]) <= limit)
