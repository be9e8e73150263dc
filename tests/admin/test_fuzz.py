"""Whatever a client sends: no hang, no HTML on API paths, no 5xx of the web tier's own making."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from contextlib import suppress

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, FakeUpstream
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from web_tier import FOREIGN, WebTier, read_all

from admin import routes

PATIENCE = 5.0
KNOWN = ["/v1/models", "/models/load", "/models/a", "/health", "/v1/stream", "/upstream/", "/upstream/m/x", "/slots/1"]
TOKEN = st.text("!#$%&'*+-.^_`|~" + string.ascii_letters + string.digits, min_size=1, max_size=12)
VALUE = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)
PATH_BYTES = st.binary(max_size=20).map(lambda raw: "/" + "".join(f"%{byte:02x}" for byte in raw))
PATH_TEXT = st.text(st.characters(codec="latin-1", min_codepoint=0x21), max_size=20).map("/{}".format)
BELOW_UPSTREAM = st.one_of(PATH_BYTES, PATH_TEXT).map("/upstream{}".format)
PATHS = st.one_of(
    st.sampled_from([*KNOWN, *routes.PATHS]), st.sampled_from(routes.PATHS), BELOW_UPSTREAM, PATH_BYTES, PATH_TEXT
).filter(lambda path: not path.startswith("/ui"))
QUERY_TEXT = st.text(st.characters(codec="latin-1", min_codepoint=0x21), max_size=20)
QUERIES = st.sampled_from(["", "?model=m"]) | QUERY_TEXT.map("?{}".format) | QUERY_TEXT.map("?model=m&{}".format)
BOUNDARY = "b"
KINDS = ["application/json", f"multipart/form-data; boundary={BOUNDARY}", "multipart/form-data", "text/html", "\xff"]
TELLING = st.sampled_from(
    [
        *(("Content-Type", kind) for kind in KINDS),
        *(pair for headers in FOREIGN for pair in headers.items()),
        *[("Origin", "http://localhost:1"), ("Access-Control-Request-Method", "POST"), ("Upgrade", "websocket")],
        *[("Connection", "upgrade, x-a"), ("TE", "trailers"), ("X-Request-Id", "\xff"), ("Referer", "http://x/")],
        *[("Range", "bytes=0-"), ("Host", "evil.example"), ("Expect", "100-continue"), ("Authorization", "Bearer x")],
    ]
)
HEADERS = st.lists(st.tuples(TOKEN, VALUE) | TELLING, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "x"]), inner, max_size=2),
    max_leaves=6,
)
PARTS = [
    *(b"--b\r\n", b"\r\n--b\r\n", b"\r\n--b--", b'Content-Disposition: form-data; name="model"', b"\r\n", b"\r\n\r\n"),
    *(b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm', b"m", b'; filename="x"', b"-"),
]
BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda document: json.dumps(document).encode()),
    st.text(max_size=20).map(lambda name: json.dumps({"model": name}).encode()),
    st.just(b'{"model": "m"}'),
    st.dictionaries(st.text(max_size=3), JSON, max_size=4).map(lambda d: json.dumps({"model": "m", **d}).encode()),
    st.lists(st.sampled_from(PARTS) | st.binary(max_size=9), max_size=9).map(b"".join),
)
# Behind the last chunk's "0": no further digit, or the router would rightly wait for that many bytes.
TAILS = st.binary(max_size=10).filter(
    lambda tail: tail[:1] not in [bytes([digit]) for digit in b"0123456789abcdefABCDEF"]
)
METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
OURS = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def scripted(shared_supervisor: FakeSupervisor) -> Iterator[FakeSupervisor]:
    """A supervisor with a model "m" whose server answers everything."""
    shared_supervisor.reset()
    shared_supervisor.models = [model("a")]

    def answer(call: Call) -> None:
        call.reply(b"{}")

    with FakeUpstream(answer) as upstream:
        shared_supervisor.grants["m"] = shared_supervisor.grants[None] = [(1, upstream.address)]
        shared_supervisor.models = [model("a"), model("m")]
        shared_supervisor.granted = {"request": {"set": {"a": {"b": 1.5}}, "remove": ["x"]}}
        yield shared_supervisor
    shared_supervisor.wait_for_rest()


def check(response: bytes, path: str) -> None:
    """A response that a client can use."""
    while response.startswith(b"HTTP/1.1 100 "):
        response = response.partition(b"\r\n\r\n")[2]
    head, _, body = response.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert status in (501, 505) or status < 500, response
    assert b"Traceback" not in body
    if path not in ("", "/") and not path.startswith("/static/"):
        assert b"text/html" not in head
        assert b"<html" not in body.lower()
    if status >= 400 and body:
        assert set(json.loads(body)["error"]) == {"code", "message", "type"}


def exchange(
    web: WebTier,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes,
) -> None:
    """One request on a connection of its own, and a look at its answer."""
    fields = [("Host", "x"), ("Connection", "close"), *headers, ("Content-Length", str(len(body)))]
    head = f"{method} {path}{query} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    with web.connect() as client:
        client.sendall(head.encode("latin-1") + body)
        client.settimeout(PATIENCE)
        check(read_all(client), path.partition("?")[0].partition("#")[0])


@pytest.mark.parametrize(
    "count", [OURS.max_examples, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_requests(web: WebTier, scripted: FakeSupervisor, count: int) -> None:
    @settings(OURS, max_examples=count)
    @given(METHODS, PATHS, QUERIES, HEADERS, BODIES)
    @example("POST", "/v1/completions", "?\xff", [], b'{"model": "m"}')
    @example("POST", "/v1/completions", "?autoload=\xe9%zz", [("Connection", "\xff,,a")], b'{"model": "\\ud800"}')
    @example("GET", "/models/%00", "", [], b"")
    @example("GET", "/upstream/m/\xff", "?\xff", [], b"")
    def ask(method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes) -> None:
        exchange(web, method, path, query, headers, body)

    ask()


@OURS
@given(st.sampled_from(routes.PATHS), QUERIES, st.sampled_from(KINDS), BODIES)
def test_posts_to_every_route(
    web: WebTier, scripted: FakeSupervisor, path: str, query: str, kind: str, body: bytes
) -> None:
    exchange(web, "POST", path, query, [("Content-Type", kind)], body)


@OURS
@given(st.binary(min_size=1, max_size=200))
@example(b"GET / HTTP/1.1\r\n\r\n\x00")
@example(b"\r\n\r\n\r\n")
def test_bytes(web: WebTier, scripted: FakeSupervisor, raw: bytes) -> None:
    with web.connect() as client:
        client.sendall(raw + b"\r\n\r\n")
        client.settimeout(PATIENCE)
        with suppress(TimeoutError):
            response = client.recv(65536)
            if response:
                check(response, "")


@OURS
@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=8), TAILS)
def test_chunked_bodies(web: WebTier, scripted: FakeSupervisor, chunks: list[bytes], tail: bytes) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0" + tail + b"\r\n\r\n"
    with web.connect() as client:
        client.sendall(head + body)
        client.settimeout(PATIENCE)
        check(read_all(client), "/v1/completions")
