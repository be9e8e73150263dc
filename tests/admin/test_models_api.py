"""The models API in llama-server's shape."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import router_table
from fake_supervisor import FakeSupervisor, model, reason, replica
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_tier import FOREIGN, OWN, WebTier

from supervisor.errors import Problem, Refused

INVALID = "invalid_request_error"


ARGS = ["llama-server", "--alias", "smol", "--ctx-size", "512", "--model", "smol.gguf"]
FACTS = {
    "args": ARGS,
    "preset": "[smol]\nctx-size = 512\nmodel = smol.gguf\n\n",
    "architecture": router_table.ARCHITECTURE,
    "meta": router_table.META,
}
revisions = itertools.count(1)


def tell(supervisor: FakeSupervisor, facts: dict[str, Any]) -> None:
    """Have the supervisor know facts, as after a reload."""
    supervisor.told = facts
    supervisor.facts |= {"revision": next(revisions)}


def smol(**fields: Any) -> Any:
    """The model of the table."""
    return model("smol", aliases=["s2", "s1"], **fields)


def without_detail(entry: Any) -> Any:
    """An entry as llama-server has it; what is checked is the order of the keys as well."""
    status = {key: value for key, value in entry["status"].items() if key != "detail"}
    return json.dumps(entry | {"status": status})


def recorded(entry: Any) -> Any:
    return json.dumps(entry | {"created": 1760000000})


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
@pytest.mark.parametrize(
    "state, expected",
    [
        ("stopped", router_table.UNLOADED),
        ("starting", router_table.LOADING),
        ("ready", router_table.LOADED),
        ("failed", router_table.FAILED),
    ],
)
def test_an_entry_is_llama_servers(
    web: WebTier, supervisor: FakeSupervisor, path: str, state: str, expected: Any
) -> None:
    supervisor.models = [smol(state=state)]
    tell(supervisor, {"smol": FACTS})
    answer = web.request("GET", path).json
    assert list(answer) == router_table.LIST
    assert [without_detail(entry) for entry in answer["data"]] == [recorded(expected)]
    assert answer["data"][0]["status"]["detail"]["meta"] == router_table.META


def test_what_is_known_in_detail(web: WebTier, supervisor: FakeSupervisor) -> None:
    memory = {"need": {"host": 9}, "source": "measured", "parts": "", "used": {"host": 7}}
    replicas = [replica("a", in_flight=2)]
    told = {"waiting_since": 1760000001.0, "waiting_for": "its only slot is in use", "memory": memory}
    numbers = {"in_flight": 2, "waiting": 1, "restarts": 3}
    supervisor.models = [model("a", state="ready", pid=7, replicas=replicas, **numbers, **told)]
    assert web.request("GET", "/models/a").json["status"]["detail"] == {
        "state": "ready",
        "reason": None,
        "pid": 7,
        "since": 1760000000.0,
        "in_flight": 2,
        "waiting": 1,
        "restarts": 3,
        "replicas": replicas,
        "meta": None,
        **told,
    }


def test_a_model_of_the_directory(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("a", source="models_dir")]
    assert web.request("GET", "/models/a").json["source"] == "models_dir"


def test_facts_are_asked_once_for_each_configuration(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [smol()]
    tell(supervisor, {"smol": FACTS})
    assert {web.request("GET", "/models/smol").json["status"]["preset"] for _ in range(5)} == {FACTS["preset"]}
    assert len(supervisor.of("facts")) == 1
    tell(supervisor, {"smol": FACTS | {"preset": "[smol]\n\n"}})
    assert web.request("GET", "/models/smol").json["status"]["preset"] == "[smol]\n\n"


def test_the_command_line_of_a_server_that_runs(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [smol(args=["w", "--port", "40123"])]
    tell(supervisor, {"smol": FACTS})
    assert web.request("GET", "/models/smol").json["status"]["args"] == ["w", "--port", "40123"]


EXITED = reason("exited", "exited with code 65", code=65)
CLEAN = reason("exited", "exited with code 0", code=0)


@pytest.mark.parametrize(
    "why, code",
    [
        (EXITED, 65),
        (CLEAN, 1),
        (reason("killed", "killed by SIGSEGV", signal="SIGSEGV"), 1),
        (reason("killed", "killed by signal 40", signal="signal 40"), 1),
        (reason("out_of_memory", "out of memory", code=137), 137),
        (reason("out_of_memory", "out of memory", signal="SIGKILL"), 1),
        (reason("start_timeout", "not ready within 5min"), 1),
        (reason("watchdog", "killed by the watchdog: no sign of life for 30s"), 1),
        (reason("unhealthy", "killed by the watchdog: HTTP status 503 for 30s"), 1),
        (reason("cannot_start", "no such program"), 1),
        (None, 1),
    ],
)
def test_a_failed_model(web: WebTier, supervisor: FakeSupervisor, why: Any, code: int) -> None:
    supervisor.models = [model("a", state="failed", reason=why)]
    status = web.request("GET", "/models/a").json["status"]
    assert (status["value"], status["failed"], status["exit_code"]) == ("unloaded", True, code)
    assert status["detail"]["reason"] == why


@pytest.mark.parametrize(
    "why",
    [
        None,
        CLEAN,
        EXITED,  # and then reset-failed
        reason("requested", "unloaded on request", code=0),
        reason("evicted", "evicted for b", signal="SIGKILL"),
        reason("idle", "unloaded when idle", code=1),
        reason("preset_changed", "its preset changed"),
        reason("shutdown", "llama-router stopped"),
        reason("out_of_memory", "out of memory", code=1),  # it waits for an eviction
    ],
)
def test_what_is_stopped_has_not_failed(web: WebTier, supervisor: FakeSupervisor, why: Any) -> None:
    supervisor.models = [model("a", state="stopped", reason=why)]
    status = web.request("GET", "/models/a").json["status"]
    assert (status["value"], status.keys() & {"failed", "exit_code"}) == ("unloaded", set())


@pytest.mark.parametrize(
    "state, value",
    [("stopping", "unloaded"), ("starting", "loading"), ("backoff", "loading"), ("ready", "loaded")],
)
def test_an_earlier_end_is_no_failure(web: WebTier, supervisor: FakeSupervisor, state: str, value: str) -> None:
    supervisor.models = [model("a", state=state, reason=EXITED)]
    status = web.request("GET", "/models/a").json["status"]
    assert (status["value"], status.keys() & {"failed", "exit_code"}) == (value, set())
    assert status["detail"]["state"] == state


@pytest.mark.parametrize("path", ["/queue", "/v1/queue"])
def test_queue(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    waiter = {"model": "b", "who": "192.0.2.7 curl/8.5.0", "since": 1760000000.25, "why": "room is made by a"}
    supervisor.models = [model("a"), model("b", waiting=250), model("c", waiting=1)]
    supervisor.facts = {"queue": [waiter] * 200}
    assert web.request("GET", path).json == {"object": "list", "data": [waiter] * 200, "waiting": 251}


def test_nothing_is_known_of_an_older_supervisors_queue(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("a", waiting=2)]
    assert web.request("GET", "/queue").json == {"object": "list", "data": [], "waiting": 2}
    assert web.request("GET", "/models/a").json["status"]["detail"]["replicas"] is None


@pytest.mark.parametrize("path", ["/v1/models/org/a%20b:Q4", "/models/org/a b:Q4".replace(" ", "%20"), "/models/alias"])
def test_one_model_by_name_or_alias(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    supervisor.models = [model("first"), model("org/a b:Q4", aliases=["alias", "first"])]
    assert web.request("GET", path).json["id"] == "org/a b:Q4"
    assert web.request("GET", "/models/first").json["id"] == "first"


def test_one_unknown_model(web: WebTier, supervisor: FakeSupervisor) -> None:
    error = web.request("GET", "/v1/models/nope").error
    assert error == {"code": 404, "message": "model 'nope' not found", "type": "not_found_error"}


def test_reload(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.answers["reload"] = lambda _: {"ok": True, "changes": {}}
    for query in ("reload=1", "reload=0", "reload=yes", "reload=", "reload", "rload=1"):
        assert web.request("GET", f"/v1/models?{query}").status == 200
    assert len(supervisor.of("reload")) == 3  # llama-server goes by whether it has a value


def test_reload_of_broken_presets(web: WebTier, supervisor: FakeSupervisor) -> None:
    problems = [Problem("presets.d/a.yaml", 3, "models.a.context", "must be a number")]

    def refuse(_: object) -> Any:
        raise Refused("cannot reload: 1 problem", status=422, problems=problems)

    supervisor.answers["reload"] = refuse
    message = web.request("GET", "/models?reload=1").error["message"]
    assert message.splitlines() == ["cannot reload: 1 problem", str(problems[0])]


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
def test_health_never_asks_the_supervisor(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    assert web.request("GET", path).json == {"status": "ok"}
    assert supervisor.of("status") == []


@pytest.mark.parametrize("form", ["", "/v1"])
@pytest.mark.parametrize("action", ["load", "unload"])
def test_load_and_unload(web: WebTier, supervisor: FakeSupervisor, action: str, form: str) -> None:
    answer = web.post(f"{form}/models/{action}", {"model": "org/a:Q4"})
    assert (answer.status, answer.body.strip()) == (200, router_table.SUCCESS)
    assert supervisor.of(action) == [{"op": action, "model": "org/a:Q4", "wait": False, "strict": True}]


@pytest.mark.parametrize(
    "action, refusal, expected",
    [
        ("load", Refused("model is not found: 'x'", status=404), (404, "model is not found", "not_found_error")),
        ("unload", Refused("model is not found: 'x'", status=404), (400, "model is not found", INVALID)),
        (
            "load",
            Refused("model is already running", status=400, error_type=INVALID),
            (400, "model is already running", INVALID),
        ),
        (
            "unload",
            Refused("model is not running", status=400, error_type=INVALID),
            (400, "model is not running", INVALID),
        ),
        (
            "load",
            Refused("needs 9 GiB, has 4 GiB", status=503),
            (503, "needs 9 GiB, has 4 GiB", "server_error"),
        ),
    ],
)
def test_refusals_in_llama_servers_words(
    web: WebTier, supervisor: FakeSupervisor, action: str, refusal: Refused, expected: tuple[int, str, str]
) -> None:
    def refuse(_: object) -> Any:
        raise refusal

    supervisor.answers[action] = refuse
    error = web.post(f"/models/{action}", {"model": "x"}).error
    assert (error["code"], error["message"], error["type"]) == expected


@pytest.fixture
def router(supervisor: FakeSupervisor) -> Iterator[FakeSupervisor]:
    """A supervisor that knows "smol" alone."""

    def order(message: Any) -> Any:
        if message["model"] not in ("smol", "s1", "s2"):
            raise Refused(f"model is not found: '{message['model']}'", status=404)
        return {"ok": True, "model": {}}

    supervisor.models = [smol()]
    supervisor.answers |= {"load": order, "unload": order, "reload": lambda _: {"ok": True, "changes": {}}}
    yield supervisor


@pytest.mark.parametrize("row", [*router_table.METHODS, *router_table.ORDERS], ids=lambda row: " ".join(map(str, row)))
def test_the_recorded_table(web: WebTier, router: FakeSupervisor, row: router_table.Row) -> None:
    answer = web.request(row.method, row.target, row.body)
    assert answer.status == row.status
    if row.method == "HEAD":
        assert answer.body == b""
    elif row.type is not None:
        assert answer.error["type"] == row.type
        assert row.message in (router_table.PARSER, answer.error["message"])


def test_nothing_is_downloaded(web: WebTier, supervisor: FakeSupervisor) -> None:
    error = web.post("/models", {"model": "org/model:Q4"}).error
    assert (error["code"], error["type"]) == (501, "not_supported_error")
    assert "org/model:Q4" in error["message"] and "models_dir" in error["message"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5), name=st.text()
)
def test_any_name_is_found_out_or_not_found(web: WebTier, router: FakeSupervisor, document: Any, name: str) -> None:
    for value in (document, {"model": document}, {"model": name}):
        body = json.dumps(value).encode()
        assert web.request("POST", "/models/load", body).error["code"] == 404
        assert web.request("POST", "/models/unload", body).error["code"] == 400
    quoted = quote(name.encode(errors="surrogatepass"), safe="")
    assert web.request("DELETE", f"/models?model={quoted}").status == (500 if name else 400)
    assert web.request("GET", f"/models?reload={quoted}").status == 200


@pytest.mark.parametrize("half", ['"\\ud800"', '"a\\udfffb"'])
def test_half_a_character_is_in_no_name(web: WebTier, router: FakeSupervisor, half: str) -> None:
    assert web.request("POST", "/models/load", f'{{"model": {half}}}'.encode()).error["code"] == 404


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
@pytest.mark.parametrize("headers", FOREIGN)
def test_foreign_pages_are_refused(web: WebTier, supervisor: FakeSupervisor, path: str, headers: Any) -> None:
    supervisor.models = [model("a")]
    assert web.post(path, {"model": "a"}, headers).error["code"] == 403
    assert supervisor.of(path.rpartition("/")[2]) == []


@pytest.mark.parametrize("headers", OWN)
def test_own_pages_and_other_clients_are_not(web: WebTier, supervisor: FakeSupervisor, headers: Any) -> None:
    supervisor.models = [model("a")]
    assert web.post("/models/load", {"model": "a"}, headers).status == 200


@pytest.mark.parametrize(
    "path",
    ["/nope", "/v1", "/v1/", "/v1//models", "/models/", "/static/nope", "/%ff", "//", "//ui/models", "///v1/models"],
)
def test_unknown_routes(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    error = web.request("GET", path).error
    assert (error["code"], error["type"]) == (404, "not_found_error")
    assert error["message"] in ("File Not Found", "model '' not found")


@pytest.mark.parametrize(
    "method, path", [("POST", "/v1/models"), ("GET", "/models/load/"), ("DELETE", "/"), ("OPTIONS", "/")]
)
def test_wrong_methods(web: WebTier, supervisor: FakeSupervisor, method: str, path: str) -> None:
    assert web.request(method, path).error["code"] in (404, 405)


def test_supervisor_away(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.stop()
    try:
        for path in ("/models", "/models/a", "/queue"):
            assert web.request("GET", path).error["message"] == "llama-router's supervisor is not answering"
        assert web.post("/models/load", {"model": "a"}).error["code"] == 503
        assert web.request("GET", "/health").status == 200
    finally:
        supervisor.start()


def test_a_bug_says_nothing_of_the_inside(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.answers["status"] = lambda _: {"ok": True, "status": {"models": [{"secret": 1}]}}
    error = web.request("GET", "/models").error
    assert (error["code"], error["type"]) == (500, "server_error")
    assert "secret" not in error["message"] and "KeyError" not in error["message"]
    assert "KeyError" in web.log_text()


def test_a_thousand_models(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model(f"model-{number:04}", state="ready") for number in range(1000)]
    tell(supervisor, {each["name"]: FACTS for each in supervisor.models})
    assert len(web.request("GET", "/v1/models").json["data"]) == 1000
    took = []
    for _ in range(3):
        began = time.monotonic()
        answer = web.request("GET", "/v1/models")
        took.append(time.monotonic() - began)
        assert answer.status == 200
    assert len(supervisor.of("facts")) == 1
    assert min(took) < 0.5  # some 60 ms; a machine that is busy takes its time
