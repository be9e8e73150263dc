"""Who gets to what: every route of the dashboard by nobody, a viewer and an admin; and cookies that are none."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damaging import damage
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from werkzeug.test import TestResponse

from admin import dashboard, sessions
from admin.application import create_app
from admin.dashboard import access as guard
from admin.dashboard.access import Role
from admin.throttle import OF_ONE
from supervisor import access
from supervisor.core.access import ACCESS_FILE, FAILURES_FILE, RoleName

BLUEPRINTS = {page.blueprint.name for page in dashboard.PAGES} | {part.name for part in dashboard.PARTS}
AS_JSON = {"Accept": "application/json"}
PASSWORD = "correct horse"


def print_nothing(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """access.json with the passwords PASSWORD and, for viewers, its reverse: hashing takes its time."""
    state = tmp_path_factory.mktemp("state")
    access.set_password(state, "admin", PASSWORD, print_nothing)
    access.set_password(state, "viewer", PASSWORD[::-1], print_nothing)
    return (state / ACCESS_FILE).read_bytes()


@pytest.fixture
def app(tmp_path: Path, passwords: bytes, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The application, whose supervisor is away and whose API is open."""
    monkeypatch.setenv("LLAMA_ROUTER_KEYLESS", "open")
    (tmp_path / ACCESS_FILE).write_bytes(passwords)
    return create_app(str(tmp_path), str(tmp_path))


def asked(client: FlaskClient, headers: dict[str, str]) -> TestResponse:
    """Who a script is told that is signed in."""
    return client.get("/ui/session", headers=AS_JSON | headers)


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client(use_cookies=False) as client:
        yield client


def cookie(app: Flask, role: RoleName) -> dict[str, str]:
    """The header of somebody who is signed in."""
    return {
        "Cookie": f"{sessions.COOKIE}={sessions.sealed(role, access.known(app.config['STATE_DIR'], print_nothing))}"
    }


def routes() -> list[tuple[str, str, Role]]:
    """(method, a path, role) of every view of the dashboard."""
    app = create_app("/nonexistent", "/nonexistent")
    adapter = app.url_map.bind("localhost")
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint.rpartition(".")[0] in BLUEPRINTS:
            values = {name: example(converter) for name, converter in rule._converters.items()}
            path = adapter.build(rule.endpoint, values, method=next(iter(rule.methods or ())))
            role = app.view_functions[rule.endpoint].role  # type: ignore[attr-defined]
            found += [(method, path, role) for method in sorted(rule.methods or ())]
    return found


def example(converter: Any) -> Any:
    """A value that a part of a route takes."""
    if items := getattr(converter, "items", None):
        return sorted(items)[0]
    return 1 if converter.regex == r"\d+" else "m"


ROUTES = routes()


def test_the_routes_are_found() -> None:
    assert {("GET", "/", Role.VIEWER), ("POST", "/ui/models/load", Role.ADMIN)} <= set(ROUTES)
    assert {path for _, path, role in ROUTES if role is Role.NOBODY} == {"/ui/login", "/ui/logout"}


@pytest.mark.parametrize("method, path, role", ROUTES)
def test_nobody(client: FlaskClient, method: str, path: str, role: Role) -> None:
    answer = client.open(path, method=method, headers=AS_JSON)
    if role is Role.NOBODY:
        assert answer.status_code in (200, 303, 403), answer.text
        return
    assert answer.status_code == 401
    if method != "HEAD":
        assert answer.json is not None
        assert answer.json["error"]["type"] == "authentication_error"
    check_headers(answer)


@pytest.mark.parametrize("method, path, role", [route for route in ROUTES if route[2] is not Role.NOBODY])
def test_a_viewer(app: Flask, client: FlaskClient, method: str, path: str, role: Role) -> None:
    answer = client.open(path, method=method, headers=AS_JSON | cookie(app, "viewer"))
    assert (answer.status_code == 403) == (role is Role.ADMIN), answer.text
    assert answer.status_code != 401
    if role is Role.ADMIN and method != "HEAD":
        assert "only the admin may do this" in answer.text
    check_headers(answer)


@pytest.mark.parametrize("method, path, role", [route for route in ROUTES if route[2] is not Role.NOBODY])
def test_an_admin(app: Flask, client: FlaskClient, method: str, path: str, role: Role) -> None:
    answer = client.open(path, method=method, headers=AS_JSON | cookie(app, "admin"))
    assert answer.status_code not in (401, 403), answer.text


