"""What the guard executes, `python -I -S guard_program.py MARK CGROUPS WHOSE`: see guard.py.

On its standard input come lines: "+GROUP" for a process group to kill at their end, "-GROUP" for one to forget.
`CGROUPS` may be "". `WHOSE` is for people who look at processes. It imports nothing but what an interpreter has anyway,
and so takes 3 MiB.
"""
# ruff: noqa: PTH118, PTH123, PTH208, SIM105 - pathlib, contextlib and signal take a mebibyte and more

import os
import sys

SIGKILL = 9
LAST_FD = 65536  # where there is no close_range(2), each is closed by itself, and the limit may be a thousand million


def main(mark: bytes, cgroups: bytes) -> None:
    """The whole life."""
    os.closerange(3, LAST_FD)  # what the supervisor was started with may be waited for by others
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    if cgroups:
        kill_launches(cgroups)
    for group in groups:
        try:
            os.killpg(group, SIGKILL)
        except OSError:
            pass
    while kill_marked(mark):  # again, for what was forked meanwhile
        pass


def kill_launches(cgroups: bytes) -> None:
    """Kill every model server that is in a cgroup of a launch: core/cgroups.py."""
    try:
        names = [name for name in os.listdir(cgroups) if name.startswith(b"launch-")]
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(cgroups, name, b"cgroup.kill"), "wb") as file:
                file.write(b"1")
        except OSError:
            pass


def kill_marked(mark: bytes) -> bool:
    """Kill every process with `mark` in its environment. True if there was one that was not dead already."""
    found = False
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):  # a zombie's is empty
                    os.kill(int(name), SIGKILL)
                    found = True
        except OSError:  # gone, or somebody else's
            pass
    return found


if __name__ == "__main__":
    main(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]))
