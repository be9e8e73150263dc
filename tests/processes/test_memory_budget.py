"""A memory budget kept with real processes: who is evicted, who is refused, what is measured and remembered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import READY, Supervisor, refused
from observed import children

GIB = 2**30


@pytest.fixture
def budgeted(supervisors: type[Supervisor]) -> Supervisor:
    """A supervisor that may use 8 GiB, and lets a busy model be for 300 ms."""
    return supervisors(config="max_wait: 300ms\nmemory: {host: 8GiB}\n").start()


def test_the_fewest_go_for_a_large_one(budgeted: Supervisor) -> None:
    for name, size in (("small", "1GiB"), ("tiny", "1GiB"), ("large", "6GiB"), ("big", "6GiB")):
        budgeted.add(name, memory={"host": size}, reload=False)
    budgeted.call("reload")
    for name in ("small", "tiny", "large"):
        budgeted.load(name)
    assert budgeted.status()["memory"]["planned"] == {"host": 8 * GIB}
    budgeted.lease("big").grant()
    running = sorted(model["name"] for model in budgeted.status()["models"] if model["pid"])
    assert running == ["big", "small", "tiny"]
    assert budgeted.model("large")["reason"]["text"] == "evicted for big"


def test_what_can_never_fit_is_refused_at_once_with_the_numbers(budgeted: Supervisor) -> None:
    budgeted.add("fits", memory={"host": "1GiB"}, reload=False)
    budgeted.add("huge", memory={"host": "9GiB"})
    with refused() as errors:
        budgeted.lease("huge").grant()
    assert errors[0].status == 503
    assert "it needs 9.0 GiB of host (declared), and memory allows 8.0 GiB of host" in str(errors[0])
    assert budgeted.model("huge")["state"] == "stopped"
    with refused():
        budgeted.call("load", model="huge", wait=True)


def test_a_need_of_a_gpu_that_is_not_there_is_noticed(budgeted: Supervisor) -> None:
    budgeted.add("m", memory={"gpu7": "1GiB"})
    check = budgeted.check()
    assert (check.returncode, "there is no gpu7 here" in check.stdout) == (0, True), check.stdout + check.stderr


def test_a_busy_model_drains_for_a_large_one_and_both_are_served(budgeted: Supervisor) -> None:
    for name in "ab":
        budgeted.add(name, memory={"host": "5GiB"})
    running = budgeted.lease("a")
    running.grant()
    watch = budgeted.watch("a")
    waiting = budgeted.lease("b")
    watch.text("draining: evicted for b")
    running.release()
    waiting.grant()


@pytest.mark.parametrize(
    ("preset", "config", "expected"),
    [
        ({"memory": {"host": "3GiB"}, "replicas": 3}, ("", ""), "cannot run 3 replicas: they need 9.0 GiB of host"),
        ({"memory": {"host": "9GiB"}}, ("", ""), "cannot run any model"),
        ({}, ("host: 8GiB", "host: -1"), "memory.host"),
        ({}, ("max_wait: 300ms", "max_wait: -3s"), "max_wait"),
        ({"idle_timeout": "900 years"}, ("", ""), "idle_timeout"),
        ({"replicas": 0}, ("", ""), "replicas"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_unloaded(
    budgeted: Supervisor, preset: dict[str, object], config: tuple[str, str], expected: str
) -> None:
    before = budgeted.load("m")["pid"]
    budgeted.add("m", reload=False, **preset)
    budgeted.config.write_text(budgeted.config.read_text().replace(*config, 1))
    with refused() as errors:
        budgeted.call("reload")
    assert any(expected in str(problem) and problem.line for problem in errors[0].problems)
    assert budgeted.model("m")["pid"] == before


def test_what_was_measured_is_remembered_over_a_restart(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(config="memory: {host: 8GiB}\n").start()
    supervisor.load("m", "allocate=50", *READY)
    watched = lambda: supervisor.model("m")["memory"]  # noqa: E731
    supervisor.eventually(lambda: watched()["source"] == "measured", "it is measured")
    measured = watched()["need"]["host"]
    assert 50 * 2**20 < measured < 120 * 2**20
    assert sum(watched()["used"].values()) == measured
    supervisor.stop()
    supervisor.start()
    assert (watched()["source"], watched()["need"]) == ("measured", {"host": measured})
    assert watched()["used"] == {}
    supervisor.add("m", "allocate=51", *READY)
    assert watched()["source"] == "unknown", "it is another program"


def test_measures_that_are_damaged_cost_nothing_else(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(config="memory: {host: 8GiB}\n").start()
    supervisor.load("m")
    supervisor.eventually(lambda: supervisor.model("m")["memory"]["source"] == "measured", "it is measured")
    supervisor.stop()
    book = supervisor.directory / "state" / "measured.json"
    assert json.loads(book.read_text())["entries"]
    book.write_text('{"entries": {"x"')
    supervisor.start()
    assert supervisor.model("m")["memory"]["source"] == "unknown"
    assert supervisor.load("m")["state"] == "ready"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of 64 MiB, version 1 or 2; skips where none can be made."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = Path("/sys/fs/cgroup" if unified else "/sys/fs/cgroup/memory") / f"llama-router-test-{os.getpid()}"
    limit = "memory.max" if unified else "memory.limit_in_bytes"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        try:
            (group / limit).write_text(str(64 * 2**20))
            (group / "memory.swap.max").write_text("0") if unified else None
        except OSError as error:
            pytest.skip(f"no memory limit can be set on a cgroup here: {error}")
        yield group
    finally:
        group.rmdir()


def test_a_server_that_the_kernel_kills_for_its_memory_is_out_of_memory(supervisor: Supervisor, cgroup: Path) -> None:
    gate = supervisor.gate("grow")
    supervisor.load("m", "listen={socket}", "notify=READY=1", gate.step, "allocate=200", "serve")
    watch = supervisor.watch("m")
    visitor = gate.visitor()
    (cgroup / "cgroup.procs").write_text(str(visitor.pid))
    visitor.go()
    reason = watch.state("backoff")["reason"]
    assert (reason["kind"], reason["signal"], reason["text"]) == ("out_of_memory", "SIGKILL", "out of memory")


OUT_OF_MEMORY = ("notify=ERRNO=12|STATUS=no room for the KV cache", "exit=71")


def test_a_load_that_dies_of_memory_evicts_one_more_and_is_retried_once(budgeted: Supervisor) -> None:
    gate = budgeted.gate("greedy")
    for name in ("first", "second"):
        budgeted.load(name)
    budgeted.add("greedy", gate.step, *OUT_OF_MEMORY)
    waiting = budgeted.lease("greedy")
    gate.visitor().go()
    watch = budgeted.watch("first")
    assert watch.state("stopped")["reason"]["text"] == "evicted for greedy"
    gate.visitor().go()
    with refused() as errors:
        waiting.grant()
    assert errors[0].status == 500 and "out of memory" in str(errors[0])
    model = budgeted.model("greedy")
    assert (model["state"], model["reason"]["kind"]) == ("failed", "out_of_memory")
    assert budgeted.model("second")["state"] == "ready"
    assert not gate.visited


def test_the_retry_after_an_eviction_serves(budgeted: Supervisor) -> None:
    gate = budgeted.gate("greedy")
    budgeted.load("other")
    mark = budgeted.directory / "second-time"
    budgeted.add("greedy", gate.step, f"unless={mark}", *OUT_OF_MEMORY, "listen={socket}", "notify=READY=1", "serve")
    waiting = budgeted.lease("greedy")
    first = gate.visitor()
    first.go()
    second = gate.visitor()
    mark.touch()
    second.go()
    waiting.grant()
    assert budgeted.model("other")["state"] == "stopped"


def test_measuring_a_server_that_dies_meanwhile_costs_nothing(supervisor: Supervisor) -> None:
    supervisor.add("m", "notify=READY=1", "exit=0", restart={"policy": "no"})
    for _ in range(10):
        supervisor.call("load", model="m")
        supervisor.eventually(lambda: supervisor.model("m")["state"] in ("stopped", "failed"), "it has ended")
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "all are reaped")
    assert supervisor.load("n")["state"] == "ready"
