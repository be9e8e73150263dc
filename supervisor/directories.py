"""Where llama-router keeps its sockets, its state and its configuration, and how the private directories are made.

The choice is a function of the options, the environment and which files exist; nothing is created by choosing.
Variables: XDG Base Directory Specification 0.8 (relative paths are ignored, as it demands); RUNTIME_DIRECTORY,
STATE_DIRECTORY and CONFIGURATION_DIRECTORY are systemd.exec(5)'s, colon-separated when a unit names several.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.client import SOCKET_NAME
from supervisor.errors import CannotCreate, Problem

NAME = "llama-router"
SYSTEM_RUNTIME = Path("/run", NAME)
SYSTEM_STATE = Path("/var/lib", NAME)
SYSTEM_CONFIG = Path("/etc", NAME)
CONFIG_FILE = "config.yaml"

# sun_path of unix(7) holds 108 bytes, the last of them a NUL.
MAX_SOCKET_PATH = 107
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Directories:
    """Absolute paths: two directories, and `config`, the configuration file. None of them need exist."""

    runtime: Path
    state: Path
    config: Path


def for_daemon(
    environment: Environment,
    *,
    runtime: Path | None = None,
    state: Path | None = None,
    config: Path | None = None,
    uid: int | None = None,
) -> Directories:
    """What `llama-router run` uses. The keywords are its options; `uid` defaults to the effective user.

    Raises CannotCreate when there is nowhere to keep state: no option, no variable and no home.
    """
    user = os.geteuid() if uid is None else uid
    return Directories(
        runtime=(runtime or _daemon_runtime(environment, user)).absolute(),
        state=(state or _state(environment, user)).absolute(),
        config=config_file(environment, config),
    )


def for_client(environment: Environment, runtime: Path | None = None, uid: int | None = None) -> Path:
    """The runtime directory a client looks for the control socket in.

    (1) The option. (2) LLAMA_ROUTER_RUNTIME_DIR. (3) The user's own default or else the system's, if a control socket
    is there. (4) The user's own, for the error message to name.
    """
    if chosen := runtime or _path(environment, "LLAMA_ROUTER_RUNTIME_DIR"):  # (1) (2)
        return chosen.absolute()
    own = _own_runtime(environment, os.geteuid() if uid is None else uid)
    for directory in (own, SYSTEM_RUNTIME):  # (3)
        if os.path.lexists(directory / SOCKET_NAME):
            return directory
    return own  # (4)


def config_file(environment: Environment, config: Path | None = None) -> Path:
    """The configuration file that `run` and `check` read; `config` is their option."""
    directory = _first(environment, "CONFIGURATION_DIRECTORY")
    chosen = config or (directory and directory / CONFIG_FILE) or _path(environment, "LLAMA_ROUTER_CONFIG")
    if chosen:
        return chosen.absolute()
    own = _own_config(environment)
    return own if own and os.path.lexists(own) else SYSTEM_CONFIG / CONFIG_FILE


def unwritten(environment: Environment, config: Path | None = None) -> list[Problem]:
    """The user's own configuration file, if none was named and `config_file` found none, for an error to tell."""
    own = _own_config(environment)
    if config or own is None or is_config_named(environment) or os.path.lexists(config_file(environment)):
        return []
    return [Problem(str(own), None, None, "it is not there either: write one of the two, or name one with --config")]


def is_config_named(environment: Environment) -> bool:
    """Whether a variable says which configuration file is meant."""
    return bool(_first(environment, "CONFIGURATION_DIRECTORY") or _path(environment, "LLAMA_ROUTER_CONFIG"))


