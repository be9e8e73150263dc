"""config.yaml: what is configured about the daemon itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, WithJsonSchema, field_validator

from supervisor.core import quantities, spelling
from supervisor.core.fields import (
    Device,
    Dictionary,
    Duration,
    Filled,
    Flag,
    Name,
    Sequence,
    Size,
    Strict,
    Whole,
    as_flag,
    as_whole,
)
from supervisor.core.quantities import shown

# sun_path of unix(7) has room for this many bytes and a final NUL.
MAX_SOCKET_PATH = 107
MAX_WORKERS = 256
MIN_KEEP = 2**20

_LISTEN_EXAMPLES = "write 127.0.0.1:8080, [::1]:8080 or unix:/run/llama-router/web.sock"
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^\[\]:]+)):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")

_ORIGIN = r"\*|localhost|[A-Za-z][A-Za-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@,\[\]:*]+)(:[0-9]{1,5})?"

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
    try:
        return "auto" if value == "auto" else as_flag(value)
    except ValueError:
        raise ValueError(f"cannot read {shown(value)}: write true, false or auto") from None


def _workers(value: object) -> int | str:
    if value == "auto":
        return "auto"
    workers = as_whole(value)
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"cannot run {shown(workers)} workers: write 1 to {MAX_WORKERS}, or auto")
    return workers


def _origin(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_ORIGIN, value) and value.isascii():
        return value
    raise ValueError(
        f"cannot use {shown(value)} as the origin of pages: write one such as https://chat.example.org, without a "
        "path; or localhost, or '*' in quotes"
    )


def _network(value: object) -> str:
    try:
        return str(ip_network(value if isinstance(value, str) else ""))
    except ValueError:
        pass
    raise ValueError(
        f"cannot trust {shown(value)} as a reverse proxy: write its address or network, such as 127.0.0.1 or 10.0.0.0/8"
    )


_WORKERS = spelling.either(spelling.whole(1, MAX_WORKERS), spelling.AUTO)
_FLAG_OR_AUTO = spelling.either(spelling.FLAG, spelling.AUTO)

Address = Annotated[
    InstanceOf[Listen], BeforeValidator(parse_listen), PlainSerializer(str), WithJsonSchema(spelling.LISTEN)
]
Origin = Annotated[
    str,
    BeforeValidator(_origin),
    WithJsonSchema({"type": "string", "pattern": f"^({_ORIGIN})$", "examples": ["https://chat.example.org"]}),
]
Network = Annotated[
    str,
    BeforeValidator(_network),
    WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$", "examples": ["127.0.0.1"]}),
]
Budget = Annotated[
    int | Auto,
    BeforeValidator(_size_or_auto),
    WithJsonSchema(spelling.either(*spelling.SIZE["anyOf"], spelling.AUTO)),
]


class Tls(Strict):
    """What the web tier shows to be who it is. Both files are PEM and may be replaced while it runs."""

    certificate: Filled
    """The certificate, with those of its issuers behind it, relative to this file."""
    key: Filled
    """Its private key, without a password, relative to this file."""


class Web(Strict):
    """The web tier; "auto" leaves the number of its workers to it."""

    workers: Annotated[int | Auto, BeforeValidator(_workers), WithJsonSchema(_WORKERS)] = "auto"
    """Processes that serve the page and the API."""
    cors_origins: Annotated[tuple[Origin, ...], Sequence] = ("localhost",)
    """Pages that may use models: origins such as https://chat.example.org, localhost for this machine's own, or *."""
    edit_commands: Flag = False
    """Whether the dashboard may change what decides on programs and files: command, binary, env, and some options."""
    tls: Annotated[Tls, Dictionary] | None = None
    """The certificate to serve https with; without it, http."""
    trusted_proxies: Annotated[tuple[Network, ...], Sequence] = ()
    """Addresses or networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    api_key_file: Filled | None = None
    """A file of keys for the API, one a line, as for llama-server's --api-key-file; relative to this file."""
    allow_anyone: Flag = False
    """Whether everybody who reaches the address may use every model while there is no key, wherever it listens."""


class Log(Strict):
    """Where the log goes: to the journal (auto: if systemd has connected stderr to it), and to files."""

    journal: Annotated[bool | Auto, BeforeValidator(_flag_or_auto), WithJsonSchema(_FLAG_OR_AUTO)] = "auto"
    """Whether the log goes to systemd's journal, the models' output included; auto is where stderr does."""
    directory: Filled | None = None
    """The directory for log files, relative to this file."""
    keep: Size = 50 * 2**20
    """How much all log files together may take."""

    @field_validator("keep")
    @classmethod
    def _enough(cls, keep: int) -> int:
        if keep < MIN_KEEP:
            raise ValueError(f"cannot keep logs in {shown(keep)} bytes: write 1MiB or more")
        return keep


class Config(Strict):
    """Everything in config.yaml. Times are seconds, sizes bytes; `max_models` 0 means no limit.

    A device that `memory` does not name counts as "auto": what the machine has.
    """

    listen: Address = Listen(host="127.0.0.1", port=8080)
    """Where the page and the API are: HOST:PORT, [IPV6]:PORT, or unix:/PATH."""
    presets: Filled = "presets.d"
    """The directory of presets, relative to this file."""
    models_dir: Filled = "/var/lib/llama-router/models"
    """A directory in which every GGUF file is a model, relative to this file."""
    max_models: Whole = Field(4, ge=0)
    """How many models may be loaded at once; 0 is no limit."""
    memory: Annotated[Mapping[Device, Budget], Dictionary] = Field(default_factory=dict)
    """How much of each device all models together may use; auto is what the machine has."""
    keep_vocabularies: Size = 256 * 2**20
    """How much the vocabularies of models that were evicted may take, which quickens their return; 0 keeps none."""
    autoload: Flag = True
    """Whether a request loads the model it names."""
    fallback: Name | None = None
    """The model for requests that name none."""
    max_wait: Duration = 10.0
    """How long a request waits for busy models before one takes no new requests and makes room."""
    queue_limit: Whole = Field(512, ge=0)
    """How many requests may wait."""
    web: Annotated[Web, Dictionary] = Web()
    """The web tier."""
    log: Annotated[Log, Dictionary] = Log()
    """Where the log goes."""
