"""Asking the supervisor from a Flask view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import current_app

from admin.latest import Latest
from admin.sampling import Sampling
from supervisor.client import Client
from supervisor.protocol import Message

ANSWER_SECONDS = 5.0  # nothing that a view asks for waits for anything


def connect() -> Client:
    """A connection of its own, which waits ANSWER_SECONDS at most. Raises NotRunning."""
    runtime_dir: Path = current_app.config["RUNTIME_DIR"]
    return Client(runtime_dir, timeout=ANSWER_SECONDS)


def ask(op: str, **fields: Any) -> Message:
    """One request, one answer. Raises Refused, NotRunning or ProtocolError."""
    with connect() as client:
        return client.call(op, **fields)


def status() -> Message:
    """The status object, supervisor/core/status.py. Whoever looks at loaded models will want charts of them. Raises
    NotRunning or ProtocolError."""
    latest: Latest = current_app.extensions["latest"]
    answer = latest.status()
    sampling: Sampling = current_app.extensions["sampling"]
    sampling.saw(answer["models"])
    return answer
