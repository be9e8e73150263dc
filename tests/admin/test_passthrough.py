"""/upstream/{model}/{path}: everything a model server offers, as it is."""

from __future__ import annotations

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, Serve
from hypothesis import given
from hypothesis import strategies as st
from web_tier import WebTier

from admin.passthrough import PREFIX, raw_path, split

KNOWN = frozenset(["m", "org/m", "org/m/q4", "org", "a b", "ü", "%"])


def hello(call: Call) -> None:
    call.reply(b'{"hello": 1}')


@pytest.mark.parametrize(
    "path, name, taken, rest",
    [
        ("m/", "m", "m", "/"),
        ("m", "m", "m", ""),
        ("m/v1/models", "m", "m", "/v1/models"),
        ("org/m/v1/models", "org/m", "org/m", "/v1/models"),
        ("org/m/q4/x", "org/m/q4", "org/m/q4", "/x"),
        ("org%2Fm%2fq4/x", "org/m/q4", "org%2Fm%2fq4", "/x"),
        ("org%2Fm/q4/x", "org/m/q4", "org%2Fm/q4", "/x"),
        ("org/other/x", "org", "org", "/other/x"),
        ("nope/x/y", "nope", "nope", "/x/y"),
        ("a%20b/", "a b", "a%20b", "/"),
        ("%C3%BC/", "ü", "%C3%BC", "/"),
        ("%25/%2F", "%", "%25", "/%2F"),
        ("", "", "", ""),
        ("/m/x", "", "", "/m/x"),
        ("m//x/../y", "m", "m", "//x/../y"),
    ],
)
def test_the_longest_name_counts(path: str, name: str, taken: str, rest: str) -> None:
    assert split(PREFIX + path, KNOWN) == (name, PREFIX + taken, rest)


@given(st.text("am/%2Forg.é", max_size=40))
def test_nothing_of_a_path_is_lost(path: str) -> None:
    _, taken, rest = split(PREFIX + path, KNOWN)
    assert taken + rest == PREFIX + path
    assert rest == "" or rest.startswith("/")


@pytest.mark.parametrize(
    "uri, path",
    [
        ("/upstream/m/a%20b?q=/x", "/upstream/m/a%20b"),
        ("/upstream/m/a#frag", "/upstream/m/a"),
        ("http://h:1/upstream/m/x", "/upstream/m/x"),
        ('/upstream/m/\xfc\x7f<>"', "/upstream/m/%FC%7F%3C%3E%22"),
    ],
)
def test_raw_paths(uri: str, path: str) -> None:
    assert raw_path({"RAW_URI": uri, "PATH_INFO": "/other"}) == path


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_any_method_type_and_query(web: WebTier, supervisor: FakeSupervisor, serve: Serve, method: str) -> None:
    supervisor.models = [model("m")]
    upstream = serve(hello, model="org/m")
    supervisor.models = [model("org/m", aliases=["m"])]
    body = None if method == "GET" else b"\x00\xff"
    answer = web.request(method, "/upstream/org/m/a%2Fb/c?x=%20&y", body, {"Content-Type": "image/png"})
    assert (answer.status, answer.body) == (200, b'{"hello": 1}')
    call = upstream.call()
    assert call.line == f"{method} /a%2Fb/c?x=%20&y HTTP/1.1"
    assert call.body == (body or b"")
    assert call.headers.get("content-length") == (None if body is None else "2")
    assert call.headers["content-type"] == "image/png"
    assert call.headers["host"] == "localhost"


def test_head(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.models = [model("m")]
    serve(lambda call: call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"))
    answer = web.request("HEAD", "/upstream/m/")
    assert (answer.status, answer.headers["content-length"]) == (200, "77")


def test_a_name_without_a_slash_behind_it_leads_there(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("org/m")]
    answer = web.request("GET", "/upstream/org%2Fm?a=1")
    assert (answer.status, answer.headers["location"]) == (307, "/upstream/org%2Fm/?a=1")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["%2fm/x", "/", "//x", "//", "/?model=m"])
@pytest.mark.parametrize("prefix", ["/upstream", "/%75pstream"])
def test_paths_that_name_no_model(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, method: str, path: str, prefix: str
) -> None:
    serve(hello, model=None)  # the fallback
    supervisor.models = [model("m")]
    error = web.request(method, prefix + path).error
    assert (error["code"], error["message"]) == (404, "File Not Found")
    assert supervisor.of("lease") == []


def test_a_prefix_that_is_written_otherwise(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("m")]
    assert web.request("GET", "/%75pstream/m/x").error["code"] == 404
    assert supervisor.of("lease") == []


@pytest.mark.parametrize(
    "location, seen",
    [
        ("/v1/x", "/upstream/m/v1/x"),
        ("http://localhost/v1/x?a=1#b", "/upstream/m/v1/x?a=1#b"),
        ("HTTP://LocalHost", "/upstream/m/"),
        ("http://{address}/x", "/upstream/m/x"),
        ("x/y", "x/y"),
        ("?a=1", "?a=1"),
        ("//localhost/x", "//localhost/x"),
        ("http://localhost:1/x", "http://localhost:1/x"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("http://[", "http://["),
    ],
)
def test_redirects(web: WebTier, supervisor: FakeSupervisor, serve: Serve, location: str, seen: str) -> None:
    supervisor.models = [model("m")]
    upstream = serve(lambda call: call.reply(b"", "302 Found", f"Location: {there}\r\n"), tcp=True)
    there = location.format(address=upstream.address.removeprefix("tcp:"))
    assert web.request("GET", "/upstream/m/").headers["location"] == seen


def test_a_location_of_the_api_is_left_alone(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reply(b"", "302 Found", "Location: /v1/x\r\n"))
    assert web.post("/v1/completions", {"model": "m"}).headers["location"] == "/v1/x"


def test_an_unknown_model(web: WebTier, supervisor: FakeSupervisor) -> None:
    assert web.request("GET", "/upstream/nope/x").error["message"] == "model 'nope' not found"


def test_autoload(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.models = [model("m")]
    serve(hello)
    web.request("GET", "/upstream/m/x?autoload=false")
    assert supervisor.of("lease")[0]["autoload"] is False


@pytest.mark.parametrize("method, attempts", [("GET", 2), ("PUT", 2), ("POST", 1), ("PATCH", 1)])
def test_only_what_may_be_repeated_is(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, method: str, attempts: int
) -> None:
    supervisor.models = [model("m")]
    for _ in range(2):
        serve(lambda call: call.reset())
    assert web.request(method, "/upstream/m/x", b"x").error["code"] == 502
    assert len(supervisor.of("lease")) == attempts


def test_foreign_pages_may_not_look(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.models = [model("m")]
    serve(hello)
    for site in ("cross-site", "same-site"):
        assert web.request("GET", "/upstream/m/", headers={"Sec-Fetch-Site": site}).error["code"] == 403
    assert supervisor.of("lease") == []


def test_a_large_upload_is_not_kept_in_memory(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.models = [model("m")]
    upstream = serve(hello)
    body = bytes(range(256)) * (40 * 2**12)
    assert web.request("POST", "/upstream/m/upload", body).status == 200
    assert upstream.call().body == body
