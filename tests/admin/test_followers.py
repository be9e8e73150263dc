"""Event streams of signed-in pages: however many one visitor opens, others are served."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor
from flask import Flask, Response
from itsdangerous import TimestampSigner
from web_tier import DEADLINE, WebTier, read_until

from admin import followers
from admin.errors import Unreadable
from admin.followers import For, endless
from supervisor.core.access import RoleName

OF_SESSION, OF_ADDRESS = "admin.dashboard.access.MAX_OF_SESSION", "admin.dashboard.access.MAX_OF_ADDRESS"
LIMITS = {OF_SESSION: 2.0, OF_ADDRESS: 3.0, "admin.followers.MAX_SIGNED_IN": 5.0}
Follow = Callable[[str], int]


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[WebTier]:
    with ExitStack() as stack:
        fake = FakeSupervisor(tmp_path)
        fake.start()
        stack.callback(fake.stop)
        tier = WebTier(tmp_path, constants=LIMITS)
        tier.start()
        stack.callback(tier.close)
        yield tier


@pytest.fixture
def signed_in(tier: WebTier, monkeypatch: pytest.MonkeyPatch) -> Callable[[RoleName, int], str]:
    """signed_in(role, number): the cookie of one of many sign-ins, each of another second."""
    now = int(time.time())

    def cookie(role: RoleName, number: int) -> str:
        monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: now - number)
        return tier.cookie("x", role)

    return cookie


@pytest.fixture
def follow(tier: WebTier) -> Iterator[Follow]:
    """follow(cookie): the status of a stream that is begun, and goes on until the end of the test."""
    with ExitStack() as stack:

        def begin(cookie: str) -> int:
            browser: socket.socket = stack.enter_context(tier.connect())
            browser.sendall(f"GET /ui/events HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
            return int(read_until(browser, b"\r\n\r\n").split()[1])

        yield begin


def test_one_sign_in_has_so_many(signed_in: Callable[[RoleName, int], str], follow: Follow) -> None:
    one, other = signed_in("viewer", 0), signed_in("viewer", 1)
    assert one != other
    assert [follow(one) for _ in range(4)] == [200, 200, 503, 503]
    assert follow(f"x_8080=1; llama_router=forged; {one}") == 503  # what else a browser brings makes it no other
    assert follow(other) == 200


def test_who_signs_in_again_and_again_has_so_many(signed_in: Callable[[RoleName, int], str], follow: Follow) -> None:
    """And keeps no admin out, who may be behind the same reverse proxy."""
    assert [follow(signed_in("viewer", number)) for number in range(6)] == [200] * 3 + [503] * 3
    assert [follow(signed_in("admin", number)) for number in range(3)] == [200, 200, 503]  # five are all


def test_room_that_is_left_can_be_taken(tier: WebTier, signed_in: Callable[[RoleName, int], str]) -> None:
    cookie = signed_in("viewer", 0)
    head = f"GET /ui/events HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode()
    end, served = time.monotonic() + DEADLINE, 0
    while served < 3 * LIMITS[OF_SESSION]:
        assert time.monotonic() < end
        with tier.connect() as browser:
            browser.sendall(head)
            served += b" 200 " in read_until(browser, b"\r\n\r\n")


def test_of_what_is_over_nothing_is_kept() -> None:
    def fail() -> Response:
        raise ValueError

    before = dict(followers._now)
    begin = endless(For.SIGNED_IN, lambda: {"a": 1, "b": 2})
    with Flask("streams").test_request_context():
        response = begin(lambda: Response())()
        with pytest.raises(Unreadable, match="1 pages of yours follow"):
            begin(fail)()
        assert followers._now["a"] == followers._now["b"] == 1
        response.close()
        with pytest.raises(ValueError):
            begin(fail)()
    assert dict(followers._now) == before
