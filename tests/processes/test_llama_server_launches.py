"""A llama-server that runs: what is understood of its log, how it is asked to end, and what is left of it."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_llama_server import ANSWERS, script
from harness import QUICK, Supervisor, refused
from made_gguf import make


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as started:
        yield started.start()


def serve(supervisor: Supervisor, does: str, **keys: Any) -> None:
    """Write a preset that is served by a program which does that."""
    program = script(supervisor.directory / "llama-server", f"{ANSWERS}\n{does}\n")
    model = make(supervisor.directory / "tiny.gguf")
    body = {"backend": "llama-server", "binary": str(program), "model": model, "restart": QUICK, **keys}
    supervisor.write("tiny", {"models": {"tiny": body}})
    supervisor.call("reload")


def test_it_is_ready_when_it_is_healthy_and_its_progress_shows(supervisor: Supervisor) -> None:
    loading = '{"state":"loading","payload":{"stages":["text_model","mmproj_model"],"current":"%s","value":%s}}'
    gate = supervisor.gate("loading")
    comes = f"visit({str(gate.path)!r})"
    steps = [loading % ("text_model", 0.5), loading % ("mmproj_model", 0.5), "{", '{"state":[]}', "[]", '{"state":1}']
    ready = 'state(\'{"state":"ready","payload":{}}\')'
    serve(supervisor, "\n".join([*(f"state({step!r})" for step in steps), comes, ready, "serve()"]))
    supervisor.call("load", model="tiny")
    watch = supervisor.watch("tiny")
    assert [watch.next(lambda event: event["kind"] == "progress")["progress"] for _ in range(2)] == [0.25, 0.75]
    visitor = gate.visitor()
    assert supervisor.model("tiny")["state"] == "starting"
    visitor.go()
    watch.state("ready")
    assert not [line for line in supervisor.logs("tiny") if "cmd_child" in line]


def test_its_word_that_it_is_ready_is_not_enough(supervisor: Supervisor) -> None:
    serve(supervisor, 'state(\'{"state":"ready"}\'); serve("503 Service Unavailable")', start_timeout="500ms")
    with refused() as caught:
        supervisor.call("load", model="tiny", wait=True)
    assert "not ready within 500ms" in str(caught[0])


def test_sleeping_is_shown_until_it_wakes_up(supervisor: Supervisor) -> None:
    gate = supervisor.gate("sleep")
    comes = f"visit({str(gate.path)!r})"
    does = f"""
import threading
threading.Thread(target=serve, daemon=True).start()
{comes}
state('{{"state":"sleeping","payload":null}}')
state('{{"state":"sleeping","payload":null}}')
{comes}
print("4.08.960.017 ", end="")
state('{{"state":"loading","payload":{{"stages":["text_model"],"current":"text_model","value":0.5}}}}')
{comes}
print("4.08.965.524 ", end="")
state('{{"state":"ready","payload":null}}')
print("I srv    load_model: initializing", flush=True)
{comes}
state('{{"state":"sleeping","payload":null}}')
signal.pause()
"""
    serve(supervisor, does)
    supervisor.load("tiny")
    watch = supervisor.watch("tiny")
    assert supervisor.model("tiny")["sleeping"] is False
    gate.visitor().go()
    watch.text("sleeps until somebody asks")
    second = gate.visitor()
    assert supervisor.model("tiny")["sleeping"] is True
    second.go()
    watch.text("wakes up")
    third = gate.visitor()
    assert (supervisor.model("tiny")["sleeping"], supervisor.model("tiny")["progress"]) == (True, 0.5)
    third.go()
    watch.text("woke up")
    fourth = gate.visitor()
    assert (supervisor.model("tiny")["sleeping"], supervisor.model("tiny")["progress"]) == (False, None)
    assert len([event for event in watch.seen if "sleeps" in event["text"]]) == 1
    fourth.go()
    watch.text("sleeps until somebody asks")
    assert supervisor.logs("tiny") == ["I srv    load_model: initializing"]


@pytest.mark.parametrize(
    ("line", "kind", "restarts"),
    [
        ("E ggml_aligned_malloc: insufficient memory (attempted to allocate 43948.12 MB)", "out_of_memory", 0),
        ("E cudaMalloc failed: out of memory", "out_of_memory", 0),
        ("E load_model: error loading model: unable to allocate CUDA0 buffer", "out_of_memory", 0),
        ("E tensor 'x' data is not within the file bounds, model is corrupted or incomplete", "exited", 0),
        ("error: invalid argument: --x", "exited", 0),
        ("W failed to allocate 3.00 MiB of pinned memory: no", "exited", 3),
        ("E something else", "exited", 3),
    ],
)
def test_why_it_ended(supervisor: Supervisor, line: str, kind: str, restarts: int) -> None:
    serve(supervisor, f"print({line!r}, file=sys.stderr); raise SystemExit(1)")
    with refused():
        supervisor.call("load", model="tiny", wait=True)
    model = supervisor.model("tiny")
    assert (model["state"], model["reason"]["kind"], model["restarts"]) == ("failed", kind, restarts)
    assert line in model["reason"]["last_lines"]


def test_for_want_of_memory_another_model_makes_room(supervisor: Supervisor) -> None:
    supervisor.load("other")
    flag = supervisor.directory / "flag"
    does = f"""
