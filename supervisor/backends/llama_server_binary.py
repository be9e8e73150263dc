"""Finds llama-server and asks it what it is: its version and its options, each build once.

Whatever is found there instead, a script that sleeps or something that floods, costs a few seconds and ends in words.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from supervisor.backends.llama_server_help import Options
from supervisor.child import die_with_parent
from supervisor.core.preset import Preset
from supervisor.core.quantities import format_duration, shown
from supervisor.errors import CannotStart

NAME = "llama-server"
PATIENCE = 5.0
LONGEST_ANSWER = 2**20
# A failure is not remembered for longer: what was short then may be there again.
FORGET_FAILURE = 30.0
MOST_KEPT = 256
_INSTALL = "install llama.cpp's llama-server (b5000 of April 2025 or newer)"
# Of its own environment, what would change its answers or tell systemd something.
_HIDDEN = ("LLAMA_", "NOTIFY_SOCKET", "WATCHDOG_")


@dataclass(frozen=True)
class Binary:
    """A llama-server that can be used: where it is, the first line of what it says to --version, and its options."""

    path: str
    version: str
    options: Options


@dataclass(frozen=True)
class _Known:
    """What was found out; `why` is it that it can't be used, known until `until` (monotonic seconds)."""

    binary: Binary | None
    why: str = ""
    until: float = float("inf")


_Key = tuple[str, tuple[int, ...], tuple[tuple[str, str], ...]]
_known: dict[_Key, _Known] = {}


def binary(preset: Preset) -> Binary:
    """What a preset is served by. Raises CannotStart, which says what to do.

    Blocks for the tenth of a second that two short runs take where the file was not seen before, and for at most
    PATIENCE seconds.
    """
    path = _found(preset)
    try:
        about = os.stat(path)  # noqa: PTH116 - Path would accept "" as "."
    except OSError as error:
        raise CannotStart(f"cannot run {shown(path, 200)}: {error.strerror}") from None
    stamp = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    key = (path, stamp, tuple(sorted(preset.env.items())))
    known = _known.get(key)
    if known is None or known.until < time.monotonic():
        known = _asked(path, {**os.environ, **preset.env})
        while len(_known) >= MOST_KEPT:
            del _known[next(iter(_known))]
        _known[key] = known
    if known.binary is None:
        raise CannotStart(known.why)
    return known.binary


def _found(preset: Preset) -> str:
    """The path of the program, which is looked for on PATH if it is only a name."""
    name = preset.binary or NAME
    if "/" not in name:
        found = shutil.which(name, path=preset.env.get("PATH", os.environ.get("PATH", os.defpath)))
        if found is None:
            raise CannotStart(
                f"cannot find {shown(name, 200)} on PATH: {_INSTALL}, or write binary: with the path of one"
            )
        return os.path.abspath(found)  # noqa: PTH100 - Path.absolute keeps ".."
    path = Path(name)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise CannotStart(f"cannot run {shown(name, 200)}: {error.strerror}; correct the path") from None
    if not is_file:
        why = "it is not a file" if path.exists() else "there is no such file"
        raise CannotStart(f"cannot run {shown(name, 200)}: {why}; {_INSTALL}, or correct the path")
    if not os.access(name, os.X_OK):
        raise CannotStart(f"cannot run {shown(name, 200)}: it is not executable for this user; chmod +x helps")
    return name


def _asked(path: str, env: dict[str, str]) -> _Known:
    env = {name: value for name, value in env.items() if not name.startswith(_HIDDEN)}
    deadline = time.monotonic() + PATIENCE
    try:
        version = _answer(path, "--version", env, deadline).strip().partition("\n")[0][:200]
        options = Options(_answer(path, "--help", env, deadline))
        _require(options, version)
    except _Unusable as error:
        why = f"cannot use {shown(path, 200)} as llama-server: {error}"
        return _Known(None, why, time.monotonic() + FORGET_FAILURE)
    return _Known(Binary(path, version, options))


class _Unusable(Exception):
    """Why something is no llama-server, as words that follow its name."""


def _require(options: Options, version: str) -> None:
    """Everything that is told to it without the preset's asking, it must know."""
    host, model = options.get("--host"), options.get("--model")
    if host is None or model is None:
        raise _Unusable(f"its --help lists no --host and --model; {_INSTALL}")
    if ".sock" not in host.words:
        raise _Unusable(f"{shown(version, 100)} is too old, it can't listen on a UNIX socket; {_INSTALL}")


def _answer(path: str, question: str, env: dict[str, str], deadline: float) -> str:
    """What a run says on stdout and stderr. Raises _Unusable if it does not end well in time."""
    try:
        process = subprocess.Popen(
            [path, question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    except OSError as error:
        raise _Unusable(f"it can't be run: {error.strerror}") from None
    with process, os.fdopen(os.pidfd_open(process.pid)) as pidfd:
        said = _read(process, deadline)
        is_over = len(said) <= LONGEST_ANSWER and _wait(pidfd.fileno(), deadline)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # before waiting for it frees the group's number
        code = process.wait()
    if len(said) > LONGEST_ANSWER:
        raise _Unusable(f"{question} says more than {LONGEST_ANSWER // 2**20} MiB")
    if not is_over:
        raise _Unusable(f"{question} did not end within {format_duration(PATIENCE)}")
    text = said.decode(errors="replace")
    if code:
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise _Unusable(f"{question} ends with {how} and says {shown(last, 200)}")
    return text


def _read(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What it says until the end, until the time is over, or until it is more than LONGEST_ANSWER."""
    assert process.stdout is not None
    descriptor, said = process.stdout.fileno(), b""
    while len(said) <= LONGEST_ANSWER and _wait(descriptor, deadline):
        data = os.read(descriptor, 65536)
        if not data:
            break
        said += data
    return said


def _wait(descriptor: int, deadline: float) -> bool:
    """True once it is readable; False if that is not so in time."""
    poll = select.poll()  # select(2) takes no descriptor above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0, int(1000 * (deadline - time.monotonic())))))
