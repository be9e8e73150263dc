"""Activity: what was asked and how it went, what happened, and who waits; each a page of its own with the same head.

They work without JavaScript. With it, new requests appear as they end, and the other two keep true.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TypeVar

from flask import Response, current_app, render_template, request

from admin import activity_queries as queries
from admin.activity import Activity
from admin.activity_view import (
    CSV_HEADER,
    RANGES,
    SHOWN,
    csv_lines,
    details,
    event,
    filter_of,
    query_of,
    row,
    sums_words,
)
from admin.dashboard.access import Role, needs
from admin.dashboard.pages import new_blueprint
from admin.sampling import Sampling
from admin.supervision import connect, status
from admin.words import times
from supervisor.errors import NotRunning, ProtocolError, Refused
from supervisor.protocol import Message

blueprint = new_blueprint("activity")

RECENT_SECONDS = 60
MOST_EVENTS = 200
MAX_HOURS = 24.0
HIGHEST_ID = 2**62

T = TypeVar("T")


@blueprint.get("/ui/activity")
@needs(Role.VIEWER)
def index() -> str:
    """Recorded requests, newest first; ?before= is the id of the last one that was seen."""
    wanted, before = filter_of(request.args), _id("before")
    known = _known()
    seen = _ask(queries.newest)
    end = seen + 1 if before is None else before
    strange, found, sums, dropped = _ask(
        lambda connection: (
            queries.strange(connection, known),
            queries.page(connection, wanted, before=end, count=queries.PAGE + 1),
            queries.summary(connection, wanted),
            queries.dropped(connection),
        )
    )
    shown = found[: queries.PAGE]
    more = query_of(request.args, before=shown[-1]["id"]) if len(found) > queries.PAGE else None
    return render_template(
        "activity.html",
        rows=[row(each) for each in shown],
        has_keys=any(each["key"] for each in shown),
        sums=sums_words(sums),
        **_names(known, strange),
        outcomes=SHOWN,
        ranges=RANGES,
        seen=seen,
        query=query_of(request.args),
        more=more,
        newest=query_of(request.args) if before is not None else None,
        dropped=dropped,
    )


@blueprint.get("/ui/activity/rows")
@needs(Role.VIEWER)
def rows() -> Response:
    """The newest requests with an id above ?after=, and what they change: the sums, and the names to choose from.

    204 when none was recorded, whether it is meant or not, unless ?names=1 asks for the names.
    """
    wanted, after = filter_of(request.args), _id("after") or 0
    seen = _ask(queries.newest)
    if seen == after and request.args.get("names") != "1":
        return Response(status=204)
    known = _known()
    strange, found, sums = _ask(
        lambda connection: (
            queries.strange(connection, known),
            queries.page(connection, wanted, after=after, before=seen + 1),
            queries.summary(connection, wanted),
        )
    )
    page = render_template(
        "activity_rows.html",
        rows=[row(each) for each in found],
        sums=sums_words(sums),
        has_keys=request.args.get("keys") == "1",
        seen=seen,
        **_names(known, strange),
    )
    return Response(page)


@blueprint.get("/ui/activity/request/<int:number>")
@needs(Role.VIEWER)
def one(number: int) -> str:
    """All that is known of a request. Raises Refused (404)."""
    found = _ask(lambda connection: queries.one(connection, number)) if number < HIGHEST_ID else None
    if found is None:
        raise Refused("this request is not kept, or not any more", status=404, error_type="not_found_error")
    return render_template("activity_request.html", details=details(found), model=found["model"])


@blueprint.get("/ui/activity/requests.csv")
@needs(Role.VIEWER)
def as_csv() -> Response:
    """All requests that are meant, as CSV."""
    found = _all()
    return _download(chain([CSV_HEADER], map(csv_lines, found)), "text/csv; charset=utf-8", "requests.csv")


@blueprint.get("/ui/activity/requests.json")
@needs(Role.VIEWER)
def as_json() -> Response:
    """All requests that are meant, as a JSON array."""
    found = _all()

    def pieces() -> Iterator[str]:
        opening = "["
        for piece in found:
            lines = [json.dumps(each | {name: bool(each[name]) for name in ("counted", "derived")}) for each in piece]
            yield opening + ",\n".join(lines)
            opening = ",\n"
        yield "[]\n" if opening == "[" else "]\n"

    return _download(pieces(), "application/json", "requests.json")


@blueprint.get("/ui/activity/events")
@needs(Role.VIEWER)
def events() -> str:
    """What happened to models and to llama-router; ?model= for one of them. Raises NotRunning or ProtocolError."""
    model = request.args.get("model", "")
    with connect() as client:
        told = [message["event"] for message in client.stream("events", since=0)]
    names = sorted({each["model"] for each in told if each["model"]} | ({model} if model else set()))
    meant = [each for each in told if not model or each["model"] == model]
    shown = [event(each) for each in reversed(meant[-MOST_EVENTS:])]
    return render_template("activity_events.html", events=shown, models=names, model=model, total=len(meant))


@blueprint.get("/ui/activity/queue")
@needs(Role.VIEWER)
def queue() -> str:
    """Who waits for a model. Raises NotRunning or ProtocolError."""
    answer = status()
    waiting = sum(model["waiting"] for model in answer["models"])
    shown = [waiter | times(waiter["since"]) for waiter in answer.get("queue", [])]
    return render_template("activity_queue.html", queue=shown, waiting=waiting)


@blueprint.get("/ui/activity/series")
@needs(Role.VIEWER)
def series() -> Message:
    """What ?model= did in the last ?hours= (1; at most 24), for charts: see activity_queries.series."""
    try:
        hours = float(request.args.get("hours", "1"))
    except ValueError:
        hours = 0.0
    model = request.args.get("model")
    if not model or not 0 < hours <= MAX_HOURS:
        raise Refused(f"ask for ?model=NAME&hours=N, N at most {MAX_HOURS:g}", status=400)
    sampling: Sampling = current_app.extensions["sampling"]
    sampling.catch_up()
    end = time.time()
    return _ask(lambda connection: queries.series(connection, model, end - hours * 3600, end))


@blueprint.get("/ui/activity/recent.json")
@needs(Role.VIEWER)
def recent() -> Message:
    """What each model did in the last minute: `requests`, `tokens_out`, and their mean `rate` in tokens a second."""
    return {"seconds": RECENT_SECONDS, "models": _recent()}


def rates() -> dict[str, float]:
    """Tokens a second of each model that generated any in the last minute; none while the file can't be read."""
    try:
        return {name: found["rate"] for name, found in _recent().items() if found["rate"]}
    except Refused:
        return {}


