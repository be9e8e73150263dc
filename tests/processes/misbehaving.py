"""A model server that does what its arguments say, however bad. Standard library only, and quick to start.

    python -IS misbehaving.py STEP STEP …

Each step is NAME or NAME=VALUE; they are carried out in order, and the process then exits with 0. `gate=PATH` is how
a test waits for it and makes it wait: it connects to the test's socket there, says its pid, and goes on when a byte
comes. The connection stays open until the process is dead, so its end is an event too.
"""

# Importing pathlib would double the time this takes to start.
# ruff: noqa: PTH109, PTH110, PTH115, PTH123, PTH208

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable

GATES: list[socket.socket] = []
LISTENERS: list[socket.socket] = []
HELD_CONNECTIONS: list[socket.socket] = []
HEALTH: list[str] = ["200"]
HELD: list[bytearray] = []
PENDING: list[list[str]] = []


def run(steps: list[str]) -> None:
    """Carry out the steps."""
    pending = list(steps)
    PENDING.append(pending)
    while pending:
        name, _, value = pending.pop(0).partition("=")
        STEPS[name](value)
    PENDING.pop()


def gate(path: str) -> None:
    """Tell the test at `path` our pid and wait for its byte; the end of the test is our end."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    GATES.append(connection)
    connection.sendall(b"%d\n" % os.getpid())
    if not connection.recv(1):
        os._exit(99)


def listen(where: str) -> None:
    """Listen on a port or a socket path, on whose queue connections wait until `serve`."""
    if where.isdecimal():
        listener = socket.create_server(("127.0.0.1", int(where)))
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(where)
        listener.listen()
    LISTENERS.append(listener)


def serve(_: str) -> None:
    """Answer every request, for ever; /health in turn with what `health` listed, its last code again and again."""
    while True:
        connection, _address = LISTENERS[0].accept()
        with connection:
            request = connection.recv(65536)
            code = "200"
            if request.startswith(b"GET /health"):
                code = HEALTH.pop(0) if len(HEALTH) > 1 else HEALTH[0]
            connection.sendall(b"HTTP/1.1 %s X\r\nContent-Length: 2\r\n\r\nok" % code.encode())


def hold(_: str) -> None:
    """Take one connection, and never answer."""
    HELD_CONNECTIONS.append(LISTENERS[0].accept()[0])


def swallow(_: str) -> None:
    """Take every connection and never answer, for ever."""
    taken = []
    while True:
        taken.append(LISTENERS[0].accept())


def notify(text: str) -> None:
    """Send a datagram to NOTIFY_SOCKET; "|" stands for a newline."""
    send(text.replace("|", "\n").encode())


def send(data: bytes) -> None:
    """Send a datagram to NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, os.environ["NOTIFY_SOCKET"])


def notify_for_ever(text: str) -> None:
    """Send datagrams as fast as they are taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        while True:
            sender.send(text.encode())


def notify_with_descriptors(text: str) -> None:
    """Send descriptors along, which nobody asked for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        for _ in range(100):
            socket.send_fds(sender, [text.encode()], [0, 1, 2])


def beat(milliseconds: str) -> None:
    """Let a child say WATCHDOG=1 again and again, for as long as this process runs and is not stopped."""
    parent = os.getpid()
    if os.fork() == 0:
        for connection in GATES:
            connection.close()
        while os.getppid() == parent and not is_stopped(parent):
            send(b"WATCHDOG=1")
            time.sleep(int(milliseconds) / 1000)
        os._exit(0)


def is_stopped(pid: int) -> bool:
    """After SIGSTOP; see proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def hang_up(_: str) -> None:
    """No longer listen."""
    LISTENERS.pop().close()


def fork(steps: str) -> None:
    """Let a child carry out steps, separated by commas, and then exit."""
    if os.fork() == 0:
        for connection in GATES:
            connection.close()
        GATES.clear()
        try:
            run(steps.split(","))
        finally:
            os._exit(0)


def deep(path: str) -> None:
    """Let a child of a child of a child, each in a session of its own, pass the gate at `path` and ignore SIGTERM."""
    if os.fork():
        return
    for _ in range(2):
        os.setsid()
        if os.fork():
            signal.pause()
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gate(path)
    signal.pause()


def escape(path: str) -> None:
    """Let a daemon in a session of its own, with an empty environment, pass the gate at `path` and go on for ever."""
    if (between := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-IS", __file__, f"gate={path}", "pause"], {})
        os._exit(0)
    os.waitpid(between, 0)


def flood(what: str) -> None:
    """Write COUNT:TEXT to stdout, COUNT times; "\\n" and the like are read as in Python."""
    count, _, text = what.partition(":")
    data = text.encode().decode("unicode_escape").encode("latin-1")
    write(data * int(count))


def flood_for_ever(text: str) -> None:
    """Write TEXT to stdout as fast as it is read."""
    data = text.encode().decode("unicode_escape").encode("latin-1") * (65536 // len(text))
    while True:
        write(data)


def write(data: bytes) -> None:
    """All of it, to stdout."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def dump(path: str) -> None:
    """Write a Python literal of what this process was given."""
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that was open for the listing
    known = {
        "pid": os.getpid(),
        "group": os.getpgrp(),
        "session": os.getsid(0),
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "descriptors": descriptors,
    }
    with open(path, "w") as file:
        file.write(repr(known))


def on_term(steps: str) -> None:
    """At SIGTERM, carry out steps, separated by commas."""
    signal.signal(signal.SIGTERM, lambda *_: run(steps.split(",")))


def allocate(mebibytes: str) -> None:
    """Take memory and write to all of it."""
    HELD.append(bytearray(os.urandom(4096)) * (int(mebibytes) * 256))


def unless(path: str) -> None:
    """Leave out the next two steps if there is such a file."""
    if os.path.exists(path):
        del PENDING[-1][:2]


def close_output(_: str) -> None:
    """Close stdout and stderr."""
    os.close(1)
    os.close(2)


def pause(_: str) -> None:
    """Do nothing, for ever."""
    while True:
        signal.pause()


STEPS: dict[str, Callable[[str], object]] = {
    "gate": gate,
    "listen": listen,
    "serve": serve,
    "hold": hold,
    "swallow": swallow,
    "health": lambda codes: HEALTH.__setitem__(slice(None), codes.split(",")),
    "notify": notify,
    "notify-hex": lambda text: send(bytes.fromhex(text)),
    "notify-for-ever": notify_for_ever,
    "notify-with-descriptors": notify_with_descriptors,
    "fork": fork,
    "deep": deep,
    "escape": escape,
    "setsid": lambda _: os.setsid(),
    "say": lambda text: write(text.encode() + b"\n"),
    "mutter": lambda text: write(text.encode()),
    "flood": flood,
    "flood-for-ever": flood_for_ever,
    "close-output": close_output,
    "dump": dump,
    "ignore": lambda name: signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_IGN),
    "on-term": on_term,
    "beat": beat,
    "hang-up": hang_up,
    "allocate": allocate,
    "unless": unless,
    "kill": lambda name: os.kill(os.getpid(), signal.Signals[f"SIG{name}"]),
    "exit": lambda code: os._exit(int(code)),
    "pause": pause,
}

if __name__ == "__main__":
    run(sys.argv[1:])
