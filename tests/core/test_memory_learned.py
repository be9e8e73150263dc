"""What is learned of the memory that models take, and the arithmetic of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.commands import Measure, Remember
from supervisor.core.events import LeaseEnded, Measured
from supervisor.core.need import UNKNOWN, Need, fits, in_words, known, learn, sizes, total
from tests.core.budgeted import GIB, driver_with, serve, use


def test_a_measure_replaces_an_estimate_once_something_was_served() -> None:
    driver = driver_with(a=4)
    lease = driver.lease("a")
    measures = [command for command in driver.ready("a") if isinstance(command, Measure)]
    assert measures == [Measure(driver.launch("a"))]
    driver.send(Measured(driver.launch("a"), {"host": GIB}, {"host": GIB}))
    assert driver.model("a").need.source == "estimated"
    driver.tick(60)
    assert Measure(driver.launch("a")) in driver.release(lease)
    [remembered] = [
        command
        for command in driver.send(Measured(driver.launch("a"), {"host": GIB}, {"host": GIB}))
        if isinstance(command, Remember)
    ]
    assert remembered == Remember("a", Need("measured", {"host": GIB}, {"host": GIB}))
    assert driver.model("a").need.total(2) == {"host": 3 * GIB}


def test_busy_servers_are_not_measured_with_every_request() -> None:
    driver = driver_with(a=4)
    use(driver, "a")
    for _ in range(10):
        driver.release(serve(driver, "a"))
        assert not driver.last(Measure)
        driver.tick(1)
    driver.tick(30)
    driver.release(serve(driver, "a"))
    assert driver.last(Measure)


def test_a_measure_of_something_that_is_gone_is_nothing() -> None:
    driver = driver_with(a=4)
    use(driver, "a")
    launch = driver.launch("a")
    driver.ends("a", code=0)
    assert driver.send(Measured(launch, {"host": 1}, {})) == []


amounts = st.dictionaries(st.sampled_from(["host", "gpu0"]), st.integers(0, 100), max_size=2)
needs = st.builds(Need, st.just("measured"), amounts, amounts)


@given(needs, needs, st.booleans())
def test_what_is_learned_never_falls_below_a_measure(before: Need, seen: Need, served: bool) -> None:
    after = learn(before, seen, served=served).total(1)
    for need in (before, seen):
        assert all(after.get(device, 0) >= size for device, size in need.shared.items())
        assert all(after.get(device, 0) >= size for device, size in need.each.items())


@pytest.mark.parametrize(
    ("before", "served", "after"),
    [
        (UNKNOWN, False, 3),
        (UNKNOWN, True, 3),
        (Need("estimated", {}, {"host": 5}), False, 5),
        (Need("estimated", {}, {"host": 5}), True, 3),
        (Need("measured", {}, {"host": 5}), True, 5),
        (Need("measured", {}, {"host": 2}), False, 3),
    ],
)
def test_learning(before: Need, served: bool, after: int) -> None:
    assert learn(before, Need("measured", {}, {"host": 3}), served=served).total(1) == {"host": after}


def test_what_is_shared_counts_here_by_a_part_only_and_is_not_believed_to_be_less() -> None:
    before = Need("estimated", {"host": 10}, {"host": 5})
    seen = Need("measured", {"host": 4}, {"host": 3})
    assert learn(before, seen, served=True) == Need("measured", {"host": 10}, {"host": 3})


def test_arithmetic_of_needs() -> None:
    need = Need("estimated", {"host": 10}, {"host": 1, "gpu0": 2})
    assert (need.total(0), need.total(3)) == ({}, {"gpu0": 6, "host": 13})
    assert total([{"host": 1}, {"host": 2, "gpu0": 3}]) == {"host": 3, "gpu0": 3}
    assert fits({"host": 10, "gpu7": 99}, {"host": 10}) and not fits({"host": 11}, {"host": 10})
    assert in_words({"host": 6 * GIB, "gpu0": 512 * 2**20}) == "512 MiB of gpu0, 6.0 GiB of host"
    assert in_words({}) == "nothing"
    assert sizes({"gpu0": 512 * 2**20, "host": 6 * GIB}) == ["6.0 GiB", "gpu0 512 MiB"]
    assert known({"gpu0": 7}, need) == Need("declared", {}, {"gpu0": 7})
    assert known(None, need) is need
    assert known({"host": 7}, Need("measured", {}, {"host": 9})) == Need("declared", {}, {"host": 7})


def test_a_server_that_served_is_measured_at_once_as_it_may_be_gone_soon() -> None:
    driver = driver_with(a=4)
    first = driver.lease("a")
    driver.ready("a")
    driver.send(Measured(driver.launch("a"), {"host": GIB}, {"host": GIB}))
    driver.tick(0.1)
    assert Measure(driver.launch("a")) not in driver.send(LeaseEnded(first)), "it served nothing"
    assert Measure(driver.launch("a")) in driver.release(serve(driver, "a"))
    driver.send(Measured(driver.launch("a"), {"host": GIB}, {"host": GIB}))
    assert driver.model("a").need.source == "measured"
