"""How answers leave: the head together with the first piece, everything in order, however little a socket takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from admin.sent import SentAnswer


class Client:
    """A socket that takes `most` bytes at once, and more only by sendall."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.calls.append(bytes(data[: self.most]))
        return len(self.calls[-1])

    def sendall(self, data: bytes) -> None:
        self.calls.append(bytes(data))


def answering(client: Client, method: str = "GET", version: tuple[int, int] = (1, 1)) -> Any:
    request = SimpleNamespace(method=method, version=version, should_close=lambda: False)
    return SentAnswer(request, client, Config())


@pytest.mark.parametrize("most", [1, 20, 10_000])
@pytest.mark.parametrize("length", [True, False])
def test_the_head_goes_with_the_first_piece(most: int, length: bool) -> None:
    client = Client(most)
    answer = answering(client)
    write = answer.start_response("200 OK", [("X-A", "é"), *([("Content-Length", "6")] * length)])
    assert client.calls == []
    write(b"one")
    head, _, body = b"".join(client.calls).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: ")
    assert b"\r\nX-A: \xe9" in head
    assert b"\r\nConnection: keep-alive\r\n" in head
    assert (b"\r\nTransfer-Encoding: chunked" in head) is not length
    assert body == (b"one" if length else b"3\r\none\r\n")
    assert len(client.calls) == (1 if most > 1000 else 2)
    client.calls.clear()
    write(b"two")
    answer.close()
    assert b"".join(client.calls) == (b"two" if length else b"3\r\ntwo\r\n0\r\n\r\n")


def test_an_empty_piece_sends_the_head_alone() -> None:
    client = Client(10_000)
    write = answering(client).start_response("200 OK", [])
    write(b"")
    assert [call.endswith(b"\r\n\r\n") for call in client.calls] == [True]
    write(b"")
    assert len(client.calls) == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "200 OK")])
def test_an_answer_without_a_body_has_a_head(method: str, status: str) -> None:
    client = Client(10_000)
    answer = answering(client, method)
    answer.start_response(status, [("Content-Length", "0")])
    answer.close()
    (head,) = client.calls
    assert head.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert head.endswith(b"\r\n\r\n")


def test_what_ends_with_the_connection_says_so() -> None:
    client = Client(10_000)
    answering(client, version=(1, 0)).start_response("200 OK", [])(b"x")
    assert b"\r\nConnection: close\r\n" in client.calls[0]
    assert client.calls[0].endswith(b"\r\n\r\nx")
