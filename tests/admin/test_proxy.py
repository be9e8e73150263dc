"""The proxy answers what it must, forwards what it should and refuses the rest with an error object."""

from __future__ import annotations

import json
import re
import socket

import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, Serve
from web_tier import FOREIGN, OWN, WebTier, chat_request, read_until

from supervisor.errors import Refused

CHAT = "/v1/chat/completions"
MISSING = "model name is missing from the request"


def hello(call: Call) -> None:
    call.reply(b'{"hello": 1}')


def test_the_body_arrives_byte_for_byte_and_headers_without_credentials(web: WebTier, serve: Serve) -> None:
    upstream = serve(hello, tcp=True)
    body = b'  {"model" : "m", "model":"m", "n":1.00, "x":"\xc3\xa9"}\n'
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": "Bearer secret",
        "X-Api-Key": "secret",
        "Api-Key": "secret",
        "X-Goog-Api-Key": "secret",
        "Cookie": "secret=1",
        "Connection": "X-Private, keep-alive",
        "X-Private": "secret",
        "TE": "trailers",
        "Upgrade": "secret",
        "X-Custom": "kept",
        "Accept-Encoding": "gzip",
    }
    web.request("POST", f"{CHAT}?a=1&b=%20x", body, headers)
    call = upstream.call()
    assert call.body == body
    assert call.line == "POST /v1/chat/completions?a=1&b=%20x HTTP/1.1"
    assert call.headers["host"] == "localhost"
    assert call.headers["content-length"] == str(len(body))
    assert call.headers["content-type"] == "application/json"
    assert call.headers["x-custom"] == "kept"
    assert call.headers["accept-encoding"] == "gzip"
    assert "secret" not in str(call.fields)
    assert not {"te", "upgrade", "connection"} & set(call.headers)
    assert len(call.fields) == len(call.headers)


SPEAKS_FOR_THE_ORIGIN = [
    *("Set-Cookie: a=b", "Set-Cookie2: a=b", 'Clear-Site-Data: "*"', "Service-Worker-Allowed: /"),
    *("Strict-Transport-Security: max-age=1", 'Alt-Svc: h3=":1"', "NEL: {}", "Report-To: {}", "Accept-CH: Sec-CH-UA"),
    *('WWW-Authenticate: Basic realm="x"', "Set-Login: logged-in", 'Use-As-Dictionary: match="/*"'),
    *("Refresh: 0; url=/", "X-Accel-Redirect: /secret", "X-Sendfile: /secret", "Access-Control-Allow-Origin: *"),
]


@pytest.mark.parametrize("field", SPEAKS_FOR_THE_ORIGIN)
def test_no_answer_speaks_for_the_whole_origin(web: WebTier, serve: Serve, field: str) -> None:
    serve(lambda call: call.reply(b"{}", extra=f"{field}\r\nX-Kept: 1\r\n"))
    headers = web.post(CHAT, {"model": "m"}).headers
    assert headers["x-kept"] == "1"
    assert field.partition(":")[0].lower() not in headers


def test_status_headers_and_body_of_the_answer_are_the_servers(web: WebTier, serve: Serve) -> None:
    extra = "X-A: 1\r\nConnection: X-Hop\r\nX-Hop: no\r\nKeep-Alive: timeout=5\r\nContent-Encoding: gzip\r\n"
    serve(lambda call: call.reply(b"\x1f\x8bnot really", "418 I'm a teapot", extra))
    answer = web.post(CHAT, {"model": "m"})
    assert (answer.status, answer.body) == (418, b"\x1f\x8bnot really")
    assert answer.headers["x-a"] == "1"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-length"] == "12"
    assert "x-hop" not in answer.headers
    assert "keep-alive" not in answer.headers.get("keep-alive", "")


