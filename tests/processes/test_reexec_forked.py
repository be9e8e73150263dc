"""The forkserver's part in a reexec: it goes and comes, and what it forked, or was about to, goes on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from forking_supervisor import Start, forkserver_of, is_forked, load, makes_forking, ready, says, tiny
from harness import READY, refused
from last_moment import at_the_last_moment
from observed import Gate, Process


@pytest.fixture
def forking(supervisors: Start) -> Start:
    return makes_forking(supervisors)


def test_what_it_forked_goes_on_and_the_next_one_forks(forking: Start) -> None:
    supervisor = forking(until="READY=1")
    first = ready(supervisor)
    pid = load(supervisor)
    assert is_forked(pid)
    supervisor.call("reexec")
    second = ready(supervisor, 2)
    assert second not in (0, first)
    assert supervisor.model("m")["pid"] == pid
    assert is_forked(load(supervisor, "n"))
    with Process(pid) as process:
        supervisor.call("unload", model="m", wait=True)
        process.gone()


def test_what_it_is_asked_for_is_spawned(forking: Start, tmp_path: Path) -> None:
    slowly = "import supervisor.fork_requests as f; f.FORK_SECONDS = 60\n"
    supervisor = forking(slowly, env={"TINY_FORKED": str(tmp_path / "gate")}, until="READY=1")
    ready(supervisor)
    with closing(Gate(tmp_path / "gate")) as gate:
        tiny(supervisor, "m", "say=here", *READY)
        asker = supervisor.client()
        asker._send({"op": "load", "model": "m", "wait": True})
        late = gate.visitor()
        supervisor.call("reexec")
        model = asker._receive()["model"]
        assert model["state"] == "ready"
        assert not is_forked(model["pid"])
        late.gone()
    assert supervisor.logs("m") == ["here"]


def test_it_comes_back_after_a_refusal(forking: Start) -> None:
    supervisor = forking(at_the_last_moment("path += '.gone'"), until="READY=1")
    first = ready(supervisor)
    with refused() as caught:
        supervisor.call("reexec")
    assert "No such file or directory" in str(caught[0])
    assert ready(supervisor, 2) != first
    says(supervisor, "cannot reexec: .*No such file or directory.*; everything goes on as it was")
    assert is_forked(load(supervisor, "n", *READY))
    assert forkserver_of(supervisor)
