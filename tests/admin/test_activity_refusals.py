"""What is recorded of requests that were not served, and what the activity pages make of it."""

from __future__ import annotations

import csv
import io
import json
import re
import uuid
from contextlib import suppress
from typing import Any

import pytest
from asking import CHAT, recorded, wait_for
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, Serve
from web_tier import WebTier, chat_request, read_all

from supervisor.errors import Refused

SECRET = "sk-secret-prompt"


@pytest.mark.parametrize("status, label", [(429, "m"), (503, "m"), (400, "")])
def test_refusals_are_recorded(web: WebTier, supervisor: FakeSupervisor, status: int, label: str) -> None:
    name = uuid.uuid4().hex
    supervisor.refusals[name] = Refused("no", status=status)
    row = recorded(web, {"model": name})
    assert (row["status"], row["ended"], row["model"], row["queue"]) == (status, "complete", name, None)
    assert (row["reason"], row["outcome"]) == ("no", "failed" if status == 503 else "refused")
    counted = f'llama_router_requests_total{{model="{name if label else ""}",code="{status}"}}'
    assert counted in web.request("GET", "/metrics").body.decode()
    if not label:
        assert name not in web.request("GET", "/metrics").body.decode()


def ask(web: WebTier, method: str, body: bytes | None, **headers: str) -> tuple[dict[str, Any], bytes]:
    """The row of a request, and the answer's body."""
    request_id = uuid.uuid4().hex
    answer = web.request(method, CHAT, body, {"X-Request-Id": request_id, **headers})
    (row,) = wait_for(web, request_id)
    return row, answer.body


@pytest.mark.parametrize(
    "method, body, status",
    [("POST", b"{", 400), ("POST", b"", 400), ("POST", b"{}", 400), ("DELETE", None, 405)],
)
def test_what_was_sent_is_counted_and_its_reason_kept(
    web: WebTier, supervisor: FakeSupervisor, method: str, body: bytes | None, status: int
) -> None:
    supervisor.refusals[None] = Refused("no fallback", status=400)
    row, sent = ask(web, method, body)
    assert (row["status"], row["bytes"]) == (status, len(sent))
    assert row["reason"] == json.loads(sent)["error"]["message"]


def test_of_an_answer_without_a_body_no_bytes_are_counted(web: WebTier, supervisor: FakeSupervisor) -> None:
    row, sent = ask(web, "HEAD", None)
    assert (row["status"], row["bytes"], sent) == (405, 0, b"")


def test_a_body_that_is_not_read_is_a_refusal(web: WebTier) -> None:
    request_id = uuid.uuid4().hex
    with web.connect() as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {request_id}\r\nContent-Length: {2**40}\r\n\r\n"
        client.sendall(head.encode())
        sent = read_all(client).partition(b"\r\n\r\n")[2]
    (row,) = wait_for(web, request_id)
    assert (row["status"], row["outcome"], row["bytes"]) == (413, "refused", len(sent))
    assert row["reason"] == "the request body is larger than 268435456 bytes"


