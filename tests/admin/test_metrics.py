"""/metrics of all models: a format that Prometheus reads, whatever models are called and their servers say."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, Serve
from hypothesis import given
from hypothesis import strategies as st
from web_tier import DEADLINE, WebTier

from admin.activity import BUCKETS
from admin.exposition import Family, relabelled, text

DASHBOARD = Path(__file__).resolve().parents[2] / "packaging" / "grafana" / "llama-router.json"
GIB = 1024**3
HOSTILE = 'a"b\\c\nd{e="f"} 😀'
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})? (\S+)")
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(answer: str) -> tuple[dict[str, str], Samples]:
    """Kinds by name and samples by name and labels. Fails for what the format 0.0.4 does not allow: a family in two
    places, a sample twice, a label twice, a histogram that is none."""
    assert answer == "" or answer.endswith("\n")
    kinds: dict[str, str] = {}
    samples: Samples = {}
    family = ""
    for line in answer.split("\n")[:-1]:
        if line.startswith("# "):
            _, what, name, *rest = line.split(" ", 3)
            if what == "HELP":
                assert name not in kinds, f"{name} stands in two places"
                family, kinds[name] = name, ""
            else:
                assert (what, name, kinds[name]) == ("TYPE", family, "")
                kinds[name] = rest[0]
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, inner, value = match[1], match[2] or "", match[3]
        suffixes = ("_bucket", "_sum", "_count") if kinds[family] in ("histogram", "summary") else ()
        assert name in (family, *(family + suffix for suffix in suffixes)), line
        found = LABEL.findall(inner)
        assert "".join(f'{key}="{text}",' for key, text in found).rstrip(",") == inner.rstrip(","), line
        labels = {key: re.sub(r'\\["\\n]', lambda each: UNESCAPED[each[0]], words) for key, words in found}
        assert len(labels) == len(found), line
        key = (name, frozenset(labels.items()))
        assert key not in samples, line
        samples[key] = float(value.replace("Inf", "inf"))
    check_histograms(kinds, samples)
    return kinds, samples


def check_histograms(kinds: dict[str, str], samples: Samples) -> None:
    """Buckets grow, and the last one is the count."""
    for name in [name for name, kind in kinds.items() if kind == "histogram" and name.startswith("llama_router")]:
        buckets: dict[Any, list[tuple[float, float]]] = {}
        for (sample, labels), value in samples.items():
            if sample == f"{name}_bucket":
                bound = float(dict(labels)["le"].replace("Inf", "inf"))
                buckets.setdefault(frozenset(each for each in labels if each[0] != "le"), []).append((bound, value))
        for labels, found in buckets.items():
            counts = [count for _, count in sorted(found)]
            assert counts == sorted(counts)
            assert counts[-1] == samples[f"{name}_count", labels]
            assert (f"{name}_sum", labels) in samples


def scrape(web: WebTier) -> tuple[dict[str, str], Samples]:
    answer = web.request("GET", "/metrics", None, {"Cookie": ""})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return parsed(answer.body.decode())


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_every_model_is_told_and_none_is_loaded(web: WebTier, supervisor: FakeSupervisor) -> None:
    memory = {"need": {"host": GIB, "gpu0": 2 * GIB}, "used": {"host": 5}, "source": "measured", "parts": ""}
    supervisor.models = [
        model("m", state="ready", in_flight=2, waiting=3, restarts=4, memory=memory),
        model(HOSTILE, state="failed"),
    ]
    supervisor.facts = {"memory": {"budget": {"host": 8 * GIB, "gpu0": None}, "planned": {"host": GIB}}}
    _, samples = scrape(web)
    assert value(samples, "llama_router_up") == 1
    assert value(samples, "llama_router_models", state="ready") == 1
    assert value(samples, "llama_router_models", state="starting") == 0
    assert value(samples, "llama_router_model_state", model=HOSTILE, state="failed") == 1
    assert value(samples, "llama_router_model_ready", model="m") == 1
    assert value(samples, "llama_router_model_requests_in_flight", model="m") == 2
    assert value(samples, "llama_router_model_requests_waiting", model="m") == 3
    assert value(samples, "llama_router_model_restarts_total", model="m") == 4
    assert value(samples, "llama_router_model_memory_needed_bytes", model="m", device="gpu0") == 2 * GIB
    assert value(samples, "llama_router_model_memory_used_bytes", model="m", device="host") == 5
    assert value(samples, "llama_router_memory_budget_bytes", device="host") == 8 * GIB
    assert {kind for kind, _ in supervisor.seen if kind != "hangup"} == {"status"}


def counted(web: WebTier, name: str, least: float, **labels: str) -> Samples:
    """A scrape that counts as many."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        _, samples = scrape(web)
        if samples.get((name, frozenset(labels.items())), 0) >= least:
            return samples
    raise AssertionError(f"{name} is less than {least}")


