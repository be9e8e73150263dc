"""The backend llama-server against programs that only claim to be one: what is found, asked, told and understood."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, Supervisor, refused
from hypothesis import given
from hypothesis import strategies as st
from made_gguf import make
from observed import Process, processes

from supervisor.backends import Place, llama_server_binary, plan, problems
from supervisor.backends.llama_server_binary import binary
from supervisor.backends.llama_server_help import Options
from supervisor.core.preset import Preset
from supervisor.errors import CannotStart

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
                                        (env: LLAMA_ARG_MODEL)
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
--no-host                               bypass host buffer allowing extra buffers to be used
--cpu-strict <0|1>                      use strict CPU placement (default: 0)
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type
--lora FNAME                            path to LoRA adapter (use comma-separated values to load multiple
                                        adapters)
--control-vector-layer-range START END
                                        layer range to apply the control vector(s) to
-l,    --logit-bias TOKEN_ID(+/-)BIAS   modifies the likelihood of token appearing in the completion,
                                        i.e. `--logit-bias 15043+1` to increase likelihood of token ' Hello',
--chat-template-kwargs STRING           sets additional params for the json template parser
--metrics                               enable prometheus compatible metrics endpoint (default: disabled)
--pooling {none,mean,cls,last,rank}     pooling type for embeddings
--host HOST                             ip address to listen, or bind to an UNIX socket if the address ends
                                        with .sock (default: 127.0.0.1)
-np,   --parallel N                     number of server slots (default: -1, -1 = auto)
-hft,  --hf-token TOKEN                 Hugging Face access token
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
                                        (env: LLAMA_ARG_DRAFT_MAX)
--fim-qwen-7b-spec                      use Qwen 2.5 Coder 7B + 0.5B draft (note: can download
                                        weights from the internet)
"""
OPTIONS = Options(HELP)
# Answers as llama-server does, and otherwise does what comes after it.
ANSWERS = f"""\
import os, signal, socket, sys, time
if sys.argv[1:] == ["--version"]:
    print("version: 5000 (abcdef)")
    raise SystemExit
if sys.argv[1:] == ["--help"]:
    print({HELP!r})
    raise SystemExit
def state(text):
    print("cmd_child_to_router:state:" + text, flush=True)
def visit(path):
    gate = socket.socket(socket.AF_UNIX)
    gate.connect(path)
    gate.send(str(os.getpid()).encode())
    gate.recv(1)
def serve(health="200 OK"):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[sys.argv.index("--host") + 1])
    listener.listen()
    while True:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(f"HTTP/1.1 {{health}}\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
        connection.close()
"""


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of other tests is known, and nobody waits as long as people may."""
    monkeypatch.setattr(llama_server_binary, "_known", {})
    monkeypatch.setattr(llama_server_binary, "PATIENCE", 1.0)


def script(path: Path, text: str, python: bool = True) -> Path:
    """An executable file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{text}" if python else text)
    path.chmod(0o755)
    return path


def preset(program: Path | str | None, **keys: Any) -> Preset:
    made = None if program is None else str(program)
    return Preset(name="tiny", backend="llama-server", model="/models/tiny.gguf", binary=made, **keys)


def why(program: Path | str | None, **keys: Any) -> str:
    [(_, message)] = problems(preset(program, **keys))
    return message


# What is found


def test_it_is_found_on_the_path_of_the_preset(tmp_path: Path) -> None:
    made = script(tmp_path / "bin" / "llama-server", ANSWERS)
    found = binary(preset(None, env={"PATH": str(made.parent)}))
    assert (found.path, found.version) == (str(made), "version: 5000 (abcdef)")
    other = script(tmp_path / "bin" / "llama-server-cuda", ANSWERS)
    assert binary(preset("llama-server-cuda", env={"PATH": str(made.parent)})).path == str(other)


