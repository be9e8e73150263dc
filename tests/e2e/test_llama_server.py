"""llama.cpp's own llama-server as a backend: the real binary, found on PATH or made by `make peers`."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from harness import refused
from observed import DEADLINE, Process
from served import MODEL, Served, gguf, make_corrupt

pytestmark = pytest.mark.slow

NATIVE = "native"
LONG = [{"role": "user", "content": "Write a long story about a lighthouse keeper and the sea."}]
ASK: dict[str, Any] = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}


def llama_server() -> str:
    """Where it is. Skips where it is missing."""
    made = Path(sys.prefix) / "peers" / "bin" / "llama-server"
    found = shutil.which("llama-server") or (str(made) if made.exists() else None)
    if found is None:
        pytest.skip("there is no llama-server on PATH, and none that `make peers` made")
    return found


class Native(Served):
    """A supervisor whose models are served by llama-server."""

    def native(self, name: str = NATIVE, **keys: Any) -> None:
        """Write a preset. One thread: two spin for each other where the machine is busy."""
        given = {"backend": "llama-server", "binary": llama_server(), "threads": 1, "options": {"no-warmup": True}}
        self.serve(name, **{**given, **keys})

    def pid_of(self, name: str = NATIVE) -> int:
        pid: int = self.model(name)["pid"]
        return pid

    def ask(self, name: str = NATIVE, **keys: Any) -> str:
        answer = self.openai().completions.create(model=name, **{**ASK, **keys})
        assert answer.model == name
        return str(answer.choices[0].text)

    def endless(self, name: str = NATIVE) -> openai.Stream[openai.types.Completion]:
        """A stream that goes on until its context is full."""
        stream: openai.Stream[openai.types.Completion] = self.openai().completions.create(
            model=name, prompt="Once", max_tokens=1900, stream=True, extra_body={"ignore_eos": True}
        )
        return stream

    def directly(self, path: str, name: str = NATIVE) -> tuple[int, Any]:
        """GET a path of the model server itself, on its socket."""
        status, body = self.get(path, name)
        return status, json.loads(body)

    def get(self, path: str, name: str = NATIVE) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.runtime / f"{self.model(name)['launch']}.sock"))
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def native() -> Iterator[Native]:
    """Serves native and smollm2, loaded on demand; shared by the tests."""
    with Native() as supervisor:
        supervisor.native(options={"no-warmup": True, "metrics": True}, parallel=2)
        supervisor.serve(MODEL)
        yield supervisor.start(until="READY=1")


def test_it_completes_chats_and_names_the_model(native: Native) -> None:
    watch = native.watch(NATIVE)
    answer = native.openai().chat.completions.create(
        model=NATIVE, messages=[{"role": "user", "content": "What is 2+2?"}], max_tokens=8, temperature=0
    )
    assert answer.model == NATIVE
    assert answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert watch.state("ready")
    assert any(event["kind"] == "progress" and event["progress"] == 1.0 for event in watch.seen)
    assert "Paris" in native.ask()


def test_it_streams(native: Native) -> None:
    stream = native.openai().completions.create(model=NATIVE, stream=True, **ASK)
    pieces = [chunk.choices[0].text for chunk in stream if chunk.choices]
    assert len(pieces) > 2 and "Paris" in "".join(pieces)


def test_the_words_for_a_router_are_no_log(native: Native) -> None:
    native.call("load", model=NATIVE, wait=True)
    log = native.logs(NATIVE)
    assert any("model loaded" in line for line in log)
    assert not any("cmd_child" in line for line in log)


def test_its_own_paths_are_reached_through_the_proxy(native: Native) -> None:
    body = {"model": NATIVE, "content": "The capital of France"}
    answer = requests.post(f"{native.url}/tokenize", json=body, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["tokens"]) == 4
    slots = requests.get(f"{native.url}/slots", params={"model": NATIVE}, timeout=DEADLINE)
    assert [slot["n_ctx"] for slot in slots.json()] == [1024, 1024]


def test_slots_metrics_and_its_own_page_answer_on_its_socket(native: Native) -> None:
    native.call("load", model=NATIVE, wait=True)
    assert len(native.directly("/slots")[1]) == 2
    assert native.directly("/props")[1]["model_alias"] == NATIVE
    status, text = native.get("/metrics")
    assert status == 200 and b"llamacpp:" in text
    place = native.runtime / f"{native.model(NATIVE)['launch']}.sock"
    assert place.is_socket() and native.runtime.stat().st_mode & 0o777 == 0o700


def test_two_requests_are_computed_at_once(native: Native) -> None:
    native.call("load", model=NATIVE, wait=True)
    streams = [native.endless() for _ in range(2)]
    for _ in range(3):
        assert all(next(stream).choices for stream in streams)
    assert native.model(NATIVE)["in_flight"] == 2
    for stream in streams:
        stream.close()
    native.eventually(lambda: native.model(NATIVE)["in_flight"] == 0, "the leases are given back")


def test_kill_9_under_load_is_retried_on_the_restarted_server(native: Native) -> None:
    native.call("load", model=NATIVE, wait=True)
    before = native.pid_of()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        prompt = "word " * 700
        answer = pool.submit(native.ask, prompt=prompt)
        native.eventually(lambda: native.model(NATIVE)["in_flight"] == 1, "the request is with its server")
        os.kill(before, signal.SIGKILL)
        assert answer.result(60)
    assert native.pid_of() != before
    assert native.model(NATIVE)["reason"]["text"] == "killed by SIGKILL"


def test_a_stream_ends_with_an_error_when_its_server_is_killed(native: Native) -> None:
    stream = native.endless()
    next(stream)
    os.kill(native.pid_of(), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="its server died while it was answering"):
        for _ in stream:
            pass
    assert native.ask()


def test_it_unloads_with_exit_code_0_and_at_once(native: Native) -> None:
    native.call("load", model=NATIVE, wait=True)
    with Process(native.pid_of()) as process:
        native.call("unload", model=NATIVE, wait=True)
        process.gone(0)
    watch = native.watch(NATIVE)
    watch.text("stopped: unloaded on request")
    assert not any("SIGKILL" in event["text"] for event in watch.seen[-2:])
    assert any("exit command received" in line for line in native.logs(NATIVE))


def test_an_unknown_option_is_an_error_of_the_configuration(native: Native) -> None:
    place = native.presets / "wrong.yaml"
    place.write_text(
        f"models:\n  wrong:\n    backend: llama-server\n    binary: {llama_server()}\n    model: {gguf()}\n"
        "    options:\n      temp: 0\n      flash-atn: on\n      host: 0.0.0.0\n"
    )
    try:
        with refused() as caught:
            native.call("reload")
    finally:
        place.unlink()
    assert [str(problem) for problem in caught[0].problems] == [
        f"{place}:8: models.wrong.options.flash-atn: cannot be given: this llama-server has no such option; "
        "did you mean 'flash-attn'?",
        f"{place}:9: models.wrong.options.host: cannot be given: llama-router decides where it listens",
    ]


def test_a_broken_file_is_loaded_once(native: Native) -> None:
    native.native("broken", model=str(make_corrupt(native.directory / "broken.gguf")))
    try:
        with pytest.raises(openai.InternalServerError, match="failed to load: exited with code 1"):
            native.ask("broken")
        model = native.model("broken")
        assert (model["state"], model["restarts"]) == ("failed", 0)
        assert any("unknown model architecture: 'lhama'" in line for line in model["reason"]["last_lines"])
    finally:
        native.remove("broken")


def test_a_value_that_it_does_not_take_fails_once_with_its_words(native: Native) -> None:
    native.native("odd", options={"cache-type-k": "q99"})
    try:
        with refused() as caught:
            native.call("load", model="odd", wait=True)
        assert "exited with code 1" in str(caught[0])
        assert any("Unsupported cache type" in line for line in native.model("odd")["reason"]["last_lines"])
        assert native.model("odd")["restarts"] == 0
    finally:
        native.remove("odd")


def test_embeddings(native: Native) -> None:
    native.native("vectors", embedding=True, context=1024)
    try:
        texts = ["word " * 700, "other"]
        answer = native.openai().embeddings.create(model="vectors", input=texts, encoding_format="float")
        assert [len(each.embedding) for each in answer.data] == [576, 576]
        assert answer.data[0].embedding != answer.data[1].embedding
    finally:
        native.remove("vectors")


def test_it_sleeps_when_told_to_and_wakes_up_for_a_request(native: Native) -> None:
    native.native("sleepy", options={"no-warmup": True, "sleep-idle-seconds": 1, "log-colors": "on"})
    try:
        watch = native.watch("sleepy")
        assert "Paris" in native.ask("sleepy")
        watch.text("sleeps until somebody asks")
        assert native.model("sleepy")["sleeping"] is True
        assert native.directly("/health", "sleepy")[0] == 200
        assert native.model("sleepy")["sleeping"] is True
        for _ in range(4):  # what it says can break into a line of its log, but need not
            assert "Paris" in native.ask("sleepy")
            watch.text("wakes up")
            watch.text("woke up")
            watch.text("sleeps until somebody asks")
        assert not [line for line in native.logs("sleepy") if "cmd_child" in line]
        native.call("unload", model="sleepy", wait=True)
        assert native.model("sleepy")["sleeping"] is False
    finally:
        native.remove("sleepy")


def test_replicas(native: Native) -> None:
    native.native("twins", replicas=2, parallel=1)
    try:
        streams = [native.endless("twins") for _ in range(2)]
        assert all(next(stream).choices for stream in streams)
        replicas = native.model("twins")["replicas"]
        assert [replica["in_flight"] for replica in replicas] == [1, 1]
        assert len({replica["pid"] for replica in replicas}) == 2
        for stream in streams:
            stream.close()
    finally:
        native.remove("twins")


def test_the_watchdog_lets_it_compute_and_kills_it_when_it_hangs(native: Native) -> None:
    native.native("watched", watchdog="1s")
    try:
        watch = native.watch("watched")
        native.call("load", model="watched", wait=True)
        stream = native.endless("watched")
        until = time.monotonic() + 2.0
        assert any(time.monotonic() > until for _ in stream), "the computation is too short to show anything"
        stream.close()
        assert native.model("watched")["restarts"] == 0
        os.kill(native.pid_of("watched"), signal.SIGSTOP)
        assert "watchdog" in watch.state("backoff")["reason"]["text"]
        watch.state("ready")
    finally:
        native.remove("watched")


@pytest.fixture
def one_at_a_time() -> Iterator[Native]:
    """Room for one model; who waits takes it over after a tenth of a second."""
    with Native(max_models=1, config="max_wait: 100ms\n") as supervisor:
        supervisor.native()
        supervisor.serve(MODEL)
        yield supervisor.start(until="READY=1")


def test_the_two_kinds_of_server_make_room_for_each_other(one_at_a_time: Native) -> None:
    for name, other in ((NATIVE, MODEL), (MODEL, NATIVE), (NATIVE, MODEL)):
        assert "Paris" in one_at_a_time.ask(name)
        assert one_at_a_time.model(other)["pid"] is None
    reason = one_at_a_time.model(MODEL)["reason"]["text"]
    assert reason == f"evicted for {NATIVE}"


def test_unloading_while_it_loads_kills_it(one_at_a_time: Native) -> None:
    one_at_a_time.native("slow", weights="gemma", options={})
    watch = one_at_a_time.watch("slow")
    one_at_a_time.call("load", model="slow")
    watch.state("starting")
    with Process(one_at_a_time.pid_of("slow")) as process:
        one_at_a_time.call("unload", model="slow", wait=True)
        process.gone(0)
    assert watch.state("stopped")["reason"]["text"] == "unloaded on request"


def test_kill_9_of_the_supervisor_leaves_none_behind_and_its_socket_does_not_matter(one_at_a_time: Native) -> None:
    assert one_at_a_time.ask()
    with Process(one_at_a_time.pid_of()) as process:
        os.kill(one_at_a_time.pid, signal.SIGKILL)
        one_at_a_time.wait()
        process.gone(2)
    one_at_a_time.start(until="READY=1")
    assert "Paris" in one_at_a_time.ask()
    assert one_at_a_time.model(NATIVE)["restarts"] == 0


def test_keys_of_the_environment_do_not_lock_it_up() -> None:
    with Native(env={"LLAMA_API_KEY": "secret", "LLAMA_ARG_API_PREFIX": "/x"}) as supervisor:
        supervisor.native()
        supervisor.start(until="READY=1")
        assert "Paris" in supervisor.ask()
        assert requests.get(f"{supervisor.url}/health", timeout=DEADLINE).status_code == 200
