"""GET /props, and what the page of llama-server asks for when it is opened."""

from __future__ import annotations

import json
from typing import Any

import pytest
import router_table
from fake_supervisor import FakeSupervisor, model
from web_tier import WebTier


@pytest.fixture
def router(supervisor: FakeSupervisor) -> FakeSupervisor:
    """A supervisor as llama-server was when it was recorded."""
    supervisor.facts = {"max_models": 2}
    supervisor.models = [model("smol")]
    return supervisor


@pytest.mark.parametrize("target", ["/props", "/v1/props", "/props?model=", "/props?autoload=false", "/props?model"])
def test_props_are_llama_servers(web: WebTier, router: FakeSupervisor, target: str) -> None:
    answer = web.request("GET", target).json
    version = router.status()["version"]
    assert json.dumps(answer) == json.dumps(router_table.PROPS | {"build_info": f"b0-llama-router-{version}"})


def test_props_are_the_configured_ones(web: WebTier, router: FakeSupervisor) -> None:
    router.facts = {"max_models": 0, "autoload": False}
    props = web.request("GET", "/props").json
    assert (props["max_instances"], props["models_autoload"]) == (0, False)


def test_props_name_a_build_as_llama_cpps_own_test_wants_it(web: WebTier, router: FakeSupervisor) -> None:
    assert web.request("GET", "/props").json["build_info"].startswith("b")


def test_props_while_the_supervisor_is_away(web: WebTier, router: FakeSupervisor) -> None:
    router.stop()
    try:
        answer = web.request("GET", "/props")
        assert answer.error["code"] == 503  # upon which llama-server's page asks again by itself
        assert answer.headers["retry-after"] == "1"
    finally:
        router.start()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/cors-proxy", "/tools"])
def test_what_is_switched_off(web: WebTier, router: FakeSupervisor, method: str, path: str) -> None:
    error = web.request(method, path, b"{}" if method == "POST" else None).error
    assert error == {"code": 403, "message": "this feature is disabled", "type": "feature_disabled"}


def test_the_start_of_llama_servers_page(web: WebTier, router: FakeSupervisor) -> None:
    """What its ui/ asks in this order: PropsService, ModelsService.list, ToolsService, stream discovery."""
    own = {"Origin": f"http://127.0.0.1:{web.address[1]}", "Sec-Fetch-Site": "same-origin"}
    assert web.request("GET", "/props?autoload=false", None, own).json["role"] == "router"
    listed: Any = web.request("GET", "/v1/models", None, own).json
    assert [entry["id"] for entry in listed["data"]] == ["smol"]
    assert listed["data"][0]["architecture"]["input_modalities"] == ["text"]
    assert web.request("HEAD", "/models/sse", None, own).status == 200
    assert web.request("GET", "/tools", None, own).status == 403
    looked = web.request("POST", "/v1/streams/lookup", b'{"conversation_ids":["c::smol"]}', own)
    assert looked.json == []
    assert web.request("GET", "/cors-proxy", None, own).status == 403
    assert web.request("GET", "/health", None, own).body.strip() == router_table.HEALTH
    assert router.of("lease") == router.of("load") == []  # opening a page loads nothing
