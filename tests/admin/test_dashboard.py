"""The dashboard's pages, forms and live events."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor, model, reason, replica
from web_tier import DEADLINE, Answer, WebTier, read_all, read_until

from supervisor.errors import Refused

VOID = {"meta", "link", "input", "br"}


def asking(web: WebTier, path: str, extra: str = "") -> bytes:
    """The bytes of a GET by an admin."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {web.cookie()}\r\n{extra}\r\n".encode()


def events(web: WebTier) -> bytes:
    """The bytes of a page's request for the event stream."""
    return asking(web, "/ui/events")


class Elements(HTMLParser):
    """Every element with its attributes; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def text(answer: Answer) -> str:
    """What a reader sees, in one line."""
    return " ".join(re.sub("<[^>]*>", " ", answer.body.decode()).split())


def check_page(answer: Answer) -> Elements:
    """A whole page: its headers are strict and nothing in it is against them."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "set-cookie" not in answer.headers
    page = answer.body.decode()
    assert " style=" not in page and "<style" not in page and " on" not in re.sub(">[^<]*<", "><", page)
    return Elements(page)


def test_every_state_in_words(web: WebTier, supervisor: FakeSupervisor) -> None:
    exited = reason("exited", "exited with code 65", code=65, last_lines=["loading", "error: <b>no such file</b>"])
    exited["telling"] = "\x1b[31merror: <b>no such file</b>"
    supervisor.models = [
        model("a", state="ready", in_flight=2, waiting=3, since=time.time() - 300),
        model("b", state="starting", message="loading tensors", progress=0.42),
        model("c", state="failed", reason=exited, restarts=5),
        model("d", description="general chat", aliases=["gpt", "x"]),
        model("e", state="backoff", reason=exited, next_start=time.time() + 7.4),
        model("f", state="ready", draining=True),
        model("g", state="starting"),
        model("h", state="stopped", reason=reason("evicted", "evicted for a")),
        model("i", state="stopping"),
        model("j", state="stopped", stopped_by="reset", reason=exited),
        model("k", incomplete="'/x.gguf': it is incomplete"),
    ]
    answer = web.request("GET", "/")
    page = check_page(answer)
    shown = text(answer)
    assert "11 models: 2 ready, 2 starting, 1 backoff, 1 failed" in shown
    assert "a ready 2 in flight, 3 waiting – unknown 0 5 min ago Unload a Restart a" in shown
    assert "b starting 42 % 42 % loading tensors" in shown
    assert "c failed exited with code 65 error: &lt;b&gt;no such file&lt;/b&gt; Last log lines of c loading" in shown
    assert "<b>no such file" not in answer.body.decode()
    assert "d general chat also gpt, x stopped" in shown
    assert "e backoff exited with code 65; next start in 7 s" in shown
    assert "f ready finishing its requests, then stopping" in shown
    assert "h stopped evicted for a" in shown
    assert "j stopped reset; its last end: exited with code 65 Last log lines of j" in shown
    assert "k stopped '/x.gguf': it is incomplete" in shown.replace("&#39;", "'")
    assert {"max": "100", "value": "42", "aria-label": "Loading b"} in page.of("progress")
    assert {"aria-label": "Loading g"} in page.of("progress")
    assert all("scope" in cell for cell in page.of("th"))


def test_notices_of_the_configuration(web: WebTier, supervisor: FakeSupervisor) -> None:
    told = [("/m/half.gguf", None, None, "passed over: it is incomplete"), ("a.yaml", 7, "models.a.model", "<b>")]
    notices = [dict(zip(("file", "line", "field", "message"), each, strict=True)) for each in told]
    supervisor.facts = {"notices": notices}
    for models in ([], [model("a")]):
        supervisor.models = models
        answer = web.request("GET", "/")
        check_page(answer)
        assert "2 notices about the configuration and the files of models /m/half.gguf passed over" in text(answer)
        assert "a.yaml, line 7 models.a.model &lt;b&gt;" in text(answer)


