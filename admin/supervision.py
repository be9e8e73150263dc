"""Asking the supervisor from a Flask view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import current_app, request

from supervisor.client import Client
from supervisor.errors import Refused
from supervisor.protocol import Message


def connect() -> Client:
    """A connection of its own. Raises NotRunning."""
    runtime_dir: Path = current_app.config["RUNTIME_DIR"]
    return Client(runtime_dir)


def ask(op: str, **fields: Any) -> Message:
    """One request, one answer. Raises Refused, NotRunning or ProtocolError."""
    with connect() as client:
        return client.call(op, **fields)


def status() -> Message:
    """The status object, supervisor/core/status.py. Raises NotRunning or ProtocolError."""
    answer: Message = ask("status")["status"]
    return answer


def refuse_foreign_pages() -> None:
    """Raise Refused (403) for a request that a page of another site made the browser send.

    This is the whole protection against cross-site request forgery, and needs no token: every current browser sends
    Sec-Fetch-Site (Fetch Metadata, W3C), which a page can't forge, and older ones send Origin with each POST. Clients
    that are no browsers send neither and are not what this is about. "none" is the user's own doing (address bar).
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    foreign = site in ("cross-site", "same-site")
    if origin is not None:
        foreign = foreign or origin.partition("://")[2].lower() != request.headers.get("Host", "").lower()
    if foreign:
        raise Refused("a page of another site may not do this", status=403, error_type="permission_error")
