"""What is told of models that run, as their own servers tell it: slow ones, strange ones, and ones that sleep."""

from __future__ import annotations

import itertools
import json
import threading
import time
from typing import Any

import pytest
import router_table
from fake_supervisor import FakeSupervisor, model, replica
from fake_upstream import Call, FakeUpstream, Serve
from web_tier import DEADLINE, WebTier

SEEN = {"input_modalities": ["text", "image"], "output_modalities": ["text"]}
CHILD: Any = {"data": [{"id": "m", "meta": router_table.META, "architecture": SEEN}], "object": "list"}
FACTS: Any = {
    "args": ["llama-server"],
    "preset": "",
    "architecture": router_table.ARCHITECTURE,
    "meta": router_table.META | {"n_ctx": 1},
}
launches = itertools.count(10_000)  # the web tier remembers what each said
revisions = itertools.count(1)


def llama_server(call: Call) -> None:
    """A llama-server as far as it is asked."""
    assert call.line == "GET /v1/models HTTP/1.1"
    call.reply(json.dumps(CHILD).encode())


def runs(supervisor: FakeSupervisor, upstream: FakeUpstream, backend: str = "llama-server", **facts: Any) -> None:
    """One model, "m", which `upstream` serves."""
    about = {"backend": backend, "launch": next(launches), "address": upstream.address}
    supervisor.models = [model("m", state="ready", **about)]
    supervisor.told = {"m": FACTS | facts}
    supervisor.facts = {"revision": f"servers {next(revisions)}"}


def listed(web: WebTier) -> Any:
    return web.request("GET", "/models").json["data"][0]


@pytest.mark.parametrize("backend", ["llama-server", "command"])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_running_server_knows_best(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, backend: str, tcp: bool
) -> None:
    upstream = serve(llama_server, tcp=tcp)
    runs(supervisor, upstream, backend)
    for _ in range(3):
        entry = listed(web)
        assert (entry["meta"], entry["architecture"]) == (router_table.META, SEEN)
        assert entry["status"]["value"] == "loaded"
    assert upstream.calls.qsize() == 1  # a launch is asked once


def test_another_launch_is_asked_again(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    upstream = serve(llama_server)
    for count in (1, 2):
        runs(supervisor, upstream)
        assert listed(web)["meta"] == router_table.META
        assert upstream.calls.qsize() == count
    supervisor.models[0]["launch"] -= 1  # what was said by one that is over is forgotten
    assert listed(web)["meta"] == router_table.META
    assert upstream.calls.qsize() == 3


def test_llama_cpp_python_is_not_asked(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    upstream = serve(llama_server)
    runs(supervisor, upstream, "llama-cpp-python")
    assert listed(web)["meta"] == FACTS["meta"]
    assert upstream.calls.empty()


@pytest.mark.parametrize("state", ["stopped", "starting", "stopping", "backoff", "failed"])
def test_only_a_loaded_one_is_asked(web: WebTier, supervisor: FakeSupervisor, serve: Serve, state: str) -> None:
    upstream = serve(llama_server)
    runs(supervisor, upstream)
    supervisor.models[0]["state"] = state
    assert "meta" not in listed(web)
    assert upstream.calls.empty()


def test_a_server_that_sleeps(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    runs(supervisor, serve(llama_server))
    supervisor.models[0]["sleeping"] = True
    entry = listed(web)
    assert (entry["status"]["value"], entry["meta"]) == ("sleeping", router_table.META)
    assert entry["status"]["detail"]["state"] == "ready"
    supervisor.models[0]["replicas"] = [replica("m", sleeping=True), replica("m#2", sleeping=False)]
    assert listed(web)["status"]["value"] == "loaded"  # one of them is awake


def test_a_list_waits_for_no_slow_server(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    upstream = serve(lambda call: call.wait_for_hangup() and None)
    runs(supervisor, upstream)
    began = time.monotonic()
    assert listed(web)["meta"] == FACTS["meta"]
    assert time.monotonic() - began < 2
    for _ in range(3):
        listed(web)
    upstream.call()
    assert upstream.calls.empty()  # and it is not asked by every list anew


def test_what_comes_late_is_told_the_next_time(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    gate = threading.Event()

    def late(call: Call) -> None:
        gate.wait(DEADLINE)
        llama_server(call)

    runs(supervisor, serve(late))
    assert listed(web)["meta"] == FACTS["meta"]
    gate.set()
    deadline = time.monotonic() + DEADLINE
    while listed(web)["meta"] != router_table.META:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{",
        b'{"data":[]}',
        b'{"data":{}}',
        b'{"data":[7]}',
        b'{"data":[{"meta":null}]}',
        b'{"data":[{"meta":{"n_ctx":[1]}}]}',
        b'{"data":[{"meta":{"secret":"x"},"architecture":{}}]}',
        b"\xff" * 100,
        b"[" * 100_000,
        b'{"data":"' + b"x" * (2 * 2**20) + b'"}',
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_strange_answers_say_nothing(web: WebTier, supervisor: FakeSupervisor, serve: Serve, answer: bytes) -> None:
    runs(supervisor, serve(lambda call: call.reply(answer)))
    entry = listed(web)
    assert (entry["meta"], entry["architecture"]) == (FACTS["meta"], router_table.ARCHITECTURE)
    assert entry["status"]["value"] == "loaded"


@pytest.mark.parametrize(
    "handler",
    [
        lambda call: call.reset(),
        lambda call: call.send(b"hello\r\n"),
        lambda call: call.reply(json.dumps(CHILD).encode(), "404 Not Found"),
        lambda call: call.reply(json.dumps(CHILD).encode(), "503 Service Unavailable"),
    ],
)
def test_broken_servers_say_nothing(web: WebTier, supervisor: FakeSupervisor, serve: Serve, handler: Any) -> None:
    upstream = serve(handler)
    runs(supervisor, upstream)
    assert {listed(web)["meta"]["n_ctx"] for _ in range(3)} == {FACTS["meta"]["n_ctx"]}
    assert upstream.calls.qsize() == 1  # it is left alone for a while


def test_a_server_that_is_gone(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    upstream = serve(llama_server)
    runs(supervisor, upstream)
    upstream.__exit__()
    assert listed(web)["status"]["value"] == "loaded"
