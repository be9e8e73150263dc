"""Every route of llama-server's router goes to the model it names, under the path that the model's backend knows."""

from __future__ import annotations

import json

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, Serve
from web_tier import WebTier

from admin import routes
from supervisor.errors import Refused

# What llama-server's router forwards (b11434), found by asking it: POST {} is answered "model name is missing".
POSTED = [
    *("/completion", "/completions", "/v1/completions", "/chat/completions"),
    *(
        "/v1/chat/completions",
        "/v1/chat/completions/control",
        "/chat/completions/input_tokens",
        "/v1/chat/completions/input_tokens",
    ),
    *("/v1/responses", "/responses", "/v1/responses/input_tokens", "/responses/input_tokens"),
    *("/v1/messages", "/v1/messages/count_tokens", "/v1/audio/transcriptions", "/audio/transcriptions"),
    *("/infill", "/embedding", "/embeddings", "/v1/embeddings"),
    *("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"),
    *("/tokenize", "/detokenize", "/apply-template", "/props"),
    *("/slots/0", "/lora-adapters", "/v1/systemone"),
]
GOT = ["/props", "/slots", "/metrics", "/lora-adapters"]
# Forms that it lacks, and that are here for those who write /v1 before everything, or before nothing.
OTHER_FORMS = {
    "/v1/tokenize": "/tokenize",
    "/v1/completion": "/completion",
    "/v1/slots/3": "/slots/3",
    "/v1/props": "/props",
    "/messages": "/v1/messages",
    "/messages/count_tokens": "/v1/messages/count_tokens",
    "/chat/completions/control": "/v1/chat/completions/control",
}


def hello(call: Call) -> None:
    call.reply(b'{"hello": 1}')


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("backend", ["llama-server", "command"])
def test_what_the_router_posts(web: WebTier, supervisor: FakeSupervisor, serve: Serve, path: str, backend: str) -> None:
    supervisor.granted = {"backend": backend}
    upstream = serve(hello)
    answer = web.post(f"{path}?action=save&a=%20", {"model": "m"})
    assert (answer.status, answer.body) == (200, b'{"hello": 1}')
    assert upstream.call().line == f"POST {path}?action=save&a=%20 HTTP/1.1"
    (release,) = supervisor.wait_for("release")
    assert release["figures"]["ended"] == "complete"


@pytest.mark.parametrize("path", GOT)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_router_gets(web: WebTier, supervisor: FakeSupervisor, serve: Serve, path: str, method: str) -> None:
    supervisor.granted = {"backend": "llama-server"}
    upstream = serve(lambda call: call.reply(b"" if call.line.startswith("HEAD") else b'{"hello": 1}'))
    answer = web.request(method, f"{path}?model=m&autoload=1")
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b'{"hello": 1}')
    call = upstream.call()
    assert call.line == f"{method} {path}?model=m&autoload=1 HTTP/1.1"
    assert not {"content-length", "content-type"} & set(call.headers)
    assert supervisor.of("lease")[0]["autoload"] is True


@pytest.mark.parametrize("path", OTHER_FORMS)
def test_a_form_that_llama_server_lacks_becomes_the_one_it_has(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, path: str
) -> None:
    supervisor.granted = {"backend": "llama-server"}
    upstream = serve(hello)
    assert web.post(path, {"model": "m"}).status == 200
    assert upstream.call().line == f"POST {OTHER_FORMS[path]} HTTP/1.1"


@pytest.mark.parametrize("name", ["/chat/completions", "/completions", "/embeddings"])
@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_llama_cpp_python_knows_the_prefixed_form(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, name: str, prefix: str
) -> None:
    supervisor.granted = {"backend": "llama-cpp-python"}
    upstream = serve(hello)
    assert web.post(prefix + name, {"model": "m"}).status == 200
    assert upstream.call().line == f"POST /v1{name} HTTP/1.1"


@pytest.mark.parametrize("path", ["/v1/responses", "/tokenize", "/v1/rerank", "/v1/messages", "/slots/0"])
def test_what_llama_cpp_python_lacks_names_the_backend_that_has_it(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, path: str
) -> None:
    supervisor.granted = {"backend": "llama-cpp-python"}
    upstream = serve(hello)
    error = web.post(path, {"model": "m"}).error
    assert (error["code"], error["type"]) == (404, "not_found_error")
    assert "'m' has backend llama-cpp-python, which has no" in error["message"]
    assert "backend llama-server has" in error["message"]
    assert upstream.calls.empty()
    (release,) = supervisor.wait_for("release")
    assert release["figures"]["ended"] == "complete"


def test_every_path_exists_in_both_forms() -> None:
    assert {*POSTED, *GOT, *OTHER_FORMS} - {"/slots/0", "/v1/slots/3"} <= set(routes.PATHS)
    assert all((f"/v1{path}" in routes.PATHS) != path.startswith("/v1") for path in routes.PATHS)


