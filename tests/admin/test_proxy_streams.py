"""Streams, dying servers and vanishing clients."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, Serve
from web_tier import DEADLINE, WebTier, chat_request, read_all, read_until

CHAT = "/v1/chat/completions"
LAST_CHUNK = b"0\r\n\r\n"


def ended(supervisor: FakeSupervisor, count: int = 1) -> list[str]:
    """How the leases given back so far had ended, in order."""
    return [release["figures"]["ended"] for release in supervisor.wait_for("release", count)]


def hello(call: Call) -> None:
    call.reply(b'{"hello": 1}')


def test_bytes_arrive_as_they_come(web: WebTier, serve: Serve) -> None:
    word = threading.Event()

    def tokens(call: Call) -> None:
        call.head()
        call.chunk(b"data: 1\n\n")
        word.wait(DEADLINE)
        call.chunk(b"data: 2\n\n")
        call.send(LAST_CHUNK)

    serve(tokens)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        first = read_until(client, b"data: 1\n\n")
        assert b"\r\nContent-Type: text/event-stream\r\n" in first
        assert b"data: 2" not in first
        word.set()
        assert read_until(client, LAST_CHUNK).endswith(b"data: 2\n\n\r\n" + LAST_CHUNK)


def test_the_head_waits_for_the_first_byte_of_the_body(web: WebTier, serve: Serve) -> None:
    word = threading.Event()
    headed = threading.Event()

    def late(call: Call) -> None:
        call.head()
        headed.set()
        word.wait(DEADLINE)
        call.chunk(b"data: 1\n\n")
        call.send(LAST_CHUNK)

    serve(late)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        assert headed.wait(DEADLINE)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(DEADLINE)
        word.set()
        assert read_until(client, LAST_CHUNK).startswith(b"HTTP/1.1 200 OK\r\n")


def test_fifty_streams_at_once(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    everybody = threading.Barrier(50)

    def tokens(call: Call) -> None:
        number = json.loads(call.body)["n"]
        call.head()
        call.chunk(b"data: %d\n\n" % number)
        everybody.wait(DEADLINE)
        for _ in range(20):
            call.chunk(b"data: %d\n\n" % number)
        call.send(LAST_CHUNK)

    serve(tokens)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: web.post(CHAT, {"model": "m", "n": n}), range(50)))
    assert [answer.body for answer in answers] == [b"data: %d\n\n" % n * 21 for n in range(50)]
    assert ended(supervisor, 50) == ["complete"] * 50


def die_at_once(call: Call) -> None:
    call.connection.close()


def reset_at_once(call: Call) -> None:
    call.reset()


def die_in_the_head(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-Le")


def die_after_the_head(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")


def die_after_a_chunked_head(call: Call) -> None:
    call.head()


def die_in_a_chunk_size(call: Call) -> None:
    call.head()
    call.send(b"1")


DEATHS = [
    die_at_once,
    reset_at_once,
    die_in_the_head,
    die_after_the_head,
    die_after_a_chunked_head,
    die_in_a_chunk_size,
]


@pytest.mark.parametrize("length", [0, 1, 5, 12, 17, 18, 27, 34, 40, 60, 61])
def test_a_head_that_breaks_off_is_a_death(web: WebTier, supervisor: FakeSupervisor, serve: Serve, length: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n"
    serve(lambda call: call.send(head[:length]))
    serve(hello)
    assert web.post(CHAT, {"model": "m"}).status == 200
    assert ended(supervisor, 2) == ["upstream_died", "complete"]


HEADS = [
    b"+OK this is no HTTP\r\n",
    b"HTTP/1.1 1000 Odd\r\n",
    b"HTTP/2 200\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: \x01\r\n",
    b"HTTP/1.1 200 OK\r\nthis is no field\r\nContent-Length: 100\r\n",
    b"HTTP/1.1 200 OK\r\nX F: a\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nFrom x\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 5000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101,
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" * 101 + b"HTTP/1.1 200 OK\r\n",
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: repr(head[-40:]))
def test_what_is_no_http_is_no_answer_and_asked_once(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, head: bytes
) -> None:
    serve(lambda call: call.send(head + b"\r\nhalf"))
    serve(hello)
    error = web.post(CHAT, {"model": "m"}).error
    assert error["code"] == 502
    assert error["message"].startswith("model 'm': its server's answer is no HTTP: ")
    assert ended(supervisor) == ["upstream_died"]
    assert len(supervisor.of("lease")) == 1


def test_a_stream_that_stops_being_http_ends_with_an_error_event(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve
) -> None:
    def spoil(call: Call) -> None:
        call.head()
        call.chunk(b"data: 1\n\n")
        call.send(b"-5\r\nhello\r\n")

    serve(spoil)
    body = web.post(CHAT, {"model": "m"}).body
    assert body.startswith(b"data: 1\n\n")
    assert b"its server sent what is no HTTP while it was answering" in body
    assert b"hello" not in body
    assert ended(supervisor) == ["upstream_died"]


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 102 Processing", b"HTTP/1.1 103 Hints"])
def test_interim_answers_are_passed_over(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, interim: bytes
) -> None:
    def hint(call: Call) -> None:
        call.send((interim + b"\r\nLink: </a>\r\n\r\n") * 2)
        hello(call)

    serve(hint)
    answer = web.post(CHAT, {"model": "m"})
    assert (answer.status, answer.body, answer.headers.get("link")) == (200, b'{"hello": 1}', None)
    assert ended(supervisor) == ["complete"]


@pytest.mark.parametrize("death", DEATHS)
def test_a_server_that_dies_before_the_first_byte_costs_one_retry(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, death: object
) -> None:
    serve(death)
    second = serve(hello)
    answer = web.post(CHAT, {"model": "m"})
    assert (answer.status, answer.body) == (200, b'{"hello": 1}')
    assert json.loads(second.call().body) == {"model": "m"}
    assert ended(supervisor, 2) == ["upstream_died", "complete"]
    assert [lease.get("avoid") for lease in supervisor.of("lease")] == [None, 1]


def test_a_server_that_no_longer_listens_costs_one_retry(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, tmp_path: Path
) -> None:
    supervisor.grants["m"] = [(77, f"unix:{tmp_path}/nobody.sock")]
    serve(hello)
    assert web.post(CHAT, {"model": "m"}).status == 200
    assert ended(supervisor, 2) == ["upstream_died", "complete"]


def test_a_server_that_dies_twice_is_an_error(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(die_at_once)
    serve(reset_at_once)
    serve(hello)
    assert web.post(CHAT, {"model": "m"}).error == {
        "code": 502,
        "type": "server_error",
        "message": "model 'm': its server died twice while serving this request",
    }
    assert ended(supervisor, 2) == ["upstream_died"] * 2


def test_no_other_server_for_the_retry(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(die_at_once)
    assert web.post(CHAT, {"model": "m"}).error["message"] == "model 'm' not found"
    assert ended(supervisor) == ["upstream_died"]


def test_an_answer_given_without_reading_the_body_counts(web: WebTier, serve: Serve) -> None:
    def unread(call: Call) -> None:
        call.reply(b'{"too": "large"}', "413 Content Too Large")

    upstream = serve(unread)
    upstream.reads_body = False
    answer = web.post(CHAT, {"model": "m", "x": "y" * 4_000_000})
    assert (answer.status, answer.body) == (413, b'{"too": "large"}')
    assert len(upstream.call().body) < 4_000_000


@pytest.mark.parametrize("sent", [b"data: 1\n\n", b"data: 1\r\n\r\n", b'data: {"half'])
def test_a_stream_whose_server_dies_ends_with_an_error_event(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, sent: bytes
) -> None:
    def die_late(call: Call) -> None:
        call.head("text/event-stream; charset=utf-8")
        call.chunk(sent)

    serve(die_late)
    serve(hello)
    answer = web.post(CHAT, {"model": "m"})  # http.client raises IncompleteRead unless the end is a clean one
    assert answer.status == 200
    *_, last, rest = answer.body.replace(b"\r\n", b"\n").split(b"\n\n")
    assert rest == b""
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == (502, "server_error")
    assert "died" in error["message"]
    assert answer.body.startswith(sent)
    assert ended(supervisor) == ["upstream_died"]


def test_an_answer_of_known_length_is_broken_off(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(lambda call: call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"))
    with pytest.raises(IncompleteRead):
        web.post(CHAT, {"model": "m"})
    assert ended(supervisor) == ["upstream_died"]


def test_a_chunked_answer_is_broken_off(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    def die_late(call: Call) -> None:
        call.head("application/json")
        call.chunk(b"12345")

    serve(die_late)
    with pytest.raises(IncompleteRead):
        web.post(CHAT, {"model": "m"})
    assert ended(supervisor) == ["upstream_died"]


def test_an_answer_ended_by_closing_is_reset(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    """An HTTP/1.0 client knows the end of a body by the end of the connection alone."""
    word = threading.Event()

    def die_late(call: Call) -> None:
        call.head("application/json")
        call.chunk(b"12345")
        word.wait(DEADLINE)

    serve(die_late)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}).replace(b"HTTP/1.1", b"HTTP/1.0"))
        read_until(client, b"12345")
        word.set()
        with pytest.raises(ConnectionResetError):
            read_all(client)
    assert ended(supervisor) == ["upstream_died"]


def test_client_gone_while_queued_for_a_lease(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.gate.clear()
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        supervisor.wait_for("lease")
        assert supervisor.of("hangup") == []
    (withdrawn,) = supervisor.wait_for("hangup")
    assert withdrawn["model"] == "m"
    assert len(supervisor.of("lease")) == 1
    assert supervisor.of("release") == []


def test_client_gone_while_waiting_for_the_first_byte(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    noticed: list[bool] = []
    upstream = serve(lambda call: noticed.append(call.wait_for_hangup()))
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        upstream.call()
    assert ended(supervisor) == ["client_gone"]
    assert supervisor.of("release")[0]["figures"]["status"] is None


def test_client_gone_while_streaming_although_nothing_is_sent(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve
) -> None:
    hung_up = threading.Event()

    def silent(call: Call) -> None:
        call.head()
        call.chunk(b"data: 1\n\n")
        if call.wait_for_hangup():
            hung_up.set()

    serve(silent)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        read_until(client, b"data: 1\n\n")
    assert ended(supervisor) == ["client_gone"]
    assert hung_up.wait(DEADLINE)
    assert supervisor.of("release")[0]["figures"]["bytes"] == 9


def test_client_gone_while_its_socket_is_full(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    full = threading.Event()

    def flood(call: Call) -> None:
        call.head()
        call.connection.settimeout(0.5)
        try:
            while True:
                call.chunk(bytes(65536))
        except TimeoutError:
            full.set()
            call.connection.settimeout(DEADLINE)
            call.wait_for_hangup()

    serve(flood)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        assert full.wait(DEADLINE)
    assert ended(supervisor) == ["client_gone"]


def test_client_gone_with_half_a_body(web: WebTier, supervisor: FakeSupervisor) -> None:
    with web.connect() as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert web.request("GET", "/health").status == 200
    assert supervisor.of("lease") == []


def test_a_pipelined_request_is_no_hangup(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    word = threading.Event()

    def slow(call: Call) -> None:
        word.wait(DEADLINE)
        hello(call)

    upstream = serve(slow)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        upstream.call()
        client.sendall(chat_request({"model": "m"}, "Connection: close\r\n"))
        word.set()
        assert read_all(client).count(b'{"hello": 1}') == 2
    assert ended(supervisor, 2) == ["complete"] * 2


def test_the_web_tier_serves_others_while_a_stream_is_slow(web: WebTier, serve: Serve) -> None:
    upstream = serve(lambda call: call.wait_for_hangup() and None)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}))
        upstream.call()
        assert web.request("GET", "/health").json == {"status": "ok"}
