"""Model servers that the forkserver forks are like spawned ones, and nothing depends on the forkserver."""

from __future__ import annotations

import ast
import os
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, READY, Supervisor, refused
from observed import Gate, Process, children
from test_children import by_role

from supervisor.backends.llama_cpp_python import can_be_forked
from supervisor.core.preset import Preset

HERE = Path(__file__).parent
QUICKLY = "import supervisor.forking as f; f.FORK_SECONDS = 0.3; f.FIRST_DELAY = 0.05\n"
SLOWLY = "import supervisor.forking as f; f.FIRST_DELAY = 3600.0\n"

Start = Callable[..., Supervisor]


def tiny(supervisor: Supervisor, name: str = "m", *steps: str, **keys: Any) -> None:
    """Write a preset of backend llama-cpp-python whose server takes `steps`."""
    preset = {"model": weights(supervisor), "stop_timeout": "300ms", "restart": QUICK, **keys}
    supervisor.write(name, {"models": {name: {**preset, "options": {"steps": steps or READY}}}})
    if supervisor.process is not None:
        supervisor.call("reload")


def weights(supervisor: Supervisor) -> str:
    """A file that can be read; the tiny server does not."""
    path = supervisor.directory / "tiny.gguf"
    path.touch()
    return str(path)


def load(supervisor: Supervisor, name: str = "m", *steps: str, **keys: Any) -> int:
    """Write a preset, load it, and return its server's pid once it is ready."""
    tiny(supervisor, name, *steps, **keys)
    pid: int = supervisor.call("load", model=name, wait=True)["model"]["pid"]
    return pid


def forkserver_of(supervisor: Supervisor) -> int:
    """Its pid; 0 if there is none."""
    for pid, state in children(supervisor.pid).items():
        if state != "Z" and b"supervisor.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return 0


def is_forked(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("llama:")


def held(pid: int) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def says(supervisor: Supervisor, pattern: str, times: int = 1) -> None:
    """Wait for the supervisor's own log to say something."""

    def said() -> bool:
        return len(re.findall(pattern, supervisor.log.read_text())) >= times

    supervisor.eventually(said, f"the log says {pattern!r}")


def ready(supervisor: Supervisor, times: int = 1) -> int:
    """Wait for the forkserver (the last of so many) and return its pid."""
    says(supervisor, "forkserver ready", times)
    return forkserver_of(supervisor)


def described(supervisor: Supervisor, name: str) -> dict[str, Any]:
    told: dict[str, Any] = ast.literal_eval((supervisor.directory / f"{name}.told").read_text())
    return told


@pytest.fixture
def forking(supervisors: Start) -> Start:
    """Makes running supervisors whose llama-cpp-python is the tiny server, with one preset of it, "m"."""

    def start(prefix: str = "", env: dict[str, str] | None = None, **popen: Any) -> Supervisor:
        program = f"import supervisor.backends.llama_cpp_python as b; b.MODULE = 'tiny_server'\n{prefix}"
        supervisor = supervisors(env={"PYTHONPATH": str(HERE), **(env or {})}, prefix=program)
        tiny(supervisor)
        return supervisor.start(**popen)

    return start


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


def test_servers_survive_the_forkserver_which_comes_back(forking: Start) -> None:
    supervisor = forking(QUICKLY)
    first = ready(supervisor)
    pid = load(supervisor)
    supervisor.kill(first, signal.SIGKILL)
    second = ready(supervisor, times=2)
    assert second not in (0, first)
    assert supervisor.model("m")["pid"] == pid
    assert is_forked(load(supervisor, "n"))
    says(supervisor, r"forkserver killed by SIGKILL; models load more slowly until it is back, in 50ms")
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "no zombie is left")


def test_one_that_keeps_dying_is_started_more_and_more_rarely(forking: Start) -> None:
    supervisor = forking(QUICKLY)
    for times, delay in enumerate(("50ms", "100ms", "200ms"), 1):
        supervisor.kill(ready(supervisor, times), signal.SIGKILL)
        says(supervisor, f"until it is back, in {delay}")
    ready(supervisor, 4)


