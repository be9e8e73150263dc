"""The log in files: which get what, how much they take, and what a disk that is full, gone or stuck costs."""

from __future__ import annotations

import os
import re
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import Supervisor
from observed import Process, children, command_lines

from supervisor.log_writer import Files

KEEP = 2**20
LINE = b"2026-11-23T01:02:03.004+00:00 m | a line like any other\n"
AT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "state" / "logs"


def sizes(logs: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in logs.iterdir()}


def writing(supervisors: Any, log: str = "directory: logs") -> tuple[Supervisor, Path]:
    """A supervisor that writes files beside its configuration."""
    supervisor: Supervisor = supervisors(config=f"log: {{{log}}}\n")
    return supervisor.start(), supervisor.directory / "logs"


def writer_of(supervisor: Supervisor) -> int:
    """The child that writes files: the only one of the supervisor's own command line that holds no pipe."""
    mine = Path(f"/proc/{supervisor.pid}/cmdline").read_bytes()
    for pid, line in command_lines(supervisor.pid).items():
        if line == mine:
            held = {str(path.readlink()).partition(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir()}
            if "socket" in held:
                return pid
    raise AssertionError("no process writes files")


def removed(logs: Path) -> bool:
    for path in logs.iterdir():
        path.unlink()
    with suppress(OSError):
        logs.rmdir()
    return not logs.exists()


def wait_for(supervisor: Supervisor, path: Path, text: str) -> str:
    supervisor.eventually(lambda: path.exists() and text in path.read_text(), f"{text!r} is in {path.name}")
    return path.read_text()


def test_a_file_for_each_model_and_one_of_the_supervisor(supervisors: Any) -> None:
    supervisor, logs = writing(supervisors)
    command = ["sh", "-c", "echo hello; printf '\\033[2J\\n'; exit 65", "{port}"]
    preset = {"backend": "command", "command": command}
    supervisor.write("two", {"models": {"org/../a%b": preset, "b": preset}})
    supervisor.call("reload")
    for name in ("org/../a%b", "b"):
        supervisor.call("load", model=name)
        supervisor.watch(name).state("failed")
    supervisor.stop()
    assert sizes(logs).keys() >= {"llama-router.log", "llama-router.org%2F..%2Fa%25b.log", "llama-router.b.log"}
    assert re.fullmatch(f"{AT} b \\| hello\n{AT} b \\| \ufffd\\[2J\n", (logs / "llama-router.b.log").read_text())
    own = (logs / "llama-router.log").read_text()
    assert re.search(f"^{AT} llama-router: b: failed: exited with code 65", own, re.MULTILINE)
    assert "b | hello" not in own
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in logs.iterdir()} == {0o600}


