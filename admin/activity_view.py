"""What the activity pages show of recorded requests and events, in words and as CSV. Pure, but for the clock."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from admin.activity_queries import OUTCOMES, Filter
from admin.recording import CLIENT_GONE, CUT_SHORT, UPSTREAM_DIED, Row
from admin.words import UNKNOWN, clock, count, duration, iso, rate
from supervisor.protocol import WEB

RANGES = {"15m": ("last 15 minutes", 900), "1h": ("last hour", 3600), "24h": ("last 24 hours", 86400)}
RANGES |= {"7d": ("last 7 days", 7 * 86400)}
# In the order of the filter, with the state of a model that each is coloured and marked as.
SHOWN = {
    "served": ("served", "ready"),
    "failed": ("failed: 5xx, or broken off", "failed"),
    "refused": ("refused: 4xx", "backoff"),
    "stopped": ("stopped by the client", "stopped"),
}
ENDS = {
    CLIENT_GONE: "stopped: the client hung up",
    UPSTREAM_DIED: "failed: its server died",
    CUT_SHORT: "failed: llama-router was stopped",
}
MAX_TEXT = 200
# A spreadsheet takes a cell that begins with one of these for a formula (OWASP, "CSV Injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Json = dict[str, Any]


def filter_of(query: Mapping[str, str]) -> Filter:
    """The filter that a query names: model, outcome, text, last (a RANGE), from and until (Unix times).

    What makes no sense is no filter.
    """
    since, until = _unix(query.get("from")), _unix(query.get("until"))
    if (last := RANGES.get(query.get("last", ""))) is not None:
        since = time.time() - last[1]
    outcome = query.get("outcome", "")
    return Filter(
        query.get("model", "")[:MAX_TEXT],
        outcome if outcome in OUTCOMES else "",
        query.get("text", "").strip()[:MAX_TEXT],
        since,
        until,
    )


def query_of(query: Mapping[str, str], **changed: object) -> str:
    """The filter's part of a query, with the fields `changed`; "" or from "?" on."""
    names = ("model", "outcome", "text", "last", "from", "until")
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
        "badge": SHOWN[request["outcome"]][1],
        "end": ENDS.get(request["ended"]) or (None if request["outcome"] == "served" else request["outcome"]),
        "queue_words": duration(request["queue"]),
        "first_words": duration(request["first"]),
        "total_words": duration(request["total"]),
        "in_words": count(request["tokens_in"]),
        "out_words": about(request["counted"], count(request["tokens_out"])),
        "rate_words": about(request["derived"], rate(request["rate"])),
    }


def details(request: Json) -> list[tuple[str, str]]:
    """All that is known of a request, each with what it is; what is not known is left out."""
    shown = row(request)
    status = UNKNOWN if request["status"] is None else str(request["status"])
    end = shown["end"] or "served"
    told = [
        ("Arrived", shown["iso"]),
        ("Request id", request["request_id"]),
        ("Client", request["who"]),
        *([("Key", request["key"])] if request["key"] else []),
        ("Request", f"{request['method']} {request['path']}"),
        ("Model", request["model"] or UNKNOWN),
        ("Status", f"{status}, {end}"),
        *([("Reason", request["reason"])] if request["reason"] else []),
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


def sums_words(sums: Json) -> Json:
    """The sums of activity_queries.summary in words; `others`: how many were refused or stopped, if any were."""
    others = [f"{count(sums[name])} {name}" for name in ("refused", "stopped") if sums[name]]
    return {name: count(sums[name]) for name in ("requests", "failed", "tokens_in", "tokens_out")} | {
        "others": others,
        "rate": rate(sums["rate"]),
        "is_one": sums["requests"] == 1,
    }


def event(told: Json) -> Json:
    """An event of the supervisor and how to show it."""
    model, text = told["model"], told["text"]
    name = "web tier" if model == WEB else model or "llama-router"
    return {"iso": iso(told["at"]), "clock": clock(told["at"]), "name": name, "text": text.removeprefix(f"{model}: ")}


def about(is_about: bool, words: str) -> str:
    """ "~" before a number that is none of the server's own."""
    return f"~{words}" if is_about and words != UNKNOWN else words


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


CSV_HEADER = _csv([("time", "id", *Row._fields, "outcome")])
