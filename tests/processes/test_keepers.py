"""A model that made room is forked from a process that kept its vocabulary; nothing depends on that."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forking_supervisor import HERE, Start, is_forked, ready, says
from harness import QUICK, READY, Supervisor
from made_gguf import make
from observed import Process, children, command_lines
from test_forked_servers import described

QUICKLY = "import supervisor.fork_requests as f; f.FORK_SECONDS = 0.3\n"
IMPATIENTLY = "import supervisor.keepers as k; k.READ_SECONDS = 2.0\n"
Swapping = Callable[..., Supervisor]


@pytest.fixture
def swapping(supervisors: Start) -> Swapping:
    """Makes running supervisors that hold one model, whose llama-cpp-python is the tiny server."""

    def start(prefix: str = "", config: str = "", until: str = "STATUS=") -> Supervisor:
        program = f"import supervisor.backends.llama_cpp_python as b; b.MODULE = 'tiny_server'\n{prefix}"
        supervisor = supervisors(env={"PYTHONPATH": str(HERE)}, prefix=program, max_models=1, config=config)
        model(supervisor, "m")
        model(supervisor, "n")
        supervisor.start(until)
        ready(supervisor)
        return supervisor

    return start


def model(supervisor: Supervisor, name: str, *steps: str, keep: tuple[str, ...] = (), **keys: Any) -> None:
    """Write a preset with a file of its own, whose keeper takes the steps of `keep`."""
    weights = make(supervisor.directory / f"{name}.gguf")
    options = {"steps": ["tell", *(steps or READY)], "keep": list(keep)}
    preset = {"model": weights, "stop_timeout": "300ms", "restart": QUICK, **keys, "options": options}
    supervisor.write(name, {"models": {name: preset}})
    if supervisor.process is not None:
        supervisor.call("reload")


def use(supervisor: Supervisor, name: str) -> int:
    """Load a model, which evicts the other; returns its server's pid."""
    pid: int = supervisor.call("load", model=name, wait=True)["model"]["pid"]
    return pid


def keepers(supervisor: Supervisor) -> dict[str, int]:
    """By name of the model, their pids."""
    found = re.compile(rb"llama-router: vocabulary of (\w+)")
    matches = {pid: found.match(line) for pid, line in command_lines(supervisor.pid).items()}
    return {match[1].decode(): pid for pid, match in matches.items() if match}


def kept(supervisor: Supervisor, name: str = "m", times: int = 1) -> int:
    """Have a model kept, and the other one loaded; returns the keeper's pid."""
    use(supervisor, name)
    use(supervisor, "n")
    says(supervisor, f"the vocabulary of {name} is kept", times)
    return keepers(supervisor)[name]


def gone(supervisor: Supervisor, *names: str) -> None:
    supervisor.eventually(lambda: not keepers(supervisor).keys() & set(names), f"{names} are kept no more")
    supervisor.eventually(lambda: "Z" not in children(supervisor.pid).values(), "no zombie is left")


def last_told(supervisor: Supervisor, name: str = "m") -> str:
    line: str = supervisor.logs(name)[-1]
    return line


def test_what_was_evicted_is_forked_by_its_keeper(swapping: Swapping) -> None:
    supervisor = swapping()
    pid = kept(supervisor)
    assert last_told(supervisor) == "nothing"
    for _ in range(2):
        assert is_forked(use(supervisor, "m"))
        assert last_told(supervisor) == f"kept by {pid}"
        use(supervisor, "n")
    assert keepers(supervisor).keys() == {"m", "n"}
    assert supervisor.log.read_text().count("the vocabulary of m is kept") == 1


def test_what_was_unloaded_or_made_no_room_is_not_kept(swapping: Swapping) -> None:
    supervisor = swapping()
    use(supervisor, "m")
    supervisor.call("unload", model="m", wait=True)
    use(supervisor, "n")
    use(supervisor, "m")
    says(supervisor, "the vocabulary of n is kept")
    assert keepers(supervisor).keys() == {"n"}


def test_it_is_given_what_other_servers_are(swapping: Swapping) -> None:
    supervisor = swapping()
    for number in "01":
        model(supervisor, "m", f"describe={supervisor.directory}/{number}.told", *READY, env={"OVER": "ü"})
        if number == "1":
            kept(supervisor)
        use(supervisor, "m")
        use(supervisor, "n")
    first, second = described(supervisor, "0"), described(supervisor, "1")
    assert last_told(supervisor).startswith("kept")
    for told in (first, second):
        assert told["env"].pop("LLAMA_ROUTER_LAUNCH").isdecimal()
        assert told["descriptors"].pop(1) == told["descriptors"].pop(2)
    assert first == second


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_without_its_keeper_the_forkserver_forks_it(swapping: Swapping, end: str) -> None:
    supervisor = swapping(QUICKLY)
    pid = kept(supervisor)
    supervisor.kill(pid, signal.SIGKILL if end == "killed" else signal.SIGSTOP)
    if end == "killed":
        gone(supervisor, "m")
    assert is_forked(use(supervisor, "m"))
    assert last_told(supervisor) == "nothing"
    why = "its process killed by SIGKILL" if end == "killed" else "it did not fork within 300ms"
    says(supervisor, f"the vocabulary of m is not kept: {why}")
    gone(supervisor, "m")
    use(supervisor, "n")
    says(supervisor, "the vocabulary of m is kept", times=2)