def test_what_is_missing_or_no_program_says_what_to_do(tmp_path: Path) -> None:
    plain = script(tmp_path / "plain", ANSWERS)
    plain.chmod(0o644)
    empty = {"PATH": str(tmp_path / "empty")}
    assert re.match("cannot find 'llama-server' on PATH: install .*, or write binary: ", why(None, env=empty))
    assert re.search("nothere': there is no such file; install .*, or correct the path", why(tmp_path / "nothere"))
    assert "is not executable for this user; chmod +x helps" in why(plain)
    assert "it is not a file" in why(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o777)
    assert "it is not a file" in why(tmp_path / "pipe")
    assert problems(preset(None, env=empty))[0][0] == ("backend",)
    assert problems(preset(plain))[0][0] == ("binary",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nsleep 1000\n", "--version did not end within 1s"),
        ("#!/bin/sh\nsleep 1000 & exit 0\n", " did not end within 1s"),
        ("#!/bin/sh\nexec >&- 2>&-; sleep 1000\n", "--version did not end within 1s"),
        ("#!/bin/sh\nexec yes\n", "--version says more than 1 MiB"),
        ("#!/bin/sh\nexec cat /dev/zero\n", "--version says more than 1 MiB"),
        ("#!/bin/sh\nexec head -c 5000 /dev/urandom\n", "its --help lists no --host and --model"),
        ("#!/bin/sh\n", "its --help lists no --host and --model"),
        ("#!/bin/sh\necho libcuda.so.1: cannot open >&2; exit 127\n", "exit code 127 and says 'libcuda.so.1: cannot"),
        ("#!/bin/sh\nkill -SEGV $$\n", "--version ends with signal 11"),
        ("#!/nonexistent/interpreter\n", "it can't be run: No such file"),
        ("\x7fELF garbage", "it can't be run: Exec format error"),
    ],
)
def test_hostile_programs_cost_little_and_leave_nothing(tmp_path: Path, text: str, words: str) -> None:
    hostile = script(tmp_path / "hostile", text, python=False)
    env = {"MARK": str(hostile)}
    started = time.monotonic()
    assert words in why(hostile, env=env)
    assert time.monotonic() - started < 5
    started = time.monotonic()
    assert words in why(hostile, env=env)
    assert time.monotonic() - started < 0.5, "it was asked again"
    for pid, _ in processes(str(hostile)):
        with suppress(ProcessLookupError), Process(pid) as left:
            left.gone(2)


def test_a_build_that_knows_no_unix_sockets_is_too_old(tmp_path: Path) -> None:
    old = script(tmp_path / "old", ANSWERS.replace("with .sock", "without"))
    message = why(old)
    assert "'version: 5000 (abcdef)' is too old, it can't listen on a UNIX socket; install" in message


def test_each_build_is_asked_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    made = script(tmp_path / "counted", f"open({str(count)!r}, 'a').write('x')\n{ANSWERS}")
    for _ in range(3):
        assert not problems(preset(made))
    assert count.read_text() == "xx"  # --version and --help
    os.utime(made, ns=(1, 1))
    assert not problems(preset(made))
    assert count.read_text() == "xxxx"


def test_a_failure_is_forgotten_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server_binary, "FORGET_FAILURE", 0.0)
    flag = tmp_path / "flag"
    made = script(
        tmp_path / "moody", f"import os\nif not os.path.exists({str(flag)!r}): raise SystemExit(1)\n{ANSWERS}"
    )
    assert problems(preset(made))
    flag.touch()
    assert not problems(preset(made))


# What it is told


def arguments(tmp_path: Path, **keys: Any) -> list[str]:
    made = script(tmp_path / "llama-server", ANSWERS)
    planned = plan(preset(made, **keys), Place(tmp_path / "1.sock", tmp_path / "1.json", lambda: 1))
    assert planned.address == f"unix:{tmp_path / '1.sock'}"
    assert planned.argv[:3] == (str(made), "--host", str(tmp_path / "1.sock"))
    return list(planned.argv[3:])


def test_common_keys_become_arguments(tmp_path: Path) -> None:
    keys = {"context": 4096, "gpu_layers": -1, "threads": 3, "parallel": 2, "mmproj": "/models/eyes.gguf"}
    assert " ".join(arguments(tmp_path, **keys)) == (
        "--model /models/tiny.gguf --alias tiny --mmproj /models/eyes.gguf --ctx-size 4096 --gpu-layers 9999 "
        "--parallel 2 --threads 3"
    )
    assert arguments(tmp_path) == ["--model", "/models/tiny.gguf", "--alias", "tiny"]


def test_an_input_to_embed_has_room_in_a_batch_and_its_vectors_are_pooled(tmp_path: Path) -> None:
    words = arguments(tmp_path, embedding=True, context=1024, options={"pooling": "last"})
    assert words[6:] == [
        *("--embedding", "--batch-size", "1024", "--ubatch-size", "1024"),
        *("--pooling", "mean", "--pooling", "last"),
    ]


