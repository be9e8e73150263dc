"""Who gets to what: every route there is, by everybody there is. A route that the table does not know fails here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor, model
from flask import Flask
from made_keys import bearer, make, revoke
from test_access import example
from werkzeug.test import TestResponse

from admin import routes, sessions
from admin.application import create_app
from admin.cors import is_dashboard
from admin.dashboard.access import Role
from supervisor import access

NOT_LET_IN = ("nobody", "wrong", "expired", "revoked")
PEOPLE = (*NOT_LET_IN, "other model's", "a key", "viewer", "admin")

# What each path of the API is, without /v1. "open" to everybody; for who is let in: "any"; "model": whose key is for
# the model; "managed": the same, but no viewer.
OWN = {
    "/health": "open",
    "/models": "any",
    "/models/m": "model",
    "/models/sse": "any",
    "/models/load": "managed",
    "/models/unload": "managed",
    "/queue": "any",
    "/props": "any",
    "/metrics": "any",
    "/cors-proxy": "any",
    "/tools": "any",
    "/stream": "any",
    "/streams/lookup": "any",
}
# Not in the table of Flask's.
PROXIED = [
    (method, f"{path}?model=m") for path in (*routes.PATHS, "/slots/3", "/upstream/m/x") for method in ("GET", "POST")
]


def own_routes() -> list[tuple[str, str]]:
    """(method, path) of each rule."""
    app = create_app("/nonexistent", "/nonexistent")
    found = []
    for rule in app.url_map.iter_rules():
        values = {name: example(converter) for name, converter in rule._converters.items()}
        _, path = rule.build(values) or ("", "")
        found += [(method, path) for method in sorted((rule.methods or set()) - {"OPTIONS"})]
    return found


ROUTES = own_routes()
API = [(method, path) for method, path in ROUTES if not is_dashboard(path)]
PAGES = [(method, path) for method, path in ROUTES if is_dashboard(path)]


@pytest.fixture(scope="module")
def supervisor_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSupervisor]:
    fake = FakeSupervisor(tmp_path_factory.mktemp("run"))
    fake.start()
    fake.models = [model("m", aliases=["alias"]), model("n")]
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def app(supervisor_of_all: FakeSupervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application with its supervisor; it keeps no connections, which would outlive the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("admin.leases.MAX_IDLE_CONNECTIONS", 0)
        yield create_app(str(supervisor_of_all.path.parent), str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="module")
def lonely(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The same, but its supervisor is away."""
    return create_app(str(tmp_path_factory.mktemp("away")), str(app.config["STATE_DIR"]))


@pytest.fixture(scope="module")
def people(app: Flask) -> dict[str, dict[str, str]]:
    """The headers that each of PEOPLE sends."""
    state: Path = app.config["STATE_DIR"]
    revoked = make(state, "revoked")
    revoke(state, "revoked")
    known = access.known(state, print)
    return {
        "nobody": {},
        "wrong": bearer("lr-wrong"),
        "expired": bearer(make(state, "expired", expires=time.time() - 1)),
        "revoked": bearer(revoked),
        "other model's": bearer(make(state, "other", models=("n",))),
        "a key": bearer(make(state, "all")),
        "viewer": {"Cookie": f"{sessions.COOKIE}={sessions.sealed('viewer', known)}"},
        "admin": {"Cookie": f"{sessions.COOKIE}={sessions.sealed('admin', known)}"},
    }


def asked(app: Flask, method: str, path: str, headers: dict[str, str]) -> TestResponse:
    body = {} if method in ("GET", "HEAD") else {"json": {"model": "m"}}
    with app.test_client(use_cookies=False) as client:
        return client.open(path, method=method, headers={"Accept": "application/json"} | headers, **body)


def verdict(answer: TestResponse) -> str:
    """What the answer is about: who asks ("401", "403"), or anything else ("in")."""
    if answer.status_code == 401:
        return "401"
    if answer.status_code == 403 and (answer.json or {"error": {"type": ""}})["error"]["type"] == "permission_error":
        return "403"
    return "in"


def expected(kind: str, who: str) -> str:
    if kind == "open":
        return "in"
    if who in NOT_LET_IN:
        return "401"
    if who == "other model's" and kind in ("model", "managed"):
        return "403"
    return "403" if who == "viewer" and kind == "managed" else "in"


def test_the_routes_are_found() -> None:
    assert {("GET", "/health"), ("POST", "/v1/models/load"), ("DELETE", "/v1/stream")} <= set(API)
    assert {("GET", "/"), ("POST", "/ui/models/load")} <= set(PAGES)
    assert ("POST", "/v1/chat/completions?model=m") in PROXIED


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize(("method", "path"), [route for route in API if not route[1].endswith("/sse")])
def test_the_api(app: Flask, people: dict[str, dict[str, str]], method: str, path: str, who: str) -> None:
    answer = asked(app, method, path, people[who])
    kind = OWN[path.removeprefix("/v1")]
    if method == "HEAD":
        assert (answer.status_code == 401) == (expected(kind, who) == "401")
    else:
        assert verdict(answer) == expected(kind, who), answer.text
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("path", ["/models/sse", "/v1/models/sse"])
def test_streams(app: Flask, people: dict[str, dict[str, str]], path: str, who: str) -> None:
    """A GET of those who are let in has no end."""
    assert (asked(app, "HEAD", path, people[who]).status_code == 401) == (who in NOT_LET_IN)
    if who in NOT_LET_IN:
        assert asked(app, "GET", path, people[who]).status_code == 401


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize(("method", "path"), PROXIED)
def test_what_is_forwarded(
    app: Flask, people: dict[str, dict[str, str]], method: str, path: str, who: str, supervisor_of_all: FakeSupervisor
) -> None:
    before = len(supervisor_of_all.of("lease"))
    answer = asked(app, method, path, people[who])
    if answer.status_code == 405:
        assert who not in NOT_LET_IN
        return
    assert verdict(answer) == expected("model", who), answer.text
    assert (len(supervisor_of_all.of("lease")) > before) == (expected("model", who) == "in")
    if who in NOT_LET_IN:
        assert answer.json == {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize(("method", "path"), PAGES)
def test_a_key_opens_no_page(
    app: Flask, lonely: Flask, people: dict[str, dict[str, str]], method: str, path: str, who: str
) -> None:
    if path.startswith("/static/"):
        assert asked(app, method, path, people[who]).status_code not in (401, 403)
        return
    rule, _ = lonely.url_map.bind("localhost").match(path, method)
    role: Role = lonely.view_functions[rule].role  # type: ignore[attr-defined]
    has = {"viewer": Role.VIEWER, "admin": Role.ADMIN}.get(who, Role.NOBODY)
    if role is Role.NOBODY:
        return
    answer = asked(lonely, method, path, people[who])
    wanted = 0 if has >= role else 401 if has is Role.NOBODY else 403
    assert (answer.status_code if answer.status_code in (401, 403) else 0) == wanted, answer.text


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("path", ["/v2", "/v1/nothing", "/v1/chat/completions/", "/health/x"])
def test_what_is_not_there(app: Flask, people: dict[str, dict[str, str]], path: str, who: str) -> None:
    assert asked(app, "GET", path, people[who]).status_code == (401 if who in NOT_LET_IN else 404)


@pytest.mark.parametrize(
    ("who", "status"), [("nobody", 401), ("other model's", 403), ("viewer", 403), ("a key", 200), ("admin", 200)]
)
def test_rereading_the_presets(app: Flask, people: dict[str, dict[str, str]], who: str, status: int) -> None:
    assert asked(app, "GET", "/v1/models?reload=1", people[who]).status_code == status