def test_requests_are_counted(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(lambda call: call.reply(b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'), model="counted")
    for _ in range(3):
        web.post("/v1/chat/completions", {"model": "counted"})
    labels = {"model": "counted"}
    samples = counted(web, "llama_router_requests_total", 3, code="200", **labels)
    assert value(samples, "llama_router_tokens_total", direction="in", **labels) == 9
    assert value(samples, "llama_router_tokens_total", direction="out", **labels) == 6
    for figure in ("queue", "first_byte", "request"):
        assert value(samples, f"llama_router_{figure}_seconds_count", **labels) == 3


def test_an_alias_counts_for_its_model(web: WebTier, supervisor: FakeSupervisor) -> None:
    from supervisor.errors import Refused

    supervisor.refusals["short"] = Refused("full", status=429)
    supervisor.models = [model("a long name", aliases=["short"])]
    web.post("/v1/chat/completions", {"model": "short"})
    counted(web, "llama_router_requests_total", 1, code="429", model="a long name")


def metrics_of(body: bytes) -> Any:
    return lambda call: call.reply(body)


def running(upstream: Any, name: str = "n", **fields: Any) -> dict[str, Any]:
    own = {"backend": "llama-server", "state": "ready", "address": upstream.address, "args": ["x", "--metrics"]}
    return model(name, **{**own, **fields})


def test_servers_that_run_tell_their_own(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    body = b"# HELP llamacpp:n_decode_total Calls\n# TYPE llamacpp:n_decode_total counter\nllamacpp:n_decode_total 66\n"
    one, other = serve(metrics_of(body)), serve(metrics_of(body))
    supervisor.models = [running(one, HOSTILE), running(other, "n")]
    kinds, samples = scrape(web)
    assert kinds["llamacpp:n_decode_total"] == "counter"
    assert value(samples, "llamacpp:n_decode_total", model="n") == 66
    assert value(samples, "llamacpp:n_decode_total", model=HOSTILE) == 66
    assert one.call().line == "GET /metrics HTTP/1.1"
    assert supervisor.of("lease") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"args": ["x"]},
        {"args": None},
        {"args": ["--metrics", "--sleep-idle-seconds", "60"]},
        {"state": "starting"},
        {"backend": "llama-cpp-python"},
        {"address": None},
    ],
)
def test_servers_that_are_not_asked(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, fields: dict[str, Any]
) -> None:
    upstream = serve(metrics_of(b"x 1\n"))
    supervisor.models = [running(upstream, **fields)]
    scrape(web)
    assert upstream.calls.empty()


def test_a_server_that_hangs_is_left_out_soon(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    slow, quick = serve(Call.wait_for_hangup), serve(metrics_of(b"x 1\n"))
    supervisor.models = [running(slow, "slow"), running(quick, "quick")]
    began = time.monotonic()
    _, samples = scrape(web)
    assert time.monotonic() - began < 5
    assert value(samples, "x", model="quick") == 1


HOSTILE_LINES = [
    "x 1 2 3",
    "x{",
    'x{a="1",a="2"} 1',
    'x{model="other"} 1',
    'x{__name__="y"} 1',
    'x{a="\\x"} 1',
    "x one",
    "x 1_0",
    "llama_router_up 0",
    "# TYPE llama_router_up counter",
    'llama_router_request_seconds_bucket{le="1"} 5',
    "x{} 1\nx{} 2",
    "# TYPE x histogram\n# TYPE x counter\n# HELP x\n# HELP x again",
    "\x00",
    "é 1",
    "# EOF",
]


@pytest.mark.parametrize("lines", HOSTILE_LINES)
def test_hostile_servers_spoil_no_scrape(web: WebTier, supervisor: FakeSupervisor, serve: Serve, lines: str) -> None:
    supervisor.models = [running(serve(metrics_of(f"{lines}\ngood 1\n".encode())))]
    _, samples = scrape(web)
    assert value(samples, "good", model="n") == 1
    assert value(samples, "llama_router_up") == 1
    assert not any(dict(labels).get("model") == "other" for _, labels in samples)


def test_an_answer_that_is_cut_tells_no_wrong_number(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.models = [running(serve(metrics_of(b"a 1\nb 12")))]
    _, samples = scrape(web)
    assert not [name for name, _ in samples if name == "b"]


@given(st.dictionaries(st.text(max_size=5), st.lists(st.one_of(st.text(max_size=30), st.sampled_from(HOSTILE_LINES)))))
def test_whatever_servers_tell_is_readable(answers: dict[str, list[str]]) -> None:
    told = relabelled({model: "\n".join(lines) for model, lines in answers.items()})
    parsed(text(told))


@given(st.text(), st.floats(allow_nan=False) | st.integers(-(2**60), 2**60))
def test_labels_and_values_come_back(label: str, number: float) -> None:
    family = Family("x", "gauge", "Help\nme \\")
    family.add(number, {"model": label})
    _, samples = parsed(text([family]))
    ((_, labels),) = samples
    assert dict(labels)["model"] == label.encode(errors="replace").decode()
    assert math.isclose(samples["x", labels], number, rel_tol=1e-12)


def test_two_hundred_models_are_soon_told(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model(f"model-{number}") for number in range(200)]
    began = time.monotonic()
    _, samples = scrape(web)
    assert time.monotonic() - began < 2
    assert len([name for name, _ in samples if name == "llama_router_model_ready"]) == 200


def test_without_a_supervisor(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.stop()
    try:
        assert web.request("GET", "/metrics").status == 503
    finally:
        supervisor.start()


def expressions(panels: Iterable[dict[str, Any]]) -> Iterable[str]:
    for panel in panels:
        yield from (target["expr"] for target in panel.get("targets", ()))
        yield from expressions(panel.get("panels", ()))


def test_grafanas_dashboard_names_what_there_is(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    memory = {"need": {"host": 1}, "used": {"host": 1}, "source": "measured", "parts": ""}
    supervisor.models = [model("m", memory=memory)]
    supervisor.facts = {"memory": {"budget": {"host": 1}, "planned": {"host": 1}}}
    serve(lambda call: call.reply(b"{}"))
    web.post("/v1/chat/completions", {"model": "m"})
    samples = counted(web, "llama_router_request_seconds_count", 1, model="m")
    dashboard = json.loads(DASHBOARD.read_text())
    found = [*expressions(dashboard["panels"]), *(each["query"] for each in dashboard["templating"]["list"])]
    named = {name for each in found for name in re.findall(r"llama_router_\w+", str(each))}
    assert len(named) > 12
    assert named - {name for name, _ in samples} == set()
    assert tuple(sorted(BUCKETS)) == BUCKETS
