"""A preset: everything that is configured about one model, and the rules across its keys.

Lengths of time are seconds, sizes bytes. Reading YAML, resolving paths and looking at the disk is presets_dir's part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from supervisor.core import spelling
from supervisor.core.fields import (
    Argument,
    Device,
    Dictionary,
    Duration,
    DurationOrNever,
    Filled,
    Flag,
    Json,
    Name,
    Sequence,
    Size,
    Strict,
    Text,
    Variable,
    Whole,
)
from supervisor.core.quantities import format_duration, shown

# Keys that mean something to llama.cpp backends only, to llama-server alone, and to `command` backends only.
LLAMA_KEYS: frozenset[str] = frozenset(
    {"model", "mmproj", "context", "gpu_layers", "parallel", "threads", "embedding", "options"}
)
LLAMA_SERVER_KEYS: frozenset[str] = frozenset({"binary"})
COMMAND_KEYS: frozenset[str] = frozenset({"command", "ready"})
ADDRESS_TOKENS = ("{port}", "{socket}")

Backend = Literal["llama-cpp-python", "llama-server", "command"]

# What llama-server computes at once if it is not told (n_parallel of -1, tools/server/server.cpp).
LLAMA_SERVER_SLOTS = 4


class HttpReady(Strict):
    """Ready once GET `http` (a path, perhaps with a query) answers 200."""

    http: Text = "/health"
    """The path that answers 200 once it is ready."""

    @field_validator("http")
    @classmethod
    def _is_a_path(cls, path: str) -> str:
        if path.startswith("/") and path.isascii() and path.isprintable() and " " not in path:
            return path
        raise ValueError(f"cannot use {shown(path)} as a path to ask: write one such as /health")


Ready = Literal["notify", "tcp"] | HttpReady
_READY_BY_BACKEND: dict[str, Ready] = {
    "llama-cpp-python": "notify",
    "llama-server": HttpReady(),
    "command": "tcp",
}


def _readiness(value: object) -> Ready | None:
    """One message for every way of getting it wrong, where a union would report each of its members."""
    if value is None or value == "notify" or value == "tcp" or isinstance(value, HttpReady):
        return value
    if isinstance(value, Mapping) and set(value) == {"http"} and isinstance(value["http"], str):
        return HttpReady(http=HttpReady._is_a_path(value["http"]))
    raise ValueError(f"cannot read {shown(value)} as readiness: write notify, tcp or {{http: /health}}")


class Restart(Strict):
    """What happens after a model server ended by itself.

    It is started again after `delay`, twice that the next time and so on up to `max_delay`. More than `limit`
    restarts within `within` make it failed; a limit of 0 allows no restart.
    """

    policy: Literal["on-failure", "always", "no"] = "on-failure"
    """Whether a model server that ended by itself is started again: after failures, always, or never."""
    delay: Duration = 1.0
    """How long after a failure; doubled each time."""
    max_delay: Duration = 60.0
    """The longest that `delay` grows to."""
    limit: Whole = Field(5, ge=0)
    """More failures than this within `within` make the model failed."""
    within: Duration = Field(600.0, gt=0)
    """The time in which failures are counted."""

    @field_validator("max_delay")
    @classmethod
    def _not_below_delay(cls, max_delay: float, info: ValidationInfo) -> float:
        delay = info.data.get("delay", 0.0)
        if max_delay < delay:
            raise ValueError(
                f"cannot be {format_duration(max_delay)}: delay is {format_duration(delay)}, which is longer; "
                f"write max_delay: {format_duration(delay)} or more"
            )
        return max_delay


class Limits(Strict):
    """What one replica may take of the machine; the kernel holds it to that. None is no limit."""

    memory: Size | None = None
    """The most memory: beyond it the model server is out of memory."""
    cpu_weight: Whole | None = Field(None, ge=1, le=10000)
    """Its part of the processors when they are short, 100 being usual."""

    @field_validator("memory")
    @classmethod
    def _not_zero(cls, memory: int | None) -> int | None:
        if memory == 0:
            raise ValueError("cannot be 0: write a size such as 12GiB, or remove it")
        return memory


class Rewrite(Strict):
    """Changes to the JSON body of each request: keys to set, and keys to remove."""

    set: Annotated[Mapping[Text, Json], Dictionary] = Field(default_factory=dict)
    """Keys and the values that they get, in each request."""
    remove: Annotated[tuple[Filled, ...], Sequence] = ()
    """Keys that are taken out of each request."""

    @field_validator("remove")
    @classmethod
    def _model_is_needed(cls, remove: tuple[str, ...]) -> tuple[str, ...]:
        if "model" in remove:
            raise ValueError("cannot remove 'model': servers want one; write set: {model: NAME} to name another")
        return remove


class Preset(Strict):
    """One model as configured. Equal presets need no restart; equality tells 1, 1.0 and true apart.

    `context`, `gpu_layers`, `parallel` and `threads` of None are left to the backend; context 0 is the model's own and
    gpu_layers -1 all layers. `ready` is never None: llama-cpp-python notifies, llama-server is asked for /health and a
    command is ready when its port or socket takes a connection, unless `ready` says otherwise.
    The order of the fields matters: a rule sees the fields above its own.
    """

    name: Name
    description: Text | None = None
    """Shown in lists."""
    aliases: Annotated[tuple[Name, ...], Sequence] = ()
    """Other names for the model, each used once among all models."""
    backend: Backend = "llama-cpp-python"
    """What serves it: llama-cpp-python, llama-server, or a command of your own."""
    binary: Filled | None = None
    """For backend llama-server: the program, by name or path; else llama-server on PATH."""
    model: Filled | None = None
    """The GGUF file; relative paths count from the file of presets."""
    mmproj: Filled | None = None
    """The GGUF file of a vision model's projector."""
    context: Whole | None = Field(None, ge=0)
    """Tokens of prompt and answer together; 0 is what the model was trained for."""
    gpu_layers: Whole | None = Field(None, ge=-1)
    """Layers on the GPU; -1 is all of them."""
    parallel: Whole | None = Field(None, ge=1)
    """Requests that the model server computes at once."""
    threads: Whole | None = Field(None, ge=1)
    """Threads that compute."""
    embedding: Flag = False
    """Whether it serves /v1/embeddings."""
    options: Annotated[Mapping[Filled, Json], Dictionary] = Field(default_factory=dict)
    """More settings of the backend, by the backend's own names."""
    env: Annotated[Mapping[Variable, Argument], Dictionary] = Field(default_factory=dict)
    """Environment variables of the model server."""
    command: Annotated[tuple[Argument, ...], Sequence] = ()
    """For backend command: program and arguments; {port} or {socket} in it, or in env, says where to listen."""
    # None until the rule below fills it in.
    ready: Annotated[Ready, BeforeValidator(_readiness), WithJsonSchema(spelling.READY)] = None  # type: ignore[assignment]
    """For backend command: when it is ready; it says so itself, takes connections, or answers a path with 200."""
    autostart: Flag = False
    """Load it at start, and after a reload."""
    pinned: Flag = False
    """Never unload it for another model, nor for being idle."""
    replicas: Whole = Field(1, ge=1, le=64)
    """How many processes serve it."""
    max_concurrency: Whole | None = Field(None, ge=1)
    """Requests that are forwarded to one replica at once; more wait."""
    memory: Annotated[Mapping[Device, Size], Dictionary] | None = None
    """What one replica needs of each device; else it is estimated, and then measured."""
    limits: Annotated[Limits, Dictionary] = Limits()
    """What each replica may take at most, where systemd gives llama-router cgroups."""
    start_timeout: DurationOrNever = 300.0
    """Not ready after this long, it is ended, which counts as a failure."""
    stop_timeout: Duration = 10.0
    """How long running requests may go on, and then how long SIGTERM gets before SIGKILL."""
    idle_timeout: DurationOrNever = None
    """Unloaded when unused for this long."""
    min_residency: Duration = 0.0
    """Not unloaded for another model before it has been ready for this long."""
    restart: Annotated[Restart, Dictionary] = Restart()
    """What happens after it ended by itself."""
    watchdog: DurationOrNever = None
    """Killed and started again when it has not answered for this long."""
    request: Annotated[Rewrite, Dictionary] | None = None
    """Changes to the body of each request."""

    @property
    def lease_limit(self) -> int:
        """How many leases one replica grants at once."""
        return self.max_concurrency or self.parallel or (LLAMA_SERVER_SLOTS if self.backend == "llama-server" else 1)

    @field_validator("aliases")
    @classmethod
    def _aliases_differ(cls, aliases: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        seen = set()
        for alias in aliases:
            if alias == info.data.get("name"):
                raise ValueError(f"cannot use alias {shown(alias)}: it is the model's own name; remove it")
            if alias in seen:
                raise ValueError(f"cannot use alias {shown(alias)} twice: remove one")
            seen.add(alias)
        return aliases

    @field_validator(*sorted(LLAMA_KEYS))
    @classmethod
    def _llama_keys_for_llama(cls, value: Any, info: ValidationInfo) -> Any:
        backend = info.data.get("backend")
        key = info.field_name or ""
        if backend == "command" and value is not None and value is not False and value != {}:
            instead = "max_concurrency" if key == "parallel" else "the command's own arguments or env"
            raise ValueError(f"cannot be given for backend command: use {instead}")
        if key == "model" and value is None and backend not in (None, "command"):
            raise ValueError(f"cannot be missing for backend {backend}: write the path of a GGUF file")
        return value

    @field_validator("binary")
    @classmethod
    def _binary_for_llama_server(cls, value: str | None, info: ValidationInfo) -> str | None:
        backend = info.data.get("backend")
        if value is not None and backend not in (None, "llama-server"):
            raise ValueError(f"cannot be given for backend {backend}: write backend: llama-server, or remove it")
        return value

    @field_validator("command")
    @classmethod
    def _command_for_command(cls, command: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        backend = info.data.get("backend")
        if backend is None:
            return command
        if backend != "command":
            if command:
                raise ValueError(f"cannot be given for backend {backend}: write backend: command, or remove it")
            return command
        if not command or not command[0]:
            raise ValueError("cannot be missing or empty for backend command: write [PROGRAM, ARGUMENT, …]")
        if "env" in info.data:
            _require_one_token([*command, *info.data["env"].values()])
        return command

    @field_validator("ready", mode="before")
    @classmethod
    def _ready_by_backend(cls, ready: object, info: ValidationInfo) -> object:
        backend = info.data.get("backend")
        usual = _READY_BY_BACKEND[backend or "command"]
        ready = _readiness(ready)
        if backend not in (None, "command") and ready not in (None, usual):
            raise ValueError(f"cannot be given for backend {backend}: it is always known; remove it")
        return usual if ready is None else ready

    @field_validator("start_timeout", "watchdog")
    @classmethod
    def _not_zero(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("cannot be 0: write a longer time, or never")
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preset) and (self is other or self._canonical() == other._canonical())

    def __hash__(self) -> int:
        return hash(self.name)

    def _canonical(self) -> str:
        return json.dumps(self.model_dump(), sort_keys=True)


def _require_one_token(texts: list[str]) -> None:
    found = [token for token in ADDRESS_TOKENS if any(token in text for text in texts)]
    if not found:
        raise ValueError(
            "cannot tell the program where to listen: put {port} or {socket} into an argument or into env, "
            'for example [PROGRAM, --port, "{port}"]'
        )
    if len(found) > 1:
        raise ValueError("cannot listen on both {port} and {socket}: use one of them")
