"""What a preset changes in request bodies, and that it changes nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, Serve
from hypothesis import given
from hypothesis import strategies as st
from web_tier import WebTier

from admin.rewriting import LARGE, Rewriting

CHAT = "/v1/chat/completions"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=6)


def rewritten(body: bytes, set: dict[str, Any] | None = None, remove: tuple[str, ...] = ()) -> bytes:
    rewriting = Rewriting.of({"set": set or {}, "remove": remove})
    assert rewriting is not None
    return b"".join(rewriting.apply(body))


@pytest.mark.parametrize(
    "body, set, remove, expected",
    [
        (b"{}", {}, (), b"{}"),
        (b"{}", {"a": 1}, (), b'{"a":1}'),
        (b'{"a": 1, "b": 2}', {"a": None}, (), b'{"a":null,"b":2}'),
        (b'{"a": 1, "b": 2}', {}, ("a",), b'{"b":2}'),
        (b'{"a": 1}', {}, ("a", "b"), b"{}"),
        (b'{"a": 1, "b": 2}', {"a": 3}, ("a",), b'{"a":3,"b":2}'),
        (b' {"n" : 1.00 ,"x": [1 , 2]}', {"a": "\u00e9"}, (), b'{"n":1.00,"x":[1 , 2],"a":"\\u00e9"}'),
        (b'{"a": {"b": 1, "c": 2}}', {"a": {"b": 3}}, (), b'{"a":{"b":3}}'),
        (b'{"a": {"b": 1}}', {}, ("b",), b'{"a":{"b": 1}}'),
        (b'{"a": 1, "b": 2, "a": 3}', {}, (), b'{"a":3,"b":2}'),
        (b'{"a": 1, "\\u0061": 3}', {}, ("a",), b"{}"),
        (b'{"a":123456789012345678901234567890,"b":1e999}', {}, (), b'{"a":123456789012345678901234567890,"b":1e999}'),
    ],
)
def test_bodies(body: bytes, set: dict[str, Any], remove: tuple[str, ...], expected: bytes) -> None:
    assert rewritten(body, set, remove) == expected


@given(OBJECTS, OBJECTS, st.sets(st.text(max_size=3)))
def test_it_is_what_a_dictionary_would_do(body: dict[str, Any], set: dict[str, Any], remove: set[str]) -> None:
    after = json.loads(rewritten(json.dumps(body).encode(), set, tuple(remove)))
    expected = {key: value for key, value in body.items() if key not in remove or key in set} | set
    assert list(after.items()) == list(expected.items())


def test_large_values_are_not_copied() -> None:
    rewriting = Rewriting.of({"set": {"a": 1}, "remove": []})
    assert rewriting is not None
    body = json.dumps({"b": 1, "image": "A" * LARGE, "c": 2, "other": "B" * LARGE}).encode()
    pieces = rewriting.apply(body)
    assert json.loads(b"".join(pieces)) == {**json.loads(body), "a": 1}
    assert sum(len(piece) for piece in pieces if not isinstance(piece, memoryview)) < 100


def test_no_request_is_no_rewriting() -> None:
    assert Rewriting.of(None) is None


def test_a_request_is_rewritten_and_its_length_is_right(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.granted = {"request": {"set": {"temperature": 0.2, "model": "inside"}, "remove": ["user"]}}
    upstream = serve(lambda call: call.reply(b"{}"))
    body = b'{"model": "m", "user": "me", "n": 1.00, "x":"\xc3\xa9"}'
    assert web.request("POST", CHAT, body).status == 200
    call = upstream.call()
    assert call.body == b'{"model":"inside","n":1.00,"x":"\xc3\xa9","temperature":0.2}'
    assert call.headers["content-length"] == str(len(call.body))
    assert call.headers["content-type"] == "application/json"
    assert supervisor.of("lease")[0]["model"] == "m"


def test_the_retry_is_rewritten_too(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.granted = {"request": {"set": {"image": "A" * LARGE}, "remove": []}}

    def die(call: Call) -> None:
        call.reset()

    serve(die)
    second = serve(lambda call: call.reply(b"{}"))
    assert web.post(CHAT, {"model": "m"}).status == 200
    assert json.loads(second.call().body) == {"model": "m", "image": "A" * LARGE}


def test_upstream_is_not_rewritten(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.granted = {"request": {"set": {"a": 1}, "remove": []}}
    upstream = serve(lambda call: call.reply(b"{}"))
    web.request("POST", "/upstream/m/v1/chat/completions", b'{"b": 1}')
    assert upstream.call().body == b'{"b": 1}'
