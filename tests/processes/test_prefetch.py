"""The next model's files are read while running requests keep it from its room, by a process that nobody waits for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from forking_supervisor import tiny, weights
from harness import Lease, Supervisor
from observed import Visitor, comes_to_be_cached, dropped_from_cache

# A reader that never gets anywhere, as of a network that is gone: it tells what it is given, and waits.
HANGS = """
import os, socket
from supervisor import prefetching
def hang(files):
    with open(os.environ["HEARD"], "w") as heard:
        print(*files, os.nice(0), file=heard)
    gate = socket.socket(socket.AF_UNIX)
    gate.connect(os.environ["GATE"])
    gate.send(str(os.getpid()).encode())
    gate.recv(1)
prefetching.fill = hang
"""
TINY = "import supervisor.backends.llama_cpp_python as b; b.MODULE = 'tiny_server'\n"
CONFIG = "max_wait: 50ms\n"


class Draining:
    """`a` serves a request and drains for one that waits for `b`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.watch = supervisor.watch()
        self.running = supervisor.lease("a")
        self.running.grant()
        self.waiting: Lease = supervisor.lease("b")
        self.watch.text("draining: evicted for b")


@pytest.fixture
def supervisor(supervisors: Callable[..., Supervisor]) -> Supervisor:
    """One whose reader hangs at the gate "reader"."""
    made = supervisors(config=CONFIG, max_models=1, prefix=TINY + HANGS)
    made.env = {
        "PYTHONPATH": str(Path(__file__).parent),
        "GATE": str(made.gate("reader").path),
        "HEARD": f"{made.directory}/heard",
    }
    made.add("a")
    tiny(made, "b")
    return made.start()


def reader(supervisor: Supervisor) -> Visitor:
    return supervisor.gate("reader").visitor()


def heard(supervisor: Supervisor) -> str:
    return (supervisor.directory / "heard").read_text()


def test_it_lives_until_the_model_is_launched(supervisor: Supervisor) -> None:
    draining = Draining(supervisor)
    visitor = reader(supervisor)
    assert heard(supervisor) == f"{weights(supervisor)} {min(19, os.nice(0) + 10)}\n"
    assert not draining.waiting.answered and visitor.alive
    draining.running.release()
    draining.waiting.grant()
    visitor.gone()
    assert not supervisor.gate("reader").visited


def test_it_ends_with_the_client_that_waits(supervisor: Supervisor) -> None:
    draining = Draining(supervisor)
    visitor = reader(supervisor)
    draining.waiting.close()
    draining.watch.text("keeps running")
    visitor.gone()


def test_a_reload_with_another_file(supervisor: Supervisor) -> None:
    Draining(supervisor)
    visitor = reader(supervisor)
    other = supervisor.directory / "other-00001-of-00002.gguf"
    other.write_bytes(Path(weights(supervisor)).read_bytes())
    tiny(supervisor, "b", model=str(other))
    visitor.gone()
    following = reader(supervisor)
    assert heard(supervisor).split()[:2] == [str(other), str(other).replace("-00001-", "-00002-")]
    tiny(supervisor, "b", model=str(other), idle_timeout="1h")
    assert following.alive and not supervisor.gate("reader").visited


def test_a_killed_reader_is_nothing_to_wait_for(supervisor: Supervisor) -> None:
    draining = Draining(supervisor)
    visitor = reader(supervisor)
    supervisor.kill(visitor.pid, signal.SIGKILL)
    visitor.gone()
    draining.running.release()
    draining.waiting.grant()
    assert not supervisor.gate("reader").visited


def test_it_ends_with_the_supervisor(supervisor: Supervisor) -> None:
    draining = Draining(supervisor)
    visitor = reader(supervisor)
    assert supervisor.process is not None
    supervisor.process.terminate()
    visitor.gone()
    draining.running.release()
    assert supervisor.wait() == 0


def test_it_ends_with_a_killed_supervisor(supervisor: Supervisor) -> None:
    Draining(supervisor)
    visitor = reader(supervisor)
    supervisor.expected = -signal.SIGKILL
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    visitor.gone()


def test_another_program_begins_anew(supervisor: Supervisor) -> None:
    draining = Draining(supervisor)
    visitor = reader(supervisor)
    supervisor.eventually(lambda: supervisor.status()["web"]["state"] == "ready", "it could be replaced")
    supervisor.call("reexec")
    visitor.gone()
    following = reader(supervisor)
    draining.running.release()
    draining.waiting.grant()
    following.gone()


def test_without_processes_the_server_reads_by_itself(supervisors: Callable[..., Supervisor]) -> None:
    refuses = (
        "from supervisor import prefetching\ndef no(work): raise BlockingIOError(11, 'no')\nprefetching.Forked = no\n"
    )
    supervisor = supervisors(config=CONFIG, max_models=1, prefix=TINY + refuses)
    supervisor.env = {"PYTHONPATH": str(Path(__file__).parent)}
    supervisor.add("a")
    tiny(supervisor, "b")
    supervisor.start()
    draining = Draining(supervisor)
    draining.running.release()
    draining.waiting.grant()


def test_the_file_is_cached_by_the_end_of_the_drain(supervisors: Callable[..., Supervisor]) -> None:
    supervisor = supervisors(config=CONFIG, max_models=1, prefix=TINY)
    supervisor.env = {"PYTHONPATH": str(Path(__file__).parent)}
    model = Path(weights(supervisor))
    with model.open("ab") as file:
        file.write(os.urandom(2**20) * 64)
    supervisor.add("a")
    supervisor.write("b", {"models": {"b": {"model": str(model)}}})
    supervisor.start()
    dropped_from_cache(model)
    draining = Draining(supervisor)
    comes_to_be_cached(model)
    assert not draining.waiting.answered
