"""Nothing depends on the forkserver: it dies, hangs and goes as it likes, and comes back while a preset needs it."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from forking_supervisor import Start, forkserver_of, is_forked, load, makes_forking, ready, says, tiny, weights
from harness import READY, Supervisor
from observed import Gate, Process, children, still_there

QUICKLY = (
    "import supervisor.fork_requests, supervisor.forking as f\n"
    "supervisor.fork_requests.FORK_SECONDS = 0.3; f.FIRST_DELAY = 0.05\n"
)
SLOWLY = "import supervisor.forking as f; f.FIRST_DELAY = 3600.0\n"


def held(pid: int) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
def forking(supervisors: Start) -> Start:
    return makes_forking(supervisors)


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
        everyone += still_there(supervisor.left_over())
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
    supervisor = forking("import supervisor.fork_requests as f; f.FORK_SECONDS = 60\n")
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
