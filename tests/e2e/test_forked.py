"""The real model server out of the forkserver: it answers, it dies as others do, and it is ready sooner."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from observed import DEADLINE, command_lines
from served import MODEL, Served

QUESTION = openai.types.chat.ChatCompletionUserMessageParam(role="user", content="What is the capital of France?")
ROUNDS = 3


@pytest.fixture
def forking() -> Iterator[Served]:
    """A supervisor whose forkserver is ready; "spawned" is a model that it may not fork."""
    with Served() as served:
        served.serve(MODEL)
        served.serve("spawned", env={"LC_SPAWN": "1"})
        served.start(until="READY=1")
        served.eventually(lambda: "forkserver ready" in served.log.read_text(), "the forkserver is ready")
        yield served


def forkserver_of(served: Served) -> Path:
    """Its directory in /proc."""
    lines = command_lines(served.pid)
    return Path(f"/proc/{next(pid for pid, line in lines.items() if b'supervisor.forkserver' in line)}")


def is_forked(served: Served, name: str) -> bool:
    return Path(f"/proc/{served.model(name)['pid']}/comm").read_text().startswith("llama:")


def test_the_forkserver_is_ready_to_fork(forking: Served) -> None:
    """One thread, and neither a model nor a GPU, before a fork and after."""
    for _ in range(2):
        forkserver = forkserver_of(forking)
        assert len(list((forkserver / "task").iterdir())) == 1
        mapped = (forkserver / "maps").read_text()
        assert "libllama" in mapped
        assert ".gguf" not in mapped
        opened = [str(path.readlink()) for path in (forkserver / "fd").iterdir()]
        assert not [path for path in opened if path.startswith("/dev/") and path != "/dev/null"]
        forking.call("load", model=MODEL, wait=True)


def test_a_forked_model_answers_like_a_spawned_one(forking: Served) -> None:
    answers = []
    for name in (MODEL, "spawned"):
        completion = forking.openai().chat.completions.create(
            model=name, messages=[QUESTION], max_tokens=24, temperature=0, seed=1
        )
        answers.append(completion.choices[0].message.content)
        assert is_forked(forking, name) == (name == MODEL)
    assert answers[0] == answers[1]
    assert answers[0]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_of_a_forked_model_is_told_and_repaired(forking: Served, number: signal.Signals) -> None:
    pid = forking.call("load", model=MODEL, wait=True)["model"]["pid"]
    watch = forking.watch(MODEL)
    os.kill(pid, number)
    assert watch.state("backoff")["reason"]["text"] == f"killed by {number.name}"
    watch.state("ready")
    assert forking.openai().chat.completions.create(model=MODEL, messages=[QUESTION], max_tokens=4).choices
    assert is_forked(forking, MODEL)


def test_how_long_it_takes_to_be_ready(forking: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, as it depends on the machine."""
    took: dict[str, list[float]] = {MODEL: [], "spawned": []}
    for _ in range(ROUNDS):
        for name, seconds in took.items():
            before = time.monotonic()
            forking.call("load", model=name, wait=True)
            seconds.append(time.monotonic() - before)
            assert is_forked(forking, name) == (name == MODEL)
            assert seconds[-1] < DEADLINE
            forking.call("unload", model=name, wait=True)
    rollup = (forkserver_of(forking) / "smaps_rollup").read_text().splitlines()
    pss = next(line.split()[1] for line in rollup if line.startswith("Pss:"))
    with capsys.disabled():
        print(f"\nload to ready: forked {min(took[MODEL]):.2f} s, spawned {min(took['spawned']):.2f} s", end="")
        print(f"; PSS of the forkserver alone: {int(pss) // 1024} MiB")
