"""Rows of recorded requests, and a file to put them in."""

from __future__ import annotations

import time
from typing import Any

from admin.activity import Activity, in_a_thread
from admin.recording import Recorded, Row

NOW = time.time()

ROW = Row(
    **{"at": NOW, "request_id": "id", "who": "::1 curl", "key": None, "method": "POST", "path": "/v1/chat/completions"},
    **{"model": "m", "status": 200, "ended": "complete", "queue": 0.2, "first": 0.5, "total": 1.5},
    **dict.fromkeys(("tokens_in", "tokens_out", "cached", "rate")),
    **{"counted": False, "derived": False, "bytes": 0, "reason": None},
)


def recorded(model: str = "m", route: str = "/chat/completions", **fields: Any) -> Recorded:
    """A request that went well, unless told otherwise."""
    return Recorded(ROW._replace(model=model, **fields), model, route)


def put(recorder: Activity, *rows: Recorded) -> bool:
    """Have rows written at once; whether that was possible."""
    recorder._pending.extend(rows)
    return recorder._write_some(in_a_thread)


def asked(recorder: Activity, query: str) -> list[Any]:
    return recorder.ask(lambda connection: connection.execute(query).fetchall())