@pytest.mark.parametrize("method, path, role", [route for route in ROUTES if route[0] not in ("GET", "HEAD")])
def test_no_page_of_another_site_posts(app: Flask, client: FlaskClient, method: str, path: str, role: Role) -> None:
    headers = AS_JSON | cookie(app, "admin") | {"Sec-Fetch-Site": "cross-site"}
    answer = client.open(path, method=method, headers=headers)
    assert answer.status_code == 403
    assert "a page of another site may not do this" in answer.text
    assert "Set-Cookie" not in answer.headers


def check_headers(answer: TestResponse) -> None:
    """Those that keep pages apart, on refusals too."""
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_view_without_a_role_is_not_served(tmp_path: Path) -> None:
    blueprint = Blueprint("open", __name__)
    blueprint.get("/ui/open")(lambda: "everything")
    app = Flask(__name__)
    app.config |= {"STATE_DIR": tmp_path, "RUNTIME_DIR": tmp_path}
    app.register_blueprint(blueprint)
    with pytest.raises(TypeError, match=r"open\..* \(/ui/open\) says not who may see it: put @needs"):
        guard.register(app, [blueprint])


def test_a_role_above_the_route_does_not_count(tmp_path: Path) -> None:
    blueprint = Blueprint("open", __name__)
    guard.needs(Role.ADMIN)(blueprint.get("/ui/open")(lambda: "everything"))
    app = Flask(__name__)
    app.register_blueprint(blueprint)
    with pytest.raises(TypeError, match="below its route"):
        guard.register(app, [blueprint])


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/static/base.css", "/ui/nothing"])
def test_what_is_no_page_needs_no_session(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        assert answer.status_code not in (303, 401, 403)


@pytest.mark.parametrize(
    "path, following",
    [
        ("/", "/ui/login"),
        ("/ui/models?a=b&c", "/ui/login?next=%2Fui%2Fmodels%3Fa%3Db%26c"),
        ("/ui/model/%F0%9F%A6%99%2F%22", "/ui/login?next=%2Fui%2Fmodel%2F%25F0%259F%25A6%2599%252F%2522"),
    ],
)
def test_a_page_leads_to_the_login_and_back(app: Flask, client: FlaskClient, path: str, following: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.location) == (303, following)
    back = client.get(following, headers=cookie(app, "viewer"))
    assert (back.status_code, back.location) == (303, path)


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/event-stream"}])
def test_a_stream_is_led_nowhere(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.get("/ui/events", headers=headers)
    assert (answer.status_code, answer.content_type) == (401, "application/json")


def test_what_a_script_fetches_is_led_nowhere(client: FlaskClient) -> None:
    assert client.get("/ui/models", headers={"Accept": "*/*", "Sec-Fetch-Dest": "empty"}).status_code == 401


def test_a_form_that_comes_too_late(client: FlaskClient) -> None:
    answer = client.post("/ui/models/load", data={"model": "m"}, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.location) == (303, "/ui/login")


def forged(app: Flask) -> dict[str, str]:
    """Values of a cookie that are no session, by what is wrong with them."""
    known = access.known(app.config["STATE_DIR"], print_nothing)
    good = sessions.sealed("admin", known)
    content, at, signature = good.split(".")
    options: Any = {"key_derivation": "hmac", "digest_method": sessions.hashlib.sha256}

    def signed(secret: bytes, salt: str, value: object, days: float = 0.0) -> str:
        class Late(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(time.time() - days * 86400)

        serializer = URLSafeTimedSerializer(secret, salt=salt, signer=Late, signer_kwargs=options)
        return str(serializer.dumps(value))

    salt = "llama-router session"
    own = ["admin", known.admin.era]
    assert sessions.opened(signed(known.secret, salt, own), known) is not None
    old = signed(known.secret, salt, own, days=29)
    assert sessions.opened(old, known) == sessions.Session("admin", old, True)
    return {
        "empty": "",
        "cut off": good[:-1],
        "unsigned": content,
        "another signature": f"{content}.{at}.{signature[::-1]}",
        "another time": f"{content}.{at[::-1]}.{signature}",
        "another secret": signed(b"x" * 32, salt, own),
        "another salt": signed(known.secret, "itsdangerous", own),
        "a browser's": signed(known.secret, sessions.BROWSER, own),
        "of tomorrow": signed(known.secret, salt, own, days=-1),
        "of last month": signed(known.secret, salt, own, days=31),
        "another era": signed(known.secret, salt, ["admin", "0" * 16]),
        "the viewer's era": signed(known.secret, salt, ["admin", known.viewer.era]),
        "another role": signed(known.secret, salt, ["root", known.admin.era]),
        "a table": signed(known.secret, salt, {"admin": known.admin.era}),
        "long": "A" * 8000,
        "zlib": "." + "A" * 100 + ".a.b",
    }


FORGED = ["empty", "cut off", "unsigned", "another signature", "another time", "another secret", "another salt"]
FORGED += [
    "a browser's",
    "of tomorrow",
    "of last month",
    "another era",
    "the viewer's era",
    "another role",
    "a table",
    "long",
    "zlib",
]


@pytest.mark.parametrize("name", FORGED)
def test_a_cookie_that_is_no_session(app: Flask, client: FlaskClient, name: str) -> None:
    values = forged(app)
    assert set(values) == set(FORGED)
    assert asked(client, {"Cookie": f"{sessions.COOKIE}={values[name]}"}).status_code == 401
    both = f"{sessions.COOKIE}={values[name]}; {cookie(app, 'viewer')['Cookie']}"
    assert asked(client, {"Cookie": both}).json == {"role": "viewer"}


def test_a_cookie_of_another_port_is_another_routers(app: Flask, client: FlaskClient) -> None:
    value = cookie(app, "admin")["Cookie"].partition("=")[2]
    at_8080 = {"Host": "localhost:8080"}
    assert asked(client, at_8080 | {"Cookie": f"llama_router={value}"}).status_code == 401
    assert asked(client, at_8080 | {"Cookie": f"llama_router_8080={value}"}).status_code == 200


@pytest.mark.parametrize("change", ["set", "set the same", "remove", "damage"])
def test_a_changed_password_ends_its_sessions(app: Flask, client: FlaskClient, change: str) -> None:
    state: Path = app.config["STATE_DIR"]
    admin, viewer = cookie(app, "admin"), cookie(app, "viewer")
    assert asked(client, admin).json == {"role": "admin"}
    told: list[str] = []
    if change == "remove":
        assert access.remove_password(state, "admin", told.append)
        access.set_password(state, "admin", PASSWORD, told.append)
    elif change == "damage":
        (state / ACCESS_FILE).write_bytes((state / ACCESS_FILE).read_bytes()[:100])
        access.set_password(state, "admin", PASSWORD, told.append)
    else:
        access.set_password(state, "admin", PASSWORD if change == "set the same" else "another one", told.append)
    assert asked(client, admin).status_code == 401
    assert asked(client, viewer).status_code == (401 if change == "damage" else 200)
    assert len(told) == (change == "damage")


def test_an_old_session_is_renewed(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = cookie(app, "viewer")
    assert "Set-Cookie" not in asked(client, headers).headers
    monkeypatch.setattr(sessions, "RENEWED_AFTER_SECONDS", -1)
    renewed = asked(client, headers).headers["Set-Cookie"]
    assert renewed.startswith("llama_router=") and "Max-Age=2592000" in renewed
    value = renewed.partition(";")[0]
    assert asked(client, {"Cookie": value}).json == {"role": "viewer"}


@pytest.mark.parametrize("how", ["missing", "cut off", "a FIFO", "a directory", "a link", "huge", "not JSON"])
def test_a_damaged_file_signs_nobody_in(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    admin = cookie(app, "admin")
    assert asked(client, admin).status_code == 200
    damage(app.config["STATE_DIR"] / ACCESS_FILE, how)
    for _ in range(3):
        assert asked(client, admin).status_code == 401
    page = client.get("/ui/login?token=x").text
    assert "Nobody can sign in: the file with the passwords can't be used: " in page
    assert "<code>llama-router passwd</code>" in page and "<form" not in page
    for number in range(2 * OF_ONE):  # nobody is made to wait for it
        answer = client.post("/ui/login", data={"token" if number % 2 else "password": PASSWORD}, headers=AS_JSON)
        assert (answer.status_code, answer.json["error"]["type"]) == (503, "server_error")  # type: ignore[index]
        assert re.search(r"can't be used: \w.*\. To make it anew, run llama-router passwd", answer.text)
    assert not (app.config["RUNTIME_DIR"] / FAILURES_FILE).exists()
    lines = [record.getMessage() for record in caplog.records if "nobody can sign in" in record.getMessage()]
    assert len(lines) == 1, lines


def test_no_secret_is_in_any_answer_or_log(app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    stored = json.loads((app.config["STATE_DIR"] / ACCESS_FILE).read_text())
    token = access.new_link(app.config["STATE_DIR"], app.config["RUNTIME_DIR"], print_nothing)
    seen = client.get(f"/ui/login?token={token}x").text + client.post("/ui/login", data={"password": "wrong one"}).text
    seen += client.post("/ui/login", data={"token": token + "x"}).text + caplog.text
    for secret in (stored["secret"], stored["salt"], stored["admin"]["hash"], token, "wrong one"):
        assert secret not in seen.replace(f"{token}x", "")