def test_without_it_servers_are_spawned(forking: Start) -> None:
    supervisor = forking(SLOWLY)
    supervisor.kill(ready(supervisor), signal.SIGKILL)
    says(supervisor, "forkserver killed by SIGKILL; .*in 10min")
    assert not is_forked(load(supervisor))


@pytest.mark.parametrize("wish", ["thread", "fail"])
def test_imports_that_forbid_a_fork(forking: Start, wish: str) -> None:
    supervisor = forking(QUICKLY, env={"TINY_IMPORT": wish})
    says(supervisor, "@forkserver [|] (cannot fork: importing tiny_server:serve has started 1 threads|ImportError: as)")
    says(supervisor, "forkserver exited with code 78; models load more slowly until the next reload")
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "no zombie is left")
    supervisor.eventually(lambda: forkserver_of(supervisor) == 0, "it stays away")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_it_dies_or_hangs_while_it_is_asked(forking: Start, end: str) -> None:
    supervisor = forking(QUICKLY)
    first = ready(supervisor)
    os.kill(first, signal.SIGSTOP)
    for name in "mno":
        tiny(supervisor, name)
        supervisor.call("load", model=name)
    if end == "kill":
        os.kill(first, signal.SIGKILL)
    supervisor.watch().state_of_each("ready", "mno")
    assert not [pid for pid in model_pids(supervisor) if is_forked(pid)]
    says(
        supervisor, "forkserver killed by SIGKILL;" if end == "kill" else "forkserver killed, as it did not fork within"
    )
    ready(supervisor, times=2)
    assert is_forked(load(supervisor, "p"))


def model_pids(supervisor: Supervisor) -> list[int]:
    return [model["pid"] for model in supervisor.status()["models"] if model["pid"]]


@pytest.mark.parametrize("end", ["kill", "hang"])
@pytest.mark.parametrize("forks", [1, 2])
def test_a_process_that_is_forked_too_late_does_nothing(forking: Start, tmp_path: Path, forks: int, end: str) -> None:
    """The one in between, or the model server itself, is there when the forkserver is given up or dies."""
    supervisor = forking(QUICKLY, env={"TINY_FORKED": str(tmp_path / "gate")})
    first = ready(supervisor)
    with closing(Gate(tmp_path / "gate")) as gate:
        tiny(supervisor, "m", "say=here", *READY)
        supervisor.call("load", model="m")
        late = gate.visitor()
        if forks == 2:
            late.go()
            late = gate.visitor()
        if end == "kill":
            os.kill(first, signal.SIGKILL)
        supervisor.watch("m").state("ready")
        late.gone()
    assert supervisor.logs("m") == ["here"]
    assert [is_forked(pid) for pid in model_pids(supervisor)] == [False]


def test_an_unload_while_it_is_asked(forking: Start) -> None:
    supervisor = forking()
    first = ready(supervisor)
    before = held(supervisor.pid)
    os.kill(first, signal.SIGSTOP)
    gate = supervisor.gate("never")
    tiny(supervisor, "m", gate.step)
    supervisor.call("load", model="m")
    model = supervisor.call("unload", model="m", wait=True)["model"]
    assert (model["state"], model["reason"]["kind"]) == ("stopped", "requested")
    supervisor.eventually(lambda: held(supervisor.pid) <= before + 2, "no descriptor is left")
    os.kill(first, signal.SIGCONT)
    assert is_forked(load(supervisor, "n"))
    assert ready(supervisor) == first
    assert not gate.visited
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "no zombie is left")
    assert [path.name for path in supervisor.runtime.glob("*.json")] == [f"{supervisor.model('n')['launch']}.json"]


def test_a_stop_while_it_is_asked(forking: Start) -> None:
    supervisor = forking()
    os.kill(ready(supervisor), signal.SIGSTOP)
    supervisor.call("load", model="m")
    assert supervisor.stop() == 0
    assert not list(supervisor.runtime.glob("*.json"))
    assert "forkserver killed" not in supervisor.log.read_text()


