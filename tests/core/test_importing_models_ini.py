"""llama-server's models.ini read into presets, and the table of its options."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import yaml_positions
from supervisor.errors import CannotImport
from supervisor.importing import ini, server_options, server_settings, written
from tests.core.imported import keys, read, said, section, swap


def test_every_broken_line_of_an_ini_is_told() -> None:
    with pytest.raises(CannotImport) as caught:
        read("[a]\nmodel = /m\nnonsense\n[b\nmodel = /m\n= 3\n")
    assert [problem.line for problem in caught.value.problems] == [3, 4, 6]


def test_an_ini_is_read_as_llama_cpp_reads_it() -> None:
    sections, faults = ini.parse("; c\nk = 1 # c\r\n[ a b ] ; c\rmodel=/a;b\n  x.y-z_1 =  two words \n[]\n")
    assert [(each.line, each.name) for each in sections] == [(1, "default"), (3, "a b"), (6, "")]
    assert [(entry.line, entry.key, entry.value) for each in sections for entry in each.entries] == [
        (2, "k", "1"),
        (4, "model", "/a"),
        (5, "x.y-z_1", "two words"),
    ]
    assert [line for line, _ in faults] == [6]


@given(st.lists(st.sampled_from(["[", "]", "a", "=", ";", "#", " ", "\n", "\r", "[*]\n", "c = 1\n", "é"])))
def test_no_line_of_an_ini_is_lost(parts: list[str]) -> None:
    text = "".join(parts)
    sections, faults = ini.parse(text)
    told = {entry.line for each in sections for entry in each.entries} | {line for line, _ in faults}
    headers = {each.line for each in sections}
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        content = line.strip(" \t")
        assert number in told or number in headers or not content or content[0] in ";#"


def test_global_keys_become_defaults_and_names_meet() -> None:
    found = read("[*]\nc = 4096\nngl = 99\n[a]\nmodel = /m\nctx-size = 8192\n[b]\nmodel = /n\nLLAMA_ARG_CTX_SIZE = 0\n")
    assert found.defaults == {"backend": "llama-server", "context": 4096, "gpu_layers": 99}
    assert (keys(found, "a")["context"], keys(found, "b")["context"]) == (8192, 0)
    assert said(found) == []


def test_a_flag_that_one_model_turns_is_no_default() -> None:
    found = read("[*]\nno-mmap = 1\njinja = 1\n[a]\nmodel = /m\nmmap = on\n[b]\nmodel = /n\n")
    assert found.defaults["options"] == {"jinja": True}
    assert keys(found, "a")["options"] == {"mmap": True}
    assert keys(found, "b")["options"] == {"no-mmap": True}


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("jinja = true", {"jinja": True}),
        ("jinja = false", {"no-jinja": True}),
        ("no-jinja = true", {"no-jinja": True}),
        ("no-jinja = 0", {"jinja": True}),
        ("metrics = off", None),
        ("metrics = on", {"metrics": True}),
        ("temp = 0.70", {"temperature": "0.70"}),
        ("temp = 0.7", {"temperature": 0.7}),
        ("b = 0512", {"batch-size": "0512"}),
        ("b = 512", {"batch-size": 512}),
        ('chat-template-kwargs = {"a": 1}', {"chat-template-kwargs": '{"a": 1}'}),
        ("fa = on", {"flash-attn": "on"}),
        ("md = draft.gguf", {"model-draft": "/etc/x/draft.gguf"}),
        ("lora = a.gguf,b.gguf", {"lora": "a.gguf,b.gguf"}),
    ],
)
def test_options_have_their_long_names_and_values(line: str, options: dict[str, Any] | None) -> None:
    assert keys(section(line)).get("options") == options


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("ngl = all", "gpu_layers", -1),
        ("ngl = -2", "gpu_layers", -1),
        ("ngl = 20", "gpu_layers", 20),
        ("ngl = auto", "gpu_layers", None),
        ("np = 3", "parallel", 3),
        ("t = 8", "threads", 8),
        ("t = -1", "threads", None),
        ("embedding = 1", "embedding", True),
        ("mm = p.gguf", "mmproj", "/etc/x/p.gguf"),
        ("load-on-startup = 1", "autostart", True),
        ("load-on-startup = no", "autostart", None),
        ("stop-timeout = 90", "stop_timeout", "1min30s"),
        ("sleep-idle-seconds = 60", "idle_timeout", "1min"),
        ("alias = x, y ,a,", "aliases", ["x", "y"]),
        ("c = 4096", "max_concurrency", 4),
    ],
)
def test_keys_of_a_preset(line: str, key: str, value: object) -> None:
    found = section(line)
    assert keys(found).get(key) == value
    assert said(found) == []


def test_auto_undoes_a_number_that_all_models_have() -> None:
    found = read("[*]\nngl = 5\nnp = 2\n[a]\nmodel = /m\nngl = auto\nnp = -1\n")
    assert found.drafts[0].keys["gpu_layers"] is None
    assert (found.drafts[0].keys["parallel"], found.drafts[0].keys["max_concurrency"]) == (None, 4)


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ("host = 0.0.0.0", "3: [a].host: cannot carry over 'host'"),
        ("api-key = secret", "3: [a].api-key: cannot carry over 'api-key'"),
        ("models-max = 2", "max_models"),
        ("tags = x", "description"),
        ("dedup-cache-models = 1", "presets only"),
        ("stop-timeout = soon", "cannot read 'soon' as seconds"),
        ("temperatur = 1", "did you mean 'temperature'?"),
        ("temp =", "3: [a].temp: has no value"),
        ("control-vector-layer-range = 1 2", "two values"),
        ("c = 99999999999", "3"),
        ("c = 1\nc = 2", "3: [a].c: is given again in line 4, which counts"),
        ("c = 1\nctx-size = 2", "3: [a].c: means the same as 'ctx-size' in line 4, which counts"),
        ("ctx-size = 2\nc = 1", "4: [a].c: means the same as 'ctx-size' in line 3, which counts"),
    ],
)
def test_what_an_ini_cannot_bring_along_is_told(line: str, remark: str) -> None:
    found = section(line)
    assert said(found, remark) or "99999" in line, found.remarks
    assert len(found.remarks) > len(section().remarks)


def test_a_key_without_remark_is_in_the_preset() -> None:
    for key in server_options.all_keys():
        found = section(f"{key} = 7")
        everything = str(keys(found)) + " ".join(said(found))
        option = server_options.by_key(key).option  # type: ignore[union-attr]
        assert any(part in everything for part in ("7", key, option.name.removesuffix("s"), option.negated) if part), (
            key
        )


def test_a_repository_becomes_a_command_that_downloads() -> None:
    found = read("[*]\nc = 4096\n[acme/x-GGUF:q4_k_m]\nno-mmap = 1\n[b]\nhf = acme/y\n")
    assert keys(found, "acme/x-GGUF:Q4_K_M") == {
        "backend": "command",
        "context": 4096,
        "aliases": ["acme/x-GGUF:q4_k_m"],
        "command": [
            *("llama-server", "--ctx-size", "4096", "--no-mmap", "--hf-repo", "acme/x-GGUF:Q4_K_M", "--port", "{port}")
        ],
        "ready": {"http": "/health"},
        "max_concurrency": 4,
    }
    assert len(said(found, "download the file")) == 2


def test_a_section_without_a_model_is_left_to_be_completed() -> None:
    found = read("[b]\nmodel = /m\n[tiny]\nc = 1\n")
    text = written.to_yaml(found)
    assert "#   tiny:" in text
    assert yaml_positions.parse(text.encode(), "y").value["models"].keys() == {"b"}  # type: ignore[index, union-attr]
    assert said(found, "3: [tiny]: names no model")


def test_the_last_of_two_sections_counts() -> None:
    found = read("[a]\nmodel = /m\nc = 1\n[a]\nmodel = /n\n")
    assert (keys(found)["model"], keys(found).get("context")) == ("/n", None)
    assert said(found, "1: [a]: is given again in line 4")


# The options of llama-server


def test_the_table_of_options_is_sound() -> None:
    for key in server_options.all_keys():
        option = server_options.by_key(key).option  # type: ignore[union-attr]
        own = server_options.by_argument(f"--{option.name}")
        assert own is not None and own.option == option and not own.is_negated
        if option.negated:
            off = server_options.by_argument(f"--{option.negated}")
            assert off is not None and off.option == option and off.is_negated
            assert option.values == 0


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["-c", "5"], "5"),
        (["--ctx_size", "5"], "5"),
        (["-fa"], "on"),
        (["-fa", "off"], "off"),
        (["-fa", "-c", "5"], "on"),
        (["--no-mmap"], False),
        (["--mmap"], True),
        (["--lora", "a", "--lora", "b"], "a,b"),
    ],
)
def test_a_command_line_is_read(arguments: list[str], value: object) -> None:
    parsed = server_settings.parse(arguments, 1, "cmd")
    assert next(iter(parsed.settings.values())).value == value
    assert parsed.strays == []


def test_arguments_that_mean_nothing_are_strays() -> None:
    parsed = server_settings.parse(["stray", "--nonsense", "-c=5", "--port"], 1, "cmd")
    assert [argument for argument, _ in parsed.strays] == ["stray", "--nonsense", "-c=5", "--port"]


ARGUMENTS = st.lists(st.sampled_from(["-c", "5", "-fa", "--jinja", "--no-mmap", "-m", "/m", "x", "--y", "{port}"]))


@given(ARGUMENTS)
def test_every_argument_is_a_setting_a_value_or_a_stray(arguments: list[str]) -> None:
    parsed = server_settings.parse(arguments, 1, "cmd")
    told = [argument for argument, _ in parsed.strays]
    for each in parsed.settings.values():
        told += [each.written, *([each.value] if isinstance(each.value, str) else [])]
    assert set(arguments) <= {*told, *_values_that_were_replaced(arguments)}


def _values_that_were_replaced(arguments: list[str]) -> set[str]:
    """What follows an option that is given again."""
    return {after for before, after in itertools.pairwise(arguments) if arguments.count(before) > 1}


def test_an_argument_given_again_is_told() -> None:
    found = swap("llama-server -m /m -c 4 --port ${PORT} --ctx-size 5 --jinja --jinja")
    assert keys(found)["context"] == 5
    assert said(found) == ["3: models.a.cmd: cannot carry over '-c': it is given again, and the last counts"]


def test_a_hundred_thousand_unknown_keys_take_seconds() -> None:
    started = time.monotonic()
    found = section(*(f"unknown-{number} = 1" for number in range(100_000)))
    assert len(said(found, "cannot use unknown key")) == 100_000
    assert time.monotonic() - started < 60
