"""Two model servers of the same GGUF file hold its weights in memory once: llama.cpp maps the file (mmap(2))."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from alone import ASK, Server, finish, launch

MIB = 1024 * 1024


@pytest.fixture
def replicas(gguf: Path) -> Iterator[list[Server]]:
    """Two servers of one file, each of which has answered: what it has not read of the weights is not in its memory."""
    with ExitStack() as stack:
        started = []
        for _ in range(2):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ms-")))
            started.append(launch(folder, {"model": str(gguf), "n_ctx": 512, "logits_all": False}))
            stack.callback(finish, started[-1])
        for server in started:
            server.notices.wait_for("READY=1")
            assert server.text(ASK)
        yield started


def mapped(pid: int, path: Path) -> tuple[int, int]:
    """How much of a file a process has in memory, in bytes, and its share of that: Rss and Pss of proc_pid_smaps(5)."""
    rss = pss = 0
    is_ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            is_ours = line.endswith(str(path))
        elif is_ours and name in ("Rss:", "Pss:"):
            size = int(rest[0]) * 1024
            rss, pss = (rss + size, pss) if name == "Rss:" else (rss, pss + size)
    return rss, pss


def test_two_servers_of_one_file_share_its_weights(replicas: list[Server], gguf: Path) -> None:
    size = gguf.stat().st_size
    both = [mapped(server.process.pid, gguf.resolve()) for server in replicas]
    for rss, pss in both:
        print(f"{gguf.name}: {size / MIB:.0f} MiB; resident {rss / MIB:.0f} MiB, its share {pss / MIB:.0f} MiB")
    for rss, pss in both:
        assert rss > size * 0.9
        assert pss < rss * 0.55
    assert replicas[1].stop() == 0
    assert mapped(replicas[0].process.pid, gguf.resolve())[1] > both[0][1]
