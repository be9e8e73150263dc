"""What `status` and `queue` print of waiting requests, replicas and memory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fake_control import FakeControl, failed, invoke, model, replica, status
from harness import Supervisor

from supervisor.protocol import Message

GIB = 1024**3
ESTIMATED = {
    "need": {"host": 4 * GIB, "gpu0": 9 * GIB},
    "source": "estimated",
    "parts": "weights 4.6 GiB, KV cache 1.0 GiB",
    "used": {},
}


def row(tmp_path: Path, **fields: Any) -> str:
    """A model's line in the table of `status`."""
    with FakeControl(tmp_path, status=status(model(since=time.time(), **fields))):
        return " ".join(invoke(tmp_path, "status").stdout.splitlines()[-1].split())


def waiter(model: str, seconds: float, **fields: Any) -> Message:
    """A request in the queue."""
    facts = {"model": model, "who": "192.0.2.7 curl/8.5", "since": time.time() - seconds, "why": "room is made by a"}
    return facts | fields


def waited_for(name: str, count: int, seconds: float, why: str | None = "room is made by a") -> Message:
    """A stopped model for which requests wait."""
    since = time.time() - seconds
    return model(name, state="stopped", pid=None, waiting=count, waiting_since=since, waiting_for=why)


@pytest.mark.parametrize(
    ("memory", "shown"),
    [
        (None, "-"),
        ({"need": {}, "source": "unknown", "parts": "", "used": {}}, "-"),
        ({"need": {"host": 3 * GIB}, "source": "measured", "parts": "", "used": {}}, "3.0 GiB"),
        ({"need": {"host": 3 * GIB}, "source": "declared", "parts": "", "used": {"host": 2 * GIB}}, "2.0 GiB"),
        (ESTIMATED, "~4.0 GiB, gpu0 9.0 GiB"),
        (ESTIMATED | {"used": {"gpu0": GIB}}, "gpu0 1.0 GiB"),
    ],
)
def test_status_shows_what_is_used_else_what_is_needed(tmp_path: Path, memory: Message | None, shown: str) -> None:
    assert row(tmp_path, memory=memory) == f"qwen ready 0s 0 0 {shown} 0 4712"


def test_status_shows_the_budget_of_each_device(tmp_path: Path) -> None:
    memory = {"budget": {"host": 21 * GIB, "gpu0": 24 * GIB}, "planned": {"host": 3 * GIB, "gpu1": GIB}}
    with FakeControl(tmp_path, status=status(memory=memory, max_models=4)):
        lines = invoke(tmp_path, "status").stdout.splitlines()
    told = "memory: 3.0 GiB of 21 GiB planned; gpu0: 0 B of 24 GiB planned; gpu1: 1.0 GiB planned"
    assert lines[2] == f"max_models: 4; {told}"


def test_status_without_a_limit_says_so(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(memory={"budget": {}, "planned": {}}, max_models=0)):
        assert invoke(tmp_path, "status").stdout.splitlines()[2] == "max_models: no limit"


@pytest.mark.parametrize(
    ("fields", "replicas", "state", "pid"),
    [
        ({}, [replica()], "ready", "4712"),
        ({}, [replica(), replica("qwen#2", pid=4713)], "ready 2/2", "4712 +1"),
        ({}, [replica(), replica("qwen#2", state="failed", pid=None)], "ready 1/2", "4712"),
        (
            {},
            [replica(), replica("qwen#2", draining=True), replica("qwen#3", state="starting")],
            "ready 1/3",
            "4712 +2",
        ),
        ({"draining": True}, [replica(draining=True)] * 2, "ready, draining", "4712 +1"),
        ({"state": "starting", "progress": 0.5}, [replica(state="starting")] * 2, "starting 50%", "4712 +1"),
        ({"state": "stopped", "pid": None}, [replica(state="stopped", pid=None)] * 3, "stopped", "-"),
    ],
)
def test_status_counts_replicas(
    tmp_path: Path, fields: dict[str, Any], replicas: list[Message], state: str, pid: str
) -> None:
    assert row(tmp_path, replicas=replicas, **fields) == f"qwen {state} 0s 0 0 - 0 {pid}"


def test_status_says_why_requests_wait(tmp_path: Path) -> None:
    models = (
        model("a"),
        waited_for("b", 3, 12),
        waited_for("c", 1, 3600, "it is loading"),
        waited_for("d", 2, 1, None),
    )
    with FakeControl(tmp_path, status=status(*models)):
        lines = invoke(tmp_path, "status").stdout.splitlines()
    assert lines[-4:] == [
        "",
        "c: 1 request waits for 1h: it is loading",
        "b: 3 requests wait, the oldest for 12s: room is made by a",
        "d: 2 requests wait, the oldest for 1s",
    ]


def test_status_tells_of_ten_queues_and_how_many_more(tmp_path: Path) -> None:
    models = [waited_for(f"m{number:04}", 1, 5000 - number) for number in range(1000)]
    with FakeControl(tmp_path, status=status(*models)):
        lines = invoke(tmp_path, "status").stdout.splitlines()
    assert [line[:5] for line in lines[-11:-1]] == [f"m{number:04}" for number in range(10)]
    assert lines[-1] == "and 990 more models; llama-router queue shows the requests"


