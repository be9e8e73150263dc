"""Connections to model servers are used again, and never so that a request could be executed twice."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, Serve
from web_tier import WebTier, chat_request, read_until

from admin import upstream
from admin.upstream import Connections

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def keep_alive(supervisor: FakeSupervisor) -> None:
    """A backend whose connections are kept."""
    supervisor.granted = {"backend": "llama-server"}
    supervisor.models = [model("m")]


def every(call: Call) -> Iterator[Call]:
    """The requests of one connection."""
    while True:
        yield call
        try:
            call = Call(call.connection, True)
        except ConnectionError:
            return


class Many:
    """A server that answers each request of a connection, and counts both."""

    def __init__(self, answer: bytes = b"{}", extra: str = "") -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.closed = threading.Event()
        self._answer, self._extra = answer, extra

    def __call__(self, call: Call) -> None:
        self.connections += 1
        for each in every(call):
            self.requests.append(each.body)
            each.reply(b"" if each.line.startswith("HEAD") else self._answer, extra=self._extra)
        self.closed.set()


@pytest.mark.parametrize("tcp", [False, True])
def test_a_connection_serves_many_requests(web: WebTier, serve: Serve, tcp: bool) -> None:
    server = Many()
    serve(server, tcp=tcp)
    for number in range(5):
        assert web.post(CHAT, {"model": "m", "n": number}).body == b"{}"
    assert (server.connections, len(server.requests)) == (1, 5)


def test_after_head_and_a_chunked_answer(web: WebTier, serve: Serve) -> None:
    answers = 0

    def chunked(call: Call) -> None:
        nonlocal answers
        for each in every(call):
            answers += 1
            each.head("application/json")
            if not each.line.startswith("HEAD"):
                each.chunk(b"{}")
                each.send(b"0\r\nX-Trailer: 1\r\n\r\n")

    server = serve(chunked)
    for method in ("HEAD", "GET", "HEAD", "GET"):
        assert web.request(method, "/upstream/m/x").body == (b"{}" if method == "GET" else b"")
    assert (answers, server.calls.qsize()) == (4, 1)


@pytest.mark.parametrize("backend", ["command", None])
def test_a_command_gets_a_connection_for_each(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, backend: str | None
) -> None:
    supervisor.granted = {"backend": backend}
    server = Many()
    serve(server)
    for _ in range(3):
        web.post(CHAT, {"model": "m"})
    assert server.connections == 3


def test_connection_close_is_obeyed(web: WebTier, serve: Serve) -> None:
    server = Many(extra="Connection: close\r\n")
    serve(server)
    for _ in range(3):
        assert web.post(CHAT, {"model": "m"}).status == 200
    assert server.connections == 3


def test_one_that_the_server_closed_is_noticed(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    """As llama-server does after a hundred requests, only that it tells."""
    bodies: list[bytes] = []

    def once(call: Call) -> None:
        bodies.append(call.body)
        call.reply(b"{}")

    serve(once)
    for number in range(5):
        assert web.post(CHAT, {"model": "m", "n": number}).status == 200
    assert len(set(bodies)) == len(bodies) == 5
    assert len(supervisor.of("lease")) == 5


def test_bytes_that_nobody_asked_for_end_it(web: WebTier, serve: Serve) -> None:
    answered, said = threading.Event(), threading.Event()

    def babble(call: Call) -> None:
        call.reply(b"{}")
        assert answered.wait(10)
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        said.set()
        call.wait_for_hangup()

    server = serve(babble)
    assert web.post(CHAT, {"model": "m"}).body == b"{}"
    answered.set()
    assert said.wait(10)
    assert web.post(CHAT, {"model": "m"}).body == b"{}"
    assert server.calls.qsize() == 2


def test_a_server_that_dies_with_the_request_costs_one_retry_elsewhere(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve
) -> None:
    """It may have executed what it was sent: it is not sent to the same launch again."""
    seen: list[str] = []

    def dies_second(call: Call) -> None:
        call.reply(b"{}")
        Call(call.connection, True)
        seen.append("first")
        call.reset()

    serve(dies_second)
    serve(lambda call: call.reply(b'{"second": 1}'))
    assert web.post(CHAT, {"model": "m"}).body == b"{}"
    assert web.post(CHAT, {"model": "m"}).body == b'{"second": 1}'
    assert seen == ["first"]
    assert [lease.get("avoid") for lease in supervisor.of("lease")] == [None, None, 1]


def test_a_post_to_upstream_is_not_even_sent_elsewhere(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    def dies_second(call: Call) -> None:
        call.reply(b"{}")
        Call(call.connection, True)
        call.reset()

    serve(dies_second)
    assert web.request("POST", "/upstream/m/x", b"1").status == 200
    assert web.request("POST", "/upstream/m/x", b"2").error["code"] == 502


def test_it_is_closed_when_it_was_idle_for_long(web: WebTier, serve: Serve) -> None:
    server = Many()
    serve(server)
    web.post(CHAT, {"model": "m"})
    assert server.closed.wait(10)


def test_an_answer_that_the_client_left_is_not_mixed_into_the_next(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve
) -> None:
    hung_up: list[bool] = []

    def stream(call: Call) -> None:
        if json.loads(call.body)["n"] == 2:
            call.reply(b'{"clean": 1}')
            return
        call.head()
        call.chunk(b"data: 1\n\n")
        hung_up.append(call.wait_for_hangup())

    serve(stream)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m", "n": 1}))
        read_until(client, b"data: 1")
    supervisor.wait_for("release")
    assert web.post(CHAT, {"model": "m", "n": 2}).body == b'{"clean": 1}'
    assert hung_up == [True]


def test_one_that_is_about_to_be_closed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for seconds, usable in ((60.0, True), (0.0, False)):
            monkeypatch.setattr(upstream, "REUSE_SECONDS", seconds)
            connections = Connections()
            connections.keep((1, "unix:/x"), ours)
            assert connections.take((2, "unix:/x")) is None
            assert (connections.take((1, "unix:/x")) is ours) is usable
        assert ours.fileno() == -1