def test_an_empty_answer_is_an_answer(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(lambda call: call.send(b"HTTP/1.1 204 No Content\r\n\r\n"))
    answer = web.post(CHAT, {"model": "m"})
    assert (answer.status, answer.body) == (204, b"")
    assert supervisor.wait_for("release")[0]["figures"]["ended"] == "complete"


def test_an_answer_without_length_ends_with_its_connection(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it"))
    answer = web.post(CHAT, {"model": "m"})
    assert answer.body == b"all of it"
    assert answer.headers["transfer-encoding"] == "chunked"


def test_figures_of_a_request(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(lambda call: call.reply(b"x" * 5120))
    web.post(CHAT, {"model": "m"})
    (release,) = supervisor.wait_for("release")
    figures = release["figures"]
    assert (figures["status"], figures["bytes"], figures["ended"]) == (200, 5120, "complete")
    assert 0 < figures["first_byte"] <= figures["duration"] < 10


@pytest.mark.parametrize("given", ["abc-123", "x" * 128])
def test_request_id_is_passed_through(web: WebTier, serve: Serve, given: str) -> None:
    upstream = serve(lambda call: call.reply(b"{}", extra="X-Request-Id: the-servers-own\r\n"))
    assert web.post(CHAT, {"model": "m"}, {"X-Request-Id": given}).headers["x-request-id"] == given
    assert upstream.call().headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "é"])
def test_request_id_is_made(web: WebTier, serve: Serve, given: str) -> None:
    upstream = serve(hello)
    made = web.post(CHAT, {"model": "m"}, {"X-Request-Id": given}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert upstream.call().headers["x-request-id"] == made


def test_request_id_is_on_errors_too(web: WebTier) -> None:
    assert web.request("POST", CHAT, b"{", {"X-Request-Id": "me"}).headers["x-request-id"] == "me"


@pytest.mark.parametrize(
    "query, autoload",
    [("", None), ("?autoload=true", True), ("?autoload=1", True), ("?autoload=false", False), ("?autoload=", None)],
)
def test_autoload(web: WebTier, supervisor: FakeSupervisor, serve: Serve, query: str, autoload: bool | None) -> None:
    serve(hello)
    web.post(CHAT + query, {"model": "m"})
    (lease,) = supervisor.of("lease")
    assert lease.get("autoload") is autoload
    assert (lease["model"], lease["timeout"]) == ("m", None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b'"m"',
        b"null",
        b'\xff{"model": "m"}',
        '{"model": "m"}'.encode("utf-16"),
        b'{"a":' * 100_000,
        b'{"model": "m"} {}',
        b'{"model": "m", "a": [1,]}',
        b'{"model": "m", "a": NaN}',
        b'{"model": "m", "a": "\xff"}',
        b'{"model": "m", "\xff": 1}',
        b'{"model": "m", "a": "\xed\xa0\x80"}',
        b'{"model": "\\ud800"}',
        b'{"model": "\xff"}',
        b'{"model": "m", "a": "' + b"a" * 2**20 + b'\xc3"}',
        b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_json_object(web: WebTier, body: bytes) -> None:
    error = web.request("POST", CHAT, body).error
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert "request body" in error["message"]


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}, {"model": 3}, {"model": ["m"]}, {"model": {}}])
def test_model_is_missing(web: WebTier, supervisor: FakeSupervisor, body: object) -> None:
    error = web.post(CHAT, body).error
    assert error == {"code": 400, "type": "invalid_request_error", "message": MISSING}


def test_a_request_that_names_no_model_goes_to_the_fallback(web: WebTier, serve: Serve) -> None:
    upstream = serve(hello, model=None)
    assert web.post(CHAT, {"messages": []}).status == 200
    assert json.loads(upstream.call().body) == {"messages": []}


@pytest.mark.parametrize("name", ["nope", "x" * 1024, "\x00", "a\nb", "\U0001f600" * 1024])
def test_unknown_model(web: WebTier, supervisor: FakeSupervisor, name: str) -> None:
    error = web.post(CHAT, {"model": name}).error
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert error["message"] == f"model '{name}' not found"


@pytest.mark.parametrize("name", ["x" * 1025, "\U0001f600" * 1025, "x" * 1_000_000])
def test_a_model_name_that_is_none(web: WebTier, supervisor: FakeSupervisor, name: str) -> None:
    error = web.post(CHAT, {"model": name}).error
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert "more than 1024 characters" in error["message"]
    assert supervisor.of("lease") == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": 3, "model": "m"}',
        b'{"\\u006dodel": "\\u006d", "a": {"model": "x"}}',
        b'{"model": "m", "a": ' + b"9" * 5000 + b"}",
        '{"model": "m", "a": "é\U0001f600"}'.encode(),
        '{{"model": "m", "a": "a{}"}}'.format("é" * 2**20).encode(),  # a piece of a MiB ends within a character
    ],
    ids=lambda body: repr(body[:20]),
)
def test_the_model_is_found(web: WebTier, serve: Serve, body: bytes) -> None:
    upstream = serve(hello)
    assert web.request("POST", CHAT, body).status == 200
    assert upstream.call().body == body


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", [CHAT, "/completions", "/v1/embeddings"])
def test_foreign_pages_are_refused(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, path: str, headers: dict[str, str]
) -> None:
    serve(hello)
    error = web.post(path, {"model": "m"}, headers | {"Content-Type": "text/plain"}).error
    assert (error["code"], error["type"]) == (403, "permission_error")
    assert supervisor.of("lease") == []