def test_status_of_a_model_shows_its_replicas_and_memory(tmp_path: Path) -> None:
    replicas = [
        replica(in_flight=1, restarts=2, since=time.time() - 61),
        replica("qwen#2", state="backoff", pid=None, next_start=0.0, reason=failed()["reason"]),
    ]
    waits = {"waiting": 1, "waiting_since": time.time() - 5, "waiting_for": "its only slot is in use"}
    shown = model(replicas=replicas, memory=ESTIMATED | {"used": {"host": 3 * GIB}}, **waits)
    with FakeControl(tmp_path, status=status(shown)):
        lines = invoke(tmp_path, "status", "qwen").stdout.splitlines()
    assert lines[1].startswith("     State: ready 1/2, since ")
    assert "   Waiting: 1 request waits for 5s: its only slot is in use" in lines
    parts = "estimated: weights 4.6 GiB, KV cache 1.0 GiB"
    assert f"    Memory: uses 3.0 GiB of host; needs 9.0 GiB of gpu0, 4.0 GiB of host ({parts})" in lines
    assert not [line for line in lines if "PID: " in line]
    assert [line.split() for line in lines[-3:-1]] == [
        ["REPLICA", "STATE", "SINCE", "IN", "FLIGHT", "RESTARTS", "PID"],
        ["qwen", "ready", "1min", "1", "2", "4712"],
    ]
    assert lines[-1].startswith("    qwen#2   backoff, starts again in 0s: exited with code 65  ")


def test_status_of_a_model_with_one_replica_has_no_table(tmp_path: Path) -> None:
    unknown = {"need": {}, "source": "unknown", "parts": "", "used": {}}
    with FakeControl(tmp_path, status=status(model(replicas=[replica()], memory=unknown))):
        lines = invoke(tmp_path, "status", "qwen").stdout.splitlines()
    assert "       PID: 4712 (launch 18)" in lines
    assert "    Memory: its need is not known" in lines
    assert "REPLICA" not in "".join(lines)


def test_queue_shows_who_waits_for_what_and_why(tmp_path: Path) -> None:
    queue = [waiter("b", 61), waiter("other", 0, who=None, why="it is loading")]
    models = (waited_for("b", 1, 61), waited_for("other", 1, 0))
    with FakeControl(tmp_path, status=status(*models, queue=queue)):
        result = invoke(tmp_path, "queue")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "WAITS  MODEL  WHO                 WHY",
        "1min   b      192.0.2.7 curl/8.5  room is made by a",
        "0s     other  -                   it is loading",
    ]


def test_queue_counts_those_it_does_not_show(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(waited_for("b", 512, 9), queue=[waiter("b", 9)] * 200)):
        lines = invoke(tmp_path, "queue").stdout.splitlines()
        told = json.loads(invoke(tmp_path, "queue", "--json").stdout)
    assert (len(lines), lines[-1]) == (202, "and 312 more")
    assert (told["waiting"], len(told["queue"])) == (512, 200)
    assert set(told["queue"][0]) == {"model", "who", "since", "why"}


def test_an_empty_queue(tmp_path: Path) -> None:
    with FakeControl(tmp_path, status=status(model())):
        result = invoke(tmp_path, "queue")
        told = json.loads(invoke(tmp_path, "queue", "--json").stdout)
    assert (result.stdout, result.exit_code) == ("no request waits\n", 0)
    assert told == {"waiting": 0, "queue": []}


@pytest.mark.parametrize(
    "fields",
    [
        {"memory": 3},
        {"memory": {"budget": {"host": "much"}, "planned": {}}},
        {"memory": {"budget": {"host": -1}, "planned": {}}},
        {"memory": {"budget": {}, "planned": {"host": 10**400}}},
        {"queue": {}},
        {"queue": [{"model": "b"}]},
        {"queue": [waiter("b", 1, why=None)]},
        {"models": [model(replicas=[{}])]},
        {"models": [model(memory={"need": {}})]},
        {"models": [model(waiting_since="yesterday")]},
    ],
)
@pytest.mark.parametrize("command", ["status", "queue"])
def test_mistyped_facts_are_the_protocols_fault(tmp_path: Path, command: str, fields: dict[str, Any]) -> None:
    with FakeControl(tmp_path, status=status(**fields)):
        result = invoke(tmp_path, command)
    assert (result.exit_code, result.stdout) == (76, "")


def test_a_real_supervisor_tells_who_waits_for_what_and_why(supervisors: type[Supervisor]) -> None:
    supervisor = supervisors(max_models=1)
    supervisor.add("a", max_concurrency=1)
    supervisor.add("b", replicas=2, memory={"host": "1KiB"})
    supervisor.start()
    supervisor.lease("a").grant()
    waiting = supervisor.lease("b", who="192.0.2.7 curl/8.5")
    supervisor.eventually(lambda: supervisor.model("b")["waiting"] == 1, "it waits")
    shown = invoke(supervisor.runtime, "queue").stdout.splitlines()[1]
    assert shown.split(maxsplit=1)[1] == "b      192.0.2.7 curl/8.5  max_models is 1, and in use by a"
    lines = invoke(supervisor.runtime, "status").stdout.splitlines()
    assert lines[2].startswith("max_models: 1; memory: ") and lines[2].endswith(" planned")
    assert lines[-1].startswith("b: 1 request waits for ") and lines[-1].endswith("s: max_models is 1, and in use by a")
    assert not waiting.answered
    watch = supervisor.watch("b")
    supervisor.call("unload", model="a")
    waiting.grant()
    assert watch.text("b#2: ready after")["instance"] == "b#2"
    assert [event["instance"] for event in watch.seen if event["text"].startswith("b: ready after")] == ["b"]
    told = invoke(supervisor.runtime, "status", "b").stdout
    assert "State: ready 2/2, since " in told
    assert [line.split()[:2] for line in told.splitlines()[-2:]] == [["b", "ready"], ["b#2", "ready"]]
