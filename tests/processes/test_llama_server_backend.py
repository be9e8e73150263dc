"""The backend llama-server before anything runs: which program is found, what it is asked, and what it is told."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_llama_server import ANSWERS, HELP, script
from hypothesis import given
from hypothesis import strategies as st
from made_gguf import make
from observed import Process, processes

from supervisor.backends import Place, llama_server_asking, plan, problems
from supervisor.backends.llama_server_binary import Binary, Programs
from supervisor.backends.llama_server_help import Options
from supervisor.core.preset import Preset
from supervisor.errors import CannotStart
from supervisor.memory import Memory

OPTIONS = Options(HELP)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits as long as people may."""
    monkeypatch.setattr(llama_server_asking, "PATIENCE", 2.0)


@pytest.fixture
def programs() -> Programs:
    return Programs()


def preset(program: Path | str | None, **keys: Any) -> Preset:
    made = None if program is None else str(program)
    return Preset(name="tiny", backend="llama-server", model="/models/tiny.gguf", binary=made, **keys)


def binary(asked: Preset) -> Binary:
    found = Programs().of(asked)
    assert found is not None
    return found


def why(program: Path | str | None, programs: Programs | None = None, **keys: Any) -> str:
    [(_, message)] = problems(preset(program, **keys), (programs or Programs()).of)
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
    assert problems(preset(None, env=empty), Programs().of)[0][0] == ("backend",)
    assert problems(preset(plain), Programs().of)[0][0] == ("binary",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nsleep 1000\n", "--version did not end within 2s"),
        ("#!/bin/sh\nsleep 1000 & exit 0\n", " did not end within 2s"),
        ("#!/bin/sh\nexec >&- 2>&-; sleep 1000\n", "--version did not end within 2s"),
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
def test_hostile_programs_cost_little_and_leave_nothing(
    tmp_path: Path, programs: Programs, text: str, words: str
) -> None:
    hostile = script(tmp_path / "hostile", text, python=False)
    env = {"MARK": str(hostile)}
    started = time.monotonic()
    assert words in why(hostile, programs, env=env)
    assert time.monotonic() - started < 5
    started = time.monotonic()
    assert words in why(hostile, programs, env=env)
    assert time.monotonic() - started < 2, "it was asked again"
    for pid, _ in processes(str(hostile)):
        with suppress(ProcessLookupError), Process(pid) as left:
            left.gone(2)


def test_a_build_that_knows_no_unix_sockets_is_too_old(tmp_path: Path) -> None:
    old = script(tmp_path / "old", ANSWERS.replace("with .sock", "without"))
    message = why(old)
    assert "'version: 5000 (abcdef)' is too old, it can't listen on a UNIX socket; install" in message


def test_each_build_is_asked_once(tmp_path: Path, programs: Programs) -> None:
    count = tmp_path / "count"
    made = script(tmp_path / "counted", f"open({str(count)!r}, 'a').write('x')\n{ANSWERS}")
    for number in range(3):
        assert not problems(preset(made, env={"CUDA_VISIBLE_DEVICES": str(number)}), programs.of)
    assert count.read_text() == "xx"  # --version and --help
    programs.settle()
    os.utime(made, ns=(1, 1))
    assert not problems(preset(made), programs.of)
    assert count.read_text() == "xxxx"
    assert not problems(preset(made, env={"LD_LIBRARY_PATH": "/opt"}), programs.of)
    assert count.read_text() == "xxxxxx"


def test_a_failure_can_be_forgotten(tmp_path: Path, programs: Programs) -> None:
    flag = tmp_path / "flag"
    made = script(
        tmp_path / "moody", f"import os\nif not os.path.exists({str(flag)!r}): raise SystemExit(1)\n{ANSWERS}"
    )
    assert problems(preset(made), programs.of)
    flag.touch()
    assert problems(preset(made), programs.of)
    programs.settle()
    assert not problems(preset(made), programs.of)


# What it is told


def arguments(tmp_path: Path, **keys: Any) -> list[str]:
    made = script(tmp_path / "llama-server", ANSWERS)
    planned = plan(preset(made, **keys), Place(tmp_path / "1.sock", tmp_path / "1.json", lambda: 1), Memory(None))
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
        *("--batch-size", "1024", "--ubatch-size", "1024"),
        *("--embedding", "--pooling", "last"),
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
    memory = Memory(None)
    assert memory.why_no_model(model) is None
    words = plan(embedder, Place(tmp_path / "1.sock", tmp_path / "1.json", lambda: 1), memory).argv
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
    found = problems(preset(made, options=options, env={"LLAMA_API_KEY": "x"}), Programs().of)
    assert [keys for keys, _ in found] == [("options", "flash-atn"), ("options", "port"), ("env", "LLAMA_API_KEY")]
    with pytest.raises(CannotStart, match=r"cannot start tiny: options\.flash-atn: cannot be given"):
        plan(preset(made, options=options), Place(tmp_path / "1.sock", tmp_path / "1.json", lambda: 1), Memory(None))
