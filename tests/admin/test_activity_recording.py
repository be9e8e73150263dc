"""What is recorded of requests through the real proxy, and what the activity pages make of it."""

from __future__ import annotations

import csv
import io
import json
import socket
import time
import uuid
from urllib.parse import quote

import pytest
import recorded_answers as real
from asking import CHAT, EXPORT, recorded, wait_for
from fake_supervisor import FakeSupervisor, event_of, model
from fake_upstream import Call, Serve
from web_tier import DEADLINE, WebTier, chat_request, read_until


def test_a_request_that_went_well(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reply(real.CHAT))
    before = time.time()
    row = recorded(web, {"model": "m", "messages": "secret"})
    assert before - 1 < row["at"] < time.time()
    told = {"method": "POST", "path": CHAT, "model": "m", "status": 200, "ended": "complete", "key": None}
    told |= {"tokens_in": 32, "tokens_out": 6, "cached": 31, "counted": False, "derived": False}
    assert told.items() <= row.items()
    assert row["bytes"] == len(real.CHAT)
    assert row["rate"] == pytest.approx(98.98, abs=0.01)
    assert 0 <= row["queue"] <= row["first"] <= row["total"] < DEADLINE
    assert "secret" not in json.dumps(row)


def test_a_stream_that_tells_no_tokens_is_counted(web: WebTier, serve: Serve) -> None:
    def stream(call: Call) -> None:
        call.head()
        for event in real.PYTHON_CHAT_STREAM.split(b"\n\n")[:-1]:
            call.chunk(event + b"\n\n")
        call.chunk(b"")

    serve(stream)
    row = recorded(web, {"model": "m", "stream": True})
    assert (row["tokens_in"], row["tokens_out"], row["counted"], row["derived"]) == (None, 6, True, True)
    assert row["rate"] > 0


def test_the_wait_for_a_model_is_the_queue(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(lambda call: call.reply(b"{}"))
    supervisor.gate.clear()
    request_id = uuid.uuid4().hex
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}, f"X-Request-Id: {request_id}\r\n"))
        supervisor.wait_for("lease")
        asked = time.monotonic()
        web.request("GET", "/health")
        waited = time.monotonic() - asked
        supervisor.gate.set()
        read_until(client, b"{}")
    (row,) = wait_for(web, request_id)
    assert row["queue"] >= waited


def test_llama_routers_own_pages_are_not(web: WebTier, supervisor: FakeSupervisor) -> None:
    request_id = uuid.uuid4().hex
    assert web.request("GET", "/metrics", None, {"X-Request-Id": request_id}).status == 200
    recorded(web, {"model": "unknown"})
    assert web.request("GET", f"{EXPORT}?text={request_id}").json == []


def test_a_server_that_dies(web: WebTier, serve: Serve) -> None:
    def die(call: Call) -> None:
        call.head()
        call.chunk(b'data: {"choices": []}\n\n')
        call.reset()

    serve(die)
    row = recorded(web, {"model": "m"})
    assert (row["status"], row["ended"]) == (200, "upstream_died")


def test_a_server_that_dies_before_its_answer_and_the_next_one(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reset())
    serve(lambda call: call.reply(real.CHAT))
    row = recorded(web, {"model": "m"})
    assert (row["status"], row["ended"], row["tokens_out"]) == (200, "complete", 6)


def test_a_client_that_goes_away(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    serve(lambda call: call.wait_for_hangup())
    request_id = uuid.uuid4().hex
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}, f"X-Request-Id: {request_id}\r\n"))
        supervisor.wait_for("lease")
        client.shutdown(socket.SHUT_RDWR)
    (row,) = wait_for(web, request_id)
    assert (row["status"], row["ended"]) == (None, "client_gone")


def test_a_client_that_has_read_all_did_not_go_away(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    def stream(call: Call) -> None:
        call.head()
        call.chunk(real.PYTHON_CHAT_STREAM)
        call.wait_for_hangup()

    serve(stream)
    request_id = uuid.uuid4().hex
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}, f"X-Request-Id: {request_id}\r\n"))
        read_until(client, b"[DONE]")
    (row,) = wait_for(web, request_id)
    assert (row["status"], row["ended"], row["tokens_out"]) == (200, "complete", 6)


