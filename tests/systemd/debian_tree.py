"""A small Debian in a directory, for tests that boot it: made once with debootstrap, then kept below ~/.cache.

Its release and its mirror are those of this machine's own apt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "procps", "iproute2", "python3", "curl", "ca-certificates"),
    *("libgomp1", "libstdc++6", "adduser", "bash-completion", "man-db"),
)
# They would look for updates whenever it pleases them.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "man-db.timer", "e2scrub_all.timer")
BUILD_SECONDS = 900


class NoTree(Exception):
    """There is none, and none can be made; the message says why."""


def debian_tree() -> Path:
    """The tree, made if need be, which takes a minute or two. Not to be changed. Raises NoTree."""
    suite, mirror = _release(), _mirror()
    recipe = (suite, mirror, platform.machine(), PACKAGES, MASKED, 1)  # the number counts changes of _finish
    name = f"debian-{suite}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama-router-tests"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / name).exists():
            unfinished = cache / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            _build(unfinished, suite, mirror)
            unfinished.rename(cache / name)
    return cache / name


def _release() -> str:
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian" or "VERSION_CODENAME" not in release:
        raise NoTree(f"no tree can be made: {release.get('PRETTY_NAME', 'this')} is not a release of Debian")
    return release["VERSION_CODENAME"]


def _mirror() -> str:
    """Where apt gets this very release from, updates and security apart."""
    if shutil.which("apt-get") is None:
        raise NoTree("no tree can be made: there is no apt-get to ask for a mirror")
    fields = ("--format", "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for line in _output("apt-get", "indextargets", *fields).splitlines():
        origin, codename, component, uri = line.split(" ", 3)
        if (origin, codename, component) == ("Debian", _release(), "main"):
            return uri
    raise NoTree(f"no tree can be made: apt has no source for Debian {_release()} main; try apt-get update")


def _build(target: Path, suite: str, mirror: str) -> None:
    if shutil.which("debootstrap") is None:
        _output("apt-get", "update", "-qq")
        _output("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "-y", "debootstrap")
    _output("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(target), mirror)
    _finish(target)


def _finish(tree: Path) -> None:
    """Nothing of this machine, a new identity at each boot, and nothing that starts by the clock."""
    (tree / "etc/hostname").write_text("llama-router-tests\n")
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for package in (tree / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def _output(*command: str) -> str:
    """What it prints. Raises NoTree with the end of it if it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoTree(f"no tree can be made: {error}") from None
    if done.returncode:
        raise NoTree(f"no tree can be made: {command[0]} ended with {done.returncode}: {done.stdout[-1000:]}")
    return done.stdout
