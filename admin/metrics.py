"""GET /metrics without ?model=: one scrape for all models, which loads none and counts as no use of any.

Of the state, the supervisor's status object; of requests, the sums in STATE_DIR/activity.sqlite, which are the same
whichever worker answers; and what llama-servers that run tell by themselves, with the label `model`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gevent
from flask import Blueprint, Response, current_app, request

from admin import activity_queries, errors
from admin.activity import BUCKETS, Activity
from admin.callers import caller_of
from admin.exposition import CONTENT_TYPE, Family, relabelled, text
from admin.model_servers import get_text
from admin.supervision import status
from supervisor.errors import Refused

blueprint = Blueprint("metrics", __name__)

STATES = ("stopped", "starting", "ready", "stopping", "backoff", "failed")
BACKENDS = frozenset(["llama-server", "command"])
ASK_SECONDS = 1.0  # for all servers together
MAX_ASKED = 64
MAX_ANSWER = 256 * 1024
HISTOGRAMS = {
    "queue": ("llama_router_queue_seconds", "Seconds from a request's arrival until a model server was its own."),
    "first": ("llama_router_first_byte_seconds", "Seconds from a request's arrival until its answer began."),
    "total": ("llama_router_request_seconds", "Seconds from a request's arrival until its answer was over."),
}

Json = dict[str, Any]


@blueprint.get("/metrics")
@blueprint.get("/v1/metrics")
def metrics() -> Response:
    """Prometheus' text format, of the models that the caller may use. Raises NotRunning or ProtocolError."""
    answer, caller = status(), caller_of(request.environ)
    everyone = [model for model in answer["models"] if caller.sees((model["name"], *model["aliases"]))]
    sums = _sums()
    if sums is not None and not caller.sees_all:
        sums = of_models(sums, {name for model in everyone for name in (model["name"], *model["aliases"])})
    own = [*fleet(answer), *models(everyone), *requests(sums, _canonical(everyone))]
    return Response(text([*own, *relabelled(_ask_servers(everyone))]), content_type=CONTENT_TYPE)


def of_models(sums: activity_queries.Sums, names: Container[str]) -> activity_queries.Sums:
    """Those that count for models of these names."""
    return activity_queries.Sums(
        [row for row in sums.totals if row[0] in names], [row for row in sums.histograms if row[0] in names], 0
    )


def fleet(answer: Json) -> Iterable[Family]:
    """Of the whole router."""
    build = Family("llama_router_build_info", "gauge", "Always 1; what is running.")
    build.add(1, {"version": str(answer["version"]), "llama_cpp_python": installed("llama-cpp-python") or ""})
    up = Family("llama_router_up", "gauge", "1 while the supervisor answers and is not stopping.")
    up.add(int(answer["state"] != "stopping"))
    since = Family("llama_router_start_time_seconds", "gauge", "When the supervisor was started, as Unix time.")
    since.add(answer["since"])
    states = Family("llama_router_models", "gauge", "How many models are in each state.")
    counts = Counter(model["state"] for model in answer["models"])
    for state in STATES:
        states.add(counts[state], {"state": state})
    memory = answer.get("memory") or {"budget": {}, "planned": {}}
    budget = Family("llama_router_memory_budget_bytes", "gauge", "What models may use of a device.")
    planned = Family("llama_router_memory_planned_bytes", "gauge", "What models that are loaded need of a device.")
    for family, sizes in ((budget, memory["budget"]), (planned, memory["planned"])):
        for device, size in sizes.items():
            if size is not None:
                family.add(size, {"device": device})
    return build, up, since, states, budget, planned


def models(all_models: list[Json]) -> Iterable[Family]:
    """A sample for each model."""
    state = Family("llama_router_model_state", "gauge", "1 for the state that a model is in.")
    ready = Family("llama_router_model_ready", "gauge", "1 while a model can answer.")
    flying = Family("llama_router_model_requests_in_flight", "gauge", "Requests that a model is serving.")
    waiting = Family("llama_router_model_requests_waiting", "gauge", "Requests that wait for a model.")
    restarts = Family("llama_router_model_restarts_total", "counter", "Restarts of a model's servers after failures.")
    used = Family("llama_router_model_memory_used_bytes", "gauge", "What a model's servers use, as last measured.")
    needed = Family("llama_router_model_memory_needed_bytes", "gauge", "What a model needs when it is loaded.")
    for model in all_models:
        label = {"model": model["name"]}
        state.add(1, {**label, "state": model["state"]})
        ready.add(int(model["state"] == "ready"), label)
        flying.add(model["in_flight"], label)
        waiting.add(model["waiting"], label)
        restarts.add(model["restarts"], label)
        memory = model.get("memory") or {"used": {}, "need": {}}
        for family, sizes in ((used, memory["used"]), (needed, memory["need"])):
            for device, size in sizes.items():
                family.add(size, {**label, "device": device})
    return state, ready, flying, waiting, restarts, used, needed


