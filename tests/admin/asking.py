"""Asking a model through a web tier, and the row that is recorded of it."""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import quote

from web_tier import DEADLINE, WebTier

CHAT = "/v1/chat/completions"
EXPORT = "/ui/activity/requests.json"


def wait_for(web: WebTier, request_id: str, count: int = 1) -> list[dict[str, Any]]:
    """The rows of a request id, once there are as many."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        rows: list[dict[str, Any]] = web.request("GET", f"{EXPORT}?text={quote(request_id)}").json
        if len(rows) >= count:
            return rows
    raise AssertionError(f"there is no row of {request_id}")


def recorded(web: WebTier, document: object, path: str = CHAT, **headers: str) -> dict[str, Any]:
    """Ask, and wait for the one row of it."""
    request_id = uuid.uuid4().hex
    web.post(path, document, {"X-Request-Id": request_id, **headers})
    (row,) = wait_for(web, request_id)
    assert row["request_id"] == request_id
    return row
