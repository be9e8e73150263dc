"""What llama.cpp's own tests do to llama-server's router (tools/server/tests/unit/test_router.py), done to llama-router
with real models, over HTTP alone; and its feed of events."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from served import Served

from tests.admin.router_table import META

DEADLINE = 60.0
ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


class Router:
    """A client of the router's API, of which one word is never said to the supervisor itself."""

    def __init__(self, served: Served) -> None:
        self.address = urlsplit(served.url).netloc

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status, and the JSON that came."""
        connection = http.client.HTTPConnection(self.address, timeout=DEADLINE)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def models(self, query: str = "") -> dict[str, Any]:
        status, answer = self.ask("GET", f"/models{query}")
        assert status == 200
        return {entry["id"]: entry for entry in answer["data"]}

    def value(self, model: str) -> str:
        return str(self.models()[model]["status"]["value"])

    def chat(self, model: str, query: str = "", **fields: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/v1/chat/completions{query}", {"model": model, **ASK, **fields})

    def load(self, model: str) -> None:
        """Load it, and wait until the feed says that it is loaded."""
        with self.watching() as events:
            assert self.ask("POST", "/models/load", {"model": model}) == (200, {"success": True})
            wait_for(events, model, "loaded")

    @contextmanager
    def watching(self) -> Iterator[Iterator[Any]]:
        """The events from now on."""
        connection = http.client.HTTPConnection(self.address, timeout=DEADLINE)
        try:
            connection.request("GET", "/models/sse")
            answer = connection.getresponse()
            assert answer.getheader("Content-Type", "").startswith("text/event-stream")
            lines = (line.decode().rstrip("\n") for line in answer)
            yield (json.loads(line.removeprefix("data: ")) for line in lines if line)
        finally:
            connection.close()


def wait_for(events: Iterator[Any], model: str, status: str) -> list[Any]:
    """The events of a model until it has that status."""
    seen = []
    for event in events:
        if event["model"] == model:
            seen.append(event)
            if event["data"]["status"] == status:
                return seen
    raise AssertionError(f"the feed ended; seen: {seen}")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Three models, of which two may be loaded."""
    with Served(max_models=2) as supervisor:
        for name in ("first", "second", "third"):
            supervisor.serve(name, context=512, aliases=[f"the-{name}"])
        yield supervisor.start(until="READY=1")


@pytest.fixture
def router(served: Served) -> Router:
    """Its API, with nothing loaded."""
    for model in ("first", "second", "third"):
        served.call("unload", model=model, wait=True)
    return Router(served)


def test_props(router: Router) -> None:
    status, props = router.ask("GET", "/props")
    assert (status, props["role"], props["max_instances"], props["models_autoload"]) == (200, "router", 2, True)
    assert props["build_info"].startswith("b")


def test_a_chat_loads_the_model_it_names_and_no_other(router: Router) -> None:
    status, answer = router.chat("first")
    assert (status, len(answer["choices"])) == (200, 1)
    assert {name: entry["status"]["value"] for name, entry in router.models().items()} == {
        "first": "loaded",
        "second": "unloaded",
        "third": "unloaded",
    }
    status, answer = router.chat("no-such-model")
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_load_and_unload(router: Router, served: Served) -> None:
    router.load("first")
    assert router.value("first") == "loaded"
    assert router.ask("POST", "/models/load", {"model": "the-first"})[1]["error"] == {
        "code": 400,
        "message": "model is already running",
        "type": "invalid_request_error",
    }
    with router.watching() as events:
        assert router.ask("POST", "/models/unload", {"model": "the-first"}) == (200, {"success": True})
        (ended,) = wait_for(events, "first", "unloaded")
    assert ended == {"model": "first", "event": "status_change", "data": {"status": "unloaded", "exit_code": 0}}
    assert router.value("first") == "unloaded"
    served.eventually(lambda: served.model("first")["state"] == "stopped", "its process ends")
    assert router.ask("POST", "/models/unload", {"model": "first"})[1]["error"]["message"] == "model is not running"


def test_what_is_told_of_a_load(router: Router) -> None:
    with router.watching() as events:
        router.ask("POST", "/models/load", {"model": "first"})
        start, *progress, loaded = wait_for(events, "first", "loaded")
    assert start == {"model": "first", "event": "model_status", "data": {"status": "loading"}}
    assert {each["event"] for each in progress} <= {"status_change"}
    assert all(each["data"]["progress"]["current"] == "text_model" for each in progress)
    values = [each["data"]["progress"]["value"] for each in progress]
    assert values == sorted(values) and all(0 <= value <= 1 for value in values)
    info = loaded["data"]["info"]
    assert (info["id"], info["aliases"], info["meta"]) == ("first", ["the-first"], META)
    entry = router.models()["first"]
    assert entry["meta"] == META
    assert "ctx-size = 512" in entry["status"]["preset"]
    assert "meta" not in router.models()["second"]
    assert router.models()["second"]["status"]["detail"]["meta"] == META  # known without loading it


def test_a_load_that_is_called_off(router: Router) -> None:
    with router.watching() as events:
        router.ask("POST", "/models/load", {"model": "first"})
        router.ask("POST", "/models/unload", {"model": "first"})
        *_, ended = wait_for(events, "first", "unloaded")
    assert ended["data"]["exit_code"] in (0, 1)  # 0 if it was quick enough to be loaded
    assert router.value("first") == "unloaded"


def test_the_least_recently_used_makes_room(router: Router) -> None:
    router.load("first")
    router.load("second")
    assert (router.value("first"), router.value("second")) == ("loaded", "loaded")
    router.load("third")
    assert (router.value("third"), router.value("first")) == ("loaded", "unloaded")


def test_nothing_is_loaded_by_a_request_that_forbids_it(router: Router) -> None:
    status, answer = router.chat("first", "?autoload=false")
    assert (status, answer["error"]["message"]) == (400, "model is not loaded")
    router.load("first")
    status, answer = router.chat("first", "?autoload=false")
    assert status == 200 and "error" not in answer


def test_a_reload(router: Router, served: Served) -> None:
    served.write("models", {"models": {name: {"backend": "command", "command": ["x", "{port}"]} for name in "ab"}})
    assert router.models("?reload=1").keys() >= {"a", "b"}
    served.write("models", {"models": {name: {"backend": "command", "command": ["x", "{port}"]} for name in "bc"}})
    with router.watching() as events:
        names = router.models("?reload=1").keys()
        assert next(events) == {"model": "*", "event": "models_reload"}
        assert next(events) == {"model": "a", "event": "model_remove"}
    assert "a" not in names and names >= {"b", "c"}


def test_a_listing_is_quick_while_models_answer(router: Router) -> None:
    router.load("first")
    began = time.monotonic()
    for _ in range(20):
        router.models()
    assert (time.monotonic() - began) / 20 < 0.5
