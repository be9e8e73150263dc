"""Answers of model servers as they arrive: the same in whatever pieces; what is none is told from what broke off."""

from __future__ import annotations

import socket
from typing import Any, cast

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.heads import MAX_HEAD, Malformed
from admin.incoming import BrokenOff, Incoming
from admin.upstream import Upstream

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
newlines = st.sampled_from([b"\r\n", b"\n"])


class Sender:
    """A socket that gives these pieces, then its end."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def recv(self, _size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


class Endless:
    """A socket that always has this."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece

    def recv(self, _size: int) -> bytes:
        return self.piece


def arriving(*pieces: bytes, method: str = "POST") -> Incoming:
    return Incoming(cast("socket.socket", Sender(*pieces)), method)


def body_of(answer: Incoming) -> bytes:
    data = b""
    while piece := answer.read():
        data += piece
    assert answer.read() == b""
    return data


@st.composite
def chunked_answers(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An answer in chunks, and its body."""
    chunks, end = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=8)), draw(newlines)
    extension = draw(st.sampled_from([b"", b";a=b", b' ; a="b;c"']))
    sent = b"HTTP/1.1 200 OK" + end + b"Transfer-Encoding: chunked" + end * 2
    for chunk in chunks:
        sent += b"%x%b%b%b%b" % (len(chunk), extension, end, chunk, end)
    trailers = draw(st.sampled_from([b"", b"X-A: b" + end]))
    return sent + b"0" + end + trailers + end, b"".join(chunks)


@st.composite
def cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The same in pieces."""
    places = sorted(draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    return [whole[begin:end] for begin, end in zip([0, *places], [*places, len(whole)], strict=True)]


@given(st.data())
def test_chunks_in_whatever_pieces(data: st.DataObject) -> None:
    sent, body = data.draw(chunked_answers())
    answer = arriving(*data.draw(cut(sent)))
    assert body_of(answer) == body
    assert answer.leaves_connection
    assert [name for name, _ in answer.head.fields] == ["Transfer-Encoding"]


@given(st.data(), st.binary(max_size=60), st.booleans())
def test_a_length_in_whatever_pieces(data: st.DataObject, body: bytes, more: bool) -> None:
    sent = b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    answer = arriving(*data.draw(cut(sent + b"HTTP/1.1" * more)))
    assert body_of(answer) == body
    assert (answer.head.status, answer.head.reason, answer.head.length) == (200, "", len(body))
    if not more:
        assert answer.leaves_connection


@given(st.data())
def test_less_than_a_whole_answer_is_no_answer(data: st.DataObject) -> None:
    sent, body = data.draw(chunked_answers())
    last = sent.rindex(b"\n0") + 2  # with the last chunk's size and its newline everything is there
    pieces = data.draw(cut(sent[: data.draw(st.integers(0, last - 1))]))
    came = b""
    with pytest.raises(BrokenOff):
        answer = arriving(*pieces)
        while piece := answer.read():
            came += piece
    assert body.startswith(came)


def test_bytes_behind_the_end_spoil_the_connection() -> None:
    for sent in (
        b"HTTP/1.1 204 No\r\n\r\nx",
        CHUNKED + b"0\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx",
    ):
        answer = arriving(sent)
        assert body_of(answer) == b""
        assert not answer.leaves_connection


@pytest.mark.parametrize(
    ("head", "method", "leaves"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0", "POST", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close", "POST", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive", "POST", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9", "HEAD", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "HEAD", True),
        (b"HTTP/1.1 204 No Content", "POST", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9", "GET", True),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", "POST", False),
    ],
)
def test_answers_without_a_body(head: bytes, method: str, leaves: bool) -> None:
    answer = arriving(head + b"\r\n\r\n", method=method)
    assert body_of(answer) == b""
    assert answer.leaves_connection is leaves


@given(st.sampled_from(["", " ", "\t", " \t "]), st.sampled_from(["", " ", "\t", " \t "]))
def test_spaces_around_a_value_are_no_part_of_it(before: str, behind: str) -> None:
    for name, value, body in (
        ("Content-Length", "3", b"abc"),
        ("Transfer-Encoding", "chunked", b"3\r\nabc\r\n0\r\n\r\n"),
    ):
        field = f"{name}:{before}{value}{behind}".encode()
        answer = arriving(b"HTTP/1.1 200 OK\r\n" + field + b"\r\nX-A:" + before.encode() + b"\r\n\r\n" + body)
        assert body_of(answer) == b"abc"
        assert answer.head.fields == [(name, value), ("X-A", "")]


@pytest.mark.timeout(60)
def test_a_line_of_spaces_holds_up_nobody() -> None:
    for _ in range(10):  # each for 10 s, were spaces matched in more ways than one
        with pytest.raises(Malformed):
            arriving(b"HTTP/1.1 200 OK\r\nX-A:" + b" " * 65_000 + b"\0\r\n\r\n")


@pytest.mark.parametrize("sent", [b"\x15\x03\x01\x00\x02\x02\x16", b"hello", b"HTTQ", b" HTTP/1.1 200", b"HTTP/2.0 "])
def test_what_begins_as_no_http_is_none_although_its_line_has_no_end(sent: bytes) -> None:
    """Such as the alert of a server that speaks TLS: it has got the request, and is not to get it again."""
    with pytest.raises(Malformed):
        arriving(sent)
    with pytest.raises(Malformed):
        arriving(*(sent[at : at + 1] for at in range(len(sent))))


@pytest.mark.parametrize("sent", [b"", b"H", b"HTTP/1.", b"HTTP/1.1 2"])
def test_what_may_become_http_broke_off(sent: bytes) -> None:
    with pytest.raises(BrokenOff):
        arriving(sent)


def test_a_body_that_ends_with_the_connection() -> None:
    answer = arriving(b"HTTP/1.1 200 OK\r\n\r\na", b"b")
    assert body_of(answer) == b"ab"
    assert not answer.leaves_connection
    with pytest.raises(BrokenOff):
        arriving(b"HTTP/1.1 200 OK\r\n\r\n").read()


@pytest.mark.parametrize("status", [302, 404, 500])
def test_redirections_and_errors_need_no_body(status: int) -> None:
    answer = arriving(b"HTTP/1.0 %d X\r\nLocation: /x\r\n\r\n" % status)
    assert body_of(answer) == b""
    assert not answer.leaves_connection


@pytest.mark.parametrize(
    "spoilt", [b"g\r\n", b"-5\r\n", b"\r\n", b"0x5\r\n", b"5 5\r\n", b"f" * 70_000, b"1\r\nab\r\n"]
)
def test_what_came_before_a_spoilt_chunk_goes_first(spoilt: bytes) -> None:
    answer = arriving(CHUNKED + b"3\r\none\r\n" + spoilt)
    assert answer.read().startswith(b"one")
    with pytest.raises(Malformed):
        answer.read()


def test_what_never_ends_is_refused() -> None:
    for begin in (b"x" * 1000, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000):
        endless: Any = Endless(begin)
        with pytest.raises(Malformed):
            Incoming(endless, "POST")
    trailing: Any = Endless(b"A: b\r\n" * 1000)
    answer = arriving(CHUNKED + b"0\r\n")
    answer._sock = trailing
    with pytest.raises(Malformed):
        answer.read()
    assert len(answer._unread) <= 2 * MAX_HEAD


@pytest.mark.timeout(60)
def test_a_server_that_always_has_more_holds_up_nobody() -> None:
    upstream = Upstream((1, "unix:/x"), None)
    endless: Any = Endless(b"x")
    upstream._answer = arriving(b"HTTP/1.1 200 OK\r\n\r\n")
    upstream._answer._sock = endless
    others: list[int] = []
    gevent.spawn(others.append, 1)
    while not others:
        assert upstream.read() == b"x"
