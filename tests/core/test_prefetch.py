"""When the files of the next model are read ahead: while running requests keep it from its room, and not otherwise."""

from __future__ import annotations

import pytest

from supervisor.core import events
from supervisor.core.commands import Prefetch
from supervisor.core.events import Goal, LeaseEnded, PresetsChanged
from supervisor.core.llama_options import cached_files
from supervisor.core.policy import Policy
from supervisor.core.preset import Preset
from tests.core.driver import Driver, preset

ONE = Policy(max_models=1, max_wait=10.0)
A, B, C = (f"/models/{name}.gguf" for name in "abc")


def paths(driver: Driver) -> list[tuple[str, ...]]:
    """What was asked to be read ahead so far, in order."""
    return [command.paths for command in driver.history if isinstance(command, Prefetch)]


def draining(*presets: Preset) -> tuple[Driver, int, int]:
    """`a` drains for a request for `b`; the driver, the lease that `a` serves, and the one that waits."""
    driver = Driver(*(presets or (preset("a"), preset("b"), preset("c"))), policy=ONE)
    running = driver.lease("a")
    driver.ready("a")
    waiting = driver.lease("b")
    driver.tick(9.9)
    assert not paths(driver), "it may become idle without that"
    driver.tick(0.2)
    return driver, running, waiting


def test_it_begins_with_the_drain_and_ends_with_the_launch() -> None:
    driver, running, _ = draining()
    assert paths(driver) == [(B,)] and driver.last(Prefetch)
    driver.lease("b")
    driver.lease("c")
    driver.tick(60)
    driver.release(running)
    assert paths(driver) == [(B,)], "nothing is begun twice, and it goes on until the process is gone"
    driver.ends("a", code=0)
    assert driver.spawned() == ["b"] and paths(driver) == [(B,), ()]


def test_nothing_is_read_where_there_is_room_or_an_idle_model() -> None:
    driver = Driver(preset("a"), preset("b"), policy=ONE)
    driver.release(driver.lease("a"))
    driver.ready("a")
    driver.lease("b")
    driver.ends("a", code=0)
    assert driver.spawned() == ["b"] and not paths(driver)


def test_it_ends_when_nobody_wants_the_model_any_more() -> None:
    driver, _, waiting = draining()
    driver.send(LeaseEnded(waiting))
    assert paths(driver) == [(B,), ()]
    driver.lease("c")
    driver.tick(11)
    assert paths(driver) == [(B,), (), (C,)]


def test_the_next_one_follows_when_the_first_gives_up() -> None:
    driver, _, waiting = draining()
    driver.lease("c")
    driver.tick(20)
    driver.send(LeaseEnded(waiting))
    assert paths(driver) == [(B,), (C,)]


def test_it_ends_when_the_supervisor_stops() -> None:
    driver, _, _ = draining()
    driver.send(events.StopAsked())
    assert paths(driver) == [(B,), ()]
    driver.send(events.StopAsked())
    assert paths(driver) == [(B,), ()]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (preset("b", idle_timeout=60), [(B,)]),
        (preset("b", model="/models/other.gguf"), [(B,), ("/models/other.gguf",)]),
        (None, [(B,), ()]),
    ],
)
def test_a_reload_with_another_file(new: Preset | None, expected: list[tuple[str, ...]]) -> None:
    driver, _, _ = draining()
    presets = {each.name: each for each in (preset("a"), new) if each is not None}
    driver.send(PresetsChanged(presets, {}, ONE))
    assert paths(driver) == expected


def test_an_unload_that_drains_makes_room_as_well() -> None:
    driver = Driver(preset("a", stop_timeout=30), preset("b"), policy=ONE)
    driver.lease("a")
    driver.ready("a")
    driver.ask(Goal.UNLOAD, "a")
    assert not paths(driver)
    driver.lease("b")
    assert paths(driver) == [(B,)]


def test_a_program_whose_files_are_not_known() -> None:
    command = Preset.model_validate({"name": "b", "backend": "command", "command": ["x", "{port}"]})
    driver, _, _ = draining(preset("a"), command)
    assert driver.instance("a").draining and not paths(driver)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, (A,)),
        ({"mmproj": "/m/p.gguf", "options": {"lora_path": "/m/l.gguf"}}, (A, "/m/p.gguf", "/m/l.gguf")),
        ({"backend": "llama-server", "options": {"lora": "/m/l.gguf"}}, (A, "/m/l.gguf")),
        ({"backend": "llama-server", "options": {"lora": ["/m/l.gguf"]}}, (A,)),
        ({"options": {"use_mmap": False}}, (A,)),
        ({"backend": "llama-server", "options": {"no-mmap": None}}, (A,)),
        ({"backend": "llama-server", "options": {"--direct-io": None}}, ()),
        ({"backend": "llama-server", "options": {"dio": True}}, ()),
        ({"backend": "llama-server", "options": {"load-mode": "dio"}}, ()),
        ({"backend": "llama-server", "options": {"direct-io": False}}, (A,)),
    ],
)
def test_the_files_that_pass_through_the_page_cache(keys: dict[str, object], expected: tuple[str, ...]) -> None:
    assert cached_files(preset("a", **keys)) == expected
