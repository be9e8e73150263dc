"""Large and many request bodies: what they cost in memory, and that they keep nobody else from being served."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, FakeUpstream
from web_tier import WebTier, read_all, read_until

from admin import body
from admin.connection import ClientGone
from admin.errors import Unreadable
from supervisor.errors import Refused

CHAT = "/v1/chat/completions"
MIB = 2**20


def environ(data: bytes, length: int | None) -> Any:
    return {"wsgi.input": BytesIO(data), "CONTENT_LENGTH": "" if length is None else str(length)}


@pytest.mark.parametrize(
    "document",
    [
        b'{"model": "m", "x": [' + b"[]," * MIB + b"[]]}",
        b'{"model": [' + b"[]," * MIB + b"[]]}",
        b"{" + b'"a":{},' * MIB + b'"model": "m"}',
        b'{"model": "' + b"\\ud83d\\ude00" * MIB + b'"}',
        b'{"model": "m", "x": "' + "\U0001f600".encode() * 3 * MIB + b'"}',
    ],
    ids=["lists", "model", "objects", "name", "text"],
)
def test_looking_for_the_model_builds_nothing(document: bytes) -> None:
    tracemalloc.start()
    try:
        try:
            assert body.model_of(document) == "m"
        except Refused as refusal:
            assert refusal.status == 400
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB < 3 * len(document)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """4 bytes of each body are free, all together may take 10 more; pieces are of 3."""
    monkeypatch.setattr(body, "MAX_TOGETHER", 10)
    monkeypatch.setattr(body, "FREE", 4)
    monkeypatch.setattr(body, "PIECE", 3)
    yield
    assert body.MEMORY.together == body.DISK.together == 0


@pytest.mark.parametrize("known", [True, False])
def test_all_bodies_together_are_bounded(limits: None, known: bool) -> None:
    def of(size: int) -> Any:
        return environ(bytes(size), size if known else None)

    with body.request_body(of(10), 100) as first, body.request_body(of(8), 100) as second:
        assert (len(first), len(second)) == (10, 8)
        refused = of(5)
        with pytest.raises(Unreadable) as caught, body.request_body(refused, 100):
            pass
        assert (caught.value.status, caught.value.retry_after) == (503, body.FULL_RETRY_SECONDS)
        assert refused["wsgi.input"].tell() == (0 if known else 5)
        with body.request_body(of(4), 100) as small:
            assert len(small) == 4
    with body.request_body(of(14), 100) as alone:
        assert len(alone) == 14


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [100, None])
def test_all_bodies_on_the_disk_are_bounded(
    limits: None, monkeypatch: pytest.MonkeyPatch, known: bool, size: int | None
) -> None:
    """Together they may take 10 bytes more than each one's 4, or half of the 20 that are free at first."""

    def free(path: str) -> Any:
        return SimpleNamespace(f_bavail=10**6 if size is None else 20 - body.DISK.together, f_frsize=1)

    def spooled(size: int) -> Any:
        return body.spooled_body(environ(bytes(size), size if known else None), 100, lambda piece: None)

    monkeypatch.setattr(body, "MAX_ON_DISK", size or 10)
    monkeypatch.setattr(body.os, "statvfs", free)
    with spooled(10), spooled(8):
        with pytest.raises(Unreadable) as caught, spooled(5):
            pass
        assert (caught.value.status, caught.value.retry_after) == (503, body.FULL_RETRY_SECONDS)
        with spooled(4) as small:
            assert b"".join(small) == bytes(4)
    with spooled(14) as alone:
        assert alone.length == 14


def test_what_is_announced_but_not_sent_takes_no_room(limits: None) -> None:
    class Slow(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            with body.request_body(environ(bytes(14), 14), 100) as other:
                assert len(other) == 14
            return b""

    with pytest.raises(ClientGone), body.request_body({"wsgi.input": Slow(), "CONTENT_LENGTH": "14"}, 100):
        pass


@pytest.mark.parametrize("length, status", [(101, 413), (None, 413)])
def test_one_body_is_bounded(limits: None, length: int | None, status: int) -> None:
    body.MAX_TOGETHER = 1000
    with pytest.raises(Unreadable) as caught, body.request_body(environ(bytes(101), length), 100):
        pass
    assert caught.value.status == status


def test_a_worker_full_of_bodies_serves_small_ones(tmp_path: Path) -> None:
    """Three clients hold a MiB each, of which the worker has room for three; a fourth has to come again."""
    with ExitStack() as stack:
        fake = FakeSupervisor(tmp_path)
        fake.start()
        stack.callback(fake.stop)
        tier = WebTier(tmp_path, constants={"admin.body.MAX_TOGETHER": 3 * MIB})
        tier.start()
        stack.callback(tier.close)

        def answer_small_ones(call: Call) -> None:
            if len(call.body) < MIB:
                call.reply(b"{}")
            else:
                call.wait_for_hangup()

        upstream = stack.enter_context(FakeUpstream(answer_small_ones, tmp_path / "1.sock"))
        fake.grants["m"] = [(1, upstream.address)]
        large = b'{"model": "m", "x": "' + b"x" * MIB + b'"}'
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n\r\n".encode()
        holding = [stack.enter_context(tier.connect()) for _ in range(3)]
        for client in holding:
            client.sendall(head + large)
            upstream.call()
        with tier.connect() as client:
            client.sendall(head)
            answer = read_until(client, b"}}")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 5\r\n" in answer
            assert b"\r\nConnection: close\r\n" in answer
            client.shutdown(1)
            assert read_all(client) == b""
        assert tier.post(CHAT, {"model": "m"}).status == 200
        holding[0].close()
        fake.wait_for("release", 2)
        assert tier.post(CHAT, {"model": "m", "x": "x" * (MIB // 2)}).status == 200


def test_a_body_for_which_the_disk_has_no_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(body.tempfile, "SpooledTemporaryFile", lambda max_size: Full())
    with pytest.raises(Unreadable) as caught, body.spooled_body(environ(b"x", 1), 100, lambda piece: None):
        pass
    assert (caught.value.status, caught.value.retry_after) == (503, body.FULL_RETRY_SECONDS)
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("length, status", [(101, 413), (None, 413)])
def test_a_spooled_body_is_bounded(length: int | None, status: int) -> None:
    seen: list[bytes] = []
    with pytest.raises(Unreadable) as caught, body.spooled_body(environ(bytes(101), length), 100, seen.append):
        pass
    assert caught.value.status == status
    assert seen == []


def test_a_spooled_body_can_be_read_again() -> None:
    with body.spooled_body(environ(b"x" * 5 * MIB, None), 9 * MIB, lambda piece: None) as spool:
        assert spool.length == sum(map(len, spool)) == sum(map(len, spool)) == 5 * MIB
