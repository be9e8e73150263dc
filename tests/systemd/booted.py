"""A Debian tree booted with systemd as its PID 1, in namespaces of its own; commands run in it, and nothing is left."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from debian_tree import NoTree, debian_tree
from observed import Process, Timeout

BOOT_SECONDS = 60.0
RUN_SECONDS = 60.0
NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--net")
NAME = "lr-systemd-"  # then the number of the process that booted it
BOOT = Path(__file__).with_name("boot.sh")

Entry = dict[str, Any]


def why_not() -> str | None:
    """Why nothing can be booted here; None if it can."""
    if os.geteuid() != 0:
        return "a systemd can be booted by root alone"
    for program in ("unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"there is no program {program}: apt-get install util-linux"
    if _cgroup2() is None:
        return "there is no cgroup2 mounted that can be written to"
    tried = subprocess.run(
        ("unshare", *NAMESPACES, "--cgroup", "--fork", "true"), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if tried.returncode:
        return f"there may be no namespaces made here: {tried.stderr.strip()}"
    try:
        debian_tree()
    except NoTree as error:
        return str(error)
    return None


class Machine:
    """A booted tree. Use as a context manager: it is up when that is entered.

    `root` is its file system as seen from here, where absolute symbolic links lead astray. `binds` are files and
    directories of this machine by the paths at which they are to be seen in it, read-only. It has a network of its own,
    with nothing but a loopback interface.
    """

    def __init__(self, binds: Mapping[str, Path] | None = None) -> None:
        self._binds = binds or {}
        self._stack = ExitStack()
        self.pid = 0

    @property
    def root(self) -> Path:
        """Its file system."""
        return Path(f"/proc/{self.pid}/root")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            _sweep()
            name = f"{NAME}{os.getpid()}-"
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=name, dir="/tmp")))
            for name in ("room", "host"):
                (directory / name).mkdir()
            cgroup = stack.enter_context(_own_cgroup(directory.name))
            notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notify.bind(str(directory / "host/notify"))
            binds = [str(each) for target, source in self._binds.items() for each in (source, target)]
            # Nothing in it survives this process, however that ends.
            die = ("setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child")
            places = map(str, (BOOT, debian_tree(), directory / "room", directory / "host", cgroup))
            boot = [*die, "sh", *places, *binds]
            with (directory / "log").open("wb") as log:
                above = subprocess.Popen(boot, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(above.wait)
            stack.callback(above.kill)
            self._wait_until_up(notify, above.pid, directory / "log")
            notify.close()  # systemd goes on telling its state, and would wait for a socket that nobody reads
            self.pid = int(Path(f"/proc/{above.pid}/task/{above.pid}/children").read_text())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _wait_until_up(self, notify: socket.socket, above: int, log: Path) -> None:
        """systemd says READY=1 when all that a boot starts is started."""
        deadline = time.monotonic() + BOOT_SECONDS
        with Process(above) as process:
            while True:
                left = max(0.0, deadline - time.monotonic())
                if notify.fileno() not in select.select([notify.fileno(), process.fileno()], [], [], left)[0]:
                    raise Timeout(f"the tree did not boot: {log.read_text(errors='replace')}")
                if "READY=1" in notify.recv(65536).decode().splitlines():
                    return

    # Commands

    def argv(self, *command: str) -> list[str]:
        """The command that runs `command` in it."""
        clean = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
        return ["nsenter", "--target", str(self.pid), "--all", *clean, *command]

    def attempt(self, *command: str, seconds: float = RUN_SECONDS, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as root, whatever its exit code."""
        return subprocess.run(self.argv(*command), capture_output=True, input=input, text=True, timeout=seconds)

    def run(self, *command: str, seconds: float = RUN_SECONDS, input: str = "") -> str:
        """What a command of root prints; it must succeed."""
        done = self.attempt(*command, seconds=seconds, input=input)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A command that goes on; its output is a pipe."""
        return subprocess.Popen(
            self.argv(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **options
        )

    # Units

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def processes(self, unit: str) -> dict[int, str]:
        """The processes in the control group of a unit, by their numbers in the tree, with their command lines."""
        group = self.show(unit, "ControlGroup")
        found = {}
        if group:
            for file in (self.root / f"sys/fs/cgroup{group}").rglob("cgroup.procs"):
                with suppress(OSError):
                    for outside in map(int, file.read_text().split()):
                        found.update(self._told(outside))
        return found

    def _told(self, outside: int) -> dict[int, str]:
        """cgroup.procs has the numbers of the reader's PID namespace; `ps` knows the tree's."""
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{outside}/status").read_text().splitlines()
            inside = next(line for line in lines if line.startswith("NSpid:")).split()[-1]
            argv = Path(f"/proc/{outside}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            return {int(inside): argv.strip()}
        return {}

    # The journal

    def cursor(self) -> str:
        """The end of the journal, for `journal` and `heard` to begin at."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--lines=0", "--show-cursor").rpartition("cursor:")[2].strip()

    def journal(self, since: str, **fields: str) -> list[Entry]:
        """Its entries after a cursor that have these fields, as `journalctl --output=json` prints them."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--output=json", f"--cursor={since}").splitlines()[1:]
        return [entry for entry in map(json.loads, lines) if fields.items() <= entry.items()]

    def heard(self, since: str, what: Callable[[Entry], bool], **fields: str) -> Entry:
        """The first entry after a cursor with these fields for which `what` is true, as soon as there is one."""
        deadline = time.monotonic() + RUN_SECONDS
        seen: list[str] = []
        with self.start("journalctl", "--output=json", "--follow", "--no-tail", f"--cursor={since}") as process:
            try:
                for line in _lines(process, deadline):
                    entry: Entry = json.loads(line)
                    if entry["__CURSOR"] != since and fields.items() <= entry.items() and what(entry):
                        return entry
                    seen.append(str(entry.get("MESSAGE")))
            finally:
                process.kill()
        raise Timeout(f"not in the journal; there is: {seen[-40:]}")


def _lines(process: subprocess.Popen[str], deadline: float) -> Iterator[str]:
    """Its lines, as they come, until the deadline."""
    assert process.stdout is not None
    descriptor, buffer = process.stdout.fileno(), b""
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data = os.read(descriptor, 65536)
        if not data:
            return
        *whole, buffer = (buffer + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)


def _cgroup2() -> Path | None:
    """Where this machine has a cgroup2 that can be written to, beside older ones or alone."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(where, os.W_OK):
            return Path(where)
    return None


@contextmanager
def _own_cgroup(name: str) -> Iterator[Path]:
    """A control group that is empty and gone in the end."""
    top = _cgroup2()
    assert top is not None
    group = top / name
    group.mkdir()
    try:
        yield group
    finally:
        _wait_until_empty(group)
        _remove(group)


def _remove(group: Path) -> None:
    for below in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        below.rmdir()
    group.rmdir()


def _sweep() -> None:
    """Remove the empty directories of those who were killed with what they had booted."""
    groups = _cgroup2()
    assert groups is not None
    for left in [*groups.glob(f"{NAME}*"), *Path("/tmp").glob(f"{NAME}*")]:
        if not Path("/proc", left.name.split("-")[2]).exists():
            with suppress(OSError):
                shutil.rmtree(left) if left.parent != groups else _remove(left)


def _wait_until_empty(group: Path) -> None:
    """The kernel says so on cgroup.events (cgroups(7)); what was killed takes a moment to be gone."""
    with (group / "cgroup.events").open() as events:
        changed = select.poll()
        changed.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            if not changed.poll(BOOT_SECONDS * 1000):
                raise Timeout(f"processes stay in {group}")
            events.seek(0)
