"""The model server with a real model: readiness, OpenAI's API, errors, clients that go away, failures to load."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket as sockets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alone import ASK, DEADLINE, LONG_ANSWER, Server, finish, launch, parse_events, read_answer

# Takes many times longer than PROMPTLY when nobody ends it, as LONG_ANSWER does.
LONG_PROMPT = {"prompt": "word " * 8000, "max_tokens": 1, "temperature": 0}
TOO_LONG = {"prompt": "word " * 9000, "max_tokens": 5}
PROMPTLY = 3.0


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[Server]:
    """One loaded server for all tests that leave it as it was."""
    with tempfile.TemporaryDirectory(prefix="ms-") as folder:
        started = launch(Path(folder), {"model": str(gguf), "model_alias": "smol", "logits_all": False})
        try:
            started.notices.wait_for("READY=1")
            yield started
        finally:
            finish(started)


@pytest.fixture
def own(room: Path, gguf: Path) -> Iterator[Server]:
    """A loading server for a test that ends it."""
    started = launch(room, {"model": str(gguf), "logits_all": False, "n_ctx": 512})
    yield started
    finish(started)


# Readiness


def test_progress_is_reported_and_ready_comes_last(server: Server) -> None:
    progress = [float(notice.split("X_PROGRESS=")[1].split("\n")[0]) for notice in server.notices]
    assert progress[0] == 0.0
    assert progress[-1] == 1.0
    assert progress == sorted(progress)
    assert 2 <= len(progress) <= 103
    assert [notice for notice in server.notices if "READY=1" in notice] == [server.notices[-1]]
    assert "8192 tokens of context" in server.notices[-1]


def test_the_socket_is_private(server: Server) -> None:
    assert server.socket.stat().st_mode & 0o777 == 0o600


def test_the_log_says_what_was_loaded_and_little_else(server: Server) -> None:
    assert server.text(ASK)
    lines = (server.socket.parent / "log").read_text().splitlines()
    assert any("n_ctx " in line for line in lines)
    assert any(line.startswith("loaded ") for line in lines)
    assert len(lines) < 40
    assert not any("eval time" in line for line in lines)


def test_works_without_notify_socket_and_replaces_a_stale_socket(room: Path, gguf: Path) -> None:
    stale = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    stale.bind(str(room / "model.sock"))
    stale.close()
    started = launch(room, {"model": str(gguf), "n_ctx": 512}, env={"NOTIFY_SOCKET": ""})
    try:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                assert started.request({}, "/health", "GET")[0] == 200
                break
            except (ConnectionRefusedError, FileNotFoundError):
                assert time.monotonic() < deadline
                with pytest.raises(subprocess.TimeoutExpired):
                    started.process.wait(0.05)
        assert started.stop() == 0
        assert not started.socket.exists()
    finally:
        finish(started)


# The API


def test_chat(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 8, "temperature": 0}
    status, answer = server.request(body, "/v1/chat/completions")
    assert status == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["model"] == "smol"


def test_stream_says_the_same_as_no_stream(server: Server) -> None:
    events = server.events(ASK)
    assert events[-1] == "[DONE]"
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == server.text(ASK)


def test_embeddings(room: Path, gguf: Path) -> None:
    started = launch(room, {"model": str(gguf), "n_ctx": 512, "embedding": True, "logits_all": False})
    try:
        started.notices.wait_for("READY=1")
        status, answer = started.request({"input": ["one", "two"]}, "/v1/embeddings")
        assert status == 200
        assert [entry["index"] for entry in answer["data"]] == [0, 1]
        assert answer["data"][0]["embedding"] != answer["data"][1]["embedding"]
        # The same model generates, and finds its KV cache emptied by an embedding that was abandoned.
        expected = started.text(ASK)
        for _ in range(3):
            abandoned = started.send({"input": ["word " * 400] * 50}, "/v1/embeddings")
            started.request({}, "/health", "GET")
            abandoned.close()
            assert started.text(ASK) == expected
    finally:
        finish(started)


def test_health_answers_while_the_model_is_busy(server: Server) -> None:
    with server.send(LONG_ANSWER):
        begin = time.monotonic()
        assert server.request({}, "/health", "GET") == (200, {"status": "ok"})
        assert time.monotonic() - begin < PROMPTLY


# Errors


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_context_overflow(server: Server, stream: bool, chat: bool) -> None:
    body: dict[str, Any] = {**TOO_LONG, "stream": stream}
    if chat:
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    status, answer = server.request(body, "/v1/chat/completions" if chat else "/v1/completions")
    assert status == 400
    assert answer["error"]["code"] == "context_length_exceeded"
    assert "maximum context length is 8192 tokens" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "path", "method", "status", "words"),
    [
        ({"prompt": "x", "max_tokens": "many"}, "/v1/completions", "POST", 400, "max_tokens: "),
        ({"messages": [{"role": "x", "content": "y"}]}, "/v1/chat/completions", "POST", 400, "messages.0.role: "),
        (b'{"prompt": ', "/v1/completions", "POST", 400, "invalid JSON"),
        (b"\xff\xfe", "/v1/completions", "POST", 400, "invalid JSON"),
        (
            {"prompt": ["x", "y"]},
            "/v1/completions",
            "POST",
            400,
            "prompt is a list of 2, and this server takes one text",
        ),
        ({"prompt": "x", "logprobs": 1}, "/v1/completions", "POST", 400, "logits_all: true"),
        ({"prompt": "x", "grammar": "root ::= ((("}, "/v1/completions", "POST", 400, "grammar"),
        ({"prompt": "x", "grammar": "root ::= (((", "stream": True}, "/v1/completions", "POST", 400, "grammar"),
        ({"tokens": [999_999_999]}, "/extras/detokenize", "POST", 400, "token ids are 0 to"),
        ({"input": "x"}, "/v1/embeddings", "POST", 400, "embedding: true"),
        ({}, "/nonexistent", "POST", 404, "Not Found"),
        ({}, "/v1/completions", "GET", 405, "Method Not Allowed"),
    ],
)
def test_errors_are_openai_objects(server: Server, body: Any, path: str, method: str, status: int, words: str) -> None:
    got, answer = server.request(body, path, method)
    assert got == status
    assert set(answer["error"]) == {"code", "message", "type", "param"}
    assert words in answer["error"]["message"]
    assert server.process.poll() is None


# Clients that go away


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", [LONG_ANSWER, LONG_PROMPT], ids=["generating", "reading the prompt"])
def test_an_abandoned_request_frees_the_model(server: Server, body: dict[str, Any], stream: bool) -> None:
    expected = server.text(ASK)
    abandoned = server.send({**body, "stream": stream})
    # Its answer comes from the same loop, after the request was taken in.
    server.request({}, "/health", "GET")
    if stream and body is LONG_ANSWER:
        assert abandoned.recv(1)
    abandoned.close()
    begin = time.monotonic()
    assert server.text(ASK) == expected
    assert time.monotonic() - begin < PROMPTLY


def test_an_aborted_computation_leaves_no_trace(server: Server) -> None:
    """A prompt that ends where the aborted decode began must not be answered from that decode's logits."""
    prompt: dict[str, Any] = {"prompt": "Count: one two three four five six", "max_tokens": 8, "temperature": 0}
    pieces = [event["choices"][0]["text"] for event in server.events(prompt)[:-1]]
    follow_ups = [{**prompt, "prompt": prompt["prompt"] + "".join(pieces[:count])} for count in range(5)]
    expected = []
    for follow_up in follow_ups:
        server.text(ASK)
        expected.append(server.text(follow_up))
    for _ in range(3):
        for follow_up, text in zip(follow_ups, expected, strict=True):
            server.text({**ASK, "max_tokens": 1})
            abandoned = server.send({**prompt, "stream": True})
            assert abandoned.recv(1)
            abandoned.close()
            assert server.text(follow_up) == text


