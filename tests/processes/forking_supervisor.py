"""Supervisors whose llama-cpp-python is the tiny server, and what their forkserver and its children show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import QUICK, READY, Supervisor
from made_gguf import make
from observed import command_lines

HERE = Path(__file__).parent
Start = Callable[..., Supervisor]


def tiny(supervisor: Supervisor, name: str = "m", *steps: str, **keys: Any) -> None:
    """Write a preset of backend llama-cpp-python whose server takes `steps`."""
    preset = {"model": weights(supervisor), "stop_timeout": "300ms", "restart": QUICK, **keys}
    supervisor.write(name, {"models": {name: {**preset, "options": {"steps": steps or READY}}}})
    if supervisor.process is not None:
        supervisor.call("reload")


def weights(supervisor: Supervisor) -> str:
    """A file that could be loaded; the tiny server does not."""
    return make(supervisor.directory / "tiny.gguf")


def load(supervisor: Supervisor, name: str = "m", *steps: str, **keys: Any) -> int:
    """Write a preset, load it, and return its server's pid once it is ready."""
    tiny(supervisor, name, *steps, **keys)
    pid: int = supervisor.call("load", model=name, wait=True)["model"]["pid"]
    return pid


def forkserver_of(supervisor: Supervisor) -> int:
    """Its pid; 0 if there is none."""
    found = (pid for pid, line in command_lines(supervisor.pid).items() if b"supervisor.forkserver" in line)
    return next(found, 0)


def is_forked(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("llama:")


def says(supervisor: Supervisor, pattern: str, times: int = 1) -> None:
    """Wait for the supervisor's own log to say something."""

    def said() -> bool:
        return len(re.findall(pattern, supervisor.log.read_text())) >= times

    supervisor.eventually(said, f"the log says {pattern!r}")


def ready(supervisor: Supervisor, times: int = 1) -> int:
    """Wait for the forkserver (the last of so many) and return its pid."""
    says(supervisor, "forkserver ready", times)
    return forkserver_of(supervisor)


def makes_forking(supervisors: Start) -> Start:
    """Makes running supervisors whose llama-cpp-python is the tiny server, with one preset of it, "m"."""

    def start(prefix: str = "", env: dict[str, str] | None = None, **popen: Any) -> Supervisor:
        program = f"import supervisor.backends.llama_cpp_python as b; b.MODULE = 'tiny_server'\n{prefix}"
        supervisor = supervisors(env={"PYTHONPATH": str(HERE), **(env or {})}, prefix=program)
        tiny(supervisor)
        return supervisor.start(**popen)

    return start