def test_a_long_reason_is_cut(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.refusals["long"] = Refused("é" * 9999, status=503)
    assert recorded(web, {"model": "long"})["reason"] == "é" * 200


ERRORS = [
    ({"error": {"code": 400, "message": SECRET, "type": "exceed_context_size_error"}}, "exceed_context_size_error"),
    ({"error": {"code": "context_length_exceeded", "message": SECRET, "type": "x"}}, "context_length_exceeded"),
    ({"error": {"message": SECRET, "type": f"x {SECRET}"}}, None),
    ({"error": {"message": SECRET, "type": [SECRET], "code": None}}, None),
    ({"error": SECRET}, None),
    ([SECRET], None),
    ({"detail": [{"type": "missing", "input": SECRET}]}, None),
    ({"error": {"message": SECRET * 9999, "type": "server_error"}}, None),
]


@pytest.mark.parametrize("document, kind", ERRORS)
def test_of_a_servers_own_error_the_kind_alone_is_kept(
    web: WebTier, serve: Serve, document: object, kind: str | None
) -> None:
    """Its message may quote what was asked: llama-cpp-python's does."""
    serve(lambda call: call.reply(json.dumps(document).encode(), status="400 Bad Request"))
    row = recorded(web, {"model": "m", "messages": SECRET})
    assert (row["status"], row["outcome"]) == (400, "refused")
    assert row["reason"] == (kind and f"its server answered {kind}")
    assert SECRET not in json.dumps(row)


def test_an_answer_that_only_looks_like_an_error_has_no_reason(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reply(json.dumps(ERRORS[0][0]).encode()))
    row = recorded(web, {"model": "m"})
    assert (row["outcome"], row["reason"]) == ("served", None)


def test_a_stream_that_breaks_off_tells_why(web: WebTier, serve: Serve) -> None:
    begun = b'data: {"choices": []}\n\n'

    def die(call: Call) -> None:
        call.head()
        call.chunk(begun)
        call.reset()

    serve(die)
    request_id = uuid.uuid4().hex
    answer = web.post(CHAT, {"model": "m", "stream": True}, {"X-Request-Id": request_id})
    (row,) = wait_for(web, request_id)
    assert (row["status"], row["outcome"], row["bytes"]) == (200, "failed", len(answer.body))
    assert len(answer.body) > len(begun)
    assert re.fullmatch(r"model 'm': its server .* while it was answering", row["reason"])


def test_a_sized_answer_that_breaks_off_tells_why(web: WebTier, serve: Serve) -> None:
    def die(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        call.reset()

    serve(die)
    request_id = uuid.uuid4().hex
    with web.connect() as client:
        client.sendall(chat_request({"model": "m"}, f"X-Request-Id: {request_id}\r\n"))
        with suppress(ConnectionResetError):
            read_all(client)
    (row,) = wait_for(web, request_id)
    assert (row["outcome"], row["bytes"]) == ("failed", 4)
    assert "while it was answering" in row["reason"]


def test_a_server_that_dies_on_each_request(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reset())
    serve(lambda call: call.reset())
    row = recorded(web, {"model": "m"})
    assert (row["status"], row["outcome"]) == (502, "failed")
    assert row["reason"] == "model 'm': its server died twice while serving this request"


def test_the_reason_is_on_the_pages_and_in_the_csv(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.refusals["n"] = Refused("=<b>no room</b>", status=503)
    row = recorded(web, {"model": "n"})
    page = web.request("GET", f"/ui/activity?text={row['request_id']}").body.decode()
    shown = "=&lt;b&gt;no room&lt;/b&gt;"
    assert f'title="{shown}">{shown}</span>' in page and "1 request, 1 failed" in page
    assert f"<dt>Reason</dt><dd>{shown}</dd>" in web.request("GET", f"/ui/activity/request/{row['id']}").body.decode()
    answer = web.request("GET", f"/ui/activity/requests.csv?text={row['request_id']}&outcome=failed")
    (line,) = csv.DictReader(io.StringIO(answer.body.decode()))
    assert (line["reason"], line["outcome"]) == ("'=<b>no room</b>", "failed")
    assert not [value for value in line if value is None], line


def test_outcomes_are_counted_apart(web: WebTier, supervisor: FakeSupervisor) -> None:
    request_id = uuid.uuid4().hex
    for status in (400, 404, 503):
        supervisor.refusals["n"] = Refused("no", status=status)
        web.post(CHAT, {"model": "n"}, {"X-Request-Id": request_id})
    wait_for(web, request_id, 3)
    page = web.request("GET", f"/ui/activity?text={request_id}").body.decode()
    assert "3 requests, 1 failed, 2 refused ·" in page and "stopped ·" not in page
    assert re.findall(r'class="badge (\w+)">(\d+)', page) == [("failed", "503"), ("backoff", "404"), ("backoff", "400")]


def names(page: bytes) -> tuple[list[str], list[str]]:
    """What the filter offers: models, and names that none has."""
    found = re.search(r'<select name="model" id="models">(.*?)</select>', page.decode(), re.DOTALL)
    assert found is not None
    models, _, strange = found[1].partition("<optgroup")
    return tuple(re.findall(r'<option value="([^"]+)"', part) for part in (models, strange))  # type: ignore[return-value]


def test_names_that_no_model_has_are_told_apart_and_follow(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("b", aliases=["alias"]), model("a")]
    strange = f"0-{uuid.uuid4().hex}"
    page = web.request("GET", "/ui/activity")
    seen = int(re.search(rb'data-seen="(\d+)"', page.body)[1])  # type: ignore[index]
    before = names(page.body)
    assert before[0] == ["a", "alias", "b"] and strange not in before[1]
    assert web.request("GET", f"/ui/activity/rows?after={seen}").status == 204
    supervisor.refusals[strange] = Refused("no such model", status=404)
    recorded(web, {"model": strange})
    fresh = web.request("GET", f"/ui/activity/rows?after={seen}&model=a&text=nothing-like-it")
    assert fresh.status == 200 and names(fresh.body)[1].count(strange) == 1  # also where it is not meant
    assert b"<tr" not in fresh.body and int(re.search(rb'data-seen="(\d+)"', fresh.body)[1]) > seen  # type: ignore[index]
    supervisor.models = [model("c")]
    asked = web.request("GET", f"/ui/activity/rows?after={10**9}&names=1")
    assert names(asked.body)[0] == ["c"]


def test_without_the_supervisor_names_are_what_was_asked_for(web: WebTier, supervisor: FakeSupervisor) -> None:
    strange = f"0-{uuid.uuid4().hex}"
    supervisor.refusals[strange] = Refused("no such model", status=404)
    recorded(web, {"model": strange})
    supervisor.stop()
    try:
        models, others = names(web.request("GET", "/ui/activity?model=chosen").body)
    finally:
        supervisor.start()
    assert strange in models and "chosen" in models and others == []
