"""Leases: who gets one, who waits, who is refused, and that none outlives its connection."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import READY, ROOT, Supervisor, refused
from observed import DEADLINE

HOLDER = """
import sys, pathlib
from supervisor.client import Client
client = Client(pathlib.Path(sys.argv[1]))
print(client.call("lease", model="m")["lease"]["launch"], flush=True)
sys.stdin.read()
"""


def test_a_ready_model_grants_at_once(supervisor: Supervisor) -> None:
    model = supervisor.load("m")
    grant = supervisor.lease("m").grant()
    address = f"unix:{supervisor.runtime}/{model['launch']}.sock"
    which = {"model": "m", "instance": "m", "launch": model["launch"], "address": address}
    assert grant == {**which, "backend": "command"}
    assert Path(address.removeprefix("unix:")).is_socket()


def test_a_grant_says_what_the_preset_changes_in_bodies(supervisor: Supervisor) -> None:
    changes = {"set": {"temperature": 0.2, "stop": ["x"]}, "remove": ["user"]}
    launch = supervisor.load("m", max_concurrency=2, request=changes)["launch"]
    assert supervisor.lease("m").grant()["request"] == changes
    supervisor.add("m", max_concurrency=2, request={"remove": ["n"]})
    grant = supervisor.lease("m").grant()
    assert (grant["request"], grant["launch"]) == ({"set": {}, "remove": ["n"]}, launch)


def test_an_address_with_a_port(supervisor: Supervisor) -> None:
    supervisor.load("m", "listen={port}", "notify=READY=1", "serve")
    assert supervisor.lease("m").grant()["address"].startswith("tcp:127.0.0.1:")


def test_a_lease_loads_its_model_and_waits(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, *READY, aliases=["also m"], max_concurrency=2)
    leases = [supervisor.lease("m"), supervisor.lease("also m")]
    visitor = gate.visitor()
    assert supervisor.model("m")["waiting"] == 2
    assert not any(lease.answered for lease in leases)
    visitor.go()
    assert [lease.grant()["model"] for lease in leases] == ["m", "m"]
    assert not gate.visited
    model = supervisor.model("m")
    assert (model["waiting"], model["in_flight"]) == (0, 2)


def test_no_more_than_its_concurrency_oldest_first(supervisor: Supervisor) -> None:
    supervisor.load("m", max_concurrency=2)
    leases = []
    for _ in range(6):
        leases.append(supervisor.lease("m"))
        supervisor.status()
    for turn in range(5):
        leases[turn + 1].grant() if turn else [lease.grant() for lease in leases[:2]]
        assert [lease.answered for lease in leases[turn + 2 :]] == [False] * (4 - turn)
        assert supervisor.model("m")["in_flight"] == 2
        leases[turn].close()


def test_a_figure_of_what_was_served(supervisor: Supervisor) -> None:
    supervisor.load("m")
    lease = supervisor.lease("m")
    lease.grant()
    lease.release()
    supervisor.eventually(lambda: supervisor.model("m")["served"] == 1, "one request is counted")
    broken = supervisor.lease("m")
    broken.grant()
    broken.close()
    supervisor.eventually(lambda: supervisor.model("m")["in_flight"] == 0, "the lease is free")
    assert supervisor.model("m")["served"] == 1


def test_who_hangs_up_no_longer_waits(supervisor: Supervisor) -> None:
    supervisor.load("m")
    holder = supervisor.lease("m")
    holder.grant()
    gone, stays = supervisor.lease("m"), supervisor.lease("m")
    supervisor.eventually(lambda: supervisor.model("m")["waiting"] == 2, "both wait")
    gone.close()
    supervisor.eventually(lambda: supervisor.model("m")["waiting"] == 1, "one is gone")
    holder.release()
    stays.grant()
    assert supervisor.model("m")["in_flight"] == 1


def test_a_lease_withdrawn_while_its_model_loads(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, *READY)
    lease = supervisor.lease("m")
    visitor = gate.visitor()
    lease.close()
    visitor.go()
    supervisor.watch("m").state("ready")
    model = supervisor.model("m")
    assert (model["in_flight"], model["waiting"]) == (0, 0)


def test_a_lease_withdrawn_by_release(supervisor: Supervisor) -> None:
    supervisor.add("m", supervisor.gate("loading").step)
    lease = supervisor.lease("m")
    supervisor.gate("loading").visitor()
    lease.release()
    supervisor.eventually(lambda: supervisor.model("m")["waiting"] == 0, "nobody waits")


def test_a_lease_dies_with_the_process_that_holds_it(supervisor: Supervisor) -> None:
    supervisor.load("m")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(supervisor.runtime)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        waiting = supervisor.lease("m")
        supervisor.status()
        assert not waiting.answered
        holder.send_signal(signal.SIGKILL)
        waiting.grant()
        holder.wait(DEADLINE)
    assert supervisor.model("m")["in_flight"] == 1


def test_patience_has_an_end(supervisor: Supervisor) -> None:
    supervisor.load("m")
    holder = supervisor.lease("m")
    holder.grant()
    with refused() as errors:
        supervisor.lease("m", timeout=0.05).grant()
    assert (errors[0].status, str(errors[0])) == (503, "model 'm' was not available within 0.05 s")
    holder.release()
    supervisor.lease("m", timeout=0.05).grant()


def test_patience_covers_the_load(supervisor: Supervisor) -> None:
    supervisor.add("m", supervisor.gate("loading").step)
    with refused() as errors:
        supervisor.lease("m", timeout=0.05).grant()
    assert errors[0].status == 503


def test_a_launch_that_just_broke_is_avoided_until_it_is_known_to_be_dead(supervisor: Supervisor) -> None:
    gate = supervisor.gate("serving")
    first = supervisor.load("m", "listen={socket}", "notify=READY=1", gate.step, "exit=1", restart={"delay": "1ms"})
    lease = supervisor.lease("m", avoid=first["launch"])
    supervisor.status()
    assert not lease.answered
    gate.visitor().go()
    assert lease.grant()["launch"] != first["launch"]


def test_a_launch_that_lives_on_is_granted_after_all(supervisor: Supervisor) -> None:
    first = supervisor.load("m")
    lease = supervisor.lease("m", avoid=first["launch"])
    other = supervisor.lease("m")
    assert other.grant()["launch"] == first["launch"]
    assert not lease.answered
    other.release()
    assert lease.grant()["launch"] == first["launch"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("nobody", "model 'nobody' not found"), ("", "model name is missing"), (None, "model name is missing")],
)
def test_unknown_models(supervisor: Supervisor, name: str | None, message: str) -> None:
    with refused() as errors:
        supervisor.lease(name).grant()
    assert (errors[0].status, errors[0].error_type) == (400, "invalid_request_error")
    assert message in str(errors[0])


def test_without_autoload_only_what_is_loaded(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, *READY)
    with refused() as errors:
        supervisor.lease("m", autoload=False).grant()
    assert (errors[0].status, str(errors[0])) == (400, "model is not loaded")
    supervisor.call("load", model="m")
    visitor = gate.visitor()
    lease = supervisor.lease("m", autoload=False)
    visitor.go()
    lease.grant()


def test_without_autoload_by_configuration(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(config="autoload: false\n").start()
    supervisor.add("m")
    with refused() as errors:
        supervisor.lease("m").grant()
    assert str(errors[0]) == "model is not loaded"
    assert supervisor.lease("m", autoload=True).grant()["model"] == "m"


def test_those_who_wait_for_a_failing_load_are_told_why(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, "say=no such file: weights.gguf", "exit=66")
    leases = [supervisor.lease("m") for _ in range(3)]
    gate.visitor().go()
    for lease in leases:
        with refused() as errors:
            lease.grant()
        assert errors[0].status == 500
        assert "failed to load" in str(errors[0])
        assert "no such file: weights.gguf" in str(errors[0])
    with refused() as errors:
        supervisor.lease("m").grant()
    assert errors[0].status == 503
    assert "has failed" in str(errors[0])


def test_those_who_wait_outlast_a_restart(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, "listen={socket}", "notify=READY=1", gate.step, "serve")
    leases = [supervisor.lease("m"), supervisor.lease("m")]
    supervisor.kill(gate.visitor().pid, signal.SIGKILL)
    gate.visitor().go()
    granted = leases[0].grant()
    supervisor.kill(gate.visitor().pid, signal.SIGKILL)
    gate.visitor().go()
    assert leases[1].grant()["launch"] > granted["launch"]
    leases[0].release()
    supervisor.status()
    assert supervisor.model("m")["in_flight"] == 1


def test_an_unload_waits_for_running_requests(supervisor: Supervisor) -> None:
    model = supervisor.load("m", stop_timeout="1min", max_concurrency=2)
    leases = [supervisor.lease("m"), supervisor.lease("m")]
    for lease in leases:
        lease.grant()
    unloading = supervisor.client()
    unloading._send({"op": "unload", "model": "m", "wait": True})
    supervisor.watch("m").text("draining")
    leases[0].release()
    late = supervisor.lease("m")
    model = supervisor.model("m")
    assert (model["state"], model["draining"], model["in_flight"], model["waiting"]) == ("ready", True, 1, 1)
    leases[1].release()
    assert unloading._receive()["model"]["reason"]["kind"] == "requested"
    assert late.grant()["launch"] > model["launch"]


def test_an_unload_does_not_wait_for_ever(supervisor: Supervisor) -> None:
    supervisor.load("m", stop_timeout="100ms")
    lease = supervisor.lease("m")
    lease.grant()
    stopped = supervisor.call("unload", model="m", wait=True)["model"]
    assert (stopped["state"], stopped["in_flight"]) == ("stopped", 0)
    lease.release()
    assert lease.client.call("lease", model="m")["lease"]["launch"] > stopped["served"]


def test_an_unload_kills_a_load_and_refuses_those_who_wait(supervisor: Supervisor) -> None:
    gate = supervisor.gate("loading")
    supervisor.add("m", gate.step, "serve")
    lease = supervisor.lease("m")
    visitor = gate.visitor()
    assert supervisor.call("unload", model="m", wait=True)["model"]["state"] == "stopped"
    visitor.gone()
    with refused() as errors:
        lease.grant()
    assert (errors[0].status, "unloaded on request" in str(errors[0])) == (503, True)


def test_operators_are_answered(supervisor: Supervisor) -> None:
    with refused() as errors:
        supervisor.call("load", model="nobody")
    assert errors[0].status == 404
    supervisor.load("m")
    with refused() as errors:
        supervisor.call("load", model="m", strict=True)
    assert str(errors[0]) == "model is already running"
    assert supervisor.call("load", model="m", wait=True)["model"]["state"] == "ready"
    supervisor.call("unload", model="m", wait=True)
    with refused() as errors:
        supervisor.call("unload", model="m", strict=True)
    assert str(errors[0]) == "model is not running"
    assert supervisor.call("unload", model="m", wait=True)["model"]["state"] == "stopped"


def test_sockets_of_ended_launches_are_removed(supervisor: Supervisor) -> None:
    supervisor.load("m")
    sockets = set(os.listdir(supervisor.runtime))  # noqa: PTH208
    supervisor.call("unload", model="m", wait=True)
    assert len(sockets - set(os.listdir(supervisor.runtime))) == 1  # noqa: PTH208