def test_upstream_paths_are_readable_and_short(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.models = [model("m")]
    serve(lambda call: call.reply(b"{}"))
    request_id = uuid.uuid4().hex
    web.request("GET", f"/upstream/m/{quote('ä')}{'x' * 500}", None, {"X-Request-Id": request_id})
    (row,) = wait_for(web, request_id)
    assert row["path"].startswith("/upstream/m/äx")
    assert len(row["path"]) == 200


def test_csv_is_no_formula(web: WebTier, supervisor: FakeSupervisor) -> None:
    request_id = f"=1+{uuid.uuid4().hex}"
    recorded_id = web.post(CHAT, {"model": "@evil"}, {"X-Request-Id": request_id})
    assert recorded_id.status == 400
    wait_for(web, request_id)
    answer = web.request("GET", f"/ui/activity/requests.csv?text={quote(request_id, safe='')}")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
    assert (row["request_id"], row["model"], row["status"]) == (f"'{request_id}", "'@evil", "400")


def test_an_empty_export_has_its_header(web: WebTier) -> None:
    text = web.request("GET", "/ui/activity/requests.csv?text=no-such-thing").body.decode()
    assert text.startswith("time,id,at,request_id,") and text.count("\n") == 1


def test_the_page_shows_rows_and_their_details(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reply(real.CHAT))
    row = recorded(web, {"model": "m"})
    page = web.request("GET", f"/ui/activity?text={row['request_id']}&last=15m&outcome=served&model=m").body.decode()
    assert f'data-id="{row["id"]}"' in page and "1 request, 0 failed" in page
    one = web.request("GET", f"/ui/activity/request/{row['id']}").body.decode()
    assert row["request_id"] in one and "32, 31 of them cached" in one
    fresh = web.request("GET", f"/ui/activity/rows?after={row['id'] - 1}&text={row['request_id']}")
    assert f'data-id="{row["id"]}"'.encode() in fresh.body
    assert web.request("GET", f"/ui/activity/rows?after={row['id']}&text={row['request_id']}").status == 204


def test_what_a_client_writes_is_text(web: WebTier, supervisor: FakeSupervisor) -> None:
    request_id = uuid.uuid4().hex
    web.post(CHAT, {"model": "<script>alert(1)</script>"}, {"X-Request-Id": request_id})
    wait_for(web, request_id)
    page = web.request("GET", f"/ui/activity?text={request_id}").body.decode()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    "query", ["before=x", "before=99999999999999999999", "last=9y", "outcome=%27", "from=nan&until=-1"]
)
def test_a_query_that_makes_no_sense(web: WebTier, query: str) -> None:
    assert web.request("GET", f"/ui/activity?{query}").status == 200


@pytest.mark.parametrize("number", ["0", "99999999999999999999999"])
def test_a_request_that_is_not_kept(web: WebTier, number: str) -> None:
    answer = web.request("GET", f"/ui/activity/request/{number}", None, {"Accept": "application/json"})
    assert answer.error["code"] == 404


def test_series_and_recent(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reply(real.CHAT))
    recorded(web, {"model": "m"})
    series = web.request("GET", "/ui/activity/series?model=m&hours=1").json
    assert len(series["at"]) == 240 and sum(series["requests"]) >= 1
    recent = web.request("GET", "/ui/activity/recent.json").json
    assert recent["seconds"] == 60
    assert recent["models"]["m"]["requests"] >= 1


@pytest.mark.parametrize("query", ["", "model=m&hours=0", "model=m&hours=25", "model=m&hours=nan", "hours=1"])
def test_a_series_of_nothing_is_refused(web: WebTier, query: str) -> None:
    answer = web.request("GET", f"/ui/activity/series?{query}", None, {"Accept": "application/json"})
    assert answer.error["code"] == 400


def test_events_newest_first(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.happened = [
        event_of(model="m", text="m: starting"),
        event_of(model="@web", text="@web: ready <now>"),
    ]
    page = web.request("GET", "/ui/activity/events").body.decode()
    assert page.index("web tier") < page.index(">starting<")
    assert "ready &lt;now&gt;" in page
    assert "web tier<" not in web.request("GET", "/ui/activity/events?model=m").body.decode()


def test_the_queue(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("a", waiting=2)]
    supervisor.facts = {"queue": [{"model": "a", "who": "::1 curl", "since": 1760000000.0, "why": "it is loading"}]}
    page = web.request("GET", "/ui/activity/queue").body.decode()
    assert "2 requests wait; the 1 that came first" in page and "it is loading" in page
    supervisor.models, supervisor.facts = [], {}
    assert "Nobody waits" in web.request("GET", "/ui/activity/queue").body.decode()


@pytest.mark.parametrize("path", ["events", "queue"])
def test_supervisor_is_away(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    supervisor.stop()
    try:
        assert web.request("GET", f"/ui/activity/{path}").status == 503
        assert web.request("GET", "/ui/activity").status == 200
    finally:
        supervisor.start()
