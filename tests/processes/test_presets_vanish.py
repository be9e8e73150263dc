"""A configuration that disappears, changes without end, or can't be watched: the running one serves on."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from changing import LONG_ENOUGH, left_alone, link, preset, reloads, told, watches
from harness import Supervisor

from supervisor.presets_watch import LONGEST_SECONDS

Start = Callable[..., Supervisor]


# What disappears


def test_the_directory_of_presets_vanishes_and_comes_back(supervisors: Start) -> None:
    supervisor = supervisors().start()
    before, away = supervisor.load("m")["pid"], supervisor.directory / "away"
    watch = supervisor.watch()
    supervisor.presets.rename(away)
    assert str(supervisor.presets) in told(watch, "No such file or directory")
    assert supervisor.lease("m").grant()["model"] == "m"
    (away / "n.yaml").write_text(preset("n"))
    away.rename(supervisor.presets)
    told(watch, "n added")
    supervisor.add("o", reload=False)
    told(watch, "o added")
    assert supervisor.model("m")["pid"] == before


def test_it_is_deleted_and_made_anew(supervisors: Start) -> None:
    supervisor = supervisors().start()
    before = supervisor.load("m")["pid"]
    kept = (supervisor.presets / "m.yaml").read_text()
    watch = supervisor.watch()
    shutil.rmtree(supervisor.presets)
    told(watch, "No such file or directory")
    supervisor.presets.mkdir()
    told(watch, "was replaced by one without presets")
    assert supervisor.model("m")["pid"] == before
    supervisor.write("m", kept)
    told(watch, "in order again")
    assert supervisor.model("m")["pid"] == before


def test_an_empty_one_in_its_place_is_taken_when_asked(supervisors: Start) -> None:
    supervisor = supervisors().start()
    supervisor.load("m")
    shutil.rmtree(supervisor.presets)
    supervisor.presets.mkdir()
    told(supervisor.watch(), "was replaced by one without presets")
    assert supervisor.call("reload")["changes"]["removed"] == ["m"]
    supervisor.add("n", reload=False)
    told(supervisor.watch(), "n added")
    (supervisor.presets / "n.yaml").unlink()
    told(supervisor.watch(), "n removed")


def test_the_last_preset_is_deleted(supervisor: Supervisor) -> None:
    supervisor.add("m")
    (supervisor.presets / "m.yaml").unlink()
    told(supervisor.watch(), "m removed")


def test_what_leads_there_is_closed_to_us(supervisors: Start) -> None:
    supervisor = supervisors()
    supervisor.prefix = (
        f"from inotify_simple import INotify; add = INotify.add_watch; presets = {str(supervisor.presets)!r}\n"
        "def no(*_): raise PermissionError(13, 'Permission denied')\n"
        "INotify.add_watch = lambda self, path, mask: (add if path == presets else no)(self, path, mask)"
    )
    supervisor.start()
    watch = supervisor.watch()
    supervisor.add("m", reload=False)
    told(watch, "m added")
    supervisor.presets.rename(supervisor.directory / "away")
    told(watch, "No such file or directory")
    (supervisor.directory / "away").rename(supervisor.presets)


def test_config_yaml_vanishes_and_comes_back(supervisors: Start) -> None:
    supervisor = supervisors().start()
    supervisor.add("m")
    watch, away = supervisor.watch(), supervisor.directory / "away"
    supervisor.config.rename(away)
    assert "config.yaml: cannot read the file" in told(watch, "cannot reload")
    assert supervisor.model("m")["state"] == "stopped"
    away.rename(supervisor.config)
    told(watch, "in order again")


def test_all_of_it_is_moved_away_and_another_takes_its_place(supervisors: Start) -> None:
    supervisor = supervisors()
    home = supervisor.directory / "a" / "b"
    home.mkdir(parents=True)
    supervisor.config = supervisor.config.rename(home / "config.yaml")
    supervisor.presets = supervisor.presets.rename(home / "presets.d")
    shutil.copytree(supervisor.directory / "a", supervisor.directory / "other")
    (supervisor.directory / "other" / "b" / "presets.d" / "m.yaml").write_text(preset("m"))
    supervisor.start()
    watch = supervisor.watch()
    (supervisor.directory / "a").rename(supervisor.directory / "away")
    told(watch, "config.yaml: cannot read the file")
    (supervisor.directory / "other").rename(supervisor.directory / "a")
    told(watch, "m added")


def test_it_is_unmounted_and_mounted_again(supervisors: Start) -> None:
    """In a mount namespace of the supervisor's own."""
    supervisor = supervisors(
        prefix="import ctypes; libc = ctypes.CDLL(None, use_errno=True); private = 0x44000; new_namespace = 0x20000\n"
        "libc.unshare(new_namespace); libc.mount(b'none', b'/', None, private, None)"
    )
    supervisor.start()
    if Path(f"/proc/{supervisor.pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink():
        pytest.skip("this user may not make a mount namespace")
    watch, inside = supervisor.watch(), ("nsenter", f"--mount=/proc/{supervisor.pid}/ns/mnt")
    elsewhere = supervisor.directory / "disk"
    elsewhere.mkdir()
    (elsewhere / "m.yaml").write_text(preset("m"))
    subprocess.run([*inside, "mount", "--bind", elsewhere, supervisor.presets], check=True)
    told(watch, "m added")
    before = supervisor.call("load", model="m", wait=True)["model"]["pid"]
    subprocess.run([*inside, "umount", supervisor.presets], check=True)
    told(watch, "was replaced by one without presets")
    assert supervisor.model("m")["pid"] == before
    (elsewhere / "n.yaml").write_text(preset("n"))
    subprocess.run([*inside, "mount", "--bind", elsewhere, supervisor.presets], check=True)
    told(watch, "n added")
    assert supervisor.model("m")["pid"] == before
    assert supervisor.cpu_seconds_in(LONG_ENOUGH) < 0.2


# Too much, and too little


def test_a_thousand_files_at_once(supervisor: Supervisor) -> None:
    for number in range(1000):
        supervisor.write(f"m{number}", preset(f"m{number}"))
        if number % 100 == 0:
            supervisor.status()
    supervisor.eventually(lambda: len(supervisor.status()["models"]) == 1000, "all are there")
    assert len(reloads(supervisor)) <= 10


def test_a_file_that_changes_for_ever(supervisor: Supervisor) -> None:
    rounds = int(2.5 * LONGEST_SECONDS / 0.1)
    for number in range(rounds):
        supervisor.write("m", preset("m", description=str(number)))
        supervisor.cpu_seconds_in(0.1)
    assert 1 <= len(reloads(supervisor)) <= 3


def test_lost_events(supervisor: Supervisor) -> None:
    """Writes more than fs.inotify.max_queued_events while nobody reads."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 50000:
        pytest.skip(f"fs.inotify.max_queued_events is {most}: to fill that takes too long")
    left_alone(supervisor)
    supervisor.kill(supervisor.pid, signal.SIGSTOP)
    try:
        one, two = supervisor.presets / ".one", supervisor.presets / ".two"
        one.touch()
        for _ in range(most // 2):
            one.rename(two)
            two.rename(one)
        supervisor.add("m", reload=False)
    finally:
        supervisor.kill(supervisor.pid, signal.SIGCONT)
    told(supervisor.watch(), "m added")


@pytest.mark.parametrize(
    ("call", "number", "reason"),
    [
        ("add_watch", "ENOSPC", "fs.inotify.max_user_watches is used up"),
        ("__init__", "EMFILE", "fs.inotify.max_user_instances or the number of open files is used up"),
        ("__init__", "ENOSYS", "this kernel has no inotify"),
    ],
)
def test_the_kernel_refuses_to_watch(supervisors: Start, call: str, number: str, reason: str) -> None:
    refuses = f"def no(*_, **__): raise OSError(errno.{number}, '')"
    supervisor = supervisors(
        prefix=f"import errno, inotify_simple\n{refuses}\ninotify_simple.INotify.{call} = no"
    ).start()
    for name in ("m", "n"):
        supervisor.add(name, reload=False)
        assert supervisor.call("reload")["changes"]["added"] == [name]
    lines = [line for line in supervisor.log.read_text().splitlines() if "cannot watch" in line]
    assert len(lines) == 1
    assert reason in lines[0]
    assert "llama-router reload" in lines[0]


def test_watching_leaves_nothing_behind(supervisor: Supervisor) -> None:
    watch, before = supervisor.watch(), watches(supervisor)
    for number in range(5):
        target = supervisor.directory / f"target{number}"
        target.mkdir(exist_ok=True)
        (target / "m.yaml").write_text(preset("m", description=str(number)))
        link(supervisor.presets / "m.yaml", target / "m.yaml")
        told(watch, "m ad")
        assert watches(supervisor) == before + 1
    (supervisor.presets / "m.yaml").unlink()
    told(watch, "m removed")
    assert watches(supervisor) == before
