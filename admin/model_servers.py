"""What model servers that run say of their models: llama-server's GET /v1/models.

A server is asked when somebody lists the models, once in its life; that neither loads a model nor wakes one up. A list
does not wait long: what comes later is told the next time.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import gevent

PATIENCE_SECONDS = 0.25  # of a list, for all servers together
ASK_SECONDS = 2.0
ASK_AGAIN_SECONDS = 10.0  # a server that did not answer
MAX_ANSWER = 1024 * 1024
# The model servers that may be a llama-server; what else listens to HTTP answers with an error.
BACKENDS = frozenset({"llama-server", "command"})
META = frozenset({"vocab_type", "n_vocab", "n_ctx", "n_ctx_train", "n_embd", "n_params", "size", "ftype"})
MODALITIES = ("input_modalities", "output_modalities")

Json = dict[str, Any]


@dataclass
class Told:
    """What a launch said. `meta` and `architecture` are None until it did; `ask_at` is in monotonic seconds."""

    meta: Json | None = None
    architecture: Json | None = None
    ask_at: float = 0.0
    asking: gevent.Greenlet[..., None] | None = None


class ModelServers:
    """What is known, by launch."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}

    def told(self, models: Iterable[Json]) -> dict[str, Told]:
        """By the name of the model, of those of the status object that are loaded."""
        running = [each for each in models if _may_tell(each)]
        known = {model["name"]: self._told.setdefault(model["launch"], Told()) for model in running}
        for model in running:
            _ask_if_due(known[model["name"]], model["address"])
        gevent.joinall([told.asking for told in known.values() if told.asking is not None], timeout=PATIENCE_SECONDS)
        return known

    def forget_all_but(self, launches: Iterable[int]) -> None:
        """Drop what is known of launches that are over."""
        kept = set(launches)
        self._told = {launch: told for launch, told in self._told.items() if launch in kept}


def get(address: str, path: str) -> Json:
    """The JSON object that a model server answers with. Raises OSError, HTTPException, ValueError or
    RecursionError."""
    answer = json.loads(get_text(address, path, MAX_ANSWER, ASK_SECONDS))
    if not isinstance(answer, dict):
        raise ValueError(f"{address} does not answer {path} with an object")
    return answer


def get_text(address: str, path: str, most: int, seconds: float) -> str:
    """At most `most` bytes of what a model server answers. Raises OSError, HTTPException, or ValueError for another
    status than 200."""
    kind, _, place = address.partition(":")
    connection = HTTPConnection("localhost" if kind == "unix" else place, timeout=seconds)
    try:
        with gevent.Timeout(seconds, TimeoutError()):
            if kind == "unix":
                connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.sock.connect(place)
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"{address} answers {path} with {response.status}")
            return response.read(most).decode(errors="replace")
    finally:
        connection.close()


def _may_tell(model: Json) -> bool:
    return model["state"] == "ready" and model.get("address") is not None and model["backend"] in BACKENDS


def _ask_if_due(told: Told, address: str) -> None:
    if told.meta is None and told.asking is None and told.ask_at <= time.monotonic():
        told.ask_at = time.monotonic() + ASK_AGAIN_SECONDS
        told.asking = gevent.spawn(_ask, told, address)


def _ask(told: Told, address: str) -> None:
    try:
        _take_in(told, get(address, "/v1/models"))
    except (OSError, HTTPException, ValueError, RecursionError):
        pass  # it is busy, gone, or no llama-server
    finally:
        told.asking = None


def _take_in(told: Told, answer: Json) -> None:
    """Take what llama-server says of its model, and nothing else, whatever has answered."""
    with suppress(LookupError, TypeError, AttributeError):
        about = answer["data"][0]
        meta = {key: value for key, value in about["meta"].items() if key in META and isinstance(value, int | str)}
        told.meta = meta or None
        told.architecture = {key: [str(each) for each in about["architecture"][key]] for key in MODALITIES}
