"""What a person sees when something breaks, on the real model: one test for each row of the promise."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time

import openai
import pytest
import requests
from harness import DEADLINE
from observed import Process, children, processes, still_there
from served import MODEL, Served, gguf, make_corrupt

LONG = [{"role": "user", "content": "Write a long story about a lighthouse keeper and the sea."}]
PROMPT = [{"role": "user", "content": "word " * 1500}]
Stream = openai.Stream[openai.types.chat.ChatCompletionChunk]


def long_stream(served: Served) -> Stream:
    """A stream that goes on for long, of which the first token has come."""
    stream: Stream = served.openai().chat.completions.create(
        model=MODEL, messages=LONG, max_tokens=1500, temperature=0, stream=True
    )
    next(stream)
    return stream


def pid_of(served: Served, name: str = MODEL) -> int:
    pid: int = served.model(name)["pid"]
    return pid


def test_a_truncated_model_is_not_even_loaded_and_others_go_on(served: Served) -> None:
    truncated = served.directory / "truncated.gguf"
    truncated.write_bytes(gguf().read_bytes()[:5_000_000])
    served.write("truncated", {"models": {"truncated": {"model": str(truncated)}}})
    served.call("reload")
    with pytest.raises(
        openai.InternalServerError, match=r"it has 5000000 bytes, and its tensors take .*; it is incomplete"
    ):
        served.openai().chat.completions.create(model="truncated", messages=LONG)
    assert served.model("truncated")["launch"] is None
    assert served.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=4).choices


def test_a_corrupt_model_fails_with_its_own_words_and_others_go_on(served: Served) -> None:
    corrupt = make_corrupt(served.directory / "corrupt.gguf")
    served.write("corrupt", {"models": {"corrupt": {"model": str(corrupt)}}})
    served.call("reload")
    with pytest.raises(openai.InternalServerError) as caught:
        served.openai().chat.completions.create(model="corrupt", messages=LONG)
    assert "corrupt failed to load: exited with code 65" in str(caught.value)
    with pytest.raises(openai.InternalServerError) as again:
        served.openai().chat.completions.create(model="corrupt", messages=LONG)
    assert again.value.status_code == 503
    model = served.model("corrupt")
    assert model["state"] == "failed"
    assert any("lhama" in line for line in model["reason"]["last_lines"])
    assert served.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=4).choices


def test_kill_9_of_an_idle_model_server_is_repaired_before_anybody_asks(served: Served) -> None:
    served.call("load", model=MODEL, wait=True)
    watch = served.watch(MODEL)
    os.kill(pid_of(served), signal.SIGKILL)
    assert watch.state("backoff")["reason"]["text"] == "killed by SIGKILL"
    watch.state("ready")
    assert served.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=4).choices


def test_kill_9_mid_stream_ends_the_stream_with_an_error_event(served: Served) -> None:
    stream = long_stream(served)
    os.kill(pid_of(served), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="its server died while it was answering"):
        for _ in stream:
            pass
    assert served.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=4).choices


@pytest.mark.parametrize("stream", [False, True])
def test_kill_9_before_the_first_byte_is_retried_on_the_restarted_server(served: Served, stream: bool) -> None:
    served.call("load", model=MODEL, wait=True)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            served.openai().chat.completions.create,
            model=MODEL,
            messages=PROMPT,
            max_tokens=3,
            stream=stream,
        )
        served.eventually(lambda: served.model(MODEL)["in_flight"] == 1, "the request is with its server")
        before = pid_of(served)
        os.kill(before, signal.SIGKILL)
        result = answer.result(60)
    assert list(result) if stream else result.choices[0].message.content
    assert pid_of(served) != before


def test_a_client_that_leaves_while_streaming_frees_everything(served: Served) -> None:
    stream = long_stream(served)
    assert served.model(MODEL)["in_flight"] == 1
    stream.close()
    served.eventually(lambda: served.model(MODEL)["in_flight"] == 0, "the lease is given back")
    assert served.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=2).choices


def test_a_client_that_leaves_while_it_waits_is_forgotten(served: Served) -> None:
    stream = long_stream(served)
    with pytest.raises(requests.exceptions.ReadTimeout):
        body = {"model": MODEL, "messages": LONG, "max_tokens": 4}
        requests.post(f"{served.url}/v1/chat/completions", json=body, timeout=0.3)
    served.eventually(lambda: served.model(MODEL)["waiting"] == 0, "nobody waits")
    assert served.model(MODEL)["in_flight"] == 1
    stream.close()


def test_an_abandoned_long_answer_does_not_keep_the_next_one_waiting(served: Served) -> None:
    body = {"model": MODEL, "messages": LONG, "max_tokens": 1900, "temperature": 0}
    served.call("load", model=MODEL, wait=True)
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(f"{served.url}/v1/chat/completions", json=body, timeout=0.5)
    started = time.monotonic()
    assert served.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=2).choices
    assert time.monotonic() - started < 5


def web_processes(served: Served) -> tuple[int, list[int]]:
    master: int = served.status()["web"]["pid"]
    return master, [pid for pid, state in children(master).items() if state != "Z"]


def test_kill_9_of_a_gunicorn_worker_leaves_models_and_no_lease(own: Served) -> None:
    own.call("load", model=MODEL, wait=True)
    before = pid_of(own)
    stream = long_stream(own)
    assert own.model(MODEL)["in_flight"] == 1
    _, [worker] = web_processes(own)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|Connection"):
        for _ in stream:
            pass
    own.eventually(lambda: own.model(MODEL)["in_flight"] == 0, "the lease of the dead worker is free")
    assert own.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=2).choices
    assert pid_of(own) == before


def test_kill_9_of_the_gunicorn_master_refuses_no_connection(own: Served) -> None:
    own.call("load", model=MODEL, wait=True)
    before, url = pid_of(own), own.url
    stream = long_stream(own)
    watch = own.watch("@web")
    master, workers = web_processes(own)
    with Process(workers[0]) as worker:
        os.kill(master, signal.SIGKILL)
        worker.gone()
    assert requests.get(f"{url}/health", timeout=DEADLINE).json() == {"status": "ok"}
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|Connection"):
        for _ in stream:
            pass
    watch.state("ready")
    assert own.model(MODEL)["in_flight"] == 0
    assert own.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=2).choices
    assert pid_of(own) == before


def test_kill_9_of_the_supervisor_leaves_no_process_within_two_seconds(own: Served) -> None:
    own.call("load", model=MODEL, wait=True)
    stream = long_stream(own)
    left = still_there(pid for pid, _ in processes(str(own.directory)) if pid not in (os.getpid(), own.pid))
    assert len(left) >= 4  # guard, gunicorn's master and worker, the model server
    os.kill(own.pid, signal.SIGKILL)
    own.wait()
    deadline = time.monotonic() + 2
    for process in left:
        with process:
            process.gone(max(0.0, deadline - time.monotonic()))
    stream.close()
    own.process = None


def test_after_a_kill_9_it_starts_again_in_the_same_place(own: Served) -> None:
    os.kill(own.pid, signal.SIGKILL)
    own.wait()
    own.start(until="READY=1")
    assert own.openai().chat.completions.create(model=MODEL, messages=LONG, max_tokens=2).choices


def test_sigterm_lets_a_running_stream_finish_and_exits_0(own: Served) -> None:
    own.serve(MODEL, stop_timeout="30s")
    stream = iter(
        own.openai().chat.completions.create(
            model=MODEL,
            messages=LONG,
            max_tokens=150,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    next(stream)
    url = own.url
    os.kill(own.pid, signal.SIGTERM)
    with pytest.raises(requests.exceptions.ConnectionError):
        while True:
            requests.get(f"{url}/health", timeout=DEADLINE)
    chunks = list(stream)
    assert any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)
    assert own.wait() == 0
    assert list(own.runtime.iterdir()) == [own.runtime / "lock"]


def test_sigterm_cuts_a_stream_that_outlasts_stop_timeout(own: Served) -> None:
    own.serve(MODEL, stop_timeout="500ms")
    stream = long_stream(own)
    started = time.monotonic()
    os.kill(own.pid, signal.SIGTERM)
    with pytest.raises(Exception, match=r"server died|peer closed|incomplete|disconnected"):
        for _ in stream:
            pass
    assert own.wait() == 0
    assert time.monotonic() - started < 8
