"""config.yaml: what is configured about the daemon itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer

from supervisor.core import quantities
from supervisor.core.fields import (
    Device,
    Dictionary,
    Duration,
    Filled,
    Flag,
    Name,
    Strict,
    Whole,
    as_flag,
    as_whole,
)
from supervisor.core.quantities import shown

# Keys that are read and validated but change nothing in this version.
UNACTED: frozenset[str] = frozenset({"models_dir", "memory", "log"})

# sun_path of unix(7) has room for this many bytes and a final NUL.
MAX_SOCKET_PATH = 107
MAX_WORKERS = 256

_LISTEN_EXAMPLES = "write 127.0.0.1:8080, [::1]:8080 or unix:/run/llama-router/web.sock"
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^\[\]:]+)):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")

Auto = Literal["auto"]


@dataclass(frozen=True)
class Listen:
    """Where the web tier listens: `host` (without brackets) and `port` (0: any free one), or the `path` of a socket."""

    host: str | None = None
    port: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


def parse_listen(value: object) -> Listen:
    """A Listen of "HOST:PORT", "[V6]:PORT", "unix:/path" or "/path". Raises ValueError with examples."""
    if isinstance(value, Listen):
        return value
    if not isinstance(value, str):
        raise ValueError(f"cannot listen on {shown(value)}: {_LISTEN_EXAMPLES}")
    path = value.removeprefix("unix:")
    if path.startswith("/") or path != value:
        return Listen(path=_socket_path(path))
    match = _HOST_PORT.fullmatch(value)
    if not match or int(match["port"]) > 65535 or not _is_host(match["host"], match["v6"]):
        hint = "write 0.0.0.0 for every interface; " if value.startswith(":") else ""
        raise ValueError(f"cannot listen on {shown(value)}: {hint}{_LISTEN_EXAMPLES}")
    return Listen(host=match["host"] or match["v6"], port=int(match["port"]))


def _socket_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError(f"cannot listen on socket {shown(path)}: write the absolute path of a file")
    if len(path.encode(errors="surrogateescape")) > MAX_SOCKET_PATH:
        raise ValueError(f"cannot listen on socket {shown(path)}: it is longer than {MAX_SOCKET_PATH} bytes")
    return path


def _is_host(host: str | None, v6: str | None) -> bool:
    try:
        if host is None:
            IPv6Address(v6 or "")
        elif re.fullmatch(r"[0-9.]+", host):
            IPv4Address(host)
        else:
            return _HOST_NAME.fullmatch(host) is not None
    except AddressValueError:
        return False
    return True


def _size_or_auto(value: object) -> int | str:
    return "auto" if value == "auto" else quantities.size(value)


def _flag_or_auto(value: object) -> bool | str:
    return "auto" if value == "auto" else as_flag(value)


def _workers(value: object) -> int | str:
    if value == "auto":
        return "auto"
    workers = as_whole(value)
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"cannot run {shown(workers)} workers: write 1 to {MAX_WORKERS}, or auto")
    return workers


class Web(Strict):
    """The web tier; "auto" leaves the number of its workers to it."""

    workers: Annotated[int | Auto, BeforeValidator(_workers)] = "auto"


class Log(Strict):
    """Where the models' output goes: the journal (auto: if there is one), and files of at most `keep` bytes a model."""

    journal: Annotated[bool | Auto, BeforeValidator(_flag_or_auto)] = "auto"
    directory: Filled | None = None
    keep: Annotated[int, BeforeValidator(quantities.size)] = 50 * 2**20


class Config(Strict):
    """Everything in config.yaml. Times are seconds, sizes bytes; `max_models` 0 means no limit.

    A device that `memory` does not name counts as "auto": what the machine has.
    """

    listen: Annotated[InstanceOf[Listen], BeforeValidator(parse_listen), PlainSerializer(str)] = Listen(
        host="127.0.0.1", port=8080
    )
    presets: Filled = "presets.d"
    models_dir: Filled = "/var/lib/llama-router/models"
    max_models: Whole = Field(4, ge=0)
    memory: Annotated[Mapping[Device, Annotated[int | Auto, BeforeValidator(_size_or_auto)]], Dictionary] = Field(
        default_factory=dict
    )
    autoload: Flag = True
    fallback: Name | None = None
    max_wait: Duration = 10.0
    queue_limit: Whole = Field(512, ge=0)
    web: Annotated[Web, Dictionary] = Web()
    log: Annotated[Log, Dictionary] = Log()
