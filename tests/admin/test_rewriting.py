"""What a preset changes in request bodies, and that it changes nothing else."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import gevent
import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, Serve
from hypothesis import given
from hypothesis import strategies as st
from web_tier import WebTier

from admin import rewriting, turns
from admin.rewriting import LARGE, MAX_MEMBERS, Rewriting
from supervisor.errors import Refused

CHAT = "/v1/chat/completions"
MIB = 2**20
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=6)


def rewritten(body: bytes, set: dict[str, Any] | None = None, remove: tuple[str, ...] = ()) -> bytes:
    change = Rewriting.of({"set": set or {}, "remove": remove})
    assert change is not None
    return b"".join(change.apply(body))


@pytest.mark.parametrize(
    "body, set, remove, expected",
    [
        (b"{}", {}, (), b"{}"),
        (b"{}", {"a": 1}, (), b'{"a":1}'),
        (b'{"a": 1, "b": 2}', {"a": None}, (), b'{"a": null,"b": 2}'),
        (b'{"a": 1, "b": 2}', {}, ("a",), b'{"b": 2}'),
        (b'{"a": 1}', {}, ("a", "b"), b"{}"),
        (b'{"a": 1, "b": 2}', {"a": 3}, ("a",), b'{"a": 3,"b": 2}'),
        (b' {"n" : 1.00 ,"x": [1 , 2]}', {"a": "\u00e9"}, (), b'{"n" : 1.00,"x": [1 , 2],"a":"\\u00e9"}'),
        (b'{"a": {"b": 1, "c": 2}}', {"a": {"b": 3}}, (), b'{"a": {"b":3}}'),
        (b'{"a": {"b": 1}}', {}, ("b",), b'{"a": {"b": 1}}'),
        (b'{"a": 1, "b": 2, "a": 3}', {}, (), b'{"a": 1,"b": 2,"a": 3}'),
        (b'{"a": 1, "b": 2, "\\u0061": 3}', {"a": 4}, (), b'{"a": 4,"b": 2,"\\u0061": 4}'),
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


@given(JSON, st.integers(2, 9), st.sampled_from([None, 1]))
def test_a_document_is_found_through_whatever_the_window(value: Any, window: int, indent: int | None) -> None:
    body = json.dumps({"x": value, "a": 1, "y\U0001f600": value}, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewriting, "WINDOW", window)
        assert json.loads(rewritten(body, {"z": 2}, ("a",))) == {"x": value, "y\U0001f600": value, "z": 2}


def test_many_keys_are_refused() -> None:
    def body(keys: int) -> bytes:
        return b"{" + b",".join(b'"%d":1' % number for number in range(keys)) + b"}"

    assert len(json.loads(rewritten(body(MAX_MEMBERS), {"a": 1}))) == MAX_MEMBERS + 1
    with pytest.raises(Refused, match="more than 1000 keys") as refused:
        rewritten(body(MAX_MEMBERS + 1), {"a": 1})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "value",
    [
        b"[" + b"[]," * MIB + b"1]",
        b'"' + b"x" * 4 * MIB + b'"',
        b"[" * 900 + b"[[]]," * (MIB // 16) + b"0" + b"]" * 900,
    ],
    ids=["lists", "text", "depth"],
)
def test_a_large_document_costs_no_memory_and_keeps_nobody_waiting(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    served = 0

    def serve_others() -> None:
        nonlocal served
        while True:
            served += 1
            gevent.sleep(0)

    body = b'{"' + b"k" * MIB + b'":' + value + b"}"
    others = gevent.spawn(serve_others)
    tracemalloc.start()
    try:
        changing = Rewriting.of({"set": {"a": 1}, "remove": []})
        assert changing is not None and len(changing.apply(body)) > 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        others.kill()
    assert served >= len(body) // rewriting.WINDOW
    assert peak < MIB


def test_large_values_are_not_copied() -> None:
    change = Rewriting.of({"set": {"a": 1}, "remove": []})
    assert change is not None
    body = json.dumps({"b": 1, "image": "A" * LARGE, "c": 2, "other": "B" * LARGE}).encode()
    pieces = change.apply(body)
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
    assert call.body == b'{"model": "inside","n": 1.00,"x":"\xc3\xa9","temperature":0.2}'
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
