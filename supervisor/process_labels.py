"""What others see of a forked process: its name, its command line, and a model server's launch in its environment.

All three are the forkserver's after a fork. The kernel shows as /proc/PID/cmdline and environ what lies at the
addresses where exec put the arguments and the variables (proc_pid_stat(5)); like setproctitle(3), this writes there.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

from supervisor import child

KEEPER = "llama-router: vocabulary of "

_ARGUMENTS, _VARIABLES = slice(45, 47), slice(47, 49)  # of the fields after the name: arg_start, arg_end, env_…


def name_model(name: str, launch: int) -> None:
    """Show this process as the server of model `name`, started for `launch`. Does nothing where the kernel hides it."""
    child.set_name(f"llama:{name}")
    _set_command_line(f"llama-router: model {name}")
    with contextlib.suppress(OSError, ValueError):
        mark = f"{child.LAUNCH_VARIABLE}={child.NO_LAUNCH}".encode()
        at = (b"\0" + Path("/proc/self/environ").read_bytes()).index(b"\0" + mark)
        _write(_VARIABLES, at, f"{child.LAUNCH_VARIABLE}={launch:0{len(child.NO_LAUNCH)}}".encode(), fill=False)


def name_keeper(name: str) -> None:
    """Show this process as the one that keeps the vocabulary of model `name`."""
    child.set_name("llama-kept")
    _set_command_line(f"{KEEPER}{name}")


def _set_command_line(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        _write(_ARGUMENTS, 0, text.encode(), fill=True)


def _write(area: slice, at: int, text: bytes, *, fill: bool) -> None:
    """Put `text` into an area, cut where that ends, and with `fill` zeros behind it. Its last zero must stay: without
    it the kernel takes the variables for a part of the command line."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(field) for field in fields[area])
    room = max(0, end - start - at - 1)
    if start and room:
        ctypes.memmove(
            start + at, text[:room].ljust(room if fill else 0, b"\0"), room if fill else min(len(text), room)
        )
