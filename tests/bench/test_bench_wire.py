"""Answers taken apart by hand, and the load generator against servers that do as told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from socket import AF_UNIX, socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.load import keep_asking, streams
from tests.bench.routers.router import UPSTREAM
from tests.bench.wire import Address, Answer, Broken, first, get, post

BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def with_length(parts: list[bytes]) -> bytes:
    body = b"".join(parts)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def in_chunks(parts: list[bytes]) -> bytes:
    chunks = b"".join(b"%X;x=y\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@given(parts=BODIES, cuts=st.sets(st.integers(1, 400)), chunked=st.booleans())
def test_an_answer_is_the_same_however_it_comes(parts: list[bytes], cuts: set[int], chunked: bool) -> None:
    sent = in_chunks(parts) if chunked else with_length(parts)
    places = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    answer, body = Answer(), b""
    for begin, end in pairwise(places):
        assert not answer.whole
        body += answer.feed(sent[begin:end])
    assert (answer.whole, answer.status, body) == (True, 200, b"".join(parts))


@pytest.mark.parametrize("head", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"])
def test_what_is_no_answer_is_refused(head: bytes) -> None:
    with pytest.raises(Broken):
        Answer().feed(head)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Address]:
    """The one that streams."""
    place = tmp_path / "s"
    with subprocess.Popen([sys.executable, "-IS", UPSTREAM, place], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield Address(str(place))
        process.kill()


def stream(chunks: int) -> bytes:
    return post("/v1/chat/completions", {"max_tokens": chunks, "messages": "500 per second"})


def test_streams_are_read_to_their_ends(upstream: Address) -> None:
    load = streams(upstream, stream(3), 20, 3, 60.0)
    assert (load.errors, len(load.waits), len(load.delays)) == ([], 20, 60)
    assert min(load.delays) > -0.001  # stamps are rounded
    assert load.chunks >= 60


def test_a_stream_that_is_too_short_is_an_error(upstream: Address) -> None:
    assert streams(upstream, stream(1), 1, 9, 60.0).errors == ["only 2 of 9 chunks"]


def test_a_stream_that_takes_too_long_is_an_error(upstream: Address) -> None:
    slow = post("/v1/chat/completions", {"max_tokens": 3, "messages": "0.001 per second"})
    [error] = streams(upstream, slow, 1, 3, 0.05).errors
    assert error.startswith("not at its end")


def test_the_first_token(upstream: Address) -> None:
    assert first(upstream, stream(2), b"data: {") > 0
    with pytest.raises(Broken, match="status 200"):
        first(upstream, stream(2), b"not there")


def test_requests_are_counted(upstream: Address) -> None:
    load = keep_asking(upstream, get("/health"), 3, 60.0, enough=10)
    assert load.errors == []
    assert 10 <= len(load.waits) <= 12
    assert load.rate * load.seconds == pytest.approx(len(load.waits))


@pytest.fixture
def closing(tmp_path: Path) -> Iterator[tuple[Address, list[bytes]]]:
    """A server that closes after each answer; the answers are in the list, the last one again and again."""
    answers: list[bytes] = []
    listener = socket(AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):  # who has enough hangs up without waiting
                if connection.recv(65536) == b"end":
                    return
                connection.sendall(answers.pop(0) if len(answers) > 1 else answers[0])

    thread = threading.Thread(target=serve)
    thread.start()
    address = Address(str(tmp_path / "s"))
    yield address, answers
    with address.connect() as connection:
        connection.sendall(b"end")
        thread.join()
    listener.close()


CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def test_a_connection_that_is_closed_between_answers_is_no_error(closing: tuple[Address, list[bytes]]) -> None:
    address, answers = closing
    answers.append(CLOSED)
    load = keep_asking(address, get("/"), 1, 60.0, enough=3)
    assert (load.errors, len(load.waits)) == ([], 3)


def test_answers_that_break_off_or_are_errors_count_as_such(closing: tuple[Address, list[bytes]]) -> None:
    address, answers = closing
    answers += [CLOSED[:30], CLOSED.replace(b"200 OK", b"503 No"), CLOSED]
    load = keep_asking(address, get("/"), 1, 60.0, enough=1)
    assert [error.partition(":")[0] for error in load.errors] == [
        "the connection ended before the answer",
        "status 503",
    ]
