"""Forms: "model" is found wherever it stands, tricks are refused, and the form is forwarded as it came."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest
from fake_supervisor import FakeSupervisor
from fake_upstream import Call, Serve
from hypothesis import given
from hypothesis import strategies as st
from web_tier import WebTier, read_all

from admin import turns
from admin.multipart import MAX_HEAD, ModelField, is_form
from supervisor.errors import Refused

PATH = "/v1/audio/transcriptions"
BOUNDARY = "----boundary-4711"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
MISSING = "model name is missing from the request"


def part(name: str, value: bytes, extra: str = "") -> bytes:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


FILE = part("file", b"RIFF\x00\xff\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r\n", '; filename="a.wav"')
MODEL = part("model", b"m")


def model_of(body: bytes, content_type: str = TYPE, size: int = 0) -> str | None:
    field = ModelField(content_type)
    for start in range(0, len(body), size or len(body) or 1):
        field.feed(body[start : start + (size or len(body))])
    return field.model()


@pytest.mark.parametrize(
    "content_type", [TYPE, f'Multipart/Form-Data; charset=x; boundary="{BOUNDARY}"', f"{TYPE}; boundary={BOUNDARY}"]
)
@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize(
    "body",
    [
        form(MODEL, FILE),
        form(FILE, MODEL),
        form(FILE, MODEL, MODEL, part("models", b"x")),
        b"preamble\r\n" + form(MODEL),
    ],
)
def test_the_model_is_found(body: bytes, size: int, content_type: str) -> None:
    assert model_of(body, content_type, size) == "m"


@pytest.mark.parametrize(
    "body, message",
    [
        (b"", "cannot read the form"),
        (b"no form", "cannot read the form"),
        (MODEL, "cannot read the form"),
        (form(MODEL)[:-5], "cannot read the form"),
        (form(MODEL, part("model", b"other")), "names more than one model"),
        (form(part("model", b"m", '; filename="m"')), MISSING),
        (form(part("model", b"\xff")), "not UTF-8"),
        (form(part("model", b"x" * 1025)), "more than 1024 characters"),
        (form(part("model", b"x" * 10_000_000)), "more than 1024 characters"),
        (form(MODEL).replace(b"\r\n", b"\n"), "cannot read the form"),
        (form(part("a", b"", "; x=" + "y" * MAX_HEAD)), "headers of a part have more than"),
        (form(*[part("a", b"")] * 1001), "more than 1000 parts"),
        (form(f"--{BOUNDARY}\r\nX: y\r\n\r\nx\r\n".encode()), "cannot read the form"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_such_form(body: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message) as error:
        model_of(body, size=32768)
    assert error.value.status == 400


@pytest.mark.parametrize("body", [form(), form(FILE), form(part("model", b"")), form(part("Model", b"m"))])
def test_no_model(body: bytes) -> None:
    assert model_of(body) is None


@pytest.mark.parametrize("boundary", ["", "; boundary=", '; boundary=""', "; boundary=" + "x" * 71, "; boundary=é"])
def test_a_boundary_that_is_none(boundary: str) -> None:
    with pytest.raises(Refused, match="no boundary"):
        ModelField(f"multipart/form-data{boundary}")


@given(st.binary(max_size=300), st.integers(0, 20))
def test_whatever_a_form_holds(noise: bytes, at: int) -> None:
    body = form(MODEL, FILE)
    try:
        found = model_of(body[:at] + noise + body[at:], size=13)
    except Refused as refusal:
        assert refusal.status == 400
    else:
        assert found is None or isinstance(found, str)


EMPTY = part("empty", b"")
NEARLY = part("near", b"a\r\n--" + BOUNDARY.encode() + b"x\r\n\r\n--" + BOUNDARY.encode() + b" \t-\r\n-")


@pytest.mark.parametrize("size", range(1, 40))
def test_every_way_a_form_may_arrive(size: int) -> None:
    bare = f"--{BOUNDARY} \t\r\nContent-Disposition: form-data; name=x\r\n\r\n".encode()
    body = (
        b"\r\n\r\n" + form(EMPTY, NEARLY, FILE, bare + b"\r\n", MODEL, EMPTY) + b"epilogue" + form(part("model", b"x"))
    )
    assert model_of(body, size=size) == "m"


class Counting(ModelField):
    """Counts its steps, each of which takes a time that is bounded by what was fed."""

    steps = 0

    def _read_data(self) -> bool:
        self.steps += 1
        return super()._read_data()


def test_what_looks_like_a_boundary_is_no_step() -> None:
    field = Counting("multipart/form-data; boundary=B")
    field.feed(b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n')
    for _ in range(16):
        field.feed(b"\r\n--B!" * 10_000)
    field.feed(b"\r\n--B--\r\n")
    assert field.model() is None
    assert field.steps < 50


def test_others_are_served_between_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    others = gevent.spawn(lambda: None)
    ModelField(TYPE).feed(form(FILE, MODEL))
    assert others.dead


def test_a_part_that_ends_where_it_begins() -> None:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n'.encode()
    for size in range(1, 30):
        assert model_of(head + form(FILE), size=size) is None


def test_is_form() -> None:
    assert is_form(TYPE) and is_form("MULTIPART/form-data ;x")
    assert not is_form("application/json") and not is_form("") and not is_form("multipart/mixed")


def test_a_form_is_forwarded_as_it_came(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.granted = {"backend": "llama-server", "request": {"set": {"a": 1}, "remove": []}}
    upstream = serve(lambda call: call.reply(b'{"text": ""}'))
    body = form(FILE, MODEL)
    assert web.request("POST", f"{PATH}?autoload=1", body, {"Content-Type": TYPE}).status == 200
    call = upstream.call()
    assert call.line == f"POST {PATH}?autoload=1 HTTP/1.1"
    assert (call.body, call.headers["content-type"]) == (body, TYPE)
    assert call.headers["content-length"] == str(len(body))


def test_the_fallback(web: WebTier, serve: Serve) -> None:
    serve(lambda call: call.reply(b"{}"), model=None)
    assert web.request("POST", PATH, form(FILE), {"Content-Type": TYPE}).status == 200


@pytest.mark.parametrize("body", [form(FILE), form(part("model", b"", '; filename=""'))])
def test_the_missing_model(web: WebTier, supervisor: FakeSupervisor, body: bytes) -> None:
    assert web.request("POST", PATH, body, {"Content-Type": TYPE}).error["message"] == MISSING


def test_a_form_that_says_it_is_json(web: WebTier, supervisor: FakeSupervisor) -> None:
    error = web.request("POST", PATH, form(MODEL), {"Content-Type": "application/json"}).error
    assert "cannot parse the request body as JSON" in error["message"]


def test_a_form_whose_connection_ends_early(web: WebTier, supervisor: FakeSupervisor) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: 1000\r\n\r\n"
    with web.connect() as client:
        client.sendall(head.encode() + MODEL)
        client.shutdown(1)
        assert read_all(client) == b""
    assert supervisor.of("lease") == []


def test_a_large_form_lies_on_the_disk(web: WebTier, supervisor: FakeSupervisor, serve: Serve) -> None:
    """200 MiB, of which no process of the web tier holds more than a small part."""
    sizes: list[int] = []

    def count(call: Call) -> None:
        length, got = int(call.headers["content-length"]), len(call.body)
        while got < length:
            got += len(call.connection.recv(1 << 20))
        sizes.append(got)
        call.reply(b"{}")

    upstream = serve(count)
    upstream.reads_body = False
    (pid,) = web.worker_pids()
    before = peak(pid)
    chunk = b"\r\n--" + b"x" * (2**20 - 4)
    head, tail = part("file", b"", '; filename="a.wav"')[:-2], b"\r\n" + form(MODEL)
    length = len(head) + 200 * len(chunk) + len(tail)
    with web.connect() as client:
        client.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {TYPE}\r\n"
            f"Content-Length: {length}\r\n\r\n".encode()
        )
        client.sendall(head)
        for _ in range(200):
            client.sendall(chunk)
        client.sendall(tail)
        assert read_all(client).startswith(b"HTTP/1.1 200 ")
    assert sizes == [length]
    assert peak(pid) - before < 40 * 2**20


def peak(pid: int) -> int:
    """The most memory a process ever held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