def requests(sums: activity_queries.Sums | None, canonical: dict[str, str]) -> Iterable[Family]:
    """What all workers recorded, since there are records; nothing if they can't be read."""
    if sums is None:
        return []
    served = Family("llama_router_requests_total", "counter", 'Requests by model (none that exists: "") and status.')
    tokens = Family("llama_router_tokens_total", "counter", "Tokens of requests; of some streams they are counted.")
    sent = Family("llama_router_response_bytes_total", "counter", "Bytes of answers.")
    lost = Family("llama_router_requests_unrecorded_total", "counter", "Requests that could not be recorded.")
    lost.add(sums.dropped)
    by_code: Counter[tuple[str, str]] = Counter()
    by_model: dict[str, Counter[str]] = defaultdict(Counter)
    for model, _, code, count, taken, given, cached, size in sums.totals:
        name = canonical.get(model, model)
        by_code[name, code] += count
        by_model[name].update({"in": taken, "out": given, "cached": cached, "bytes": size})
    for (name, code), count in sorted(by_code.items()):
        served.add(count, {"model": name, "code": code})
    for name, counts in sorted(by_model.items()):
        for direction in ("in", "out", "cached"):
            tokens.add(counts[direction], {"model": name, "direction": direction})
        sent.add(counts["bytes"], {"model": name})
    return [served, tokens, sent, lost, *_histograms(sums.histograms)]


def _histograms(rows: list[tuple[str, str, int, int, float]]) -> Iterable[Family]:
    families = {figure: Family(name, "histogram", words) for figure, (name, words) in HISTOGRAMS.items()}
    counts: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    seconds: Counter[tuple[str, str]] = Counter()
    for model, figure, bucket, count, total in rows:
        counts[figure, model][bucket] = count
        seconds[figure, model] += total  # type: ignore[assignment]  # a Counter may hold any number
    for (figure, model), found in sorted(counts.items()):
        if figure in families:
            families[figure].histogram(BUCKETS, found, float(seconds[figure, model]), model=model)
    return families.values()


def _sums() -> activity_queries.Sums | None:
    activity: Activity = current_app.extensions["activity"]
    try:
        return activity.ask(activity_queries.sums)
    except (sqlite3.Error, OSError, Refused) as error:
        errors.log.warning("cannot read %s: %s", activity.path, error)
        return None


def _canonical(all_models: list[Json]) -> dict[str, str]:
    """The model's name for each alias: a refused request is known by what it asked for."""
    return {alias: model["name"] for model in all_models for alias in model["aliases"]}


def _ask_servers(all_models: list[Json]) -> dict[str, str]:
    """What those that run and are said to have metrics tell, by model; who is slow is left out.

    None is leased, so to the supervisor an idle model stays idle; one that is stopped meanwhile is left out too.
    """
    asked = {model["name"]: model["address"] for model in all_models if has_metrics(model)}
    greenlets = {name: gevent.spawn(_told, address) for name, address in list(asked.items())[:MAX_ASKED]}
    gevent.joinall(list(greenlets.values()), timeout=ASK_SECONDS)
    gevent.killall([each for each in greenlets.values() if not each.ready()], block=False)
    return {name: each.value for name, each in greenlets.items() if each.ready() and isinstance(each.value, str)}


def has_metrics(model: Json) -> bool:
    """Whether a model of the status object runs a server that was started with `--metrics`.

    One that goes to sleep is not asked: to llama-server that is a task, which wakes it up or keeps it awake.
    """
    if model["state"] != "ready" or not model.get("address") or model["backend"] not in BACKENDS:
        return False
    args = model.get("args") or ()
    return "--metrics" in args and "--sleep-idle-seconds" not in args


def _told(address: str) -> str | None:
    try:
        lines, _, _ = get_text(address, "/metrics", MAX_ANSWER, ASK_SECONDS).rpartition("\n")  # the last may be cut
    except (OSError, HTTPException, ValueError):
        return None
    return lines


def installed(package: str) -> str | None:
    """The version of a package, which is not imported; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