@pytest.mark.parametrize(
    ("says", "pooling"),
    [
        ({"llama__pooling_type": 3}, []),
        ({"llama__pooling_type": 0}, ["--pooling", "mean"]),
        ({}, ["--pooling", "mean"]),
    ],
)
def test_a_model_that_says_how_to_pool_is_left_to_it(tmp_path: Path, says: dict[str, int], pooling: list[str]) -> None:
    model = make(tmp_path / "m.gguf", **says)
    embedder = Preset(
        name="tiny",
        backend="llama-server",
        model=model,
        binary=str(script(tmp_path / "llama-server", ANSWERS)),
        embedding=True,
    )
    words = plan(embedder, Place(tmp_path / "1.sock", tmp_path / "1.json", lambda: 1)).argv
    assert list(words[words.index("--embedding") + 1 :]) == pooling


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("flash-attn", "on", "--flash-attn on"),
        ("--flash_attn", True, "--flash-attn on"),
        ("fa", False, "-fa off"),
        ("kv-offload", True, "--kv-offload"),
        ("kv_offload", False, "--no-kv-offload"),
        ("no-kv-offload", None, "--no-kv-offload"),
        ("nkvo", "false", "--kv-offload"),
        ("no-host", True, "--no-host"),
        ("metrics", False, ""),
        ("cpu-strict", True, "--cpu-strict 1"),
        ("c", 512, "-c 512"),
        ("tensor-split", [3, 1.5], "--tensor-split 3,1.5"),
        ("override-tensor", ["a=CPU", "b=CPU"], "--override-tensor a=CPU,b=CPU"),
        ("lora", ["a.gguf", "b.gguf"], "--lora a.gguf,b.gguf"),
        ("logit-bias", ["1+1", "2-1"], "--logit-bias 1+1 --logit-bias 2-1"),
        ("control-vector-layer-range", [1, 9], "--control-vector-layer-range 1 9"),
        ("chat-template-kwargs", {"a": False}, '--chat-template-kwargs {"a": false}'),
    ],
)
def test_options_become_arguments(key: str, value: Any, expected: str) -> None:
    assert " ".join(OPTIONS.arguments(key, value)) == expected


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("flash-atn", "on", "this llama-server has no such option; did you mean 'flash-attn'?"),
        ("zzzz", 1, "`llama-server --help` lists what it knows"),
        ("metrics", "loud", "'loud': it takes no value; write true or false"),
        ("ctx-size", None, "null: it takes a value, N"),
        ("ctx-size", True, "true: it takes a value, N"),
        ("lora", [["a"]], "write a list of texts or numbers"),
        ("control-vector-layer-range", [1], "it takes START END"),
        ("host", "0.0.0.0", "llama-router decides where it listens"),
        ("np", 4, "write parallel: beside options"),
        ("hft", "secret", "everybody could read it in the list of processes; write HF_TOKEN into env"),
        ("draft-max", 3, "llama-server has removed it; use --spec-draft-n-max or --spec-ngram-mod-n-max"),
        ("fim-qwen-7b-spec", True, "llama-router loads a file that is there; download it, or use backend: command"),
        ("help", True, "it prints something and ends"),
    ],
)
def test_options_that_cannot_be_given(key: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^cannot be .*{re.escape(words)}$"):
        OPTIONS.arguments(key, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["fa", "kv-offload", "ts", "lora", "logit-bias", "ctx_size"]) | st.text(), json_values)
def test_any_option_is_told_or_refused(key: str, value: Any) -> None:
    try:
        words = OPTIONS.arguments(key, value)
    except ValueError as error:
        assert str(error).startswith("cannot ")
    else:
        assert all(isinstance(word, str) for word in words)
        assert not words or words[0].startswith("-")


@given(st.text(st.sampled_from("-ahost,. \n[]<>|%N"), max_size=200))
def test_any_help_is_read(text: str) -> None:
    Options(text)


def test_all_problems_of_a_preset_come_at_once(tmp_path: Path) -> None:
    made = script(tmp_path / "llama-server", ANSWERS)
    options = {"metrics": True, "flash-atn": "on", "port": 80}
    found = problems(preset(made, options=options, env={"LLAMA_API_KEY": "x"}))
    assert [keys for keys, _ in found] == [("options", "flash-atn"), ("options", "port"), ("env", "LLAMA_API_KEY")]
    with pytest.raises(CannotStart, match=r"cannot start tiny: options\.flash-atn: cannot be given"):
        plan(preset(made, options=options), Place(tmp_path / "1.sock", tmp_path / "1.json", lambda: 1))


# What it says


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as started:
        yield started.start()


def serve(supervisor: Supervisor, does: str, **keys: Any) -> None:
    """Write a preset that is served by a program which does that."""
    program = script(supervisor.directory / "llama-server", f"{ANSWERS}\n{does}\n")
    model = supervisor.directory / "tiny.gguf"
    model.touch()
    body = {"backend": "llama-server", "binary": str(program), "model": str(model), "restart": QUICK, **keys}
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
state('{{"state":"ready","payload":null}}')
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
    watch.text("woke up")
    assert supervisor.model("tiny")["sleeping"] is False
    assert len([event for event in watch.seen if "sleeps" in event["text"]]) == 1


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
