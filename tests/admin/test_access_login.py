"""Signing in and out of a running web tier: passwords, the one-time link, and those who try."""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Serve
from hypothesis import given
from hypothesis import strategies as st
from web_tier import FOREIGN, Answer, WebTier, read_until

from admin import sessions
from admin.throttle import OF_ALL, OF_ONE, Throttle, client_of
from supervisor import access
from supervisor.core.access import FAILURES_FILE as FILE
from supervisor.core.access import TOKEN_FILE
from supervisor.errors import Refused

ADMIN, VIEWER = "the admin's own", "the viewers' one"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": ""}
NOBODY = {"Cookie": ""}


def tell(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(scope="module")
def shared_tier(tmp_path_factory: pytest.TempPathFactory, shared_supervisor: FakeSupervisor) -> Iterator[WebTier]:
    """Two workers, with the passwords ADMIN and VIEWER."""
    runtime = tmp_path_factory.mktemp("login")
    (runtime / "control.sock").symlink_to(shared_supervisor.path)
    tier = WebTier(runtime, workers=2, cors_origins="localhost https://llm.example.org")
    tier.state_dir.mkdir(mode=0o700)
    access.set_password(tier.state_dir, "admin", ADMIN, tell)
    access.set_password(tier.state_dir, "viewer", VIEWER, tell)
    tier.start()
    yield tier
    tier.close()


@pytest.fixture
def tier(shared_tier: WebTier, supervisor: FakeSupervisor) -> WebTier:
    """Without failures of an earlier test."""
    (shared_tier.runtime_dir / FILE).unlink(missing_ok=True)
    return shared_tier


def sign_in(tier: WebTier, headers: dict[str, str] | None = None, **fields: str) -> Answer:
    return tier.request("POST", "/ui/login", urlencode(fields).encode(), FORM | (headers or {}))


def link(tier: WebTier) -> str:
    return access.new_link(tier.state_dir, tier.runtime_dir, tell)


def role_of(tier: WebTier, answer: Answer) -> str | None:
    """Who the browser with this answer's cookie is."""
    headers = {"Cookie": answer.headers.get("set-cookie", "").partition(";")[0], "Accept": "application/json"}
    told = tier.request("GET", "/ui/session", headers=headers)
    return told.json["role"] if told.status == 200 else None


@pytest.mark.parametrize("password, role", [(ADMIN, "admin"), (VIEWER, "viewer")])
def test_a_password_signs_in(tier: WebTier, password: str, role: str) -> None:
    answer = sign_in(tier, password=password, next="/ui/models?a=b")
    assert (answer.status, answer.headers["location"]) == (303, "/ui/models?a=b")
    assert role_of(tier, answer) == role
    name, _, attributes = answer.headers["set-cookie"].partition("; ")
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


# The one-time link


def test_a_link_is_shown_and_then_used_once(tier: WebTier) -> None:
    token = link(tier)
    assert (tier.runtime_dir / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    for _ in range(3):  # previews look at it, browsers fetch it ahead
        page = tier.request("GET", f"/ui/login?token={token}", headers=NOBODY)
        assert page.status == 200
        assert "signs you in as admin. It works once." in page.body.decode()
        assert f'name="token" value="{token}"' in page.body.decode()
    assert tier.request("HEAD", f"/ui/login?token={token}", headers=NOBODY).status == 200
    answer = sign_in(tier, token=token)
    assert (answer.status, answer.headers["location"], role_of(tier, answer)) == (303, "/", "admin")
    for again in (sign_in(tier, token=token), tier.request("GET", f"/ui/login?token={token}", headers=NOBODY)):
        assert again.status == 403
        assert "set-cookie" not in again.headers
        assert "This link has been used" in again.body.decode()
        assert "llama-router passwd --link" in again.body.decode()
        assert token not in again.body.decode()


def test_a_link_that_many_use_at_once_signs_one_in(tier: WebTier) -> None:
    token = link(tier)
    barrier = threading.Barrier(16)

    def use(_: int) -> Answer:
        barrier.wait()
        return sign_in(tier, token=token)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(use, range(16)))
    assert sorted(answer.status for answer in answers) == [303] + [403] * 15


@pytest.mark.parametrize("token", ["x", "x" * 9000, "é", "\x00", "' OR 1", "\ud7ff", "../access.json"])
def test_a_wrong_link_leaves_the_right_one(tier: WebTier, token: str) -> None:
    good = link(tier)
    assert sign_in(tier, token=token).status in (403, 413)
    assert sign_in(tier, token=good).status == 303


def test_a_newer_link_replaces_an_older_one(tier: WebTier) -> None:
    old, new = link(tier), link(tier)
    assert [sign_in(tier, token=token).status for token in (old, new)] == [403, 303]


@pytest.mark.parametrize("how", ["cut off", "a FIFO", "a directory", "a link", "huge", "another's era"])
def test_a_damaged_link_signs_nobody_in(tier: WebTier, how: str, tmp_path: Path) -> None:
    token, path = link(tier), tier.runtime_dir / TOKEN_FILE
    whole = path.read_bytes()
    path.unlink()
    if how == "cut off":
        path.write_bytes(whole[:-8])
    elif how == "a FIFO":
        os.mkfifo(path)
    elif how == "a directory":
        path.mkdir()
    elif how == "a link":
        (tmp_path / "token").write_bytes(whole)
        path.symlink_to(tmp_path / "token")
    elif how == "huge":
        path.write_bytes(whole + b" " * 10**6)
    else:
        path.write_text(json.dumps(json.loads(whole) | {"era": "0" * 16}))
    assert sign_in(tier, token=token).status == 403
    if how == "a directory":
        path.rmdir()
    assert sign_in(tier, token=link(tier)).status == 303


# Throttling


def test_five_failures_are_one_clients_for_a_minute(tier: WebTier) -> None:
    for _ in range(OF_ONE):
        assert sign_in(tier, password="wrong").status == 403
    for password in ("wrong", ADMIN):
        answer = sign_in(tier, password=password)
        assert answer.status == 429
        assert 50 <= int(answer.headers["retry-after"]) <= 60
        assert re.search(r"Too many failed attempts; the next one is looked at in \d\d s\.", answer.body.decode())
    assert sign_in(tier, {"Accept": "application/json"}, password=ADMIN).error["code"] == 429
    assert sign_in(tier, token=link(tier)).status == 303  # who may make one is not kept out


def test_many_at_once_are_no_way_round(tier: WebTier) -> None:
    with ThreadPoolExecutor(20) as pool:
        statuses = [answer.status for answer in pool.map(lambda _: sign_in(tier, password="wrong"), range(20))]
    assert sorted(statuses) == [403] * OF_ONE + [429] * (20 - OF_ONE)


def test_a_right_password_forgives(tier: WebTier) -> None:
    for _ in range(3):
        assert [sign_in(tier, password="wrong").status for _ in range(OF_ONE - 1)] == [403] * (OF_ONE - 1)
        assert sign_in(tier, password=ADMIN).status == 303


def test_the_viewers_password_forgives_no_guesses_of_the_admins(tier: WebTier) -> None:
    guesses = []
    for _ in range(OF_ONE + 1):
        guesses.append(sign_in(tier, password="wrong").status)
        sign_in(tier, password=VIEWER)
    assert guesses == [403] * OF_ONE + [429]


def test_guesses_do_not_hold_up_what_else_is_served(tier: WebTier) -> None:
    with ThreadPoolExecutor(5) as pool:
        guesses = [pool.submit(sign_in, tier, password="wrong") for _ in range(5)]
        times = []
        while not all(guess.done() for guess in guesses):
            began = time.perf_counter()
            assert tier.request("GET", "/health").status == 200
            times.append(time.perf_counter() - began)
    assert len(times) > 1
    assert sorted(times)[len(times) // 2] < 0.15, times  # the middle one: less than a hash takes


def test_failures_that_cannot_be_counted_are_refused(tier: WebTier) -> None:
    path = tier.runtime_dir / FILE
    path.mkdir()
    try:
        answer = sign_in(tier, password=ADMIN)
    finally:
        path.rmdir()
    assert answer.status == 503
    assert "annot count attempts to sign in" in answer.body.decode()


def test_all_clients_together(tmp_path: Path) -> None:
    throttle = Throttle(tmp_path)
    attempts = [throttle.begin(f"192.0.2.{number % 25}") for number in range(OF_ALL)]
    with pytest.raises(Refused, match="too many failed attempts") as caught:
        throttle.begin("198.51.100.1")
    assert caught.value.retry_after is not None and 50 < caught.value.retry_after <= 60
    throttle.succeeded(attempts[3], forgives=True)
    throttle.begin("198.51.100.1")
    assert len(json.loads((tmp_path / FILE).read_text())) == OF_ALL - 1
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_minute_is_over(tmp_path: Path) -> None:
    now = time.monotonic()
    (tmp_path / FILE).write_text(json.dumps([[now - 61, "a"], *[[now - 59.5, "a"]] * OF_ONE]))
    with pytest.raises(Refused) as caught:
        Throttle(tmp_path).begin("a")
    assert caught.value.retry_after is not None and caught.value.retry_after < 0.6
    (tmp_path / FILE).write_text(json.dumps([[now - 61, "a"]] * 9))
    Throttle(tmp_path).begin("a")
    (tmp_path / FILE).write_text(json.dumps([[now + 1000, "a"]] * 9))  # of another boot
    Throttle(tmp_path).begin("a")


@given(
    st.binary(max_size=40) | st.sampled_from([b"[" * 9999, b'[["x", 1]]', b"[[NaN, 1]]", b"[[1e999, 1]]", b"{}", b"7"])
)
def test_a_damaged_count_begins_anew(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    runtime = tmp_path_factory.mktemp("count")
    (runtime / FILE).write_bytes(data)
    Throttle(runtime).begin("a")
    assert len(json.loads((runtime / FILE).read_text())) == 1


@pytest.mark.parametrize(
    "address, client",
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", "unix"),
        ("x" * 100, "x" * 64),
    ],
)
def test_whose_attempt_it_is(address: str, client: str) -> None:
    assert client_of({"REMOTE_ADDR": address}) == client


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
    from admin import create_app

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


def test_a_lock_that_is_held_is_waited_for(tier: WebTier) -> None:
    """Somebody writes a new link at this moment."""
    token = link(tier)
    descriptor = os.open(tier.runtime_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(sign_in, tier, token=token)
            assert not answer.done()
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            assert answer.result().status == 303
    finally:
        os.close(descriptor)


def test_the_cookies_name() -> None:
    assert sessions.COOKIE == "llama_router"
