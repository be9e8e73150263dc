"""Model servers that the forkserver forks are like spawned ones."""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from forking_supervisor import Start, is_forked, load, makes_forking, ready, tiny
from harness import READY, Supervisor, refused
from observed import children
from test_children import by_role

from supervisor.backends.llama_cpp_python import can_be_forked
from supervisor.core.preset import Preset


@pytest.fixture
def forking(supervisors: Start) -> Start:
    return makes_forking(supervisors)


def described(supervisor: Supervisor, name: str) -> dict[str, Any]:
    told: dict[str, Any] = ast.literal_eval((supervisor.directory / f"{name}.told").read_text())
    return told


@pytest.mark.parametrize(
    ("variable", "forked"),
    [
        *((name, True) for name in ("CUDA_VISIBLE_DEVICES", "GGML_CUDA_ENABLE_UNIFIED_MEMORY", "HF_HOME", "MODEL")),
        *(
            (name, True)
            for name in ("HIP_VISIBLE_DEVICES", "LLAMA_TRACE", "WORLD_LD_", "TZX", "LANGUAGES", "ld_preload")
        ),
        *(
            (name, False)
            for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED", "GLIBC_TUNABLES")
        ),
        *((name, False) for name in ("OMP_NUM_THREADS", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OPENBLAS_NUM_THREADS")),
        *((name, False) for name in ("MKL_NUM_THREADS", "MALLOC_ARENA_MAX", "LANG", "LC_ALL", "TZ", "TMPDIR")),
        *((name, False) for name in ("LLAMA_CPP_LIB", "LLAMA_CPP_LIB_PATH", "GGML_NO_BACKTRACE")),
    ],
)
def test_variables_that_are_read_when_a_process_starts(variable: str, forked: bool) -> None:
    preset = Preset(name="m", model="/m.gguf", env={"OTHER": "1", variable: "1"})
    assert can_be_forked(preset) == forked


def test_other_backends_are_not_forked() -> None:
    assert not can_be_forked(Preset(name="m", backend="command", command=("serve", "{socket}")))


def test_a_forked_server_is_given_what_a_spawned_one_is(forking: Start) -> None:
    old_mask = os.umask(0o027)
    try:
        supervisor = forking(env={"INHERITED": "yes", "ODD": "\udcff"})
    finally:
        os.umask(old_mask)
    ready(supervisor)
    for name, more in {"forked": {}, "spawned": {"LC_SPAWN": "1"}}.items():
        steps = (f"describe={supervisor.directory}/{name}.told", *READY)
        pid = load(supervisor, name, *steps, env={"CUDA_VISIBLE_DEVICES": "1", "OVER": "ü", **more})
        assert is_forked(pid) == (name == "forked")
        assert supervisor.model(name)["pid"] in children(supervisor.pid)
    forked, spawned = described(supervisor, "forked"), described(supervisor, "spawned")
    assert spawned["env"].pop("LC_SPAWN") == "1"
    for told in (forked, spawned):
        assert told["env"].pop("LLAMA_ROUTER_LAUNCH").isdecimal()
        assert told["descriptors"][1] == told["descriptors"].pop(2)
        assert told["descriptors"].pop(1).startswith("pipe:")
    assert forked == spawned
    assert forked["leads"]
    assert (forked["parent"], forked["death"]) == (supervisor.pid, signal.SIGKILL)
    assert forked["descriptors"] == {0: "/dev/null"}
    assert forked["env"]["ODD"] == "\udcff"
    assert forked["env"]["INHERITED"] == "yes"


def test_what_ps_shows_and_the_launch_of_its_strays(forking: Start) -> None:
    supervisor = forking()
    ready(supervisor)
    gate = supervisor.gate("stray")
    pid = load(supervisor, "a-rather-long-name", f"deep={gate.path}", *READY)
    launch = supervisor.model("a-rather-long-name")["launch"]
    assert Path(f"/proc/{pid}/comm").read_text() == "llama:a-rather-\n"
    assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"llama-router: model a-rather-long-name"
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"LLAMA_ROUTER_LAUNCH=%010d" % launch in environment
    assert len(environment) > 10
    stray = gate.visitor()
    load(supervisor, "other")
    supervisor.call("unload", model="other", wait=True)
    assert stray.alive
    supervisor.call("unload", model="a-rather-long-name", wait=True)
    stray.gone()


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (["say=last words", "exit=65"], "exited with code 65"),
        (["say=last words", "exit=1"], "exited with code 1"),
        (["mutter=last words", "kill=SEGV"], "killed by SIGSEGV"),
        (["say=last words"], "exited with code 0"),
        (["fail=last words"], "exited with code 1"),
        (["fail=exit:last words"], "exited with code 1"),
        (["say=last words", "fail=exit:7"], "exited with code 7"),
        (["say=last words", "close-output", "exit=3"], "exited with code 3"),
    ],
)
def test_an_end_right_after_the_fork_is_told_as_it_is(forking: Start, steps: list[str], reason: str) -> None:
    supervisor = forking()
    pid = ready(supervisor)
    tiny(supervisor, "m", *steps, restart={"policy": "no"})
    with refused():
        supervisor.call("load", model="m", wait=True)
    told = supervisor.model("m")["reason"]
    assert told["text"] == f"{reason} before it was ready"
    assert "last words" in told["last_lines"][-1]
    assert ready(supervisor) == pid


def test_forks_do_not_share_random_numbers(forking: Start) -> None:
    supervisor = forking()
    ready(supervisor)
    thrown = []
    for dice in ("random", "numpy", "random", "numpy"):
        load(supervisor, "m", f"throw={dice}", *READY)
        thrown.append(supervisor.logs("m")[-1])
        supervisor.call("unload", model="m", wait=True)
    assert len(set(thrown)) == 4


def test_children_of_a_forked_server_die_with_it(forking: Start) -> None:
    supervisor = forking()
    ready(supervisor)
    gate = supervisor.gate("grandchild")
    tiny(supervisor, "m", f"fork=ignore=TERM,{gate.step},pause", gate.step, "exit=1", restart={"policy": "no"})
    supervisor.call("load", model="m")
    leader, grandchild = by_role(supervisor, [gate.visitor(), gate.visitor()])
    grandchild.go()
    leader.go()
    grandchild.gone()