def test_problems_that_keep_the_files_from_being_used(web: WebTier, supervisor: FakeSupervisor) -> None:
    told = {"file": "presets.d/a.yaml", "line": 4, "field": "models.a.contxt", "message": "no such key"}
    for models in ([], [model("a")]):
        supervisor.models = models
        supervisor.facts = {"problems": [told]}
        answer = web.request("GET", "/")
        check_page(answer)
        assert "is not in use, as something is wrong in them" in text(answer)
        assert "presets.d/a.yaml, line 4 models.a.contxt no such key" in text(answer)
        supervisor.facts = {"problems": []}
        assert "is not in use" not in text(web.request("GET", "/"))


GIB = 1024**3


def test_replicas(web: WebTier, supervisor: FakeSupervisor) -> None:
    exited = reason("exited", "exited with code 1", code=1)
    three = [
        replica("a", in_flight=2),
        replica("a#2", state="backoff", pid=None, reason=exited, restarts=4, next_start=time.time() + 3.4),
        replica("a#3", pid=9, draining=True),
    ]
    supervisor.models = [
        model("a", state="ready", replicas=three),
        model("b", state="ready", replicas=[replica("b")]),
        model("c", replicas=[replica("c", state="stopped"), replica("c#2", state="stopped")]),
    ]
    answer = web.request("GET", "/")
    check_page(answer)
    shown = text(answer)
    assert "a ready 1/3 a ready process 7, 2 in flight a#2" in shown
    assert "a#2 backoff 0 in flight, 4 restarts; exited with code 1; next start in 3 s" in shown
    assert "a#3 ready process 9, 0 in flight; finishing its requests, then stopping" in shown
    assert "b ready 0 in flight" in shown
    assert "c stopped c stopped process" in shown


def test_memory_of_models(web: WebTier, supervisor: FakeSupervisor) -> None:
    estimated = {"need": {"gpu0": 9 * GIB, "host": GIB}, "source": "estimated", "parts": "weights 8.0 GiB", "used": {}}
    measured = {"need": {"host": 5 * GIB}, "source": "measured", "parts": "", "used": {"host": 4 * GIB}}
    unknown = {"need": {}, "source": "unknown", "parts": "", "used": {}}
    memories = {"a": estimated, "b": measured, "c": unknown}
    supervisor.models = [model(name, memory=memory, restarts=8) for name, memory in memories.items()]
    shown = text(web.request("GET", "/"))
    assert "needs 1.0 GiB, gpu0 9.0 GiB (estimated) 8" in shown
    assert "4.0 GiB needs 5.0 GiB (measured) 8" in shown
    assert "0 in flight – unknown 8" in shown


def test_room(web: WebTier, supervisor: FakeSupervisor) -> None:
    states = ("ready", "starting", "stopping", "backoff", "stopped", "failed")
    supervisor.models = [model(state, state=state) for state in states]
    planned = {"host": 3 * GIB, "gpu1": GIB}
    supervisor.facts = {"max_models": 5, "memory": {"budget": {"host": 21 * GIB, "gpu0": 24 * GIB}, "planned": planned}}
    answer = web.request("GET", "/")
    assert [(meter["max"], meter["value"], meter["aria-label"]) for meter in check_page(answer).of("meter")] == [
        ("5", "4", "Models"),
        (str(21 * GIB), str(3 * GIB), "Memory"),
        (str(24 * GIB), "0", "gpu0"),
    ]
    shown = text(answer)
    assert "Models 4 of 5 loaded 4 of 5 loaded Memory 3.0 GiB of 21 GiB planned" in shown
    assert shown.count("gpu1 1.0 GiB planned") == 1


def waiter(model: str, seconds: float, **fields: Any) -> Any:
    """A request in the queue."""
    return {"model": model, "who": "::1 curl/8", "since": time.time() - seconds, "why": "it is loading"} | fields


