"""Models in the shape of llama-server's router: what the supervisor knows of them, and what their servers say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from admin.facts import NONE_KNOWN, Facts
from admin.model_servers import ModelServers, Told
from admin.states import Json, exit_code, foremost, states_of
from supervisor.protocol import Message

UNTOLD = Told()
DETAIL = (
    *("state", "reason", "pid", "since", "in_flight", "restarts"),
    *("waiting", "waiting_since", "waiting_for", "memory", "replicas"),
)


class Entries:
    """Makes them; what does not change is asked once and remembered."""

    def __init__(self, runtime_dir: Path, timeout: float) -> None:
        """`timeout`: seconds to wait for the supervisor."""
        self._facts = Facts(runtime_dir, timeout)
        self._servers = ModelServers()

    def of(self, models: Iterable[Json], answer: Message) -> list[Json]:
        """The entries of `models`, which are some of the status object `answer`. Raises NotRunning, ProtocolError or
        Refused."""
        models = list(models)
        facts = self._facts.of(answer)
        self._servers.forget_all_but(model["launch"] for model in answer["models"])
        told = self._servers.told(models)
        since = int(answer["since"])
        return [
            entry(model, since, facts.get(model["name"], NONE_KNOWN), told.get(model["name"], UNTOLD))
            for model in models
        ]

    def one(self, name: str, answer: Message) -> Json:
        """The entry of the model of that name. Raises as `of`, and LookupError if there is none."""
        models = [model for model in answer["models"] if model["name"] == name]
        return self.of(models, answer)[0]


def entry(model: Json, since: int, facts: Json, told: Told) -> Json:
    """A model in llama-server's shape; `created` is when the supervisor started (Unix seconds).

    What a running server said of itself goes before what its preset and its file say.
    """
    meta = told.meta or facts["meta"]
    status = status_of(model, facts, meta)
    result: Json = {
        "id": model["name"],
        "aliases": sorted(model["aliases"]),
        "tags": [],
        "object": "model",
        "owned_by": "llamacpp",
        "created": since,
        "status": status,
        "architecture": told.architecture or facts["architecture"],
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