def test_without_the_forkserver_too(swapping: Swapping) -> None:
    supervisor = swapping(f"{QUICKLY}import supervisor.forking as f; f.FIRST_DELAY = 3600.0\n")
    pid = kept(supervisor)
    forkserver = ready(supervisor)
    supervisor.kill(forkserver, signal.SIGKILL)
    says(supervisor, "forkserver killed")
    assert is_forked(use(supervisor, "m"))
    assert last_told(supervisor) == f"kept by {pid}"
    use(supervisor, "n")
    os.kill(pid, signal.SIGSTOP)
    assert not is_forked(use(supervisor, "m"))


def test_a_file_that_has_changed(swapping: Swapping) -> None:
    supervisor = swapping()
    kept(supervisor)
    (supervisor.directory / "changed").touch()
    assert is_forked(use(supervisor, "m"))
    assert last_told(supervisor) == "nothing"
    says(supervisor, "the vocabulary of m is not kept: it has changed")
    gone(supervisor, "m")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("fail=exit:no vocabulary here", "@forkserver [|] no vocabulary here"),
        ("thread", "cannot fork: keeping the vocabulary of m has started 1 threads"),
        ("kill=SEGV", "the vocabulary of m is not kept: its process killed by SIGSEGV"),
        ("pause", "the vocabulary of m is not kept: it was not read within 2s"),
    ],
)
def test_one_that_cannot_keep_is_tried_once(swapping: Swapping, step: str, told: str) -> None:
    supervisor = swapping(IMPATIENTLY)
    gate = supervisor.gate("kept")
    model(supervisor, "m", keep=(gate.step, step))
    use(supervisor, "m")
    use(supervisor, "n")
    visitor = gate.visitor()
    visitor.go()
    visitor.gone()
    says(supervisor, told)
    gone(supervisor, "m")
    use(supervisor, "m")
    use(supervisor, "n")
    use(supervisor, "m")
    assert last_told(supervisor) == "nothing"
    assert not gate.visited
    model(supervisor, "m")
    kept(supervisor)


def test_one_that_could_not_keep_is_tried_again_after_a_while(swapping: Swapping) -> None:
    supervisor = swapping("import supervisor.keepers as k; k.RETRY_SECONDS = 0.0\n")
    model(supervisor, "m", keep=("fail=exit:no vocabulary here",))
    for times in (1, 2):
        use(supervisor, "m")
        use(supervisor, "n")
        says(supervisor, "the vocabulary of m is not kept: its process exited with code 1", times)


def test_while_it_reads_the_forkserver_forks(swapping: Swapping) -> None:
    supervisor = swapping()
    gate = supervisor.gate("kept")
    model(supervisor, "m", keep=(gate.step,))
    use(supervisor, "m")
    use(supervisor, "n")
    visitor = gate.visitor()
    assert is_forked(use(supervisor, "m"))
    assert last_told(supervisor) == "nothing"
    use(supervisor, "n")
    visitor.go()
    says(supervisor, "the vocabulary of m is kept")
    assert not gate.visited


def test_one_is_read_after_the_other(swapping: Swapping) -> None:
    supervisor = swapping()
    gate = supervisor.gate("kept")
    model(supervisor, "m", keep=(gate.step,))
    for name in "mnm":
        use(supervisor, name)
    visitor = gate.visitor()
    assert "n" not in keepers(supervisor)
    visitor.go()
    says(supervisor, "the vocabulary of m is kept")
    says(supervisor, "the vocabulary of n is kept")


def test_they_stay_within_their_limit(swapping: Swapping) -> None:
    """The one used last stays, and one that is too large alone is read once."""
    supervisor = swapping(config="keep_vocabularies: 50MiB\n")
    model(supervisor, "m", keep=("hold=30",))
    model(supervisor, "n", keep=("hold=30",))
    model(supervisor, "o", keep=("hold=70",))
    kept(supervisor)
    use(supervisor, "m")
    says(supervisor, "the vocabulary of n is kept")
    gone(supervisor, "m")
    use(supervisor, "o")
    says(supervisor, "the vocabulary of m is kept", times=2)
    gone(supervisor, "n")
    use(supervisor, "n")
    says(supervisor, "the vocabulary of o is not kept: it takes [0-9.]+ MiB, and keep_vocabularies is 50")
    gone(supervisor, "o")
    assert keepers(supervisor).keys() == {"m"}
    use(supervisor, "o")
    says(supervisor, "the vocabulary of n is kept", times=2)
    gone(supervisor, "m")
    use(supervisor, "m")
    assert keepers(supervisor).keys() == {"n"}
    assert supervisor.log.read_text().count("the vocabulary of o is") == 1


