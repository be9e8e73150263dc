"""Replicas: loaded one after another, served as each becomes ready, the least busy one first."""

from __future__ import annotations

from supervisor.core.commands import Grant, Kill, Reject, Terminate
from supervisor.core.events import Goal, LeaseAsked, PresetsChanged, Tick
from supervisor.core.need import Need
from supervisor.core.policy import Policy
from supervisor.core.status import model_status
from tests.core.driver import Driver, preset

BUDGET = Policy(max_wait=10.0, budget={"host": 100})


def three(**keys: object) -> Driver:
    return Driver(preset("a", replicas=3, **keys))


def names(driver: Driver) -> dict[str, str]:
    return {each.name: each.state.value for model in driver.fleet.models.values() for each in model.replicas}


def all_ready(driver: Driver) -> Driver:
    driver.ask(Goal.LOAD, "a")
    for name in ("a", "a#2", "a#3"):
        driver.ready(name)
    return driver


def grants(driver: Driver) -> list[str]:
    return [command.instance for command in driver.last(Grant)]


def terminated(driver: Driver) -> list[str]:
    return [driver.fleet.lifecycle.launches[command.launch].name for command in driver.last(Terminate)]


def test_they_load_one_after_another_and_serve_as_each_becomes_ready() -> None:
    driver = three()
    leases = [driver.lease("a") for _ in range(3)]
    assert names(driver) == {"a": "starting", "a#2": "stopped", "a#3": "stopped"}
    driver.ready("a")
    assert driver.granted() == leases[:1] and driver.spawned() == ["a#2"]
    driver.ready("a#2")
    assert driver.granted() == leases[1:2] and driver.spawned() == ["a#3"]
    driver.ready("a#3")
    assert driver.granted() == leases[2:] and not driver.spawned()


def test_the_least_busy_one_serves() -> None:
    driver = all_ready(three(max_concurrency=2))
    first = driver.lease("a")
    assert grants(driver) == ["a"]
    for expected in ("a#2", "a#3", "a", "a#2", "a#3"):
        driver.lease("a")
        assert grants(driver) == [expected]
    last = driver.lease("a")
    assert not grants(driver)
    driver.release(first)
    assert (driver.granted(), grants(driver)) == ([last], ["a"])


def test_a_client_that_saw_one_break_is_served_by_another_at_once() -> None:
    driver = all_ready(three())
    driver.send(LeaseAsked(77, "a", avoid=driver.launch("a")))
    assert grants(driver) == ["a#2"]


def test_one_that_crashes_leaves_the_others_serving() -> None:
    driver = all_ready(three())
    driver.ends("a#2", signal=11)
    assert names(driver) == {"a": "ready", "a#2": "backoff", "a#3": "ready"}
    driver.lease("a")
    driver.lease("a")
    assert grants(driver) == ["a#3"]


def test_one_that_failed_for_good_does_not_fail_the_model() -> None:
    driver = all_ready(three())
    driver.ends("a#2", code=65)
    assert names(driver)["a#2"] == "failed"
    assert driver.lease("a") and grants(driver) == ["a"]
    driver.ask(Goal.RESET, "a")
    assert driver.spawned() == ["a#2"]


def test_after_a_failure_for_good_no_further_ones_are_tried() -> None:
    driver = three()
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.ends("a#2", code=65)
    driver.send(Tick())
    assert names(driver) == {"a": "ready", "a#2": "failed", "a#3": "stopped"}


def test_one_that_exits_cleanly_is_started_again_as_long_as_the_model_is_wanted() -> None:
    driver = all_ready(three())
    driver.ends("a#2", code=0)
    assert driver.spawned() == ["a#2"]


def test_a_model_fails_with_its_last_replica() -> None:
    driver = three()
    waiting = driver.lease("a")
    driver.ends("a", code=65)
    assert driver.refused() == [(waiting, 500)]
    assert names(driver) == {"a": "failed", "a#2": "stopped", "a#3": "stopped"}


def test_a_failed_replica_is_forgotten_when_the_healthy_ones_are_unloaded() -> None:
    driver = Driver(preset("a", replicas=2, idle_timeout=60))
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.ready("a#2")
    driver.ends("a#2", code=65)
    driver.tick(61)
    driver.ends("a", code=0)
    assert names(driver) == {"a": "stopped", "a#2": "stopped"}
    driver.lease("a")
    assert driver.spawned() == ["a"] and not driver.refused()


def test_replicas_that_come_back_while_one_is_stopping_have_names_of_their_own() -> None:
    driver = all_ready(three())
    driver.send(PresetsChanged({"a": preset("a")}, {}, driver.policy))
    driver.ends("a#2", code=0)
    assert names(driver) == {"a": "ready", "a#3": "stopping"}
    driver.send(PresetsChanged({"a": preset("a", replicas=3)}, {}, driver.policy))
    assert driver.spawned() == ["a#2"]
    assert any(isinstance(command, Kill) for command in driver.tick(10)), "the old one has its deadline"
    driver.ends("a#3", signal=9)
    driver.ready("a#2")
    assert driver.spawned() == ["a#3"]
    assert [each.name for each in driver.model("a").replicas] == ["a", "a#3", "a#2"]


