"""What the activity pages show of recorded requests and events, in words and as CSV. Pure, but for the clock."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from admin.activity_queries import CLASSES, Filter
from admin.recording import CLIENT_GONE, CUT_SHORT, UPSTREAM_DIED, Row
from supervisor.protocol import WEB

UNKNOWN = "–"
RANGES = {"15m": ("last 15 minutes", 900), "1h": ("last hour", 3600), "24h": ("last 24 hours", 86400)}
RANGES |= {"7d": ("last 7 days", 7 * 86400)}
STATUSES = {"2xx": "2xx served", "3xx": "3xx redirected", "4xx": "4xx refused", "5xx": "5xx failed"}
STATUSES |= {"broken": "broken off"}
ENDS = {
    CLIENT_GONE: "client hung up",
    UPSTREAM_DIED: "its server died",
    CUT_SHORT: "llama-router was stopped",
}
MAX_TEXT = 200
# A spreadsheet takes a cell that begins with one of these for a formula (OWASP, "CSV Injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Json = dict[str, Any]


def filter_of(query: Mapping[str, str]) -> Filter:
    """The filter that a query names: model, status, text, last (a RANGE), from and until (Unix times).

    What makes no sense is no filter.
    """
    since, until = _unix(query.get("from")), _unix(query.get("until"))
    if (last := RANGES.get(query.get("last", ""))) is not None:
        since = time.time() - last[1]
    status = query.get("status", "")
    return Filter(
        query.get("model", "")[:MAX_TEXT],
        status if status in CLASSES else "",
        query.get("text", "").strip()[:MAX_TEXT],
        since,
        until,
    )


def query_of(query: Mapping[str, str], **changed: object) -> str:
    """The filter's part of a query, with the fields `changed`; "" or from "?" on."""
    names = ("model", "status", "text", "last", "from", "until")
    kept = {name: query[name] for name in names if query.get(name)} | changed
    return f"?{urlencode(kept)}" if kept else ""


def _unix(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value < 2**40 else None


def row(request: Json) -> Json:
    """A request and how to show it."""
    return request | {
        "iso": iso(request["at"]),
        "clock": clock(request["at"]),
        "badge": badge(request),
        "end": ENDS.get(request["ended"]),
        "queue_words": seconds(request["queue"]),
        "first_words": seconds(request["first"]),
        "total_words": seconds(request["total"]),
        "in_words": count(request["tokens_in"]),
        "out_words": about(request["counted"], count(request["tokens_out"])),
        "rate_words": about(request["derived"], rate(request["rate"])),
    }


def details(request: Json) -> list[tuple[str, str]]:
    """All that is known of a request, each with what it is; what is not known is left out."""
    shown = row(request)
    status = UNKNOWN if request["status"] is None else str(request["status"])
    end = shown["end"] or "answered"
    cached = "" if request["cached"] is None else f", {count(request['cached'])} of them cached"
    told = [
        ("Arrived", shown["iso"]),
        ("Request id", request["request_id"]),
        ("Client", request["who"]),
        *([("Key", request["key"])] if request["key"] else []),
        ("Request", f"{request['method']} {request['path']}"),
        ("Model", request["model"] or UNKNOWN),
        ("Status", f"{status}, {end}"),
        ("Waited for a model", shown["queue_words"]),
        ("Until the first byte", shown["first_words"]),
        ("Altogether", shown["total_words"]),
        (
            "Tokens in",
            shown["in_words"] + (f", {count(cached)} of them cached" if (cached := request["cached"]) else ""),
        ),
        ("Tokens out", shown["out_words"] + (" (events of the stream, counted)" if request["counted"] else "")),
        ("Tokens a second", shown["rate_words"] + (" (from the time the answer took)" if request["derived"] else "")),
        ("Bytes of the answer", count(request["bytes"])),
    ]
    return [(name, words) for name, words in told if words != UNKNOWN]


def badge(request: Json) -> str:
    """Which colour and mark the status gets: those of the states of models."""
    status = request["status"]
    if status is None or request["ended"] in (CLIENT_GONE, CUT_SHORT):
        return "stopped"
    if request["ended"] == UPSTREAM_DIED or status >= 500:
        return "failed"
    return "backoff" if status >= 400 else "ready"


def event(told: Json) -> Json:
    """An event of the supervisor and how to show it."""
    model, text = told["model"], told["text"]
    name = "web tier" if model == WEB else model or "llama-router"
    return {"iso": iso(told["at"]), "clock": clock(told["at"]), "name": name, "text": text.removeprefix(f"{model}: ")}


def seconds(value: float | None) -> str:
    """Such as "12 ms", "3.4 s" or "2 min 5 s"."""
    if value is None:
        return UNKNOWN
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s" if value >= 9.995 else f"{value:.2f} s"
    whole = round(value)
    return f"{whole // 60} min {whole % 60} s"


def count(value: int | None) -> str:
    """With thin spaces between thousands, or "–"."""
    return UNKNOWN if value is None else f"{value:,}".replace(",", "\u202f")


def rate(value: float | None) -> str:
    """Tokens a second, in three digits."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def about(is_about: bool, words: str) -> str:
    """ "~" before a number that is none of the server's own."""
    return f"~{words}" if is_about and words != UNKNOWN else words


def iso(at: float) -> str:
    """For <time datetime=…>."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def clock(at: float) -> str:
    """For who has no JavaScript, which shows the browser's own time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def csv_lines(rows: Iterable[Json]) -> str:
    """Rows as CSV (RFC 4180), a time in words first; text that a spreadsheet would compute gets a leading '."""
    return _csv([iso(each["at"]), *map(cell, each.values())] for each in rows)


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def cell(value: object) -> object:
    """A value that stays what it is in a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


CSV_HEADER = _csv([("time", "id", *Row._fields)])