def test_the_queue(web: WebTier, supervisor: FakeSupervisor) -> None:
    why = {"waiting_since": time.time() - 130, "waiting_for": "room is made by a"}
    supervisor.models = [model("a"), model("b", waiting=2, **why)]
    supervisor.facts = {"queue": [waiter("b", 130, why="room is made by a"), waiter("b", 2, who=None)]}
    answer = web.request("GET", "/")
    page = check_page(answer)
    shown = text(answer)
    assert "2 requests wait Model Client Waits for Since b ::1 curl/8 room is made by a 2 min ago b unknown" in shown
    assert "0 in flight, 2 waiting for 2 min room is made by a" in shown
    assert " more" not in shown
    assert all("scope" in cell for cell in page.of("th"))


def test_a_long_queue(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("b", waiting=512)]
    supervisor.facts = {"queue": [waiter("b", 130)] * 300}
    answer = web.request("GET", "/")
    assert answer.body.count(b"::1 curl/8") == 200
    assert "and 312 more" in text(answer)


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_supervisor_that_tells_of_no_queue(web: WebTier, supervisor: FakeSupervisor, waiting: int) -> None:
    supervisor.models = [model("b", waiting=waiting)]
    answer = web.request("GET", "/")
    check_page(answer)
    assert ("1 request waits" in text(answer)) is bool(waiting)
    assert len(check_page(answer).of("table")) == 1


def test_a_name_that_is_markup(web: WebTier, supervisor: FakeSupervisor) -> None:
    evil = "\"><script>alert('1')</script>"
    supervisor.models = [
        model(
            evil,
            description=evil,
            aliases=[evil],
            state="starting",
            message=evil,
            waiting=1,
            waiting_for=evil,
            replicas=[replica(evil), replica(evil)],
            memory={"need": {evil: 1}, "source": evil, "parts": evil, "used": {evil: 1}},
        )
    ]
    supervisor.facts = {
        "memory": {"budget": {evil: 1}, "planned": {evil: 1}},
        "queue": [waiter(evil, 1, who=evil, why=evil)],
    }
    page = check_page(web.request("GET", "/"))
    assert [script["src"] for script in page.of("script")] == ["/static/models.js"]
    assert {field["value"] for field in page.of("input") if field["type"] == "hidden"} == {evil}


def test_no_models(web: WebTier, supervisor: FakeSupervisor) -> None:
    answer = web.request("GET", "/")
    check_page(answer)
    assert "presets.d beside /etc/llama-router/config.yaml" in text(answer)


def test_the_fragment_is_the_pages_table(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("a"), model("b")]
    fragment = web.request("GET", "/ui/models").body
    assert b"<html" not in fragment
    assert fragment in web.request("GET", "/").body