def test_an_eviction_that_is_called_off_calls_off_no_reload() -> None:
    driver = Driver(preset("a", replicas=2), preset("x"), policy=Policy(max_models=1, max_wait=10.0))
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.ready("a#2")
    held = driver.lease("a")
    changed = {"a": preset("a", replicas=2, context=9), "x": preset("x")}
    driver.send(PresetsChanged(changed, {}, driver.policy))
    driver.ends("a#2", code=0)
    driver.ready("a#2")
    driver.lease("a")
    waiting = driver.lease("x")
    driver.tick(11)
    assert driver.instance("a#2").draining
    driver.release(waiting)
    assert not driver.instance("a#2").draining and driver.instance("a").draining
    driver.release(held)
    assert terminated(driver) == ["a"]


def test_unload_ends_all_and_is_answered_when_all_are_gone() -> None:
    driver = all_ready(three())
    driver.ask(Goal.UNLOAD, "a", wait=True)
    assert terminated(driver) == ["a", "a#2", "a#3"]
    driver.ends("a", code=0)
    driver.ends("a#3", code=0)
    assert not any(type(command).__name__ == "Answer" for command in driver.step)
    driver.ends("a#2", code=0)
    assert any(type(command).__name__ == "Answer" for command in driver.step)
    assert not driver.spawned()


def test_an_unload_that_is_overtaken_by_a_load_is_answered_and_blocks_no_eviction() -> None:
    driver = Driver(preset("a", replicas=2), preset("b"), policy=Policy(max_models=1))
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.ready("a#2")
    held = driver.lease("a")
    driver.ask(Goal.UNLOAD, "a", number=7, wait=True)
    driver.ends("a#2", code=0)
    driver.ask(Goal.LOAD, "a", number=8)
    assert [command.ask for command in driver.last(Reject)] == [7]
    driver.ready("a#2")
    driver.release(held)
    driver.ends("a", code=0)
    driver.ready("a")
    driver.lease("b")
    assert sorted(terminated(driver)) == ["a", "a#2"]


def test_all_are_unloaded_when_the_model_is_idle_and_none_before() -> None:
    driver = all_ready(three(idle_timeout=60))
    lease = driver.lease("a")
    driver.tick(600)
    assert set(names(driver).values()) == {"ready"}
    driver.release(lease)
    driver.tick(61)
    assert set(names(driver).values()) == {"stopping"}
    for name in ("a", "a#2", "a#3"):
        driver.ends(name, code=0)
    assert set(names(driver).values()) == {"stopped"}


def test_a_reload_adds_and_takes_away_replicas() -> None:
    driver = Driver(preset("a"))
    driver.lease("a")
    driver.ready("a")
    driver.send(PresetsChanged({"a": preset("a", replicas=2)}, {}, driver.policy))
    assert driver.spawned() == ["a#2"]
    driver.ready("a#2")
    driver.lease("a")
    assert grants(driver) == ["a#2"]
    driver.send(PresetsChanged({"a": preset("a")}, {}, driver.policy))
    assert driver.instance("a#2").draining, "its request is served out"
    driver.release(2)
    driver.ends("a#2", code=0)
    assert names(driver) == {"a": "ready"}


def test_a_changed_preset_replaces_them_as_they_become_free() -> None:
    driver = all_ready(three())
    lease = driver.lease("a")
    driver.send(PresetsChanged({"a": preset("a", replicas=3, context=9)}, {}, driver.policy))
    assert terminated(driver) == ["a#2", "a#3"]
    driver.ends("a#2", code=0)
    assert driver.spawned() == ["a#2"], "while the first still serves"
    driver.ends("a#3", code=0)
    driver.ready("a#2")
    assert driver.spawned() == ["a#3"]
    driver.release(lease)
    assert terminated(driver) == ["a"]


def with_memory(policy: Policy = BUDGET, **needs: int) -> Driver:
    presets = [preset("a", replicas=3, max_concurrency=1), preset("b")]
    return Driver(
        *presets, policy=policy, needs={name: Need("estimated", {}, {"host": n}) for name, n in needs.items()}
    )


def test_replicas_that_do_not_fit_beside_others_come_when_there_is_room() -> None:
    driver = with_memory(a=30, b=50)
    running = driver.lease("b")
    driver.ready("b")
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    assert names(driver) == {"a": "ready", "a#2": "stopped", "a#3": "stopped", "b": "ready"}
    driver.release(running)
    driver.tick(1)
    assert names(driver)["b"] == "ready", "nobody waits, so nobody is evicted"
    driver.lease("a")
    waiting = driver.lease("a")
    assert terminated(driver) == ["b"]
    driver.ends("b", code=0)
    driver.ready("a#2")
    assert driver.granted() == [waiting]


def test_a_further_replica_never_drains_a_busy_model() -> None:
    driver = with_memory(a=30, b=60)
    driver.lease("b")
    driver.ready("b")
    driver.lease("a")
    driver.ready("a")
    driver.lease("a")
    driver.tick(3600)
    driver.send(Tick())
    assert names(driver) == {"a": "ready", "a#2": "stopped", "a#3": "stopped", "b": "ready"}
    assert not driver.instance("b").draining and not driver.refused()


