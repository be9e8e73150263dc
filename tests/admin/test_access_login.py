"""Signing in and out of a running web tier with a password, and the pages for it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Serve
from signing_in import ADMIN, FORM, NOBODY, VIEWER, link, role_of, sign_in, tell
from web_tier import FOREIGN, WebTier, read_until

from admin import sessions
from supervisor import access


@pytest.mark.parametrize("password, role", [(ADMIN, "admin"), (VIEWER, "viewer")])
def test_a_password_signs_in(tier: WebTier, password: str, role: str) -> None:
    answer = sign_in(tier, password=password, next="/ui/models?a=b")
    assert (answer.status, answer.headers["location"]) == (303, "/ui/models?a=b")
    assert role_of(tier, answer) == role
    name, _, attributes = answer.headers["set-cookie"].partition(", llama_router")[0].partition("; ")
    assert name.startswith(f"llama_router_{tier.address[1]}=")
    assert {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=2592000"} <= set(attributes.split("; "))
    assert "Secure" not in attributes and "Domain" not in attributes
    assert answer.headers["cache-control"] == "no-store"


def test_the_cookie_of_an_https_page_is_for_https_alone(tier: WebTier) -> None:
    assert "; Secure;" in sign_in(tier, {"X-Forwarded-Proto": "https"}, password=ADMIN).headers["set-cookie"]


WRONG = [
    "",
    "wrong",
    f"{ADMIN} ",
    ADMIN.upper(),
    "x" * 1025,
    "x" * 15000,
    "\x00",
    "\r\nSet-Cookie: a=b",
    "\u20ac" * 300,
]


@pytest.mark.parametrize("password", WRONG)
def test_a_wrong_password(tier: WebTier, password: str) -> None:
    answer = sign_in(tier, password=password)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers
    page = answer.body.decode()
    assert 'role="alert" id="error">That is not the password.<' in page and 'aria-invalid="true"' in page
    assert not password or password not in page
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("body", [b"", b"password", b"%ff=%ff", b"password=%ff%fe", b"a=b&" * 1500, b"\x00\xff"])
def test_a_form_that_is_none(tier: WebTier, body: bytes) -> None:
    answer = tier.request("POST", "/ui/login", body, FORM)
    assert answer.status in (403, 413)
    assert "set-cookie" not in answer.headers


def test_a_huge_form_is_not_read(tier: WebTier) -> None:
    assert tier.request("POST", "/ui/login", b"password=" + b"x" * 10**6, FORM).status == 413


def test_a_right_and_a_wrong_password_take_the_same_time(tier: WebTier) -> None:
    """And so does any without a viewer: there is one hash, whoever has a password."""

    def seconds(password: str) -> float:
        began = time.perf_counter()
        sign_in(tier, password=password)
        return time.perf_counter() - began

    times = [min(seconds(password) for _ in range(2)) for password in (ADMIN, VIEWER, "neither one")]
    assert max(times) < 3 * min(times), times


def test_somebody_elses_session_is_not_taken_over(tier: WebTier) -> None:
    """Session fixation: what the browser had before is replaced, not made worth more."""
    planted = tier.cookie(f"127.0.0.1:{tier.address[1]}", "viewer")
    answer = sign_in(tier, {"Cookie": planted}, password=ADMIN)
    assert role_of(tier, answer) == "admin"
    told = tier.request("GET", "/ui/session", headers={"Cookie": planted, "Accept": "application/json"})
    assert told.json == {"role": "viewer"}


ELSEWHERE = [
    *(
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "\\/evil.example",
        "https://evil.example",
        "evil.example",
    ),
    *(
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "///evil.example",
        "http:evil.example",
    ),
    *("javascript:alert(1)", "/ui/\r\nSet-Cookie: a=b", "/ui/\x00", "/ui/\x7f", "/ui/ü", "", "ui/models", "/v1/models"),
    *("/upstream/m/", "/static/base.css", "/ui/login?next=//evil.example", "/ui/logout", "/ui/" + "a" * 3000, "/uiX"),
]


@pytest.mark.parametrize("following", ELSEWHERE)
def test_nobody_is_led_elsewhere(tier: WebTier, following: str) -> None:
    answer = sign_in(tier, token=link(tier), next=following)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert "a=b" not in answer.headers["set-cookie"]
    admin = tier.request("GET", "/ui/login?" + urlencode({"next": following}))
    assert (admin.status, admin.headers["location"]) == (303, "/")
    page = tier.request("GET", "/ui/login?" + urlencode({"next": following}), headers=NOBODY).body.decode()
    assert '<input type="hidden" name="next" value="/">' in page


# Pages


def test_signing_out(tier: WebTier) -> None:
    answer = tier.request("POST", "/ui/logout", b"", {"Content-Type": FORM["Content-Type"]})
    assert (answer.status, answer.headers["location"]) == (303, "/ui/login")
    name, _, attributes = answer.headers["set-cookie"].partition("; ")
    assert name == f"llama_router_{tier.address[1]}="
    assert "Max-Age=0" in attributes and "Path=/" in attributes
    assert tier.request("GET", "/ui/logout").status == 404


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", ["/ui/login", "/ui/logout"])
def test_no_page_of_another_site_signs_in_or_out(tier: WebTier, path: str, headers: dict[str, str]) -> None:
    answer = tier.request("POST", path, urlencode({"password": ADMIN}).encode(), FORM | headers)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


def test_a_viewers_page(tier: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("m")]
    cookies = {role: {"Cookie": tier.cookie(f"127.0.0.1:{tier.address[1]}", role)} for role in ("admin", "viewer")}
    pages = {role: tier.request("GET", "/", headers=headers).body.decode() for role, headers in cookies.items()}
    assert "/ui/models/load" in pages["admin"] and "/ui/models/load" not in pages["viewer"]
    assert ">Presets</a>" in pages["admin"] and ">Presets</a>" not in pages["viewer"]
    assert 'action="/ui/logout"' in pages["viewer"] and "<span>viewer</span>" in pages["viewer"]
    answer = tier.request("POST", "/ui/models/load", b"model=m", FORM | cookies["viewer"])
    assert answer.status == 403
    assert "only the admin may do this" in answer.body.decode()
    assert supervisor.of("load") == []


def test_the_login_page_knows_nothing(tier: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("private-name")]
    answer = tier.request("GET", "/ui/login", headers=NOBODY)
    assert answer.status == 200
    page = answer.body.decode()
    assert "<nav" not in page and "sign-out" not in page and "private-name" not in page
    assert 'autocomplete="current-password"' in page
    assert supervisor.of("status") == []


def test_the_login_page_needs_no_supervisor(tier: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.stop()
    try:
        assert sign_in(tier, password=ADMIN).status == 303
    finally:
        supervisor.start()


def test_a_session_is_for_no_model_server(tier: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    seen: list[str] = []
    upstream = serve(lambda call: (seen.extend(map(str.lower, call.headers)), call.reply(b"{}"))[1])
    assert upstream
    assert tier.post("/v1/chat/completions", {"model": "m"}, {"Cookie": tier.cookie()}).status == 200
    assert "host" in seen and "cookie" not in seen


def test_a_stream_ends_with_its_session(shared_supervisor: FakeSupervisor, tmp_path: Path) -> None:
    (tmp_path / "control.sock").symlink_to(shared_supervisor.path)
    tier = WebTier(tmp_path, constants={"admin.dashboard.stream.HEARTBEAT_SECONDS": 0.05})
    tier.start()
    try:
        with tier.connect() as browser:
            browser.sendall(f"GET /ui/events HTTP/1.1\r\nHost: x\r\nCookie: {tier.cookie()}\r\n\r\n".encode())
            read_until(browser, b": still here")
            access.remove_password(tier.state_dir, "admin", tell)
            read_until(browser, b"\r\n0\r\n\r\n")
    finally:
        tier.close()
    shared_supervisor.wait_for_rest()


@pytest.mark.parametrize("role", ["admin", "viewer", None])
def test_the_page_says_how_to_get_in(tmp_path: Path, shared_supervisor: FakeSupervisor, role: str | None) -> None:
    from admin.application import create_app

    access.known(tmp_path, tell)
    if role is not None:
        access.set_password(tmp_path, "admin" if role == "admin" else "viewer", ADMIN, tell)
    with create_app(str(tmp_path), str(tmp_path)).test_client() as client:
        page = client.get("/ui/login").text
        assert ('type="password"' in page) == (role is not None)
        assert "llama-router passwd --link" in page
        assert ("No password is set." in page) == (role is None)
        if role is None:
            assert client.post("/ui/login", data={"password": ADMIN}).status_code == 403


# Names


@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("gpu-box:8080", 200),
        ("gpu-box.lan", 200),
        ("LLM.example.org", 200),
        (os.uname().nodename, 200),
        ("evil.example", 403),
        ("llm.example.org.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:8080", 403),
    ],
)
@pytest.mark.parametrize("path", ["/ui/login", "/"])
def test_pages_are_asked_for_by_names_of_this_machine(tier: WebTier, path: str, host: str, status: int) -> None:
    answer = tier.request("GET", path, headers={"Host": host, "Cookie": ""})
    assert answer.status == (303 if (path, status) == ("/", 200) else status)


def test_the_cookies_name() -> None:
    assert sessions.COOKIE == "llama_router"
