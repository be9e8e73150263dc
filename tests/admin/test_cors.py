"""Which pages may use models, which may read answers, and that none of another origin acts on the dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Serve
from web_tier import WebTier

from admin.origin import Origins

CHAT = "/v1/chat/completions"
LOCAL = "http://localhost:5173"
LISTED = "https://chat.example.org"


@pytest.mark.parametrize(
    "listed, origin, allowed",
    [
        ("localhost", "http://localhost", True),
        ("localhost", "http://localhost:3000", True),
        ("localhost", "HTTPS://App.LocalHost:3000", True),
        ("localhost", "http://127.0.0.1:3000", True),
        ("localhost", "http://127.9.9.9", True),
        ("localhost", "http://[::1]:3000", True),
        ("localhost", "tauri://localhost", True),
        ("localhost", "http://localhost.evil.example", False),
        ("localhost", "http://127.0.0.1.evil.example", False),
        ("localhost", "http://evil.example/localhost", False),
        ("localhost", "http://localhost:3000@evil.example", False),
        ("localhost", "http://evillocalhost", False),
        ("localhost", "null", False),
        ("localhost", "", False),
        ("localhost", "localhost:3000", False),
        ("localhost", "file://", False),
        ("", LOCAL, False),
        (LISTED, LISTED, True),
        (f"http://a {LISTED}", LISTED.upper(), True),
        (LISTED, f"{LISTED}:443", True),
        (f"{LISTED}:443", LISTED, True),
        (LISTED, f"{LISTED}:444", False),
        (LISTED, "http://chat.example.org", False),
        (LISTED, LOCAL, False),
        (LISTED, "null", False),
        ("*", "https://anything.example", True),
        ("chrome-extension://abc", "chrome-extension://abc", True),
    ],
)
def test_origins(listed: str, origin: str, allowed: bool) -> None:
    assert Origins(listed).allow(origin) is allowed


@pytest.mark.parametrize(
    "host, known",
    [
        ("", True),
        ("localhost:8080", True),
        ("app.localhost:8080", True),
        ("router", True),
        ("router.lan:80", True),
        ("Box.Local", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("192.168.1.5", True),
        ("chat.example.org", True),
        ("Chat.Example.org", True),
        ("chat.example.org:8080", False),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:1", False),
        ("evil.example.", False),
    ],
)
def test_names(host: str, known: bool) -> None:
    assert Origins(f"localhost {LISTED}").know(host) is known
    assert Origins("*").know(host)


@pytest.fixture(scope="module")
def open_web(shared_supervisor: FakeSupervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebTier]:
    """One that lists an origin, and one more name."""
    folder = tmp_path_factory.mktemp("open")
    (folder / "control.sock").symlink_to(shared_supervisor.path)
    tier = WebTier(folder, cors_origins=f"{LISTED} http://other.example")
    tier.start()
    yield tier
    tier.close()


def test_a_preflight_is_answered_without_a_key(web: WebTier, supervisor: FakeSupervisor) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = web.request("OPTIONS", CHAT, headers={"Origin": LOCAL, "Sec-Fetch-Site": "same-site", **asks})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == LOCAL
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert answer.headers["vary"] == "Origin"
    assert supervisor.seen == []


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/models/load", "/no/such/path"])
def test_a_preflight_of_another_page_is_refused(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = web.request("OPTIONS", path, headers=asks)
    assert "web.cors_origins" in answer.error["message"]
    assert "access-control-allow-origin" not in answer.headers


def test_options_of_no_page(web: WebTier) -> None:
    answer = web.request("OPTIONS", CHAT)
    assert (answer.status, answer.headers["allow"]) == (200, "GET, POST, DELETE, OPTIONS")


@pytest.mark.parametrize("asked", ["\x01", "a\tb", "x" * 3000, "é"])
def test_odd_headers_asked_for(web: WebTier, asked: str) -> None:
    headers = {"Origin": LOCAL, "Access-Control-Request-Headers": asked.encode().decode("latin-1")}
    assert web.request("OPTIONS", CHAT, headers=headers).headers.get("access-control-allow-headers", "*") == "*"


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])
def test_a_local_page_may_use_models(web: WebTier, serve: Serve, headers: dict[str, str]) -> None:
    extra = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: x\r\nSet-Cookie: a=b\r\n"
    serve(lambda call: call.reply(b"{}", extra=extra))
    answer = web.post(CHAT, {"model": "m"}, {"Origin": LOCAL, **headers})
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == LOCAL
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    assert "set-cookie" not in answer.headers
    assert not [name for name in web.post(CHAT, {"model": "m"}).headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/queue"])
def test_a_local_page_may_read_the_api(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    assert web.request("GET", path, headers={"Origin": LOCAL}).headers["access-control-allow-origin"] == LOCAL
    foreign = web.request("GET", path, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
def test_a_local_page_may_not_load(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    assert web.post(path, {"model": "m"}, {"Origin": LOCAL}).error["code"] == 403
    assert supervisor.of("load") == supervisor.of("unload") == []


@pytest.mark.parametrize("path", ["/", "/ui/models"])
def test_the_dashboard_is_nobody_elses_to_read(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    answer = web.request("GET", path, headers={"Origin": LOCAL})
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in web.request("OPTIONS", path, headers={"Origin": LOCAL}).headers


@pytest.mark.parametrize(
    "path", ["/", "/ui/models", "/v1/models", "/models/load", CHAT, "/static/page.js", "/upstream"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_name_for_pages_shows_nothing_else(web: WebTier, supervisor: FakeSupervisor, path: str, method: str) -> None:
    answer = web.request(method, path, b'{"model": "m"}', {"Host": "Upstream.localhost:1"})
    assert (answer.error["code"], answer.error["message"]) == (404, "File Not Found")
    assert supervisor.seen == []


VISIT = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Upgrade-Insecure-Requests": "1"}


@pytest.mark.parametrize("headers", [VISIT, {"Sec-Fetch-Mode": "navigate"}, {"Upgrade-Insecure-Requests": "1"}])
def test_a_page_by_the_dashboards_name_is_refused_with_its_other_name(
    web: WebTier, supervisor: FakeSupervisor, headers: dict[str, str]
) -> None:
    supervisor.models = [model("m")]
    error = web.request("GET", "/upstream/m/a", headers={"Host": "localhost:8080", **headers}).error
    assert error["code"] == 403
    assert "http://upstream.localhost:8080/upstream/m/a" in error["message"]


@pytest.mark.parametrize(
    "site, autoload", [("none", None), ("same-origin", None), ("same-site", False), ("cross-site", False)]
)
def test_a_visit_of_another_site_loads_nothing(
    web: WebTier, supervisor: FakeSupervisor, serve: Serve, site: str, autoload: bool | None
) -> None:
    supervisor.models = [model("m")]
    serve(lambda call: call.reply(b"{}"))
    headers = {"Host": "upstream.localhost:1", "Sec-Fetch-Site": site, **VISIT}
    assert web.request("GET", "/upstream/m/?autoload=true" if site == "same-site" else "/upstream/m/", headers=headers)
    assert supervisor.of("lease")[0].get("autoload") is autoload


@pytest.mark.parametrize(
    "method, headers",
    [
        ("GET", {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}),
        ("GET", {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}),
        ("GET", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Origin": "https://evil.example"}),
        ("POST", {**VISIT, "Origin": "https://evil.example"}),
    ],
)
def test_other_sites_use_no_page(
    web: WebTier, supervisor: FakeSupervisor, method: str, headers: dict[str, str]
) -> None:
    supervisor.models = [model("m")]
    headers = {"Host": "upstream.localhost:1", "Sec-Fetch-Site": "cross-site", **headers}
    assert web.request(method, "/upstream/m/", headers=headers).error["code"] == 403
    assert supervisor.of("lease") == []


@pytest.mark.parametrize("path", ["/", "/v1/models", "/health", CHAT, "/upstream/m/"])
def test_a_name_of_elsewhere_is_refused(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    method = "POST" if path == CHAT else "GET"
    answer = web.request(method, path, b'{"model": "m"}', {"Host": "evil.example:8080"})
    assert "'evil.example:8080' is no name of this machine" in answer.error["message"]
    assert supervisor.seen == []


def test_a_name_of_elsewhere_is_none_on_a_unix_socket(shared_supervisor: FakeSupervisor, tmp_path: Path) -> None:
    import socket

    (tmp_path / "control.sock").symlink_to(shared_supervisor.path)
    tier = WebTier(tmp_path, family=socket.AF_UNIX)
    tier.start()
    try:
        answer = tier.exchange(b"GET /health HTTP/1.1\r\nHost: llm.example.org\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
    finally:
        tier.close()


def test_listed_origins_and_their_names(open_web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(lambda call: call.reply(b"{}"))
    answer = open_web.post(CHAT, {"model": "m"}, {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"})
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert open_web.post(CHAT, {"model": "m"}, {"Origin": LOCAL}).error["code"] == 403
    assert open_web.request("GET", "/health", headers={"Host": "other.example"}).status == 200


def test_what_is_no_page_is_not_shown_as_one(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    page = "Content-Type: text/html\r\nSet-Cookie: a=b\r\nService-Worker-Allowed: /\r\n"
    serve(lambda call: call.send(f"HTTP/1.1 200 OK\r\n{page}Content-Length: 1\r\n\r\nx".encode()))
    supervisor.models = [model("m")]
    for answer in (web.request("GET", "/upstream/m/"), web.post(CHAT, {"model": "m"})):
        assert answer.headers["content-security-policy"] == "sandbox"
        assert answer.headers["x-content-type-options"] == "nosniff"
    answer = web.request("GET", "/upstream/m/", headers={"Host": "upstream.example.local"})
    assert "content-security-policy" not in answer.headers
    assert not {"service-worker-allowed", "set-cookie"} & set(answer.headers)


@pytest.mark.parametrize("path", ["/", "/ui/events", "/v1/models", "/v1/completions", "/upstream/m/x", "/nope"])
def test_no_path_speaks_websocket(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    error = web.request("GET", path, headers={"Connection": "Upgrade", "Upgrade": "WebSocket"}).error
    assert (error["code"], error["type"]) == (501, "server_error")
    assert "WebSocket" in error["message"]


def test_a_url_without_a_path(web: WebTier, supervisor: FakeSupervisor) -> None:
    raw = "GET http://localhost{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = [web.exchange(raw.format(path).encode()).partition(b"\r\nDate: ") for path in ("", "/")]
    assert answers[0][0] == answers[1][0]
    assert b"Location: /ui/login" in answers[0][2]


@pytest.mark.parametrize("path", ["/", "/ui/events", "/static/base.css"])
def test_the_dashboard_has_no_options(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    assert web.request("OPTIONS", path).error["code"] == 404
