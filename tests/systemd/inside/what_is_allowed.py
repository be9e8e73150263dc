"""Run as a model server of the hardened unit: try what it is not to be allowed, and print what was."""

import ctypes
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

CLONE_NEWUSER = 0x10000000
READ_IMPLIES_EXEC = 0x0400000
libc = ctypes.CDLL(None, use_errno=True)


def call(result: int) -> None:
    """Of the C library: raise what it says."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")


TRIED: dict[str, Callable[[], object]] = {
    "memory to write and execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "a namespace": lambda: call(libc.unshare(CLONE_NEWUSER)),
    "a mount": lambda: call(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "another personality": lambda: call(libc.personality(READ_IMPLIES_EXEC)),
    "a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "a file of the system": lambda: Path("/usr/written").touch(),
    "the configuration": lambda: Path("/etc/llama-router/config.yaml").write_text(""),
    "a control group of others": lambda: Path("/sys/fs/cgroup/system.slice/written").mkdir(),
    "homes": lambda: list(Path("/home").iterdir()),
    "processes of others": lambda: Path("/proc/1/status").read_text(),
    "the file of a set-user-ID program": lambda: os.close(os.open("/tmp/suid", os.O_CREAT | os.O_WRONLY, 0o4755)),
    "presets": lambda: Path("/etc/llama-router/presets.d/.written").touch(),
    "its own control group": lambda: Path(OWN, "written").mkdir(),
    "how much memory there is": lambda: Path("/proc/meminfo").read_text(),
    "a thread's processors": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "a function of Python's that C calls": lambda: ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)(),
}
OWN = "/sys/fs/cgroup/system.slice/llama-router.service"

for what, attempt in TRIED.items():
    try:
        attempt()
        print("allowed:", what)
    except OSError as error:
        print("refused:", what, "-", error.strerror)
print("that is all", flush=True)
raise SystemExit(78)
