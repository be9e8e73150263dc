"""Who asks, as the supervisor is told: an address and a harmless word, whatever the client sends."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor
from hypothesis import given
from hypothesis import strategies as st
from web_tier import WebTier, chat_request

from admin.who import who

KEY = "sk-proj-0123456789abcdef"
LONGEST = "x" * 64


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({}, "192.0.2.7"),
        ({"USER_AGENT": "curl/8.5.0"}, "192.0.2.7 curl/8.5.0"),
        ({"USER_AGENT": "OpenAI/Python 1.109.1"}, "192.0.2.7 OpenAI/Python"),
        ({"USER_AGENT": "curl/8.5.0", "X_REQUEST_ID": "job-7:a@b"}, "192.0.2.7 job-7:a@b"),
        ({"USER_AGENT": "curl/8.5.0", "X_REQUEST_ID": "two words"}, "192.0.2.7 curl/8.5.0"),
        ({"X_REQUEST_ID": LONGEST}, f"192.0.2.7 {LONGEST}"),
        ({"X_REQUEST_ID": LONGEST + "x"}, "192.0.2.7"),
        ({"USER_AGENT": "<script>"}, "192.0.2.7"),
        ({"USER_AGENT": "a\x1b[2J"}, "192.0.2.7"),
        ({"USER_AGENT": "caf\xe9"}, "192.0.2.7"),
        ({"USER_AGENT": " x"}, "192.0.2.7"),
        ({"X_REQUEST_ID": KEY, "AUTHORIZATION": f"Bearer {KEY}"}, "192.0.2.7"),
        ({"X_REQUEST_ID": f"id-{KEY}", "X_API_KEY": KEY}, "192.0.2.7"),
        ({"USER_AGENT": "abc", "COOKIE": "session=abc"}, "192.0.2.7"),
        ({"USER_AGENT": "curl/8", "AUTHORIZATION": f"Bearer {KEY}"}, "192.0.2.7 curl/8"),
    ],
)
def test_words(headers: dict[str, str], expected: str) -> None:
    environ = {f"HTTP_{name}": value for name, value in headers.items()}
    assert who({"REMOTE_ADDR": "192.0.2.7", **environ}) == expected


def test_a_client_without_an_address() -> None:
    assert who({"REMOTE_ADDR": "", "HTTP_USER_AGENT": "curl/8"}) == "unix curl/8"


ANY = st.text(st.characters(max_codepoint=255), max_size=80)


@given(ANY, ANY, ANY)
def test_whatever_is_sent_is_short_and_printable_and_no_credential(identity: str, agent: str, secret: str) -> None:
    sent = {"HTTP_X_REQUEST_ID": identity, "HTTP_USER_AGENT": agent, "HTTP_AUTHORIZATION": secret}
    words = who({"REMOTE_ADDR": "::1", **sent})
    assert re.fullmatch(r"::1( [!-~]{1,64})?", words)
    assert not [part for part in secret.split() if part in words.removeprefix("::1")]


def test_the_supervisor_is_told(web: WebTier, supervisor: FakeSupervisor) -> None:
    headers = {"X-Request-Id": "job-7", "User-Agent": "curl/8.5.0", "Authorization": f"Bearer {KEY}"}
    assert web.post("/v1/completions", {"model": "m"}, headers).status == 400
    (lease,) = supervisor.of("lease")
    assert lease["who"] == "127.0.0.1 job-7"
    assert KEY not in str(supervisor.seen)


def test_over_a_unix_socket(tmp_path: Path) -> None:
    fake = FakeSupervisor(tmp_path)
    fake.start()
    tier = WebTier(tmp_path, family=socket.AF_UNIX)
    tier.start()
    try:
        assert b" 400 " in tier.exchange(chat_request({"model": "m"}, "User-Agent: curl/8\r\nConnection: close\r\n"))
        assert fake.of("lease")[0]["who"] == "unix curl/8"
    finally:
        tier.close()
        fake.stop()