def test_a_waiting_request_that_goes_away_disturbs_nobody(server: Server) -> None:
    running = server.send({**LONG_ANSWER, "max_tokens": 60, "stream": True})
    assert running.recv(1, sockets.MSG_PEEK)
    waiting = server.send(LONG_ANSWER)
    behind = server.send(ASK)
    server.request({}, "/health", "GET")
    waiting.close()
    events = parse_events(read_answer(running)[1])
    assert len(events) == 62  # 60 tokens, finish_reason, [DONE]
    begin = time.monotonic()
    assert read_answer(behind)[0] == 200
    assert time.monotonic() - begin < PROMPTLY


def test_a_client_that_does_not_read_does_not_hold_up_the_model(room: Path, gguf: Path) -> None:
    started = launch(room, {"model": str(gguf), "n_ctx": 2048, "logits_all": False})
    try:
        started.notices.wait_for("READY=1")
        # Far more than the buffers of a UNIX socket and the server hold.
        lazy = started.send({**LONG_ANSWER, "max_tokens": 200, "stream": True, "model": "m" * 40_000})
        assert lazy.recv(1, sockets.MSG_PEEK)
        assert started.text(ASK)
        events = parse_events(read_answer(lazy)[1])
        assert events[-1] == "[DONE]"
    finally:
        finish(started)


# Signals


