"""What the lines of a llama-server's log tell of its state and of its end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.commands import Announce, Probe
from supervisor.core.events import Goal, Notified, Probed, Spawned
from supervisor.core.llama_options import llama_options
from supervisor.core.llama_server_log import explained, notice
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason, Kind
from tests.core.driver import Driver, preset

STATE = "cmd_child_to_router:state:"
# As b11434 wrote them.
CORRUPT = (
    "E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file bounds, "
    "model is corrupted or incomplete"
)
NO_MEMORY = "E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 46082949120"
LAST = "E srv  llama_server: exiting due to model loading error"
# What of a line may stand before a state: its thread writes the parts of a line one by one, and states are written by
# another. Seen with b11434: the time; with --log-colors on: the colours around each part, the last behind a line's end.
PREFIXES = (
    "4.08.965.524 ",
    "0.00.317.600 I ",
    "W ",
    "\x1b[0m",
    "\x1b[0m\x1b[34m0.21.008.467\x1b[0m ",
    "\x1b[34m0.05.145.920\x1b[0m \x1b[32mI \x1b[0m",
    "12:31:07.250 ",
    "2026-08-01T12:31:07Z D ",
)


def state(name: str, payload: object = None) -> str:
    return STATE + json.dumps({"state": name, "payload": payload})


def loading(stages: Any, current: Any, value: Any) -> str:
    return state("loading", {"stages": stages, "current": current, "value": value})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("I srv  llama_server: model loaded", None),
        (f"a user says {state('ready')}", None),
        (f"I srv  log_server_r: request: {state('ready')}", None),
        (f"{state('ready')} and more", Notified(7)),
        *((f"{prefix}{state('ready')}", Notified(7, ready=True, sleeping=False)) for prefix in PREFIXES),
        (loading(["text_model"], "text_model", 0.5), Notified(7, progress=0.5)),
        (loading(["text_model", "spec_model"], "spec_model", 0.5), Notified(7, progress=0.75)),
        (loading(["text_model", "spec_model"], "text_model", 1.0), Notified(7, progress=0.5)),
        (loading([], "text_model", 1.0), Notified(7)),
        (loading(["a"], "a", 2), Notified(7)),
        (loading(["a"], "b", 0), Notified(7)),
        (state("ready", {"id": "x"}), Notified(7, ready=True, sleeping=False)),
        (state("sleeping"), Notified(7, sleeping=True)),
        (state("downloading", {"url": "x"}), Notified(7)),
        (STATE, Notified(7)),
        (f"{STATE}[]", Notified(7)),
        (STATE + "[" * 5000, Notified(7)),
    ],
)
def test_a_line_of_the_log(line: str, expected: Notified | None) -> None:
    assert notice(7, line) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["stages", "current", "value"]), inner),
    max_leaves=8,
)


@given(st.sampled_from(["loading", "ready", "x"]) | json_values, json_values)
def test_whatever_the_state_it_is_taken_out_of_the_log(name: object, payload: object) -> None:
    told = notice(1, STATE + json.dumps({"state": name, "payload": payload}))
    assert told is not None
    assert told.progress is None or 0.0 <= told.progress <= 1.0


def ended(*lines: str, kind: Kind = Kind.EXITED, code: int | None = 1, signal: int | None = None) -> EndReason:
    return explained(EndReason(kind, code=code, signal=signal, last_lines=lines, before_ready=True))


@pytest.mark.parametrize(
    ("reason", "kind", "permanent"),
    [
        (ended(CORRUPT, LAST), Kind.EXITED, True),
        (ended('error while handling argument "--ctx-size": stoi', "", "usage:"), Kind.EXITED, True),
        (ended(NO_MEMORY, LAST), Kind.OUT_OF_MEMORY, False),
        (ended(NO_MEMORY, CORRUPT, LAST), Kind.OUT_OF_MEMORY, False),
        (ended("W ggml_cuda_host_malloc: failed to allocate 3.00 MiB of pinned memory: no", LAST), Kind.EXITED, False),
        (ended("E failed to allocate memory for prompt cache state: std::bad_alloc", LAST), Kind.EXITED, False),
        (ended(LAST), Kind.EXITED, False),
        (ended(), Kind.EXITED, False),
        (ended(CORRUPT, code=0), Kind.EXITED, False),
        (ended("CUDA error: out of memory", kind=Kind.KILLED, code=None, signal=6), Kind.OUT_OF_MEMORY, False),
        (ended("CUDA error: out of memory", kind=Kind.KILLED, code=None, signal=9), Kind.KILLED, False),
        (ended(NO_MEMORY, kind=Kind.CANNOT_START, code=None), Kind.CANNOT_START, True),
    ],
)
def test_the_end_of_a_run(reason: EndReason, kind: Kind, permanent: bool) -> None:
    assert (reason.kind, reason.permanent) == (kind, permanent)


def options(**given: Any) -> Any:
    return llama_options(Preset(name="m", backend="llama-server", model="/m", **given), 4096)


def test_options_that_decide_on_memory() -> None:
    assert (options().sequences, options().unified, options().context) == (4, True, 4096)
    assert (options(parallel=2).sequences, options(parallel=2).unified) == (2, False)
    assert (options().batch, options().micro_batch) == (2048, 512)
    embeds = options(embedding=True, context=1024)
    assert (embeds.batch, embeds.micro_batch, options(embedding=True).batch) == (1024, 1024, 512)
    assert options().flash_attention and not options(options={"flash-attn": "off"}).flash_attention
    assert not options().whole_window and options(options={"swa-full": True}).whole_window
    assert options().prompt_cache == 0
    assert options(options={"cache-ram": 100}).prompt_cache == 100 * 2**20
    assert options(options={"cram": -1}).prompt_cache == 0
    modes = ("auto", "mmap", "mmap+mlock", "none", "mlock", "dio")
    assert [options(options={"load-mode": mode}).mapped for mode in modes] == [True] * 3 + [False] * 3


def test_it_computes_as_many_requests_at_once_as_it_does_by_itself() -> None:
    limits = [
        Preset(name="m", model="/m", **keys).lease_limit
        for keys in ({}, {"backend": "llama-server"}, {"backend": "llama-server", "parallel": 2})
    ]
    assert limits == [1, 4, 2]


def loaded_halfway() -> Driver:
    """A model that has been loading for long, so that it is asked only now and then."""
    driver = Driver(preset("a", backend="llama-server"))
    driver.ask(Goal.LOAD, "a")
    driver.send(Spawned(driver.launch("a"), 1))
    for _ in range(10):
        driver.tick(1.0)
        driver.send(Probed(driver.launch("a"), healthy=False))
    return driver


def test_one_that_says_that_it_is_ready_is_asked_at_once() -> None:
    driver = loaded_halfway()
    driver.send(Notified(driver.launch("a"), ready=True))
    assert driver.instance("a").state.value == "starting"
    assert Probe(driver.launch("a"), "/health") in driver.tick(0)
    driver.send(Probed(driver.launch("a"), healthy=True))
    assert driver.instance("a").state.value == "ready"


def test_one_that_says_nothing_is_asked_now_and_then() -> None:
    driver = loaded_halfway()
    assert not driver.tick(0.9)
    assert Probe(driver.launch("a"), "/health") in driver.tick(0.2)


def test_sleep_is_announced_when_it_changes_and_ends_with_the_run() -> None:
    driver = loaded_halfway()
    launch = driver.launch("a")
    driver.send(Notified(launch, sleeping=True))
    assert not driver.instance("a").sleeping, "what loads does not sleep"
    driver.send(Probed(launch, healthy=True))
    asleep, awake = Notified(launch, sleeping=True), Notified(launch, ready=True, sleeping=False)
    for said, words in (
        (asleep, ["a: sleeps until somebody asks"]),
        (asleep, []),
        (awake, ["a: woke up"]),
        (Notified(launch), []),
        (Notified(launch, progress=0.5), []),
        (asleep, ["a: sleeps until somebody asks"]),
        (Notified(launch, progress=0.0), ["a: wakes up", "a: loading, 0%"]),
        (Notified(launch, progress=1.0), ["a: loading, 100%"]),
        (awake, ["a: woke up"]),
        (asleep, ["a: sleeps until somebody asks"]),
    ):
        driver.send(said)
        told = driver.last(Announce)
        assert [command.text for command in told] == words
        assert all(command.state is driver.instance("a").state for command in told)
        assert all(command.sleeping == (said is not awake) for command in told)
        assert all(command.progress == said.progress for command in told)
    driver.send(awake)
    driver.send(Notified(launch, sleeping=True))
    driver.ends("a", signal=9)
    assert not driver.instance("a").sleeping