def make_private(path: Path, *, tighten: bool = True) -> None:
    """Create the directory `path` with mode 0700, or check that an existing one is safe to use.

    An existing directory of this user gets mode 0700, unless `tighten` is false: that is for the state directory,
    whose mode an administrator may have chosen. Raises CannotCreate for one that is not a directory, belongs to another
    user, that others could have reached into in a place where everybody may write, or is a symbolic link that others
    could have put there.
    """
    path = _followed(path)
    created = _create(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        why = "it is a symbolic link" if path.is_symlink() else (error.strerror or str(error))
        raise _unusable(path, why, "remove it, or name another directory") from None
    try:
        _check_owner_and_mode(path, os.fstat(descriptor))
        if created or tighten:
            os.fchmod(descriptor, 0o700)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error), "name another directory") from None
    finally:
        os.close(descriptor)


def check_socket_length(path: Path) -> None:
    """Raises CannotCreate when `path` is too long for the address of a UNIX socket."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise CannotCreate(
            f"cannot create socket {path}: its path has {length} bytes and a UNIX socket's may have {MAX_SOCKET_PATH}; "
            "choose a shorter --runtime-dir"
        )


def _daemon_runtime(environment: Environment, uid: int) -> Path:
    named = _first(environment, "RUNTIME_DIRECTORY") or _path(environment, "LLAMA_ROUTER_RUNTIME_DIR")
    return named or _own_runtime(environment, uid)


def _own_runtime(environment: Environment, uid: int) -> Path:
    if session := _absolute(environment, "XDG_RUNTIME_DIR"):
        return session / NAME
    if uid == 0:
        return SYSTEM_RUNTIME
    return (_absolute(environment, "TMPDIR") or Path(tempfile.gettempdir())) / f"{NAME}-{uid}"


def _own_config(environment: Environment) -> Path | None:
    home = _home(environment)
    base = _absolute(environment, "XDG_CONFIG_HOME") or (home and home / ".config")
    return base / NAME / CONFIG_FILE if base else None


def _state(environment: Environment, uid: int) -> Path:
    if named := _first(environment, "STATE_DIRECTORY"):
        return named
    if base := _absolute(environment, "XDG_STATE_HOME"):
        return base / NAME
    if uid == 0:
        return SYSTEM_STATE
    if home := _home(environment):
        return home / ".local" / "state" / NAME
    raise CannotCreate("cannot choose a state directory: HOME is not set; name one with --state-dir")


def _path(environment: Environment, variable: str) -> Path | None:
    value = environment.get(variable)
    return Path(value) if value else None


def _first(environment: Environment, variable: str) -> Path | None:
    value = environment.get(variable, "").split(":")[0]
    return Path(value) if value else None


def _absolute(environment: Environment, variable: str) -> Path | None:
    path = _path(environment, variable)
    return path if path and path.is_absolute() else None


def _home(environment: Environment) -> Path | None:
    return _absolute(environment, "HOME")


def _create(path: Path) -> bool:
    """True when the directory did not exist; its parents are made as the umask says."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError:
        return False
    except OSError as error:
        why = f"{error.strerror or error}: {error.filename}"
        raise CannotCreate(f"cannot create directory {path}: {why}; name another directory") from None
    return True


def _followed(path: Path) -> Path:
    """Where a symbolic link leads that nobody else can have put there; systemd makes one for DynamicUser=."""
    if not path.is_symlink():
        return path
    place = path.parent.stat()
    trusted = {0, os.geteuid()}
    safe = path.lstat().st_uid in trusted and place.st_uid in trusted and not place.st_mode & OTHERS_WRITE
    return path.resolve() if safe else path


def _check_owner_and_mode(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        why = f"it belongs to user {found.st_uid}, and this is user {os.geteuid()}"
        raise _unusable(path, why, "name another directory, or run as its owner")
    exposed = stat.S_IMODE(found.st_mode) & 0o077
    if exposed and path.parent.stat().st_mode & stat.S_IWOTH:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        why = f"others may reach into it (mode {mode}) and everybody may write to {path.parent}"
        raise _unusable(path, why, f"see what is in it, then run: chmod 700 {path}")


def _unusable(path: Path, why: str, fix: str) -> CannotCreate:
    return CannotCreate(f"cannot use directory {path}: {why}; {fix}")