if not os.path.exists({str(flag)!r}):
    open({str(flag)!r}, "w")
    sys.exit("E alloc_tensor_range: failed to allocate CUDA0 buffer of size 46082949120")
serve()
"""
    serve(supervisor, does)
    supervisor.load("tiny")
    assert supervisor.model("other")["reason"]["text"] == "evicted for tiny"
    assert supervisor.model("tiny")["state"] == "ready"


def test_an_abort_for_want_of_memory_is_told_from_another(supervisor: Supervisor) -> None:
    serve(supervisor, "print('what():  std::bad_alloc', file=sys.stderr, flush=True); os.abort()")
    with refused() as caught:
        supervisor.call("load", model="tiny", wait=True)
    assert "out of memory" in str(caught[0])
    assert supervisor.model("tiny")["reason"]["signal"] == "SIGABRT"


def test_it_is_asked_to_end_on_its_stdin_before_it_is_signalled(supervisor: Supervisor) -> None:
    told = supervisor.directory / "told"
    does = f"""
import threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=serve, daemon=True).start()
open({str(told)!r}, "w").write(sys.stdin.read())
"""
    serve(supervisor, does, stop_timeout="10s")
    supervisor.load("tiny")
    started = time.monotonic()
    supervisor.call("unload", model="tiny", wait=True)
    assert time.monotonic() - started < 5
    assert told.read_text() == "cmd_router_to_child:exit\n"


def test_one_that_hears_nothing_is_killed_in_the_end(supervisor: Supervisor) -> None:
    serve(supervisor, "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve()", stop_timeout="200ms")
    supervisor.load("tiny")
    watch = supervisor.watch("tiny")
    supervisor.call("unload", model="tiny", wait=True)
    watch.text("sending SIGKILL")
    watch.text("stopped: unloaded on request")


def test_a_program_that_vanishes_says_so_at_the_next_start(supervisor: Supervisor) -> None:
    serve(supervisor, "serve()")
    supervisor.load("tiny")
    (supervisor.directory / "llama-server").unlink()
    supervisor.call("unload", model="tiny", wait=True)
    with refused() as caught:
        supervisor.call("load", model="tiny", wait=True)
    assert "there is no such file; install" in str(caught[0])
    model = supervisor.model("tiny")
    assert (model["state"], model["reason"]["kind"]) == ("failed", "cannot_start")


def test_a_reload_finds_the_program_missing_and_keeps_what_runs(supervisor: Supervisor) -> None:
    serve(supervisor, "serve()")
    supervisor.load("tiny")
    body = {"backend": "llama-server", "binary": "./nothere", "model": "../tiny.gguf"}
    supervisor.write("tiny", {"models": {"tiny": body}})
    with refused() as caught:
        supervisor.call("reload")
    [problem] = caught[0].problems
    assert problem.field == "models.tiny.binary"
    assert f"'{supervisor.presets}/nothere': there is no such file" in problem.message
    assert supervisor.model("tiny")["state"] == "ready"


def test_no_descriptor_stays_open(supervisor: Supervisor) -> None:
    serve(supervisor, "serve()")

    def run_once() -> int:
        supervisor.load("tiny")
        supervisor.call("unload", model="tiny", wait=True)
        return len(list(Path(f"/proc/{supervisor.pid}/fd").iterdir()))

    first = run_once()
    # Connections of the test that are being closed count now and then.
    assert [run_once() for _ in range(8)][-1] - first < 4


def test_its_socket_is_where_only_this_user_reaches_it(supervisor: Supervisor) -> None:
    serve(supervisor, "serve()")
    launch = supervisor.load("tiny")["launch"]
    assert (supervisor.runtime / f"{launch}.sock").is_socket()
    assert stat.S_IMODE(supervisor.runtime.stat().st_mode) == 0o700
    supervisor.call("unload", model="tiny", wait=True)
    assert not (supervisor.runtime / f"{launch}.sock").exists()
