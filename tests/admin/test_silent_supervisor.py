"""A supervisor that is stopped (SIGSTOP) or overloaded: the control socket is there, and nothing answers on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, FakeUpstream
from web_tier import WebTier, chat_request, read_until

SECONDS = 0.3


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSupervisor]:
    supervisor = FakeSupervisor(tmp_path)
    supervisor.start()
    yield supervisor
    supervisor.awake.set()
    supervisor.stop()


@pytest.fixture
def tier(fake: FakeSupervisor, tmp_path: Path) -> Iterator[WebTier]:
    tier = WebTier(
        tmp_path, constants={"admin.supervision.ANSWER_SECONDS": SECONDS, "admin.leases.CONNECT_SECONDS": SECONDS}
    )
    tier.start()
    yield tier
    tier.close()


def test_pages_and_the_models_api_say_so(tier: WebTier, fake: FakeSupervisor) -> None:
    fake.awake.clear()
    for path in ("/", "/ui/models"):
        answer = tier.request("GET", path)
        assert answer.status == 503
        assert b"The supervisor is not answering" in answer.body
    for answer in (tier.request("GET", "/v1/models"), tier.post("/models/load", {"model": "m"})):
        assert answer.error["message"] == "llama-router's supervisor is not answering"
        assert answer.status == 503
    assert "no answer within 0.3 s; is it stopped (SIGSTOP) or overloaded?" in tier.log_text()


def test_an_open_page_waits_for_events_as_long_as_it_takes(tier: WebTier, fake: FakeSupervisor) -> None:
    with tier.connect() as browser:
        browser.sendall(f"GET /ui/events HTTP/1.1\r\nHost: x\r\nCookie: {tier.cookie()}\r\n\r\n".encode())
        fake.wait_for_followers()
        browser.settimeout(3 * SECONDS)
        with pytest.raises(TimeoutError):
            read_until(browser, b"\r\n0\r\n\r\n")
        browser.settimeout(10)
        assert fake.emit() == 1
        read_until(browser, b"event: models")


def test_a_request_waits_for_its_lease_as_long_as_it_takes(tier: WebTier, fake: FakeSupervisor, tmp_path: Path) -> None:
    def hello(call: Call) -> None:
        call.reply(b'{"hello": 1}')

    with FakeUpstream(hello, tmp_path / "1.sock") as upstream, tier.connect() as client:
        fake.grants["m"] = [(1, upstream.address)]
        fake.gate.clear()
        client.sendall(chat_request({"model": "m"}))
        client.settimeout(3 * SECONDS)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        fake.gate.set()
        assert read_until(client, b'{"hello": 1}').startswith(b"HTTP/1.1 200 OK")
