"""Who tries passwords waits, and keeps nobody else out."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask, Response, request
from hypothesis import given
from hypothesis import strategies as st
from signing_in import ADMIN, VIEWER, link, sign_in, tell
from web_tier import Answer, WebTier

from admin import sessions
from admin.throttle import OF_ALL, OF_ONE, Group, Throttle, Visitor, client_of
from supervisor import access
from supervisor.core.access import FAILURES_FILE as FILE
from supervisor.errors import Refused


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
    attempts = [throttle.begin(Visitor(f"192.0.2.{number % 25}")) for number in range(OF_ALL)]
    with pytest.raises(Refused, match="too many failed attempts") as caught:
        throttle.begin(Visitor("198.51.100.1"))
    assert caught.value.retry_after is not None and 50 < caught.value.retry_after <= 60
    throttle.succeeded(attempts[3], forgives=True)
    throttle.begin(Visitor("198.51.100.1"))
    assert len(json.loads((tmp_path / FILE).read_text())) == OF_ALL - 1
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_minute_is_over(tmp_path: Path) -> None:
    now = time.monotonic()
    (tmp_path / FILE).write_text(json.dumps([[now - 61, "strangers", "a"], *[[now - 59.5, "strangers", "a"]] * OF_ONE]))
    with pytest.raises(Refused) as caught:
        Throttle(tmp_path).begin(Visitor("a"))
    assert caught.value.retry_after is not None and caught.value.retry_after < 0.6
    (tmp_path / FILE).write_text(json.dumps([[now - 61, "strangers", "a"]] * 9))
    Throttle(tmp_path).begin(Visitor("a"))
    (tmp_path / FILE).write_text(json.dumps([[now + 1000, "strangers", "a"]] * 9))  # of another boot
    Throttle(tmp_path).begin(Visitor("a"))


ADMINS, VIEWERS = (Group.ADMINS, "one"), (Group.VIEWERS, "one")


def used_up(throttle: Throttle, client: Visitor) -> int:
    """How many attempts it takes until none is let through."""
    for number in range(10 * OF_ALL):
        try:
            throttle.begin(client)
        except Refused:
            return number
    raise AssertionError("it is never used up")


@pytest.mark.parametrize("browser", [ADMINS, VIEWERS])
def test_strangers_keep_no_browser_out_that_has_been_in(tmp_path: Path, browser: tuple[Group, str]) -> None:
    throttle = Throttle(tmp_path)
    for number in range(OF_ALL):
        throttle.begin(Visitor(f"192.0.2.{number}"))
    with pytest.raises(Refused):
        throttle.begin(Visitor("198.51.100.1"))
    assert used_up(throttle, Visitor("198.51.100.1", browser)) == OF_ONE
    assert used_up(throttle, Visitor("198.51.100.1", (browser[0], "another one"))) == OF_ONE


def test_a_browser_that_used_up_its_attempts_is_a_stranger(tmp_path: Path) -> None:
    """Somebody else may have its cookie."""
    throttle = Throttle(tmp_path)
    assert used_up(throttle, Visitor("192.0.2.1", ADMINS)) == 2 * OF_ONE
    assert used_up(throttle, Visitor("192.0.2.2", ADMINS)) == OF_ONE
    assert used_up(throttle, Visitor("192.0.2.2")) == 0


def test_viewers_have_no_more_guesses_for_more_browsers(tmp_path: Path) -> None:
    """Who knows their password signs in as often as it takes to be many browsers, and the admin is not kept out."""
    throttle = Throttle(tmp_path)
    let_through = sum(used_up(throttle, Visitor("192.0.2.1", (Group.VIEWERS, f"b{number}"))) for number in range(99))
    assert let_through == OF_ALL + OF_ONE
    throttle.begin(Visitor("192.0.2.1", ADMINS))


def test_what_one_queue_is_forgiven_another_is_not(tmp_path: Path) -> None:
    throttle = Throttle(tmp_path)
    throttle.begin(Visitor("192.0.2.1"))
    throttle.begin(Visitor("192.0.2.1", VIEWERS))
    throttle.succeeded(throttle.begin(Visitor("192.0.2.1", ADMINS)), forgives=True)
    groups = [group for _, group, _ in json.loads((tmp_path / FILE).read_text())]
    assert groups == ["strangers", "viewers"]


def flood(tier: WebTier) -> None:
    """Strangers at many addresses try passwords."""
    for number in range(OF_ALL):
        Throttle(tier.runtime_dir).begin(Visitor(f"192.0.2.{number}"))


def browser_of(answer: Answer) -> str:
    """The Cookie that the answer makes its browser bring the next time it signs in."""
    (pair,) = re.findall(r"llama_router_\d+_browser=[^;]+", answer.headers["set-cookie"])
    return str(pair)


@pytest.mark.parametrize("password", [ADMIN, VIEWER, None])
def test_who_was_in_before_signs_in_during_a_flood(tier: WebTier, password: str | None) -> None:
    first = sign_in(tier, password=password) if password else sign_in(tier, token=link(tier))
    cookie = browser_of(first)
    flood(tier)
    again = password or ADMIN
    assert sign_in(tier, password=again).status == 429
    assert sign_in(tier, {"Cookie": cookie}, password=again).status == 303
    forged = cookie[:-4] + ("aaaa" if not cookie.endswith("aaaa") else "bbbb")
    assert sign_in(tier, {"Cookie": forged}, password=again).status == 429


def test_the_cookie_of_a_browser_signs_nobody_in(tier: WebTier) -> None:
    answer = sign_in(tier, password=ADMIN)
    cookie = browser_of(answer)
    name, _, value = cookie.partition("=")
    session = f"{name.removesuffix('_browser')}={value}"
    for each in (cookie, session):
        assert tier.request("GET", "/", headers={"Cookie": each}).status == 303
    attributes = answer.headers["set-cookie"].partition(cookie)[2].partition(", llama_router")[0].split("; ")
    assert {"HttpOnly", "Path=/ui/login", "SameSite=Strict", "Max-Age=31536000"} <= set(attributes)


def test_a_session_is_no_browser_that_was_in(tier: WebTier) -> None:
    flood(tier)
    name, _, value = tier.cookie(f"127.0.0.1:{tier.address[1]}").partition("=")
    assert sign_in(tier, {"Cookie": f"{name}_browser={value}"}, password=ADMIN).status == 429


def test_a_viewer_leaves_the_browser_the_admins(tier: WebTier) -> None:
    cookie = browser_of(sign_in(tier, password=ADMIN))
    later = sign_in(tier, {"Cookie": cookie}, password=VIEWER)
    assert "_browser=" not in later.headers["set-cookie"]


def test_a_changed_password_ends_what_browsers_were(tmp_path: Path) -> None:
    app, state = Flask("pages"), tmp_path
    with app.test_request_context("/ui/login"):
        response = Response()
        sessions.know_browser(request, response, "admin", access.known(state, tell))
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    found = []
    for password in (None, "another one"):
        if password is not None:
            access.set_password(state, "admin", password, tell)
        with app.test_request_context("/ui/login", headers={"Cookie": cookie}):
            found.append(sessions.known_browser(request, access.known(state, tell)))
    assert found[0] is not None and found[0][0] == "admin"
    assert found[1] is None


NO_COUNTS = [b"[" * 9999, b'[["x", "strangers", 1]]', b'[[NaN, "strangers", 1]]', b'[[1e999, "admins", 1]]', b"{}"]
NO_COUNTS += [b'[[0, "?", 1]]', b'[[0, "a"]]', b"7"]


@given(st.binary(max_size=40) | st.sampled_from(NO_COUNTS))
def test_a_damaged_count_begins_anew(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    runtime = tmp_path_factory.mktemp("count")
    (runtime / FILE).write_bytes(data)
    Throttle(runtime).begin(Visitor("a"))
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
