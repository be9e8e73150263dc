"""Medians, goals, the table, its JSON and its page."""

from __future__ import annotations

import json
import math
import platform
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import machine, measures
from tests.bench.figures import median, nth
from tests.bench.measures import MEASURES, Limit, Measure, NoErrors, Ratio, best, judge, ratio, shown
from tests.bench.page import BEGIN, END, NoPlace, placed, section
from tests.bench.readings import Reading, together
from tests.bench.report import Results, document, errors, table
from tests.bench.routers.router import ROOT
from tests.bench.running import ROWS

LESS = Measure("swap-135m", "swap")
MORE = Measure("small-1", "small", "/s", more_is_better=True)


def reading(router: str, *figures: float, errors: int = 0, measure: str = "swap-135m") -> Reading:
    return Reading(measure, router, list(figures), waits=list(figures), errors=["no"] * errors)


def by_name(*readings: Reading) -> dict[str, Reading]:
    return {each.router: each for each in readings}


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0, 1, exclude_min=True))
def test_quantiles(values: list[float], share: float) -> None:
    found = nth(values, share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_a_quantile_of_nothing() -> None:
    with pytest.raises(statistics.StatisticsError):
        nth([], 0.99)


def test_turns_come_together() -> None:
    turns = [reading("a", 3.0, errors=1), reading("b", 9.0), reading("a", 1.0, 2.0)]
    whole = together(turns)["swap-135m", "a"]
    assert (whole.figure, whole.p99, whole.errors) == (2.0, 3.0, ["no"])
    assert turns[0].figures == [3.0]


def test_a_failed_turn_takes_nothing_from_the_others() -> None:
    failed = Reading("swap-135m", "a", errors=["CannotStart: it ended"])
    whole = together([reading("a", 1.0), failed])["swap-135m", "a"]
    assert (whole.figure, len(whole.errors)) == (1.0, 1)


@pytest.mark.parametrize(("measure", "name"), [(LESS, "low"), (MORE, "high")])
def test_the_best_is_the_lowest_or_the_highest(measure: Measure, name: str) -> None:
    found = best(measure, [reading("low", 1.0), reading("high", 2.0), reading("none")])
    assert found is not None
    assert found.router == name


def test_who_fails_is_not_the_best_where_that_counts() -> None:
    fails, serves = reading("fails", 1.0, errors=1), reading("serves", 2.0)
    assert best(LESS, [fails, serves]) is serves
    assert best(LESS, [fails]) is None
    assert best(Measure("crash", "crash", peers_may_fail=True), [fails, serves]) is fails


@pytest.mark.parametrize(("figure", "other", "times"), [(1, 2, 0.5), (0, 0, 1), (1, 0, math.inf), (0, 3, 0)])
def test_ratios(figure: float, other: float, times: float) -> None:
    assert ratio(figure, other) == times


@pytest.mark.parametrize(
    ("measure", "figure", "factor", "reached"),
    [(LESS, 6.0, 0.6, True), (LESS, 6.1, 0.6, False), (MORE, 15.0, 1.5, True), (MORE, 14.9, 1.5, False)],
)
def test_goals_that_are_ratios(measure: Measure, figure: float, factor: float, reached: bool) -> None:
    peers = by_name(reading("peer", 10.0), reading("other", 10.0))
    for goal in (Ratio(factor, "peer"), Ratio(factor)):
        verdict = judge(measure, goal, reading("ours", figure), peers)
        assert verdict.reached is reached
        assert f"({figure / 10:.2f})" in verdict.text


@pytest.mark.parametrize("peers", [{}, {"other": 1.0}])
def test_a_goal_whose_peer_is_missing_is_neither_reached_nor_missed(peers: dict[str, float]) -> None:
    others = by_name(*[reading(name, figure) for name, figure in peers.items()], Reading("swap-135m", "peer"))
    assert judge(LESS, Ratio(1, "peer"), reading("ours", 1.0), others).reached is None
    assert judge(LESS, Ratio(1, "gone"), reading("ours", 1.0), others).reached is None


@pytest.mark.parametrize("goal", [Ratio(1), Limit(1), NoErrors()])
def test_without_a_figure_of_ours_nothing_is_told(goal: measures.Goal) -> None:
    assert judge(LESS, goal, Reading("swap-135m", "ours"), by_name(reading("peer", 1.0))).reached is None


def test_goals_that_are_limits() -> None:
    assert judge(LESS, Limit(1.0), reading("ours", 1.0), {}).reached is True
    assert judge(LESS, Limit(1.0), reading("ours", 1.1), {}).reached is False
    assert judge(LESS, NoErrors(), reading("ours", 1.0), {}).reached is True
    assert judge(LESS, NoErrors(), reading("ours", 1.0, errors=1), {}).reached is False


@pytest.mark.parametrize(
    ("figure", "unit", "text"),
    [
        (0.00123, "s", "1.2 ms"),
        (0.0567, "s", "57 ms"),
        (1.234, "s", "1.23 s"),
        (12345.6, "/s", "12,346/s"),
        (3.0, "", "3"),
        (0.5, "CPU s", "0.50 CPU s"),
        (61.23, "MiB", "61.2 MiB"),
    ],
)
def test_figures_as_they_are_shown(figure: float, unit: str, text: str) -> None:
    assert shown(figure, unit) == text


def results() -> Results:
    failed = Reading("small-1", "peer", errors=["it ended"])
    readings = [
        *(reading("ours", 0.5), reading("peer", 1.0), reading("limit", 0.1)),
        *(Reading("crash", "peer", why_none="it has no process to kill"), failed),
        *(reading("ours", 0.0, measure="idle-wakeups"), reading("peer", 0.0, measure="idle-wakeups")),
        *(reading("ours", 3.0, measure="size-list"), reading("peer", 0.0, measure="size-list")),
    ]
    return Results(
        readings=together(readings),
        order=["ours", "peer", "gone", "limit"],
        ours="ours",
        peers=["peer", "gone"],
        missing={"gone": "it is not on PATH"},
    )


def test_the_table() -> None:
    lines = table(results()).splitlines()
    cells = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")}
    swap = "swap to the 135M model, first token"
    goal = "≤ 0.6 × the best peer (0.50): reached"
    assert (swap, "ours", "0.50 s", "0.50 s", "", "0", "", "0.50", goal) in cells
    assert (swap, "limit", "0.10 s", "0.10 s", "", "0", "", "0.10", "") in cells
    assert ("small requests, 1 connection", "peer", "error", "", "", "1", "", "", "") in cells
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    assert "- gone is missing: it is not on PATH" in lines
    assert "- peer, not measured (crash, next answer): it has no process to kill" in lines


def test_errors_are_told_beside_the_table() -> None:
    assert errors(results()) == "- peer, small requests, 1 connection: 1 errors, first: it ended"
    assert "it ended" not in table(results())


def test_the_table_of_a_run_that_measured_nothing() -> None:
    empty = Results(readings={}, order=["ours"], ours="ours", peers=[], missing={"gone": "it is not on PATH"})
    assert "gone is missing" in table(empty)
    assert document(empty)["measures"] == []


def test_json_has_what_the_table_has() -> None:
    told = json.loads(json.dumps(document(results()), allow_nan=False))
    swap, small, crash, idle, size = told["measures"]
    assert swap["routers"]["ours"]["times_best_peer"] == 0.5
    assert swap["best_peer"] == "peer"
    assert swap["goals"] == [{"goal": "≤ 0.6 × the best peer (0.50)", "reached": True}]
    assert small["routers"]["peer"]["first_errors"] == ["it ended"]
    assert crash["routers"]["peer"]["why_none"] == "it has no process to kill"
    assert idle["routers"]["ours"]["times_best_peer"] == 1.0
    assert size["routers"]["ours"]["times_best_peer"] is None
    assert told["missing"] == {"gone": "it is not on PATH"}


def test_every_measure_is_read_by_a_row() -> None:
    assert sorted(measure.id for measure in MEASURES) == sorted(read for row in ROWS for read in row.reads)
    assert median([1, 2]) == 1.5


def test_results_take_the_place_of_those_before() -> None:
    first = placed(f"# Title\n\n{BEGIN}\n{END}\n\nMore.\n", "| one |")
    again = placed(first, "| two |")
    assert again == f"# Title\n\n{BEGIN}\n| two |\n{END}\n\nMore.\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}"])
def test_a_page_without_a_place_for_results_is_refused(text: str) -> None:
    with pytest.raises(NoPlace):
        placed(text, "| one |")


def test_the_page_has_a_place_for_results() -> None:
    assert "| one |" in placed((ROOT / "docs" / "performance.md").read_text(), "| one |")


def test_a_section_tells_the_machine_and_the_goals() -> None:
    found = results()
    found.machine = machine.described()
    found.versions = {"ours": "1.0"}
    text = section(found)
    assert platform.node() not in text
    assert "ours 1.0." in text
    assert "2 of 3 goals are reached. Missed: 1,000 presets, GET /v1/models: ≤ 20 ms." in text