@pytest.mark.parametrize(
    "path, kind",
    [
        ("live.js", "text/javascript"),
        ("models.js", "text/javascript"),
        ("base.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_static_files(web: WebTier, path: str, kind: str) -> None:
    answer = web.request("GET", f"/static/{path}")
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind)


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("action", ["load", "unload", "restart", "reset"])
def test_buttons_work_as_plain_forms(web: WebTier, supervisor: FakeSupervisor, action: str) -> None:
    answer = web.request("POST", f"/ui/models/{action}", b"model=a%2Fb+c%C3%A9", FORM)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert supervisor.of(action) == [{"op": action, "model": "a/b cé", "wait": False}]


def test_a_refused_button_shows_why(web: WebTier, supervisor: FakeSupervisor) -> None:
    def refuse(_: object) -> Any:
        raise Refused("needs 9 GiB, has <4 GiB>", status=503)

    supervisor.models = [model("a")]
    supervisor.answers["load"] = refuse
    answer = web.request("POST", "/ui/models/load", b"model=a", FORM)
    assert answer.status == 503
    check_page(answer)
    assert b'role="alert" id="error">needs 9 GiB, has &lt;4 GiB&gt;<' in answer.body
    assert "1 model: " not in text(answer) and "1 model, none running" in text(answer)


def test_a_script_is_answered_without_a_page(web: WebTier, supervisor: FakeSupervisor) -> None:
    def refuse(_: object) -> Any:
        raise Refused("needs 9 GiB", status=503)

    script = FORM | {"Accept": "application/json"}
    answer = web.request("POST", "/ui/models/restart", b"model=a", script)
    assert (answer.status, answer.body) == (204, b"")
    supervisor.answers["restart"] = refuse
    answer = web.request("POST", "/ui/models/restart", b"model=a", script)
    assert (answer.status, answer.json["error"]["message"]) == (503, "needs 9 GiB")


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_can_press_no_button(web: WebTier, supervisor: FakeSupervisor, headers: Any) -> None:
    assert web.request("POST", "/ui/models/load", b"model=a", FORM | headers).status == 403
    assert supervisor.of("load") == []


@pytest.mark.parametrize("path", ["/", "/ui/models", "/ui/events"])
def test_supervisor_away(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    supervisor.stop()
    try:
        answer = web.request("GET", path)
    finally:
        supervisor.start()
    assert answer.status == 503
    check_page(answer)
    assert "The supervisor is not answering" in text(answer)
    assert "refresh" in answer.headers
    assert "Traceback" not in answer.body.decode()


def test_events_say_when_to_look_again(web: WebTier, supervisor: FakeSupervisor) -> None:
    with web.connect() as browser:
        browser.sendall(events(web))
        head = read_until(browser, b": connected\n\n")
        assert b"\r\nContent-Type: text/event-stream\r\n" in head
        supervisor.wait_for_followers()
        assert supervisor.emit() == 1
        read_until(browser, b"event: models\ndata:\n\n")
    supervisor.wait_for("hangup")


def test_many_events_are_one_refresh(web: WebTier, supervisor: FakeSupervisor) -> None:
    with web.connect() as browser:
        browser.sendall(events(web))
        read_until(browser, b": connected")  # followers of an earlier test may not be gone yet
        supervisor.wait_for_followers()
        began = time.monotonic()
        for _ in range(500):
            supervisor.emit()
        supervisor.stop()
        received = read_all_chunks(browser)
        refreshes = received.count(b"event: models")
    supervisor.start()
    assert 1 <= refreshes <= 2 + (time.monotonic() - began) / 0.25


def read_all_chunks(browser: Any) -> bytes:
    """Until the last chunk of a chunked answer."""
    return read_until(browser, b"\r\n0\r\n\r\n")


def test_events_end_with_the_supervisor(web: WebTier, supervisor: FakeSupervisor) -> None:
    with web.connect() as browser:
        browser.sendall(events(web))
        read_until(browser, b": connected")  # followers of an earlier test may not be gone yet
        supervisor.wait_for_followers()
        supervisor.stop()
        read_all_chunks(browser)
    supervisor.start()


def test_a_browser_that_goes_away_is_noticed_at_once(web: WebTier, supervisor: FakeSupervisor) -> None:
    with web.connect() as browser:
        browser.sendall(events(web))
        read_until(browser, b": connected")  # followers of an earlier test may not be gone yet
        supervisor.wait_for_followers()
        began = time.monotonic()
    supervisor.wait_for("hangup")
    assert time.monotonic() - began < 5  # the heartbeat, which would notice it too, comes after 15 s


def test_a_thousand_models(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model(f"model-{number:04}") for number in range(1000)]
    assert web.request("GET", "/").body.count(b"<tr data-model") == 1000


def test_the_page_closes_its_connection_on_request(web: WebTier, supervisor: FakeSupervisor) -> None:
    with web.connect() as browser:
        browser.settimeout(DEADLINE)
        browser.sendall(asking(web, "/", "Connection: close\r\n"))
        assert read_all(browser).startswith(b"HTTP/1.1 200 OK\r\n")