@pytest.mark.parametrize("path", ["/slots", "/lora-adapters"])
def test_get_without_a_model(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    for query in ("", "?model=", "?model"):
        error = web.request("GET", path + query).error
        assert (error["code"], error["message"]) == (400, "model name is missing from the request")


def test_get_of_an_unknown_model(web: WebTier, supervisor: FakeSupervisor) -> None:
    assert web.request("GET", "/props?model=org%2Fx").error["message"] == "model 'org/x' not found"


def test_the_last_model_of_a_query_counts(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(hello)
    assert web.request("GET", "/slots?model=x&model=m").status == 200
    assert supervisor.of("lease")[0]["model"] == "m"


def test_props_without_a_model_are_the_routers_own(web: WebTier, supervisor: FakeSupervisor) -> None:
    web.request("GET", "/props")
    assert supervisor.of("lease") == []


def test_a_query_of_too_many_fields(web: WebTier, supervisor: FakeSupervisor) -> None:
    assert "too many fields" in web.request("GET", "/slots?model=m" + "&a=1" * 1500).error["message"]


@pytest.mark.parametrize("method, allow", [("DELETE", "GET, HEAD, POST"), ("PUT", "GET, HEAD, POST")])
def test_methods_that_a_route_lacks(web: WebTier, method: str, allow: str) -> None:
    answer = web.request(method, "/props?model=m")
    assert (answer.error["code"], answer.headers["allow"]) == (405, allow)


def test_a_head_answer_keeps_the_length_that_get_would_have(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"))
    assert web.request("HEAD", "/slots?model=m").headers["content-length"] == "1234"


def test_a_status_without_a_body_has_no_length(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.send(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"))
    assert "content-length" not in web.request("GET", "/slots?model=m").headers


def test_upstream_errors_pass_through(web: WebTier, serve: Serve) -> None:
    body = b'{"error":{"code":501,"message":"no metrics","type":"not_supported_error"}}'
    serve(lambda call: call.reply(body, "501 Not Implemented"))
    answer = web.request("GET", "/metrics?model=m")
    assert (answer.status, answer.body) == (501, body)


@pytest.mark.parametrize("path", ["/slots?model=m", "/upstream/m/ws"])
def test_websockets_are_refused(web: WebTier, supervisor: FakeSupervisor, serve: Serve, path: str) -> None:
    serve(hello)
    supervisor.models = [model("m")]
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x"}
    error = web.request("GET", path, headers=headers).error
    assert (error["code"], error["type"]) == (501, "server_error")
    assert "WebSocket" in error["message"]
    assert supervisor.of("lease") == []


def test_a_conversation_is_not_resumable(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    upstream = serve(hello)
    web.post("/v1/chat/completions", {"model": "m"}, {"X-Conversation-Id": "c"})
    assert "x-conversation-id" not in upstream.call().headers
    error = web.request("GET", "/v1/stream?conv_id=c").error
    assert (error["code"], error["type"]) == (404, "not_found_error")
    assert web.request("GET", "/v1/stream").error["code"] == 400
    assert web.request("DELETE", "/v1/stream?conv_id=c").status == 204
    assert web.post("/v1/streams/lookup", {"conversation_ids": ["c"]}).json == []


def test_a_refusal_is_logged_with_its_request_id(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.refusals["m"] = Refused("it has failed", status=503)
    web.request("POST", "/v1/responses", json.dumps({"model": "m"}).encode(), {"X-Request-Id": "my-id-4711"})
    assert "request my-id-4711, POST '/v1/responses': it has failed" in web.log_text()


@pytest.mark.parametrize(
    "path, event",
    [
        ("/v1/chat/completions", "data: {"),
        ("/v1/messages", 'event: error\ndata: {"type": "error", "error": {"type": "api_error", "message": "model'),
        ("/v1/responses", 'event: error\ndata: {"type": "error", "code": "server_error", "message": "model'),
    ],
)
def test_a_stream_that_breaks_off_says_so_in_its_own_form(web: WebTier, serve: Serve, path: str, event: str) -> None:
    def half(call: Call) -> None:
        call.head()
        call.chunk(b'data: {"sequence_number":6}\n\ndata: {"sequence_number":7, "x": 1}\n\n')

    serve(half)
    body = web.post(path, {"model": "m", "stream": True}).body.decode()
    assert f"\n\n{event}" in body
    assert "its server died while it was answering" in body
    assert ('"sequence_number": 8}\n\n' in body) == (path == "/v1/responses")


def test_a_list_of_adapters_is_for_the_model_of_the_query(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve
) -> None:
    supervisor.granted = {"backend": "llama-server", "request": {"set": {"a": 1}, "remove": []}}
    upstream = serve(hello)
    adapters = b'[{"id": 0, "scale": 0.5}]'
    assert web.request("POST", "/lora-adapters?model=m", adapters).status == 200
    call = upstream.call()
    assert (call.line, call.body) == ("POST /lora-adapters?model=m HTTP/1.1", adapters)
    assert call.headers["content-type"] == "application/json"


def test_a_list_is_nothing_that_other_routes_take(web: WebTier, supervisor: FakeSupervisor) -> None:
    assert "must be a JSON object" in web.request("POST", "/tokenize?model=m", b"[]").error["message"]


@pytest.mark.parametrize("path", ["/v1/completions", "/models/load", "/models"])
@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_body(web: WebTier, supervisor: FakeSupervisor, path: str, body: bytes) -> None:
    error = web.request("POST", path, body).error
    assert (error["code"], error["message"]) == (
        400,
        "cannot use the request body: it is empty, and must be a JSON object",
    )
