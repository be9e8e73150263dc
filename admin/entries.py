"""Models in the shape of llama-server's router: what the supervisor knows of them, and what their servers say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from admin.facts import NONE_KNOWN, Facts
from admin.model_servers import ModelServers, Told
from admin.states import Json, exit_code, foremost, states_of
from supervisor.protocol import Message

UNTOLD = Told()
DETAIL = (
    *("state", "reason", "pid", "since", "in_flight", "restarts"),
    *("waiting", "waiting_since", "waiting_for", "memory", "replicas"),
)


class Basis(NamedTuple):
    """What an entry is made of."""

    model: Json
    since: int
    facts: Json
    meta: Json | None
    architecture: Json | None


class Entries:
    """Makes them; what does not change is asked once and remembered, and written once for all lists."""

    def __init__(self, runtime_dir: Path, timeout: float, encode: Callable[[Json], bytes]) -> None:
        """`timeout`: seconds to wait for the supervisor."""
        self._facts = Facts(runtime_dir, timeout)
        self._servers = ModelServers()
        self._encode = encode
        self._written: dict[str, tuple[Basis, bytes]] = {}

    def of(self, models: Iterable[Json], answer: Message) -> list[Json]:
        """The entries of `models`, which are some of the status object `answer`. Raises NotRunning, ProtocolError or
        Refused."""
        return [entry(basis) for basis in self._bases(models, answer)]

    def written(self, models: Iterable[Json], answer: Message) -> bytes:
        """The list of the same, as it is sent. Raises as `of`."""
        entries = [self._write(basis) for basis in self._bases(models, answer)]
        if len(self._written) > len(answer["models"]):
            names = {model["name"] for model in answer["models"]}
            self._written = {name: written for name, written in self._written.items() if name in names}
        return b'{"data":[' + b",".join(entries) + b'],"object":"list"}\n'

    def _bases(self, models: Iterable[Json], answer: Message) -> list[Basis]:
        models = list(models)
        facts = self._facts.of(answer)
        self._servers.forget_all_but(model["launch"] for model in answer["models"])
        told = self._servers.told(models)
        since = int(answer["since"])
        return [_basis(model, since, facts, told.get(model["name"], UNTOLD)) for model in models]

    def _write(self, basis: Basis) -> bytes:
        name = basis.model["name"]
        before = self._written.get(name)
        if before is not None and before[0] == basis:
            return before[1]
        written = self._encode(entry(basis))
        self._written[name] = basis, written
        return written

    def one(self, name: str, answer: Message) -> Json:
        """The entry of the model of that name. Raises as `of`, and LookupError if there is none."""
        models = [model for model in answer["models"] if model["name"] == name]
        return self.of(models, answer)[0]


def _basis(model: Json, since: int, facts: Mapping[str, Json], told: Told) -> Basis:
    return Basis(model, since, facts.get(model["name"], NONE_KNOWN), told.meta, told.architecture)


def entry(basis: Basis) -> Json:
    """A model in llama-server's shape; `created` is when the supervisor started (Unix seconds).

    What a running server said of itself goes before what its preset and its file say.
    """
    model, facts = basis.model, basis.facts
    meta = basis.meta or facts["meta"]
    status = status_of(model, facts, meta)
    result: Json = {
        "id": model["name"],
        "aliases": sorted(model["aliases"]),
        "tags": [],
        "object": "model",
        "owned_by": "llamacpp",
        "created": basis.since,
        "status": status,
        "architecture": basis.architecture or facts["architecture"],
        "source": model.get("source") or "preset",
        "can_remove": False,
    }
    if meta and status["value"] in ("loaded", "sleeping"):
        result["meta"] = meta
    return result


def status_of(model: Json, facts: Json, meta: Json | None) -> Json:
    """llama-server's status. `failed` and `exit_code` are there only for a model that is not started again by itself:
    one that was evicted, idle or unloaded on request has not failed."""
    detail = {key: model.get(key) for key in DETAIL} | {"meta": meta}
    result: Json = {
        "value": foremost(states_of(model).values()),
        "args": model.get("args") or facts["args"],
        "preset": facts["preset"],
    }
    if model["state"] == "failed":
        result |= {"exit_code": exit_code(model["reason"]), "failed": True}
    return result | {"detail": detail}
