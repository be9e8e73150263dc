"""Whom a reverse proxy says that it asks for: believed if it is trusted, and never further than it can know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor
from hypothesis import given
from hypothesis import strategies as st
from web_tier import WebTier, chat_request

from admin.forwarded import Forwarded, address_of

PROXIES = "127.0.0.1 10.0.0.0/8 fd00::/8"


def seen(peer: str, *, trusted: str = PROXIES, **headers: str) -> tuple[str, str]:
    """The address and the scheme that the application sees."""
    environ: dict[str, Any] = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http"}
    environ |= {f"HTTP_X_FORWARDED_{name}": value for name, value in headers.items()}

    def application(environ: dict[str, Any], _: object) -> list[bytes]:
        assert not [name for name in environ if "FORWARDED" in name]
        return []

    Forwarded(application, trusted)(environ, lambda *_: lambda _: None)  # type: ignore[arg-type, return-value]
    return environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]


@pytest.mark.parametrize(
    ("peer", "named", "client"),
    [
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "203.0.113.9, 192.0.2.7", "192.0.2.7"),  # the client began it
        ("127.0.0.1", "203.0.113.9, 192.0.2.7, 10.1.2.3", "192.0.2.7"),
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "192.0.2.7:4711", "192.0.2.7"),
        ("::ffff:127.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("fd00::1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("127.0.0.1", "2001:db8::7%eth0", "2001:db8::7"),
        ("127.0.0.1", "192.0.2.7, unknown, 10.0.0.9", "10.0.0.9"),
        ("127.0.0.1", "192.0.2.7,", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "localhost", "127.0.0.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("", "203.0.113.9", "203.0.113.9"),  # over a UNIX socket
        ("", "10.0.0.1", "10.0.0.1"),
    ],
)
def test_the_address(peer: str, named: str, client: str) -> None:
    assert seen(peer, FOR=named)[0] == client


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        ("127.0.0.1", "https", "https"),
        ("127.0.0.1", "HTTPS", "https"),
        ("127.0.0.1", "http, https", "https"),
        ("127.0.0.1", "https, http", "http"),
        ("127.0.0.1", "javascript", "http"),
        ("192.0.2.1", "https", "http"),
    ],
)
def test_the_scheme(peer: str, proto: str, scheme: str) -> None:
    assert seen(peer, PROTO=proto)[1] == scheme


def test_nobody_is_trusted_by_default() -> None:
    assert seen("127.0.0.1", trusted="", FOR="192.0.2.7", PROTO="https") == ("127.0.0.1", "http")


@given(st.text(max_size=200), st.sampled_from(["127.0.0.1", "10.9.9.9", "192.0.2.1", ""]))
def test_whatever_is_said_it_is_an_address(text: str, peer: str) -> None:
    client, _ = seen(peer, FOR=text, PROTO=text)
    assert client == peer or address_of(client) is not None


@given(st.lists(st.ip_addresses(), min_size=1, max_size=5), st.text(alphabet="0123456789abcdef.:, ", max_size=30))
def test_what_a_client_writes_before_does_not_count(hops: list[Any], forged: str) -> None:
    """The proxy appends the address that it saw."""
    named = ", ".join(str(hop) for hop in hops)
    last = str(getattr(hops[-1], "ipv4_mapped", None) or hops[-1])
    client = seen("127.0.0.1", trusted="127.0.0.1", FOR=f"{forged}, {named}")[0]
    assert client == last or last == "127.0.0.1"


def test_gunicorn_hands_it_on(shared_supervisor: FakeSupervisor, supervisor: FakeSupervisor, tmp_path: Path) -> None:
    (tmp_path / "control.sock").symlink_to(shared_supervisor.path)
    tier = WebTier(tmp_path, environment={"LLAMA_ROUTER_TRUSTED_PROXIES": "127.0.0.0/8"})
    tier.start()
    try:
        headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
        page = tier.request("POST", "/ui/logout", b"", headers | {"Host": "127.0.0.1"})
        assert "; Secure;" in page.headers["set-cookie"]
        asked = chat_request({"model": "none"}, "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.7\r\n")
        tier.exchange(asked.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
        assert supervisor.of("lease")[-1]["who"].startswith("192.0.2.7")
    finally:
        tier.close()
