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
from web_tier import WebTier, read_all

PATIENCE = 5.0
KNOWN = ["/v1/chat/completions", "/completions", "/embeddings", "/v1/models", "/models/load", "/models/a", "/health"]
TOKEN = st.text("!#$%&'*+-.^_`|~" + string.ascii_letters + string.digits, min_size=1, max_size=12)
VALUE = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)
PATH_BYTES = st.binary(max_size=20).map(lambda raw: "/" + "".join(f"%{byte:02x}" for byte in raw))
PATH_TEXT = st.text(st.characters(codec="latin-1", min_codepoint=0x21), max_size=20).map("/{}".format)
PATHS = st.one_of(st.sampled_from(KNOWN), PATH_BYTES, PATH_TEXT).filter(lambda path: not path.startswith("/ui"))
QUERIES = st.one_of(
    st.just(""), st.text(st.characters(codec="latin-1", min_codepoint=0x21), max_size=20).map("?{}".format)
)
HEADERS = st.lists(st.tuples(TOKEN, VALUE), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "x"]), inner, max_size=2),
    max_leaves=6,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda document: json.dumps(document).encode()),
    st.text(max_size=20).map(lambda name: json.dumps({"model": name}).encode()),
    st.just(b'{"model": "m"}'),
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


@OURS
@given(METHODS, PATHS, QUERIES, HEADERS, BODIES)
@example("POST", "/v1/completions", "?\xff", [], b'{"model": "m"}')
@example("POST", "/v1/completions", "?autoload=\xe9%zz", [("Connection", "\xff,,a")], b'{"model": "\\ud800"}')
@example("GET", "/models/%00", "", [], b"")
def test_requests(
    web: WebTier,
    scripted: FakeSupervisor,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes,
) -> None:
    fields = [("Host", "x"), *headers, ("Content-Length", str(len(body))), ("Connection", "close")]
    head = f"{method} {path}{query} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    with web.connect() as client:
        client.sendall(head.encode("latin-1") + body)
        client.settimeout(PATIENCE)
        check(read_all(client), path.partition("?")[0].partition("#")[0])


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
