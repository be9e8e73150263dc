"""Control messages: written and read as Python's own json module has it, whatever they hold."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from supervisor import protocol
from supervisor.errors import ProtocolError

texts = st.text(alphabet=st.characters(categories=None), max_size=8)  # half surrogate pairs included
numbers = st.integers() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
messages = st.dictionaries(texts, values, max_size=4)


@given(messages)
@example({"path": "/models/\udcff", "size": 10**40})
def test_what_is_written_is_read(message: dict[str, Any]) -> None:
    line = protocol.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert protocol.decode(line) == json.loads(line) == message


@given(messages, messages)
@example({"path": "/models/\udcff"}, {"size": 10**40})
@example({}, {"path": "/models/\udcff"})
def test_pieces_are_read_as_what_they_were_made_of(message: dict[str, Any], part: dict[str, Any]) -> None:
    piece = protocol.piece(part)
    line = protocol.encode({**message, "pieces": [piece, piece]})
    assert line.count(b"\n") == 1
    assert protocol.decode(line) == {**message, "pieces": [part, part]}


@given(messages.map(json.dumps).map(str.encode) | st.binary(max_size=20).map(lambda inner: b'{"a":' + inner + b"}"))
@example(b'{"a":"\\ud800"}')
@example(b'{"a":1,"a":NaN}')
@example(b'{"a":-1e999}')
@example(b"\xef\xbb\xbf{}")
@example(b'{"a":"\xff"}')
@example(b'{"a":' * 10_000)
@example(b"[" * 100_000)
@example(b'{"a":' + b"9" * 5_000 + b"}")
@example(b"[]")
@example(b"")
def test_any_line_is_read_as_json_would(line: bytes) -> None:
    try:
        wanted = json.loads(line)
    except (ValueError, RecursionError):
        wanted = None
    try:
        found = protocol.decode(line)
    except ProtocolError:
        assert not isinstance(wanted, dict)
    else:
        assert repr(found) == repr(wanted)
