"""The machine's figures: of made-up clocks, of real processes and disks, and the page that shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gevent
import pytest
from fake_supervisor import FakeSupervisor, model, replica
from gevent.event import Event
from web_tier import DEADLINE, WebTier

from admin import machine
from admin.dashboard.system import model_files, processes, servers_of
from admin.machine import Process, Ticks
from admin.sharing import Shared
from supervisor.errors import NotRunning


def test_cores_between_two_looks() -> None:
    before = Ticks(0.0, [10.0, 5.0, 0.0], [20.0, 20.0, 1.0])
    after = Ticks(2.0, [11.0, 7.0, 0.0], [22.0, 22.0, 1.0])
    assert machine.cores(before, after) == [50.0, 100.0, 0.0]


def test_clocks_that_go_back_are_no_use() -> None:
    assert machine.cores(Ticks(0.0, [5.0], [10.0]), Ticks(1.0, [4.0], [11.0])) == [0.0]
    assert machine.process_percent(Ticks(1.0, [], [], {1: 2.0}), Ticks(1.0, [], [], {1: 3.0})) == {}


def test_processes_between_two_looks() -> None:
    before, after = Ticks(0.0, [], [], {1: 1.0, 2: 1.0}), Ticks(2.0, [], [], {1: 2.0, 3: 9.0})
    assert machine.process_percent(before, after) == {1: 50.0}


def test_this_machine() -> None:
    first = machine.ticks([os.getpid(), 2**30])
    second = machine.ticks([os.getpid()])
    assert len(machine.cores(first, second)) == os.cpu_count()
    assert set(first.processes) == {os.getpid()}
    memory = machine.memory()
    assert 0 < memory["available"] < memory["total"]


def test_a_family_of_processes() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        watched = machine.Processes()
        family = {process.pid: process for process in watched.below(os.getpid(), [])}
        assert (family[child.pid].parent, family[child.pid].command) == (os.getpid(), "cat")
        assert 0 < (family[child.pid].pss or 0) < 2**30
        skipped = {process.pid: process for process in watched.below(os.getpid(), [child.pid])}
        assert skipped[child.pid].pss is None
        assert child.stdin is not None
        child.stdin.close()
    assert child.pid not in {process.pid for process in watched.below(os.getpid(), [])}
    assert machine.Processes().below(2**30, []) == []


def test_secrets_of_command_lines_are_not_told() -> None:
    words = ["--api-key", "S3CRET", "Authorization: Bearer S3CRET", "postgres://u:S3CRET@h", "HF_TOKEN=S3CRET", "shown"]
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()  # the program runs, with the arguments it was given
        family = {process.pid: process for process in machine.Processes().below(os.getpid(), [])}
        child.stdin.close()
    assert family[child.pid].command.endswith("--api-key *** Authorization: *** postgres://u:***@h HF_TOKEN=*** shown")


def test_disks_of_folders_and_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    first.write_bytes(b"x" * 10)
    second.symlink_to(first)
    (disk,) = machine.disks(
        [str(tmp_path), "/no/such/folder"], [(str(first), None), (str(second), None), ("/no/such.gguf", 5)]
    )
    assert (disk["files"], disk["size"]) == (1, 10)
    assert 0 <= disk["free"] <= disk["total"]
    assert Path(disk["mount"]).is_mount()
    (shards,) = machine.disks([], [(str(first), 4096)])
    assert shards["size"] == 4096


def test_models_that_hold_nothing_are_not_counted(tmp_path: Path) -> None:
    whole, linked, empty, pipe = (tmp_path / name for name in ("whole", "linked", "empty", "pipe"))
    whole.write_bytes(b"x" * 10)
    linked.hardlink_to(whole)
    empty.touch()
    os.mkfifo(pipe)
    names = [str(path) for path in (whole, linked, empty, pipe, tmp_path)]
    (disk,) = machine.disks([], [(name, None) for name in names])
    assert (disk["files"], disk["size"]) == (1, 10)


def test_no_cards_without_a_driver() -> None:
    cards = machine.Cards()
    assert isinstance(cards.look(), list)
    assert cards.look() == cards.look()


def test_what_processes_are_for() -> None:
    two = [replica("b", pid=6), replica("b#2", pid=7)]
    answer = {
        "pid": 1,
        "web": {"pid": 2},
        "models": [
            model("a", pid=5, memory={"used": {"host": 1024**2}}),
            model("b", pid=6, replicas=two, memory={"used": {"host": 1024**3}}),
            model("c"),
        ],
    }
    assert servers_of(answer) == {5: ("a", 1024**2), 6: ("b", None), 7: ("b#2", None)}
    own = "python -m supervisor.cli"
    family = [
        *(Process(1, 0, own, 1, 1024), Process(2, 1, "gunicorn", 1, None), Process(3, 2, "gunicorn", 1, 2048)),
        *(Process(4, 1, "python -P -m supervisor.forkserver", 1, 4096), Process(5, 1, "x", 9, None)),
        *(Process(7, 1, "x", 9, None), Process(8, 1, "python -I -S /x/guard_program.py", 1, 512)),
        *(Process(10, 1, own, 1, 256), Process(11, 1, "sleep 7776", 1, 64)),
        Process(9, 1, "llama-router: vocabulary of a", 1, 2048),
    ]
    rows = processes(answer, family, {5: 99.6})
    names = ["supervisor", "web tier", "web worker", "forkserver", "a", "b#2", "guard"]
    names += ["supervisor's fork", "of a model", "vocabulary"]
    assert [row["name"] for row in rows] == names
    assert [row["memory"] for row in rows][4:6] == ["1.0 MiB", "–"]
    assert [row["cpu"] for row in rows][3:5] == ["–", "100 %"]


@pytest.mark.parametrize(
    "fact, files",
    [
        ({"args": ["x", "--model", "/a.gguf"], "meta": {"size": 7}}, [("/a.gguf", 7)]),
        ({"args": ["x", "-m", "/a.gguf"], "meta": None}, [("/a.gguf", None)]),
        ({"args": ["x", "--model", "relative.gguf"], "meta": None}, []),
        ({"args": ["x", "--model"]}, []),
        ({}, []),
    ],
)
def test_files_of_models(fact: dict[str, Any], files: list[tuple[str, int | None]]) -> None:
    assert model_files({"m": fact}) == files


def test_the_page(web: WebTier, supervisor: FakeSupervisor, tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"x" * 2048)
    supervisor.models = [model("m", state="ready", pid=os.getpid())]
    supervisor.told = {"m": {"args": ["x", "--model", str(file)], "meta": {"size": 2048}}}
    supervisor.facts = {
        **{"pid": os.getpid(), "revision": str(tmp_path), "models_dir": str(tmp_path)},
        "memory": {"budget": {"host": 2**30}, "planned": {"host": 2**20}},
    }
    for path in ("/ui/system", "/ui/system/now"):
        page = web.request("GET", path).body.decode()
        for words in (
            "Processor",
            "1.0 MiB of 1.0 GiB planned",
            "1 model file: 2.0 KiB",
            "llama-cpp-python",
            "Processes",
        ):
            assert words in page
        assert "gpu0" not in page or Path("/dev/nvidia0").exists()


def test_a_supervisor_that_is_another_users(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.facts = {"pid": 2**30, "revision": "none"}
    assert web.request("GET", "/ui/system").status == 200


def test_many_who_look_at_once_share_one_look(tmp_path: Path) -> None:
    """And keep nobody else waiting: what the page is made of takes as long as it likes."""
    fake = FakeSupervisor(tmp_path)
    fake.models = [model("m")]
    fake.facts = {"pid": os.getpid(), "revision": "none"}
    fake.start()
    tier = WebTier(tmp_path, constants={"admin.dashboard.system.SPAN_SECONDS": 1.0})
    tier.start()
    try:
        with ThreadPoolExecutor(100) as pool:
            looks = [pool.submit(tier.request, "GET", "/ui/system/now") for _ in range(100)]
            while not fake.of("status"):
                assert tier.request("GET", "/health").status == 200
            answers = [look.result() for look in looks]
        assert {answer.status for answer in answers} == {200}
        assert len(fake.of("status")) <= 1 + len({answer.body for answer in answers}) < 10
    finally:
        tier.close()
        fake.stop()


def test_what_fails_fails_for_all_who_ask_at_once_and_is_tried_again() -> None:
    calls: list[int] = []
    go_on = Event()

    def find() -> int:
        calls.append(len(calls))
        go_on.wait(DEADLINE)
        if len(calls) == 1:
            raise NotRunning("away")
        return len(calls)

    shared = Shared(find)
    asking = [gevent.spawn(outcome, shared) for _ in range(5)]
    gevent.sleep(0)  # each begins
    asking[0].kill()  # who asks first may leave
    go_on.set()
    assert [each.get(timeout=DEADLINE) for each in asking[1:]] == ["away"] * 4
    assert shared.get() == 2


def outcome(shared: Shared[int]) -> object:
    try:
        return shared.get()
    except NotRunning as error:
        return str(error)
