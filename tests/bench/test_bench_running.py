"""The order of a run, with routers that are none: turns, what fails, what a router can't do, and when time is up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from tests.bench.__main__ import ROUTERS, options
from tests.bench.readings import Reading, together
from tests.bench.routers.router import CannotStart, Router, Scene
from tests.bench.running import ROWS, Row, Run
from tests.bench.scenes import Effort

SCENE, OTHER = Scene("one", (), 1), Scene("other", (), 1)


class Pretended(Router):
    """It runs nothing, and writes down when it was started."""

    name = "first"
    starts: ClassVar[list[str]] = []
    broken = False

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    def argv(self, scene: Scene) -> Sequence[str | Path]:
        return []

    @contextmanager
    def running(self, scene: Scene) -> Iterator[None]:
        assert self.directory.is_dir()
        self.starts.append(f"{scene.name}: {self.name}")
        if self.broken:
            raise CannotStart("it ended")
        yield


class Second(Pretended):
    name = "second"
    cannot: ClassVar = {"b": "it has none"}


class Broken(Pretended):
    name = "broken"
    broken = True


class Slow(Pretended):
    name = "slow"
    most_turns = 1


def reads(router: Router, effort: Effort) -> list[Reading]:
    return [Reading("a", router.name, [1.0])]


def fails(router: Router, effort: Effort) -> list[Reading]:
    raise ZeroDivisionError("half way")


A = Row("a", SCENE, reads, ("a",))
B = Row("b", SCENE, fails, ("b",))
C = Row("c", SCENE, reads, ("c",), turns=1)
D = Row("d", OTHER, reads, ("d",), turns=1)


@pytest.fixture
def starts() -> Iterator[list[str]]:
    Pretended.starts.clear()
    yield Pretended.starts


def run(directory: Path, rows: Sequence[Row], *routers: type[Router], limit: float = 1e6) -> list[Reading]:
    return Run(rows, routers, Effort(), directory, limit).all()


def test_routers_take_turns_in_opposite_orders(tmp_path: Path, starts: list[str]) -> None:
    readings = run(tmp_path, [A, C, D], Pretended, Second, Slow)
    assert starts[:3] == ["one: first", "one: second", "one: slow"]
    assert starts[3:6] == ["other: first", "other: second", "other: slow"]
    assert starts[6:] == ["one: second", "one: first"]
    assert len(together(readings)["a", "first"].figures) == 4  # A twice, C and D once, which all read the same
    assert len(together(readings)["a", "slow"].figures) == 3


def test_what_fails_is_an_error_and_the_rest_is_measured_with_another_start(tmp_path: Path, starts: list[str]) -> None:
    whole = together(run(tmp_path, [B, C], Pretended))
    assert starts == ["one: first", "one: first", "one: first"]  # B, then C; B in the second turn
    assert whole["b", "first"].errors == ["ZeroDivisionError: half way"] * 2
    assert whole["a", "first"].figure == 1.0


def test_what_does_not_start_is_an_error_of_all_rows_at_once(tmp_path: Path, starts: list[str]) -> None:
    whole = together(run(tmp_path, [A, C], Broken))
    assert starts == ["one: broken"] * 2
    assert whole["a", "broken"].errors == ["CannotStart: it ended"] * 2
    assert whole["c", "broken"].errors == ["CannotStart: it ended"]


def test_what_a_router_cannot_do_is_told_with_the_reason(tmp_path: Path, starts: list[str]) -> None:
    whole = together(run(tmp_path, [B], Second))
    assert starts == []
    assert whole["b", "second"].why_none == "it has none"
    assert whole["b", "second"].figure is None


def test_nothing_is_begun_when_time_is_up(tmp_path: Path, starts: list[str]) -> None:
    whole = together(run(tmp_path, [A, B], Pretended, Second, limit=-1.0))
    assert starts == []
    assert whole["a", "first"].why_none == whole["b", "first"].why_none == "there was no time left"
    assert whole["b", "second"].why_none == "it has none"


def test_what_routers_cannot_do_are_rows() -> None:
    rows = {row.name for row in ROWS}
    assert [name for router in ROUTERS for name in router.cannot if name not in rows] == []


def test_options_choose_rows_and_routers(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = options(["--rows", "swap", "crash", "--routers", "llama-router", "--turns", "1", "--json", "x"])
    assert (chosen.rows, chosen.routers, chosen.turns, chosen.json) == (
        ["swap", "crash"],
        ["llama-router"],
        1,
        Path("x"),
    )
    assert options([]).rows == [row.name for row in ROWS]
    with pytest.raises(SystemExit):
        options(["--rows", "swp"])
    assert "swp" in capsys.readouterr().err