@pytest.mark.parametrize("headers", OWN)
def test_own_pages_and_other_clients_are_not(web: WebTier, serve: Serve, headers: dict[str, str]) -> None:
    serve(hello)
    assert web.post(CHAT, {"model": "m"}, headers).status == 200


def test_refusals_are_passed_on(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.refusals["m"] = Refused("queue is full", status=429, error_type="rate_limit_error", retry_after=1.2)
    answer = web.post(CHAT, {"model": "m"})
    assert answer.error == {"code": 429, "type": "rate_limit_error", "message": "queue is full"}
    assert answer.headers["retry-after"] == "2"


def test_a_refused_request_keeps_its_control_connection(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(hello)
    for name in ("nope", "m", "nope", "m"):
        web.post(CHAT, {"model": name})
    supervisor.wait_for("release", 2)
    assert supervisor.of("hangup") == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_post(web: WebTier, method: str) -> None:
    answer = web.request(method, CHAT)
    assert answer.error["type"] == "invalid_request_error"
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_declared_length_over_the_limit_is_refused_unread(web: WebTier) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {256 * 1024 * 1024 + 1}\r\n\r\n".encode()
    with web.connect() as client:
        client.sendall(head)
        answer = read_until(client, b"}}")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert b"invalid_request_error" in answer
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_the_refusal_arrives_although_the_client_sends_on(web: WebTier) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**40}\r\n\r\n".encode()
    with web.connect() as client:
        client.sendall(head)
        for _ in range(64):
            client.sendall(bytes(65536))
        client.shutdown(socket.SHUT_WR)
        assert read_until(client, b"}}").startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body(web: WebTier, serve: Serve) -> None:
    upstream = serve(hello)
    body = b'{"model": "m", "x": "' + b"y" * 100_000 + b'"}'
    pieces = [body[:5], body[5:70_000], body[70_000:]]
    raw = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-Trailer: 1\r\n\r\n"
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert web.exchange(head + raw).startswith(b"HTTP/1.1 200 OK\r\n")
    call = upstream.call()
    assert call.body == body
    assert call.headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in call.headers


def test_expect_100_continue(web: WebTier, serve: Serve) -> None:
    serve(hello)
    body = b'{"model": "m"}'
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with web.connect() as client:
        client.sendall(head.encode())
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert read_until(client, b'{"hello": 1}').startswith(b"HTTP/1.1 200 OK\r\n")


def test_many_requests_on_one_connection(web: WebTier, serve: Serve) -> None:
    serve(hello)
    with web.connect() as client:
        for _ in range(3):
            client.sendall(chat_request({"model": "m"}))
            assert b"\r\nConnection: keep-alive\r\n" in read_until(client, b'{"hello": 1}')


def test_pipelined_requests_are_answered_in_turn(web: WebTier, serve: Serve) -> None:
    serve(hello)
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}) + chat_request({"model": "m"}, "Connection: close\r\n"))
        received = bytearray()
        while data := client.recv(65536):
            received += data
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_a_large_body(web: WebTier, serve: Serve) -> None:
    upstream = serve(hello)
    answer = web.post(CHAT, {"model": "m", "image": "A" * (20 * 1024 * 1024)})
    assert answer.status == 200
    assert len(upstream.call().body) > 20 * 1024 * 1024


def test_a_large_answer(web: WebTier, serve: Serve) -> None:
    body = bytes(range(256)) * 40_000
    serve(lambda call: call.reply(body))
    assert web.post(CHAT, {"model": "m"}).body == body


def test_a_restarted_supervisor_is_found_again(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(hello)
    assert web.post(CHAT, {"model": "m"}).status == 200
    supervisor.wait_for("release")
    supervisor.stop()
    answer = web.post(CHAT, {"model": "m"})
    assert answer.error == {
        "code": 503,
        "type": "server_error",
        "message": "llama-router's supervisor is not answering",
    }
    assert "retry-after" in answer.headers
    supervisor.start()
    assert web.post(CHAT, {"model": "m"}).status == 200
    supervisor.wait_for("release", 2)
    supervisor.stop()  # this time nothing is asked in between: the pooled connection is dead
    supervisor.start()
    assert web.post(CHAT, {"model": "m"}).status == 200