@pytest.mark.parametrize("pending", [False, True])
def test_nothing_outlives_a_killed_supervisor(forking: Start, tmp_path: Path, pending: bool) -> None:
    supervisor = forking(env={"TINY_FORKED": str(tmp_path / "gate")})
    supervisor.expected = -signal.SIGKILL
    ready(supervisor)
    here = supervisor.gate("here")
    load(supervisor, "n", "ignore=TERM", f"fork=ignore=TERM,{here.step},pause", *READY)
    everyone = [Process(here.visitor().pid)]
    with ExitStack() as stack:
        if pending:
            gate = stack.enter_context(closing(Gate(tmp_path / "gate")))
            supervisor.call("load", model="m")
            gate.visitor().go()
            everyone.append(Process(gate.visitor().pid))
        everyone += [Process(pid) for pid in supervisor.left_over()]
        assert len(everyone) >= 4
        supervisor.kill(supervisor.pid, signal.SIGKILL)
        for process in everyone:
            with process:
                process.gone(2.0)


def test_many_loads_leave_nothing_behind(forking: Start) -> None:
    supervisor = forking()
    first = ready(supervisor)
    load(supervisor)
    before = [held(pid) for pid in (supervisor.pid, first)]
    for _ in range(50):
        supervisor.call("restart", model="m", wait=True)
    supervisor.eventually(lambda: held(supervisor.pid) <= before[0] + 2, "no descriptor is left")  # clients come and go
    assert held(first) == before[1]
    assert is_forked(supervisor.model("m")["pid"])
    supervisor.eventually(
        lambda: "Z" not in [*children(supervisor.pid).values(), *children(first).values()], "no zombie is left"
    )
    assert ready(supervisor) == first


def test_a_burst_of_loads(forking: Start) -> None:
    """More than the socket's buffer takes: what can't be asked is spawned."""
    supervisor = forking("import supervisor.forking as f; f.FORK_SECONDS = 60\n")
    first = ready(supervisor)
    os.kill(first, signal.SIGSTOP)
    names = [f"m{number}" for number in range(40)]
    supervisor.write(
        "many",
        {
            "models": {
                name: {"model": weights(supervisor), "options": {"steps": READY}, "env": {"BIG": "x" * 9999}}
                for name in names
            }
        },
    )
    supervisor.call("reload")
    watch = supervisor.watch()
    for name in names:
        supervisor.call("load", model=name)
    os.kill(first, signal.SIGCONT)
    watch.state_of_each("ready", names)
    forked = [is_forked(pid) for pid in model_pids(supervisor)]
    assert len(forked) == 40
    assert True in forked and False in forked
    assert ready(supervisor) == first


def test_a_request_that_is_too_long_is_spawned(forking: Start) -> None:
    supervisor = forking()
    ready(supervisor)
    assert not is_forked(load(supervisor, "n", env={f"BIG{number}": "x" * 100_000 for number in range(5)}))
    assert is_forked(load(supervisor))


def test_it_runs_only_while_a_preset_needs_it(forking: Start) -> None:
    supervisor = forking()
    ready(supervisor)
    supervisor.add("other")
    load(supervisor)
    with Process(forkserver_of(supervisor)) as process:
        supervisor.remove("m")
        process.gone()
    supervisor.eventually(lambda: forkserver_of(supervisor) == 0, "it is reaped")
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "no zombie is left")
    tiny(supervisor, "m", env={"OMP_NUM_THREADS": "1"})
    assert not is_forked(load(supervisor, "m", env={"OMP_NUM_THREADS": "1"}))
    assert forkserver_of(supervisor) == 0
    tiny(supervisor, "n")
    ready(supervisor, times=2)
    assert is_forked(load(supervisor, "n"))
    assert "models load more slowly" not in supervisor.log.read_text()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_need_that_comes_back_at_once(forking: Start, hangs: bool) -> None:
    supervisor = forking(SLOWLY)
    supervisor.add("other")
    first = ready(supervisor)
    if hangs:
        os.kill(first, signal.SIGSTOP)
    supervisor.remove("m")
    tiny(supervisor, "n")
    assert ready(supervisor, times=2) != first
    assert is_forked(load(supervisor, "n"))
    assert "models load more slowly" not in supervisor.log.read_text()


def test_it_is_deaf_to_a_terminal_and_to_systemd(forking: Start) -> None:
    """Both signal everybody; it is to end with the supervisor, not before."""
    supervisor = forking()
    first = ready(supervisor)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(first, number)
    assert is_forked(load(supervisor))
    assert ready(supervisor) == first


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
