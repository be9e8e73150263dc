"""What the server does for the playground: the page, what it tells of the models, the load that choosing one starts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from fake_supervisor import FakeSupervisor, model, reason
from web_tier import Answer, WebTier

from supervisor import protocol
from supervisor.errors import Refused

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
JSON = {"Accept": "application/json"}


@pytest.fixture(autouse=True)
def autoload(supervisor: FakeSupervisor) -> None:
    supervisor.facts = {"autoload": True, "since": 0.0}


def post(web: WebTier, action: str, name: str, **headers: str) -> Answer:
    body = urlencode({"model": name}).encode()
    return web.request("POST", f"/ui/playground/{action}", body, FORM | headers)


def told(name: str, preset: str = "", inputs: tuple[str, ...] = ("text",), **meta: Any) -> dict[str, Any]:
    """Facts of a model, as the supervisor tells them."""
    architecture = {"input_modalities": list(inputs), "output_modalities": ["text"]}
    return {"model": name, "args": [], "preset": preset, "architecture": architecture, "meta": meta or None}


def test_the_page_needs_no_supervisor(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.stop()
    try:
        answer = web.request("GET", "/ui/playground")
    finally:
        supervisor.start()
    assert answer.status == 200
    page = answer.body.decode()
    assert 'aria-current="page">Playground' in page
    assert " style=" not in page and "<style" not in page and "<script>" not in page
    assert "img-src 'self' data:;" in answer.headers["content-security-policy"]


def test_what_is_told_of_models(web: WebTier, supervisor: FakeSupervisor) -> None:
    died = reason("exited", "exited with code 65", code=65, last_lines=["no such file"])
    supervisor.models = [
        model("a/é", aliases=["x"], description="chat", state="starting", progress=0.426, message="tensors"),
        model("b", state="failed", reason=died),
        model("c", state="stopped", reason=died),
        model("d"),
        model("e"),
    ]
    supervisor.told = {
        "a/é": told("a/é", inputs=("text", "image"), n_ctx=4096),
        "b": told("b"),
        "c": told("c", "[c]\nmodel = /x\nembeddings = true\n"),
        "d": told("d", "[d]\nreranking = on\n"),
        "e": told("e", "[e]\ndescription = embeddings = true\nembeddings = false\n"),
    }
    supervisor.facts |= {"revision": 1}
    answer = web.request("GET", "/ui/playground/models", headers=JSON)
    assert answer.status == 200
    first, second, third, fourth, fifth = answer.json["models"]
    assert first == {
        "name": "a/é",
        "aliases": ["x"],
        "description": "chat",
        "state": "starting",
        "label": "starting",
        "words": "tensors",
        "percent": 43,
        "lines": [],
        "chat": True,
        "inputs": ["text", "image"],
        "context": 4096,
    }
    assert (second["words"], second["lines"], second["context"]) == ("exited with code 65", ["no such file"], None)
    assert (third["lines"], third["chat"], fourth["chat"], fifth["chat"]) == ([], False, False, True)
    assert answer.json["autoload"] is True


def test_supervisor_away(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.stop()
    try:
        answer = web.request("GET", "/ui/playground/models", headers=JSON)
    finally:
        supervisor.start()
    assert answer.status == 503
    assert "not answering" in answer.error["message"]


@pytest.mark.parametrize("name", ["a/b cé", "alias"])
def test_choosing_loads(web: WebTier, supervisor: FakeSupervisor, name: str) -> None:
    supervisor.models = [model("a/b cé", aliases=["alias"])]
    assert post(web, "load", name).status == 204
    assert supervisor.of("load") == [{"op": "load", "model": "a/b cé", "wait": False}]


def test_choosing_does_no_more_than_a_request(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("dead", state="failed", reason=reason("exited", "exited with code 1")), model("a")]
    assert post(web, "load", "unknown").error["code"] == 404
    answer = post(web, "load", "dead")
    assert (answer.status, answer.error["message"]) == (
        503,
        "cannot load 'dead': exited with code 1; an admin can try again",
    )
    supervisor.facts |= {"autoload": False}
    assert post(web, "load", "a").status == 403
    assert supervisor.of("load") == []


def test_trying_again(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("dead", state="failed")]
    assert post(web, "retry", "dead").status == 204
    assert supervisor.of("load") == [{"op": "load", "model": "dead", "wait": False}]


def test_what_a_viewer_may(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("a")]
    cookie = web.cookie(role="viewer")
    assert web.request("GET", "/ui/playground", headers={"Host": "x", "Cookie": cookie}).status == 200
    assert post(web, "load", "a", Host="x", Cookie=cookie).status == 204
    assert post(web, "retry", "a", Host="x", Cookie=cookie).status == 403
    assert len(supervisor.of("load")) == 1


def test_what_the_supervisor_refuses(web: WebTier, supervisor: FakeSupervisor) -> None:
    def refuse(_: object) -> Any:
        raise Refused("needs 9 GiB, has 4 GiB", status=503)

    supervisor.models = [model("a")]
    supervisor.answers["load"] = refuse
    assert post(web, "load", "a").error["message"] == "needs 9 GiB, has 4 GiB"


@pytest.mark.parametrize("action", ["load", "retry"])
@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_loads_nothing(
    web: WebTier, supervisor: FakeSupervisor, action: str, headers: dict[str, str]
) -> None:
    supervisor.models = [model("a")]
    assert post(web, action, "a", **headers).status == 403
    assert supervisor.of("load") == []


@pytest.mark.parametrize("length", [100_000, 1_000_000])
def test_a_form_that_is_too_large(web: WebTier, supervisor: FakeSupervisor, length: int) -> None:
    answer = post(web, "load", "x" * length)
    assert answer.error["code"] == 413
    assert supervisor.of("load") == []


ROWS = {
    "request.set.temperature": "0.2",
    "request.set.max_tokens": "100",
    "request.set.user": "hidden",
    "request.remove": '["seed", "user", "max_tokens"]',
    "context": "2048",
}


@pytest.mark.parametrize(
    ("rows", "decided"),
    [
        (ROWS, {"set": {"temperature": "0.2", "max_tokens": "100"}, "removed": ["seed"]}),
        ({"request": "none"}, {"set": {}, "removed": []}),
        ({"request.set": "none", "request.remove": "none"}, {"set": {}, "removed": []}),
        ({"request.set": "none", "request.remove": '["none"]'}, {"set": {}, "removed": []}),
    ],
)
def test_what_a_preset_decides(web: WebTier, supervisor: FakeSupervisor, rows: dict[str, str], decided: Any) -> None:
    told = [{"key": key, "value": value} for key, value in rows.items()]
    supervisor.answers["preset"] = lambda _: protocol.ok(preset=told)
    cookie = web.cookie(role="viewer")
    headers = JSON | {"Host": "x", "Cookie": cookie}
    answer = web.request("GET", "/ui/playground/request?model=a%2F%C3%A9", headers=headers)
    assert answer.json == decided
    assert supervisor.of("preset") == [{"op": "preset", "model": "a/é"}]
