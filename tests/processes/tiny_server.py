"""A model server that carries out the steps in its settings, instead of llama-cpp-python's; see misbehaving.py.

    python -m tiny_server --socket PATH --settings FILE        or forked: serve(settings, PATH)

Where the forkserver imports it, variables make that go wrong: TINY_IMPORT=thread or =fail, and TINY_FORKED names a
gate at which each process that it forks waits as long as the gate is there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import misbehaving
import numpy.random

PR_GET_PDEATHSIG = 2
kept = "nothing"
held: list[bytes] = []
OF_THE_C_LIBRARY = 1 << 31 | 1 << 32  # nptl(7): 32 and 33, once there has been a thread


def serve(settings: Mapping[str, Any], socket: Path) -> int:
    """Carry out the steps; returns 0."""
    misbehaving.run([step.replace("{socket}", str(socket)) for step in settings["steps"]])
    return 0


def keep(settings: Mapping[str, Any]) -> Callable[[], None]:
    """Carry out the steps below "keep". While a file "changed" lies beside the model, nothing kept is of use."""
    global kept
    misbehaving.run(settings.get("keep", []))
    kept = f"kept by {os.getpid()}"
    mark = Path(settings["model"]).with_name("changed")

    def check() -> None:
        if mark.exists():
            raise OSError("it has changed")

    return check


def tell(_what: str) -> None:
    """Say what was kept for this server."""
    print(kept)


def hold(mebibytes: str) -> None:
    """Take memory."""
    held.append(b"x" * (int(mebibytes) << 20))


def thread(_what: str) -> None:
    """Have another thread."""
    threading.Thread(target=signal.pause, daemon=True).start()


def describe(path: str) -> None:
    """Write a Python literal of everything that a process is given by exec, or should be given without."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    streams = (sys.stdout, sys.stderr)
    death = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(death), 0, 0, 0)
    known = {
        "leads": os.getpid() == os.getpgrp() == os.getsid(0),
        "parent": os.getppid(),
        "death": death.value,
        "cwd": str(Path.cwd()),
        "umask": status["Umask"],
        "nice": os.nice(0),
        "oom": Path("/proc/self/oom_score_adj").read_text(),
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "affinity": os.sched_getaffinity(0),
        "limits": [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")],
        "signals": [int(status[key], 16) & ~OF_THE_C_LIBRARY for key in ("SigBlk", "SigIgn", "SigCgt")],
        "status": [status[key] for key in ("CapEff", "NoNewPrivs")],
        "handlers": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)],
        "env": dict(os.environ),
        "descriptors": {fd: str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in open_descriptors()},
        "streams": [(each.encoding, each.errors, getattr(each, "write_through", None)) for each in streams],
        "gc": gc.isenabled(),
    }
    Path(path).write_text(repr(known))


def open_descriptors() -> list[int]:
    """Without the one that is open for the listing."""
    found = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    return sorted(fd for fd in found if Path(f"/proc/self/fd/{fd}").is_symlink())


def throw(dice: str) -> None:
    """Say a random number, of "random" or "numpy"."""
    print(random.random() if dice == "random" else numpy.random.random())


def fail(text: str) -> None:
    """Raise an exception, or end Python's way: "exit:7", "exit:words"."""
    if text.startswith("exit:"):
        value = text.removeprefix("exit:")
        sys.exit(int(value) if value.isdecimal() else value)
    raise ValueError(text)


def main() -> int:
    """What supervisor.model_server does, too."""
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    return serve(json.loads(Path(arguments["--settings"]).read_text()), Path(arguments["--socket"]))


def _imported_by_the_forkserver() -> None:
    wish = os.environ.get("TINY_IMPORT")
    if wish == "fail":
        raise ImportError("as wished")
    if wish == "thread":
        threading.Thread(target=signal.pause, daemon=True).start()
    gate = Path(os.environ.get("TINY_FORKED", "/nonexistent"))
    os.register_at_fork(after_in_child=lambda: misbehaving.gate(str(gate)) if gate.exists() else None)


misbehaving.STEPS |= {"describe": describe, "tell": tell, "hold": hold, "thread": thread, "throw": throw, "fail": fail}
if __name__ == "__main__":
    sys.exit(main())
_imported_by_the_forkserver()