def test_a_further_replica_that_pinned_models_leave_no_room_for_refuses_nobody() -> None:
    needs = {"a": Need("estimated", {}, {"host": 40}), "p": Need("estimated", {}, {"host": 50})}
    driver = Driver(preset("a", replicas=2), preset("p", pinned=True), policy=BUDGET, needs=needs)
    driver.ask(Goal.LOAD, "p")
    driver.ready("p")
    first = driver.lease("a")
    driver.ready("a")
    second = driver.lease("a")
    assert not driver.refused() and names(driver)["a#2"] == "stopped"
    driver.release(first)
    assert driver.granted() == [second]


def test_a_model_that_does_not_run_comes_before_a_further_replica_of_one_that_does() -> None:
    needs = {name: Need("estimated", {}, {"host": size}) for name, size in {"a": 40, "b": 40, "y": 60}.items()}
    driver = Driver(preset("a", replicas=2), preset("b"), preset("y"), policy=BUDGET, needs=needs)
    running = driver.lease("y")
    driver.ready("y")
    driver.lease("a")
    driver.ready("a")
    driver.lease("a")
    driver.tick(1)
    driver.lease("b")
    driver.ask(Goal.UNLOAD, "y")
    driver.release(running)
    driver.ends("y", code=0)
    assert driver.spawned() == ["b"]


def test_an_idle_replica_of_a_busy_model_makes_room() -> None:
    driver = with_memory(a=30, b=40)
    all_ready(driver)
    driver.lease("a")
    waiting = driver.lease("b")
    assert terminated(driver) == ["a#2"], "one is enough"
    driver.ends("a#2", code=0)
    driver.ready("b")
    assert driver.granted() == [waiting]
    driver.tick(3600)
    assert names(driver) == {"a": "ready", "a#2": "stopped", "a#3": "ready", "b": "ready"}
    driver.ask(Goal.UNLOAD, "b")
    driver.release(waiting)
    driver.ends("b", code=0)
    assert driver.spawned() == ["a#2"], "it comes back when there is room"


def test_the_only_replica_that_takes_requests_is_not_evicted_as_a_spare_one() -> None:
    needs = {name: Need("estimated", {}, {"host": size}) for name, size in {"a": 30, "b": 80}.items()}
    driver = Driver(preset("a", replicas=2), preset("b"), policy=BUDGET, needs=needs)
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.ready("a#2")
    driver.lease("a")
    changed = {"a": preset("a", replicas=2, context=9), "b": preset("b")}
    driver.send(PresetsChanged(changed, {}, BUDGET, needs))
    driver.ends("a#2", code=0)
    driver.ready("a#2")
    assert names(driver) == {"a": "ready", "a#2": "ready", "b": "stopped"} and driver.instance("a").draining
    driver.lease("b")
    assert not terminated(driver)


def test_replicas_count_as_one_model() -> None:
    driver = Driver(preset("a", replicas=3), preset("b"), policy=Policy(max_models=2))
    all_ready(driver)
    driver.lease("b")
    assert driver.spawned() == ["b"]


def test_a_model_that_waits_for_room_does_not_keep_replicas_of_another_from_loading() -> None:
    driver = Driver(preset("a", replicas=2), preset("z", autostart=True), policy=Policy(max_models=1))
    driver.ready("z")
    driver.ask(Goal.LOAD, "a")
    driver.ends("z", code=0)
    driver.fleet.models["z"].wanted = True
    driver.ready("a")
    assert names(driver) == {"a": "ready", "a#2": "starting", "z": "stopped"}


def test_a_reload_that_takes_away_the_failed_replica_forgives_the_model() -> None:
    driver = with_memory(a=30, b=50)
    driver.ask(Goal.LOAD, "a")
    driver.ready("a")
    driver.ready("a#2")
    driver.ends("a#3", code=65)
    first, _ = driver.lease("a"), driver.lease("a")
    driver.release(first)
    driver.lease("b")
    assert terminated(driver) == ["a"]
    driver.ends("a", code=0)
    driver.ends("a#2", code=65)
    assert driver.model("a").state.value == "failed"
    driver.send(PresetsChanged({"a": preset("a", max_concurrency=1), "b": preset("b")}, {}, driver.policy))
    assert model_status(driver.fleet, driver.model("a"), 0.0)["state"] == "stopped"
    driver.lease("a")
    assert not driver.refused()


def test_the_picture_of_a_model_with_replicas() -> None:
    driver = all_ready(three())
    driver.release(driver.lease("a"))
    driver.lease("a")
    driver.lease("a")
    driver.ends("a#3", signal=9)
    picture = model_status(driver.fleet, driver.model("a"), 0.0)
    assert (picture["name"], picture["state"], picture["in_flight"], picture["served"]) == ("a", "ready", 2, 1)
    assert [each["name"] for each in picture["replicas"]] == ["a", "a#2", "a#3"]
    assert [each["state"] for each in picture["replicas"]] == ["ready", "ready", "backoff"]
    assert picture["reason"]["signal"] == "SIGKILL"