def test_nothing_said_before_the_end_is_missing(supervisors: Any) -> None:
    """Nor does anything remain of the process that writes, which the harness sees to."""
    supervisor, logs = writing(supervisors)
    supervisor.add("m", r"flood=3000:x\n", "say=the end", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    supervisor.stop()
    assert len((logs / "llama-router.m.log").read_text().splitlines()) == 3001
    assert (logs / "llama-router.log").read_text().rstrip().endswith("stopped: llama-router stopped")


def test_a_supervisor_that_is_killed_leaves_its_last_words_in_the_files(supervisors: Any) -> None:
    supervisor, logs = writing(supervisors)
    supervisor.expected = -signal.SIGKILL
    supervisor.load("m", "say=hello", "listen={socket}", "notify=READY=1", "serve")
    with Process(writer_of(supervisor)) as writer:
        supervisor.kill(supervisor.pid, signal.SIGKILL)
        writer.gone()
    assert "m: ready" in (logs / "llama-router.log").read_text()
    assert "hello" in (logs / "llama-router.m.log").read_text()


def test_files_by_themselves_only_where_nobody_else_keeps_a_word(supervisors: Any) -> None:
    supervisor = supervisors()
    with Path("/dev/null").open("w") as nowhere:
        supervisor.start(stderr=nowhere.fileno())
    wait_for(supervisor, supervisor.directory / "state" / "logs" / "llama-router.log", "starting")
    supervisor.stop()
    other = supervisors().start()
    other.stop()
    assert not (other.directory / "state" / "logs").exists()


def test_a_reload_begins_moves_and_ends_files(supervisors: Any) -> None:
    supervisor = supervisors().start()
    daemon = supervisor.config.read_text()
    for place in ("here", "there"):
        supervisor.config.write_text(f"{daemon}log: {{directory: {place}}}\n")
        supervisor.call("reload")
        supervisor.load(place)
        wait_for(supervisor, supervisor.directory / place / "llama-router.log", f"{place}: ready")
    assert "there: ready" not in (supervisor.directory / "here" / "llama-router.log").read_text()
    supervisor.config.write_text(daemon)
    supervisor.call("reload")
    supervisor.load("nowhere")
    supervisor.stop()
    assert "nowhere" not in (supervisor.directory / "there" / "llama-router.log").read_text()


def test_files_may_be_moved_and_removed_at_any_time(supervisors: Any) -> None:
    supervisor, logs = writing(supervisors)
    supervisor.load("a")
    wait_for(supervisor, logs / "llama-router.log", "a: ready")
    (logs / "llama-router.log").rename(logs / "rotated")
    supervisor.load("b")
    assert "a: ready" not in wait_for(supervisor, logs / "llama-router.log", "b: ready")
    supervisor.eventually(lambda: removed(logs), "no line comes between")
    supervisor.load("c")
    wait_for(supervisor, logs / "llama-router.log", "c: ready")


def test_a_directory_that_cannot_be_made_is_told_once(supervisors: Any) -> None:
    supervisor, _ = writing(supervisors, "directory: log/logs")  # the harness's log is a file
    for name in ("a", "b", "c"):
        supervisor.load(name)
    supervisor.eventually(lambda: "cannot write log files in" in supervisor.log.read_text(), "it is told")
    assert supervisor.log.read_text().count("cannot write log files in") == 1


def test_a_file_in_whose_place_a_directory_is_costs_no_other_a_line(supervisors: Any) -> None:
    supervisor, logs = writing(supervisors)
    wait_for(supervisor, logs / "llama-router.log", "ready")
    (logs / "llama-router.m.log").mkdir()
    supervisor.add("m", *["say=a line"] * 20, "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    wait_for(supervisor, logs / "llama-router.log", f"{logs}/llama-router.m.log: Is a directory")
    supervisor.load("b")
    told = wait_for(supervisor, logs / "llama-router.log", "b: ready")
    assert told.count("cannot write") == 1 and "are missing" not in told


def test_a_writer_that_hangs_or_dies_holds_up_nothing(supervisors: Any) -> None:
    supervisor, logs = writing(supervisors)
    supervisor.load("a")
    wait_for(supervisor, logs / "llama-router.log", "a: ready")
    writer = writer_of(supervisor)
    supervisor.kill(writer, signal.SIGSTOP)
    supervisor.add("m", r"flood=20000:a line like any other, of a model that says much\n", "exit=65")
    supervisor.call("load", model="m")
    supervisor.watch("m").state("failed")
    assert supervisor.log.read_text().count("take no lines at the moment") == 1
    supervisor.kill(writer, signal.SIGCONT)
    supervisor.load("b")

    def told() -> bool:
        supervisor.call("restart", model="b", wait=True)
        return "lines are missing" in supervisor.log.read_text()

    supervisor.eventually(told, "it is written again")
    with Process(writer) as process:
        supervisor.kill(writer, signal.SIGKILL)
        process.gone()
    assert supervisor.load("c")["state"] == "ready"
    assert writer not in children(supervisor.pid)


# What the process does, without the process.


def test_a_file_that_has_its_part_becomes_the_older_one(logs: Path) -> None:
    files = Files(logs, KEEP)
    for _ in range(KEEP // len(LINE) // 2):
        assert files.append("llama-router.m.log", LINE) == []
    assert sizes(logs).keys() == {"llama-router.m.log", "llama-router.m.log.1"}
    assert KEEP // 8 - len(LINE) < sizes(logs)["llama-router.m.log.1"] <= KEEP // 8
    assert all(path.read_bytes().splitlines(True)[0] == LINE for path in logs.iterdir())


def test_all_files_together_take_what_may_be_kept(logs: Path) -> None:
    """Of a thousand models, after a start as well; and a stranger's file stays."""
    logs.mkdir(parents=True)
    (logs / "precious.log").write_bytes(b"x" * 2 * KEEP)
    for start in range(2):
        files = Files(logs, KEEP)
        for number in range(1000):
            files.append(f"llama-router.m{start}-{number}.log", LINE * 100)
            ours = {name: size for name, size in sizes(logs).items() if name != "precious.log"}
            assert sum(ours.values()) <= KEEP
        assert len(ours) > 100 and f"llama-router.m{start}-999.log" in ours
    assert (logs / "precious.log").stat().st_size == 2 * KEEP
    small = Files(logs, KEEP // 4)
    small.append("llama-router.log", LINE)
    assert sum(size for name, size in sizes(logs).items() if name != "precious.log") <= KEEP // 4


def test_a_full_disk_is_told_once_and_leaves_no_half_lines(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit on the size of files, setrlimit(2), as there is no small disk to fill."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        files = Files(logs, KEEP)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        told = [files.append("llama-router.log", LINE) for _ in range(100)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        told += [files.append("llama-router.log", LINE) for _ in range(2)]
        os.write(writing, "\n".join(line for lines in told for line in lines).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read().splitlines()
    os.waitpid(pid, 0)
    whole = 1000 // len(LINE)
    assert told == [
        f"cannot write log file {logs}/llama-router.log: File too large; lines are left out",
        f"log file {logs}/llama-router.log can be written again; {100 - whole} lines are missing",
    ]
    assert (logs / "llama-router.log").read_bytes() == LINE * (whole + 2)


def test_a_link_in_the_way_is_not_followed(logs: Path, tmp_path: Path) -> None:
    logs.mkdir(parents=True)
    (logs / "llama-router.log").symlink_to(tmp_path / "victim")
    (told,) = Files(logs, KEEP).append("llama-router.log", LINE)
    assert "cannot write log file " in told
    assert not (tmp_path / "victim").exists()


def test_a_pipe_in_the_way_is_not_waited_for(logs: Path) -> None:
    logs.mkdir(parents=True)
    os.mkfifo(logs / "llama-router.log")
    files = Files(logs, KEEP)
    (told,) = files.append("llama-router.log", LINE)
    assert "cannot write log file " in told
    reader = os.open(logs / "llama-router.log", os.O_RDONLY | os.O_NONBLOCK)
    assert files.append("llama-router.log", LINE) == []
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_a_file_that_cannot_be_written_is_told_once_and_by_its_name(logs: Path) -> None:
    """Whatever is written to others meanwhile."""
    (logs / "llama-router.a.log").mkdir(parents=True)
    files = Files(logs, KEEP)
    told = [files.append(f"llama-router.{name}.log", LINE * 2) for name in ("a", "b", "a", "", "a", "b")]
    assert told == [[f"cannot write log file {logs}/llama-router.a.log: Is a directory; lines are left out"], *[[]] * 5]
    (logs / "llama-router.a.log").rmdir()
    again = f"log file {logs}/llama-router.a.log can be written again; 6 lines are missing"
    assert [files.append("llama-router.a.log", LINE) for _ in range(2)] == [[again], []]
    assert {path.read_bytes() for path in logs.glob("*.a.log")} == {LINE * 2}


def test_a_directory_that_is_there_again_and_a_file_that_is_not(logs: Path) -> None:
    logs.parent.mkdir()
    logs.touch()
    files = Files(logs, KEEP)
    (told,) = files.append("llama-router.a.log", LINE)
    assert told.startswith(f"cannot write log files in {logs}: ")
    assert files.append("llama-router.b.log", LINE) == []
    logs.unlink()
    (logs / "llama-router.a.log").mkdir(parents=True)
    assert files.append("llama-router.a.log", LINE) == [
        f"log files in {logs} can be written again; 2 lines are missing",
        f"cannot write log file {logs}/llama-router.a.log: Is a directory; lines are left out",
    ]


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away takes root")
    tmp_path.chmod(0o777)
    (tmp_path / "logs").mkdir(mode=0o777)
    os.chown(tmp_path / "logs", 12345, -1)
    (told,) = Files(tmp_path / "logs", KEEP).append("llama-router.log", LINE)
    assert "it belongs to user 12345" in told
