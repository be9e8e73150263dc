"""The forkserver: has everything imported that a model server needs, has loaded nothing, and forks model servers.

    python -P -m supervisor.forkserver MODULE:FUNCTION

MODULE may have a function `prepare`, for what all forks need alike and importing alone does not do. It has a function
`keep(settings)`, for what servers of one model need alike. That is done in a process of its own, a keeper: a fork that
did it and then forks in the same way. `keep` returns a function that raises OSError once it is of no use any more.

Descriptor 3 is a SOCK_SEQPACKET socket to the supervisor; a keeper has one of its own. A message is a JSON object:

    <- {"ready": true}                        once, when MODULE is imported and prepared; of a keeper, when it has kept
    -> {"launch": 7, "name": "qwen", "parent": 4000, "env": {...}, "settings": {...}, "socket": "/run/.../7.sock"}
    -> {"launch": -1, "name": "qwen", "parent": 4000, "settings": {...}}    for a keeper
    <- {"launch": 7, "pid": 4711}             or {"launch": 7, "error": "Cannot allocate memory"}

With a request come two descriptors: the write end of the log pipe, and the read end of a pipe named `go`, which for a
keeper is its socket.

1. A process in between forks the model server and ends, so that the supervisor, a subreaper, adopts it (prctl(2)).
2. The model server makes its session, says its pid, and waits for a byte on `go`. The supervisor sends it once it
   watches the pid. The end of `go` instead means that the supervisor has changed its mind or is dead: exit. So no
   process does anything that the supervisor does not know of, however late an answer comes.
3. It takes on what exec would have given it, and FUNCTION(settings, socket) returns its exit code.

It ends when the supervisor closes the socket. CPython's multiprocessing.forkserver and `gunicorn --preload` do alike.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from supervisor import child, process_labels

CONTROL_FD = 3
MAX_MESSAGE = 1 << 20
READY = {"ready": True}
LEFT_ALONE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # it ends with the supervisor, not before it

Handlers = Mapping[int, Any]


@dataclass(frozen=True)
class Program:
    """What is forked: `serve` is FUNCTION, `keep` that of its module, and `check` what it returned, in a keeper."""

    serve: Callable[[Mapping[str, Any], Path], int]
    keep: Callable[[Mapping[str, Any]], Callable[[], None]]
    check: Callable[[], None] = lambda: None


def main(target: str) -> int:
    """Import `target`, MODULE:FUNCTION, and fork until the socket closes. Returns the exit code."""
    handlers: Handlers = {number: signal.signal(number, signal.SIG_IGN) for number in LEFT_ALONE}
    control = socket.socket(fileno=CONTROL_FD)
    control.set_inheritable(False)
    try:
        program = _imported(target)
    except ImportError:
        traceback.print_exc()
        return os.EX_CONFIG
    if _has_threads(f"importing {target}"):
        return os.EX_CONFIG
    _serve(control, handlers, program)
    return os.EX_OK


def _serve(control: socket.socket, handlers: Handlers, program: Program) -> None:
    """Say that all is ready, and answer requests until the supervisor closes the socket."""
    with contextlib.suppress(ConnectionError):  # nobody hears the answer: the supervisor has closed the socket
        _send(control, READY)
        while request := _receive(control):
            _answer(control, handlers, program, *request)


def _answer(
    control: socket.socket, handlers: Handlers, program: Program, message: dict[str, Any], log: int, go: int
) -> None:
    answer: dict[str, Any] = {"launch": message["launch"]}
    try:
        program.check()
        answer["pid"] = _fork(control, handlers, program, message, log, go)
    except OSError as error:
        answer["error"] = error.strerror or str(error)
    os.close(log)
    os.close(go)
    _send(control, answer)


def _has_threads(what: str) -> bool:
    """Whether there are others than this one, which a fork would lack; tells so."""
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threads > 1:
        print(f"cannot fork: {what} has started {threads - 1} threads", file=sys.stderr)
    return threads > 1


def _imported(target: str) -> Program:
    """The program, with all that is imported kept out of the collector's way, which would write to shared pages."""
    # OpenBLAS starts threads when numpy loads it, and reads this with getenv(3).
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    gc.disable()
    module, _, name = target.partition(":")
    imported = importlib.import_module(module)
    program = Program(getattr(imported, name), imported.keep)
    if (prepare := getattr(imported, "prepare", None)) is not None:
        prepare()
    gc.collect()
    gc.freeze()
    return program


def _send(control: socket.socket, message: Mapping[str, Any]) -> None:
    control.send(json.dumps(message).encode())


def _receive(control: socket.socket) -> tuple[dict[str, Any], int, int] | None:
    """The next request with its log and its go; None when the supervisor has closed the socket."""
    size = array.array("i").itemsize * 2
    data, control_messages, _, _ = control.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    log, go = array.array("i", control_messages[0][2][:size])
    return json.loads(data), log, go


def _fork(
    control: socket.socket, handlers: Handlers, program: Program, message: Mapping[str, Any], log: int, go: int
) -> int:
    """The pid of a new process, which the supervisor has adopted by now. Raises OSError."""
    told, tell = os.pipe()
    between = -1
    try:
        between = os.fork()
        if between == 0:
            become = _become_server if "socket" in message else _become_keeper
            _fork_again(lambda: become(program, message, go, handlers), control, told, tell, log)
    finally:
        os.close(tell)
        pid = os.read(told, 32) if between > 0 else b""
        os.close(told)
    code = os.waitstatus_to_exitcode(os.waitpid(between, 0)[1])
    if not pid:
        raise OSError(code, os.strerror(code) if code > 0 else "it died at once")
    return int(pid)


def _fork_again(become: Callable[[], NoReturn], control: socket.socket, told: int, tell: int, log: int) -> NoReturn:
    """The process in between: its exit code is an errno."""
    try:
        if os.fork() == 0:
            control.close()
            os.close(told)
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            os.write(tell, b"%d" % os.getpid())
            os.close(tell)
            become()
    except OSError as error:
        os._exit(error.errno or 1)
    finally:
        os._exit(0)


def _become_server(program: Program, message: Mapping[str, Any], go: int, handlers: Handlers) -> NoReturn:
    """The model server. Its stdin is the forkserver's, /dev/null. It skips atexit, which is the forkserver's."""

    def serve() -> int:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(message["env"])
        process_labels.name_model(message["name"], message["launch"])
        _forget_seeds()
        gc.enable()
        if not os.read(go, 1):
            return os.EX_OK
        os.close(go)
        child.die_with_parent(message["parent"])
        return program.serve(message["settings"], Path(message["socket"]))

    _run(serve)


def _become_keeper(program: Program, message: Mapping[str, Any], go: int, handlers: Handlers) -> NoReturn:
    """The keeper, whose socket is `go`."""

    def serve() -> int:
        process_labels.name_keeper(message["name"])
        control = socket.socket(fileno=go)
        if not control.recv(1):
            return os.EX_OK
        child.die_with_parent(message["parent"])
        check = program.keep(message["settings"])
        if _has_threads(f"keeping the vocabulary of {message['name']}"):
            return os.EX_SOFTWARE
        gc.collect()
        gc.freeze()
        _serve(control, handlers, replace(program, check=check))
        return os.EX_OK

    _run(serve)


def _run(serve: Callable[[], int]) -> NoReturn:
    """The rest of a process's life."""
    code: object = 1
    try:
        code = serve()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


def _forget_seeds() -> None:
    """Random numbers must not be those of the other forks; CPython's own modules see to that themselves."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _end(code: object) -> NoReturn:
    """What Python does with the argument of sys.exit, but for atexit."""
    try:
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
