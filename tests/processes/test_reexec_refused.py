"""A new program that can't go on, or a moment at which it could not, changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Supervisor, refused
from last_moment import at_the_last_moment
from observed import Process

from supervisor.errors import NotRunning
from supervisor.protocol import Message

Start = Callable[..., Supervisor]
ON_TRIAL = "os.environ.get('LLAMA_ROUTER_HANDOVER', '').startswith('check')"


@pytest.fixture
def changing(supervisors: Start) -> Callable[..., Supervisor]:
    """A running supervisor whose programs run the Python in the file `new` first, if it is there."""

    def start(prefix: str = "") -> Supervisor:
        running = supervisors()
        new = str(running.directory / "new")
        running.prefix = f"import os\nif os.path.exists({new!r}): exec(open({new!r}).read())\n{prefix}"
        return running.start("READY=1")

    return start


def replace(running: Supervisor, program: str) -> Path:
    """From now on the program on the disk is another one."""
    new = running.directory / "new"
    new.write_text(program)
    return new


def goes_on(running: Supervisor, model: Message) -> None:
    """All is as it was, and serves."""
    assert running.model(model["name"])["pid"] == model["pid"]
    lease = running.lease(model["name"])
    assert lease.grant()["launch"] == model["launch"]
    lease.release()
    assert not running.status()["web_before"]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("print('it is broken'); raise SystemExit(1)", "the new program ended with 1: it is broken"),
        ("import nothing.of.the.kind", "ended with 1: .*ModuleNotFoundError: No module named 'nothing'"),
        ("os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
        ("raise SystemExit(0)", "the new program ended with 0: $"),
        ("os.write(1, b'can take over as llama-router 9'); os._exit(3)", "ended with 3: can take over"),
        ("os.fork() and os._exit(0); __import__('signal').pause()", "the new program ended with 0: $"),
        (
            "import supervisor.handover as h; h.VERSION = 2; h.__version__ = '9.1'",
            r"from llama-router 0\.1\.0: it hands over in format 1, and llama-router 9\.1 knows format 2",
        ),
        (
            "import supervisor.core.fleet_state as s, dataclasses as d\n"
            "s.Lease.__annotations__['more'] = int; s.Lease.more = 1; s.Lease = d.dataclass(s.Lease)",
            "it tells of more or of less than is known here of a fleet",
        ),
        (
            "import msgspec, supervisor.unix_socket as u\n"
            "class Bound(msgspec.Struct):\n    fd: int\n    path: str\n    identity: tuple[int, int]\nu.Bound = Bound",
            "Object missing required field `path`",
        ),
    ],
)
def test_a_program_that_cannot_go_on(changing: Callable[..., Supervisor], program: str, why: str) -> None:
    running = changing()
    model = running.load("a")
    held = running.lease("a")
    held.grant()
    replace(running, program)
    with refused() as caught:
        running.call("reexec")
    caught[0].args = (str(caught[0]).replace("\n", " "),)
    with pytest.raises(Exception, match=why):
        raise caught[0]
    held.release()
    goes_on(running, model)


def test_a_program_that_hangs_is_given_up(changing: Callable[..., Supervisor]) -> None:
    running = changing("import supervisor.reexec as r; r.CHECK_SECONDS = 0.5")
    model = running.load("a")
    replace(running, "__import__('signal').pause()")
    with refused() as caught:
        running.call("reexec")
    assert "the new program did not answer within 500ms" in str(caught[0])
    goes_on(running, model)


def test_a_program_that_is_gone_at_the_last_moment(supervisors: Start) -> None:
    running = supervisors(prefix=at_the_last_moment("path += '.gone'")).start("READY=1")
    model = running.load("a")
    for _ in range(2):
        with refused() as caught:
            running.call("reexec")
        assert "No such file or directory" in str(caught[0])
        goes_on(running, model)
    running.add("b")
    assert running.load("b")["state"] == "ready"


def test_two_at_once(changing: Callable[..., Supervisor]) -> None:
    running = changing()
    gate = running.gate("check")
    replace(running, gate_in_check(running))
    asker = running.client()
    asker._send({"op": "reexec"})
    visitor = gate.visitor()
    with refused() as caught:
        running.call("reexec")
    assert "another reexec is under way" in str(caught[0])
    assert running.load("a")["state"] == "ready", "it goes on meanwhile"
    visitor.go()
    assert "reexec" in asker._receive()
    assert running.model("a")["state"] == "ready"


def gate_in_check(running: Supervisor) -> str:
    path = str(running.directory / "check.gate")
    return (
        f"if {ON_TRIAL}:\n import socket; s = socket.socket(socket.AF_UNIX); s.connect({path!r})\n"
        " s.sendall(b'%d' % os.getpid()); s.recv(1)"
    )


def test_a_stop_meanwhile_counts(changing: Callable[..., Supervisor]) -> None:
    running = changing()
    gate = running.gate("check")
    replace(running, gate_in_check(running))
    asker, watch = running.client(), running.watch()
    asker._send({"op": "reexec"})
    visitor = gate.visitor()
    assert running.process is not None
    running.process.terminate()
    watch.text("stopping")
    assert running.wait() == 0
    visitor.gone()
    with pytest.raises(NotRunning):
        asker._receive()


def test_an_asker_that_hangs_up_changes_nothing(changing: Callable[..., Supervisor]) -> None:
    running = changing()
    gate = running.gate("check")
    new = replace(running, gate_in_check(running))
    asker, watch = running.client(), running.watch()
    asker._send({"op": "reexec"})
    visitor = gate.visitor()
    asker.close()
    visitor.go()
    watch.text("goes on in the place of")
    watch.text("@web: ready")
    new.unlink()
    assert "reexec" in running.call("reexec")


def test_a_program_on_trial_dies_with_the_supervisor(changing: Callable[..., Supervisor]) -> None:
    running = changing()
    gate = running.gate("check")
    replace(running, gate_in_check(running))
    asker = running.client()
    asker._send({"op": "reexec"})
    with Process(gate.visitor().pid) as trial:
        running.expected = -signal.SIGKILL
        running.kill(running.pid, signal.SIGKILL)
        trial.gone()


def test_while_its_web_tier_starts(supervisors: Start) -> None:
    running = supervisors()
    running.replace_web_tier("pause")
    running.start()
    with refused() as caught:
        running.call("reexec")
    assert "its web tier is starting" in str(caught[0])