def _recent() -> Message:
    since = time.time() - RECENT_SECONDS
    return _ask(lambda connection: queries.recent(connection, since))


def _ask(question: Callable[[sqlite3.Connection], T]) -> T:
    """Raises Refused (503) when the file can't be read, or too many ask."""
    activity: Activity = current_app.extensions["activity"]
    try:
        return activity.ask(question)
    except (sqlite3.Error, OSError) as error:
        message = f"cannot read the recorded requests in {activity.path}: {error}"
        raise Refused(message, status=503, retry_after=1.0) from None


def _all() -> Iterator[list[Message]]:
    """All requests that are meant, in pieces; the first one is asked for at once, so that an error can be told."""
    wanted = filter_of(request.args)
    activity: Activity = current_app.extensions["activity"]

    def piece(before: int | None) -> list[Message]:
        return activity.ask(
            lambda connection: queries.page(connection, wanted, before=before, count=queries.EXPORT_PAGE),
            goes_on=True,
        )

    def pieces(found: list[Message]) -> Iterator[list[Message]]:
        while found:
            yield found
            found = piece(found[-1]["id"])

    return pieces(_ask(lambda connection: queries.page(connection, wanted, count=queries.EXPORT_PAGE)))


def _download(pieces: Iterator[str], content_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(pieces, content_type=content_type, headers=headers)


def _id(name: str) -> int | None:
    """An id in the query; None for none, or for what is no id."""
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _known() -> set[str]:
    """The names that models have, also those that nobody has asked for; none while the supervisor is away."""
    try:
        return {name for model in status()["models"] for name in (model["name"], *model["aliases"])}
    except (NotRunning, ProtocolError, Refused):
        return set()


def _names(known: set[str], strange: list[str]) -> Message:
    """What the filter has to choose from: `models`, and `strange` names; with the one that is chosen."""
    chosen = request.args.get("model")
    if not known:
        return {"models": sorted({*strange, *filter(None, [chosen])}), "strange": []}
    others = {chosen} - known if chosen else set()
    return {"models": sorted(known), "strange": sorted({*strange, *others})}