@pytest.mark.parametrize("change", ["none kept", "removed"])
def test_a_reload_drops_what_is_not_wanted(swapping: Swapping, change: str) -> None:
    supervisor = swapping()
    kept(supervisor)
    if change == "removed":
        supervisor.remove("m")
    else:
        with supervisor.config.open("a") as config:
            config.write("keep_vocabularies: 0\n")
        supervisor.call("reload")
    gone(supervisor, "m")
    if change == "none kept":
        use(supervisor, "m")
        use(supervisor, "n")
        assert not keepers(supervisor)


def test_a_preset_that_goes_while_its_keeper_is_asked_for(swapping: Swapping) -> None:
    supervisor = swapping()
    forkserver = ready(supervisor)
    use(supervisor, "m")
    watch = supervisor.watch("m")
    supervisor.call("load", model="n")
    os.kill(forkserver, signal.SIGSTOP)
    watch.state("stopped")
    supervisor.remove("m")
    os.kill(forkserver, signal.SIGCONT)
    use(supervisor, "n")
    model(supervisor, "o")
    use(supervisor, "o")
    says(supervisor, "the vocabulary of n is kept")
    assert keepers(supervisor).keys() == {"n"}


def test_an_unload_while_it_is_asked(swapping: Swapping) -> None:
    supervisor = swapping()
    pid = kept(supervisor)
    os.kill(pid, signal.SIGSTOP)
    gate = supervisor.gate("never")
    model(supervisor, "m", gate.step)
    supervisor.call("load", model="m")
    supervisor.eventually(lambda: supervisor.model("m")["state"] == "starting", "it is to be forked")
    stopped = supervisor.call("unload", model="m", wait=True)["model"]
    assert (stopped["state"], stopped["reason"]["kind"]) == ("stopped", "requested")
    os.kill(pid, signal.SIGCONT)
    model(supervisor, "m")
    use(supervisor, "m")
    assert last_told(supervisor) == f"kept by {pid}"
    assert not gate.visited


def test_a_server_outlives_its_keeper(swapping: Swapping) -> None:
    supervisor = swapping()
    pid = kept(supervisor)
    server = use(supervisor, "m")
    supervisor.kill(pid, signal.SIGKILL)
    gone(supervisor, "m")
    assert supervisor.model("m")["pid"] == server
    assert Process(server).alive


def test_a_reexec_drops_them(swapping: Swapping) -> None:
    supervisor = swapping(until="READY=1")
    kept(supervisor)
    server = use(supervisor, "m")
    supervisor.call("reexec")
    gone(supervisor, "m", "n")
    assert supervisor.model("m")["pid"] == server
    ready(supervisor, times=2)
    kept(supervisor, times=2)


@pytest.mark.parametrize("reading", [False, True])
def test_they_die_with_the_supervisor(swapping: Swapping, reading: bool) -> None:
    supervisor = swapping()
    supervisor.expected = -signal.SIGKILL
    gate = supervisor.gate("kept")
    if reading:
        model(supervisor, "m", keep=(gate.step,))
        use(supervisor, "m")
        use(supervisor, "n")
        keeper = Process(gate.visitor().pid)
    else:
        keeper = Process(kept(supervisor))
    supervisor.kill(supervisor.pid, signal.SIGKILL)
    keeper.gone()


@pytest.mark.parametrize("reading", [False, True])
def test_they_end_when_it_stops(swapping: Swapping, reading: bool) -> None:
    supervisor = swapping()
    gate = supervisor.gate("kept")
    if reading:
        model(supervisor, "m", keep=(gate.step,))
        use(supervisor, "m")
        use(supervisor, "n")
        gate.visitor()
    else:
        kept(supervisor)
    assert supervisor.stop() == 0


def test_two_models_of_one_file_share_it(swapping: Swapping) -> None:
    supervisor = swapping()
    pid = kept(supervisor)
    weights = str(Path(supervisor.directory / "m.gguf"))
    options = {"steps": ["tell", *READY]}
    supervisor.write("twin", {"models": {"twin": {"model": weights, "options": options, "context": 512}}})
    supervisor.call("reload")
    use(supervisor, "twin")
    assert last_told(supervisor, "twin") == f"kept by {pid}"
