"""What the models API tells of a preset: llama-server's words, and no secrets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.announcements import Announcements, Record
from supervisor.core import facts
from supervisor.core.commands import Announce
from supervisor.core.events import Goal, Notified
from supervisor.core.preset import Preset
from supervisor.core.secrets import without_secrets
from supervisor.core.shape import Layer, Shape
from tests.core.driver import Driver

SHAPE = Shape(
    architecture="llama",
    layers=(Layer(weights=100),),
    context=8192,
    embedding=576,
    feed_forward=1536,
    vocabulary=49152,
    input_weights=20,
    parameters=134515008,
    vocabulary_type=2,
    file_type=3,
)


def preset(**keys: Any) -> Preset:
    return Preset(**{"name": "m", "model": "/m.gguf", **keys})


@pytest.mark.parametrize(
    "keys, context",
    [
        ({}, 8192),  # llama-router's own default, here all that the model was trained for
        ({"context": 512}, 512),
        ({"context": 0}, 8192),
        ({"backend": "llama-server", "context": 512}, 512),  # its slots share their cells
        ({"backend": "llama-server", "context": 4096, "parallel": 4}, 1024),
        ({"backend": "llama-server", "options": {"ctx-size": 256}, "context": 512}, 256),
    ],
)
def test_meta(keys: dict[str, Any], context: int) -> None:
    assert list(facts.meta(preset(**keys), SHAPE).items()) == [
        ("vocab_type", 2),
        ("n_vocab", 49152),
        ("n_ctx", context),
        ("n_ctx_train", 8192),
        ("n_embd", 576),
        ("n_params", 134515008),
        ("size", 120),
        ("ftype", "Q4_1"),
    ]


@pytest.mark.parametrize(
    "number, name", [(None, facts.UNKNOWN_FILE_TYPE), (15, "Q4_K - Medium"), (7777, "unknown, may not work")]
)
def test_file_types(number: int | None, name: str) -> None:
    shape = Shape(**{**vars(SHAPE), "file_type": number})
    assert facts.meta(preset(), shape)["ftype"] == name


def test_architecture() -> None:
    assert facts.architecture(["image"]) == {"input_modalities": ["text", "image"], "output_modalities": ["text"]}


def test_the_preset_as_a_section_of_models_ini() -> None:
    keys = {
        "backend": "llama-server",
        "context": 512,
        "embedding": True,
        "options": {"flash_attn": "on", "--tensor-split": [3, 1], "ctx-size": 256, "note": "a\nb", "hf-token": "hf_x"},
        "env": {"HF_TOKEN": "hf_y"},
    }
    assert facts.ini(preset(**keys)) == (
        "[m]\nmodel = /m.gguf\nctx-size = 256\nembeddings = true\nflash-attn = on\ntensor-split = [3, 1]\n"
        'note = "a\\nb"\n\n'
    )


def test_a_command_in_models_ini() -> None:
    command = Preset(name="w", backend="command", command=("w s", "--port", "{port}", "--api-key", "secret"))
    assert facts.ini(command) == '[w]\ncommand = ["w s", "--port", "{port}", "--api-key", "***"]\n\n'


def test_the_command_line_of_llama_server() -> None:
    keys = {
        "backend": "llama-server",
        "context": 512,
        "options": {"mlock": True, "mmap": False, "n-cpu-moe": 3, "x": None},
    }
    assert facts.llama_server_args(preset(**keys)) == [
        *("llama-server", "--alias", "m", "--model", "/m.gguf", "--ctx-size", "512"),
        *("--mlock", "--no-mmap", "--n-cpu-moe", "3", "--x"),
    ]


def test_settings_as_a_command_line() -> None:
    settings = {"model": "/m.gguf", "n_ctx": 512, "verbose": False, "api_key": "secret", "kv": {"a": 1}}
    assert facts.settings_args("llama-cpp-python", settings) == [
        *("llama-cpp-python", "--model", "/m.gguf", "--n_ctx", "512", "--verbose", "false", "--kv", '{"a": 1}')
    ]


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=5)


@given(
    name=st.sampled_from(["api-key", "hf_token", "my-secret", "password"]),
    before=st.lists(WORDS, max_size=4),
    others=st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), st.integers() | st.booleans() | WORDS),
)
def test_no_secret_of_options_is_shown(name: str, before: list[str], others: dict[str, Any]) -> None:
    secret = "s3cr3t-5555"
    served = preset(backend="llama-server", options={**others, name: secret}, env={"TOKEN": secret})
    shown = [facts.ini(served), *facts.llama_server_args(served), *facts.settings_args("x", served.options)]
    shown += without_secrets([*before, f"--{name}", secret, f"--{name}={secret}"])
    assert secret not in "\n".join(shown)
    section, *lines = facts.ini(served).splitlines()
    assert section == "[m]" and all(" = " in line for line in lines if line)


def test_an_event_tells_whether_the_server_sleeps() -> None:
    records: list[Record] = []
    announcements = Announcements(lambda: 0.0, records.append)
    driver = Driver(preset())
    driver.ask(Goal.LOAD, "m")
    driver.ready("m")
    for sleeping in (True, False):
        driver.send(Notified(driver.instance("m").launch or 0, sleeping=sleeping))
        (announce,) = driver.last(Announce)
        announcements.add(announce, 0.0)
    told = [(each["from"], each["to"], each["sleeping"]) for each in records]
    assert told == [("ready", "ready", True), ("ready", "ready", False)]
