"""Starting one child process: its own session and process group, logs into a pipe, dead when the supervisor dies."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from supervisor import descriptors
from supervisor.errors import CannotStart

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
ABOVE_PASSED_FDS = 8
LAUNCH_VARIABLE = "LLAMA_ROUTER_LAUNCH"
SUPERVISOR_VARIABLE = "LLAMA_ROUTER_SUPERVISOR"
NO_LAUNCH = "0000000000"  # of the forkserver; as long as any launch's, because its forks write theirs over it
PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})
RESTORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, and exec would pass that on

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Child:
    """A running process: `pid` (also its process group), a pidfd, the read end of its stdout and stderr, and the write
    end of its stdin if that is not /dev/null."""

    pid: int
    pidfd: int
    log: int
    stdin: FileIO | None = None


def become_subreaper() -> None:
    """Orphans of our children become our children, so that none escapes (prctl(2))."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def adopted() -> set[int]:
    """Our children, those we adopted included; see proc_pid_task(5). Empty where the kernel does not tell."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()


def launch_of(pid: int) -> int | None:
    """The launch that a process, or one above it, was started for; None if it does not tell."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    mark = f"{LAUNCH_VARIABLE}=".encode()
    number = next((line.removeprefix(mark) for line in environment if line.startswith(mark)), b"")
    return int(number) or None if number.isdigit() else None


def set_name(name: str) -> None:
    """What ps shows as the name of this process; at most 15 bytes of it (PR_SET_NAME, prctl(2))."""
    _libc.prctl(PR_SET_NAME, name.encode(errors="replace"), 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent, the supervisor, dies; end at once if it is dead already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    pass_fd: int | None = None,
    *,
    listens: bool = False,
    enter: Path | None = None,
    directory: str | None = None,
) -> Child:
    """Fork and exec `argv`, found on the PATH of `env`; `pass_fd` becomes its descriptor 3. One that `listens` has a
    pipe as its stdin. `enter` is the cgroup.procs of the cgroup that it begins in; `directory` is where it works.

    Raises CannotStart when the program can't be executed, and OSError when processes, memory or descriptors are short
    at the moment. Nothing is left behind then.
    """
    parent = os.getpid()
    opened: list[int] = []
    try:
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC) if listens else ()
        pid = os.fork()
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    log_read, log_write, error_read, error_write, *stdin = opened
    if pid == 0:
        _exec(argv, env, parent, log_write, error_write, pass_fd, stdin[0] if stdin else None, enter, directory)
    for fd in (log_write, error_write, *stdin[:1]):
        os.close(fd)
    with os.fdopen(error_read, "rb") as pipe:
        failure = pipe.read()
    if failure:
        for fd in (log_read, *stdin[1:]):
            os.close(fd)
        os.waitpid(pid, 0)
        raise _failure(argv[0], *failure.decode(errors="replace").split(" ", 1))
    for fd in (log_read, *stdin[1:]):
        os.set_blocking(fd, False)
    return Child(pid, os.pidfd_open(pid), log_read, FileIO(stdin[1], "w") if stdin else None)


def _failure(program: str, number: str, text: str) -> CannotStart | OSError:
    return OSError(int(number), text) if int(number) in PASSING else CannotStart(f"cannot start {program}: {text}")


def _exec(
    argv: Sequence[str],
    env: Mapping[str, str],
    parent: int,
    log: int,
    error_pipe: int,
    pass_fd: int | None,
    stdin: int | None,
    enter: Path | None,
    directory: str | None,
) -> None:
    """The forked half. Never returns; what goes wrong is written to the error pipe, which exec closes."""
    try:
        error_pipe = fcntl.fcntl(error_pipe, fcntl.F_DUPFD_CLOEXEC, ABOVE_PASSED_FDS)
        os.setsid()
        die_with_parent(parent)
        if enter is not None:
            with contextlib.suppress(OSError):  # whatever keeps it out, the model runs
                enter.write_text("0")
        signal.set_wakeup_fd(-1)
        for number in RESTORED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        descriptors.restore_limit()
        if directory is not None:
            os.chdir(directory)
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if pass_fd is not None:
            if pass_fd == 3:
                os.set_inheritable(3, True)
            else:
                os.dup2(pass_fd, 3)
        os.execvpe(argv[0], list(argv), dict(env))
    except OSError as error:
        hint = "; is it installed and on PATH?" if isinstance(error, FileNotFoundError) else ""
        os.write(error_pipe, f"{error.errno} {error.strerror}{hint}".encode())
    except BaseException as error:
        os.write(error_pipe, f"0 {error!r}".encode())
    finally:
        os._exit(127)