def test_sigterm_lets_a_running_stream_finish(own: Server) -> None:
    own.notices.wait_for("READY=1")
    running = own.send({**LONG_ANSWER, "max_tokens": 40, "stream": True})
    assert running.recv(1, sockets.MSG_PEEK)
    own.process.send_signal(signal.SIGTERM)
    own.notices.wait_for("STOPPING=1")
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        own.connect()
    events = parse_events(read_answer(running)[1])
    assert len(events) == 42
    assert own.process.wait(DEADLINE) == 0
    assert not own.socket.exists()


def test_sigterm_ends_it_while_a_connection_is_kept_alive(own: Server) -> None:
    own.notices.wait_for("READY=1")
    with own.send(ASK) as kept, http.client.HTTPResponse(kept) as answer:
        answer.begin()
        assert answer.read()
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(DEADLINE) == 0
        assert kept.recv(1) == b""


def test_sigterm_while_loading_ends_it_at_once(own: Server) -> None:
    own.notices.next()
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(PROMPTLY) == -signal.SIGTERM
    assert "READY=1" not in "".join(own.notices)


def test_a_second_sigint_does_not_wait(own: Server) -> None:
    own.notices.wait_for("READY=1")
    with own.send({**LONG_ANSWER, "stream": True}) as running:
        assert running.recv(1)
        own.process.send_signal(signal.SIGINT)
        own.notices.wait_for("STOPPING=1")
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(PROMPTLY) == -signal.SIGINT


# Failures to load


def fails(folder: Path, settings: dict[str, Any], **options: Any) -> tuple[int, str, list[str]]:
    """Exit code, last line of the log, and notices of a server that does not get ready."""
    started = launch(folder, settings, **options)
    try:
        code = started.process.wait(DEADLINE)
        log = (folder / "log").read_text()
        assert "Traceback" not in log
    finally:
        finish(started)
    return code, log.splitlines()[-1], started.notices


def damaged(kind: str, gguf: Path, folder: Path) -> Path:
    path = folder / "model.gguf"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        whole = gguf.read_bytes() if kind in ("truncated", "truncated head") else b""
        content = {
            "truncated": whole[: len(whole) // 2],
            "truncated head": whole[:5000],
            "random": bytes(range(1, 251)) * 50,
            "random after the magic": b"GGUF\x03\0\0\0" + bytes(range(1, 251)) * 50,
            "byte order": b"GGUF\0\0\0\x03" + bytes(64),
            "three bytes": b"GGU",
            "empty": b"",
        }
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("truncated", 65, "is corrupted or incomplete"),
        ("truncated head", 65, "failed to read key-value pairs"),
        ("random", 65, "it is not a GGUF file"),
        ("random after the magic", 65, "number of tensors"),
        ("byte order", 65, "GGUF version"),
        ("three bytes", 65, "it is not a GGUF file"),
        ("empty", 65, "the file is empty"),
        ("directory", 66, "it is not a regular file"),
        ("fifo", 66, "it is not a regular file"),
        ("missing", 66, "No such file or directory"),
    ],
)
def test_a_file_that_is_no_model(room: Path, gguf: Path, kind: str, code: int, words: str) -> None:
    path = damaged(kind, gguf, room)
    got, line, notices = fails(room, {"model": str(path)})
    assert got == code
    assert line.startswith(f"cannot load {path}: ")
    assert words in line
    assert not any("READY=1" in notice for notice in notices)
    assert words in notices[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_btch": 3}, "unknown option 'n_btch': did you mean 'n_batch'?"),
        ({"n_batch": "many"}, "option 'n_batch' cannot be 'many'"),
        ({"kv_overrides": ["a=nothing:3"]}, "Unknown value type nothing"),
        ({"type_v": 8}, "requires flash_attn"),
    ],
)
def test_bad_options(room: Path, gguf: Path, options: dict[str, Any], words: str) -> None:
    code, line, _ = fails(room, {"model": str(gguf), "n_ctx": 512, **options})
    assert code == 78
    assert words in line


def test_out_of_memory_is_reported_as_such(room: Path, gguf: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    code, line, notices = fails(room, {"model": str(gguf), "n_ctx": 400_000}, preexec_fn=limit)
    assert code == 71
    assert "out of memory: failed to allocate" in line
    assert "ERRNO=12" in notices[-1].splitlines()


def test_a_socket_that_cannot_be_made(room: Path, gguf: Path) -> None:
    (room / "model.sock").write_text("precious")
    code, line, _ = fails(room, {"model": str(gguf)})
    assert code == 73
    assert line.startswith(f"cannot listen on {room / 'model.sock'}: ")
    assert (room / "model.sock").read_text() == "precious"
