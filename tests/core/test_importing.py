"""Importing configurations of other programs: text in, presets and remarks out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import importing, presets_dir, yaml_positions
from supervisor.errors import CannotImport
from supervisor.importing import ini, macros, server_options, server_settings, written, yaml_check
from supervisor.importing.draft import Draft, Imported
from supervisor.importing.macros import CannotExpand, Macros

SAMPLES = Path(__file__).resolve().parents[1] / "importing"
MODEL = "models: {a: {cmd: %s}}"


def read(text: str | bytes, kind: str | None = None, environment: Mapping[str, str] | None = None) -> Imported:
    data = text.encode() if isinstance(text, str) else text
    found = importing.read(data, PurePath("/etc/x/file"), kind, environment or {})
    yaml_check.check(found, Path("/etc/x"))
    return found


def swap(cmd: str, **keys: Any) -> Imported:
    """A llama-swap with the one model "a"."""
    return read(written.dump({"models": {"a": {"cmd": cmd, **keys}}}))


def section(*lines: str) -> Imported:
    """A models.ini with the one section "a"."""
    return read("\n".join(["[a]", "model = /m.gguf", *lines]))


def keys(found: Imported, name: str = "a") -> dict[str, Any]:
    """The keys of one draft over the defaults."""
    draft = next(draft for draft in found.drafts if draft.name == name)
    return {**found.defaults, **draft.keys}


def said(found: Imported, *about: str) -> list[str]:
    """The remarks, but for those on files of models that are not there and on what this version has not got."""
    usual = ("No such file", "has no effect in this version", "not part of this version")
    texts = [str(remark).removeprefix("/etc/x/file:") for remark in found.remarks]
    texts = [text for text in texts if not any(part in text for part in usual)]
    return [text for text in texts if all(part in text for part in about)]


# Which of the two it is


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("[a]\nmodel = /m\n", "llama-server"),
        ("; comment\n\nmodel = /m\n", "llama-server"),
        ("version = 1\r\n[a]\r\nmodel = /m\r\n", "llama-server"),
        ("models:\n  a: {cmd: 'x --port ${PORT}'}\n", "llama-swap"),
        ("# comment\r\nmodels:\r\n  a:\r\n    cmd: |\r\n      x ${PORT}\r\n      [b]\r\n      k = v\r\n", "llama-swap"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_content_tells_whose_file_it_is(text: str, origin: str, mark: bytes) -> None:
    assert read(mark + text.encode()).origin == origin


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"# nothing",
        b"models:",
        b"models: []",
        b"[1, 2]",
        b"hello",
        b"[a]\n",
        b"\x00\x01\x02",
        b"\x7fELF\xff\xfe",
        "[a]\nmodel = ä".encode("utf-16"),
        b"{" * 5000,
        b"[" * 5000,
        b"a: &a [*a]",
        b"--- 1\n--- 2\n",
        b"GGUF" * 1000,
    ],
)
@pytest.mark.parametrize("kind", [None, *importing.KINDS])
def test_what_is_neither_is_refused_with_what_to_do(data: bytes, kind: str | None) -> None:
    with pytest.raises(CannotImport) as caught:
        read(data, kind)
    assert caught.value.exit_code == 65
    assert all(problem.message.startswith("cannot ") for problem in caught.value.problems)
    assert kind is not None or "--from" in str(caught.value)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for kind in (None, *importing.KINDS):
        try:
            read(data, kind)
        except CannotImport as error:
            assert error.problems


def test_every_broken_line_of_an_ini_is_told() -> None:
    with pytest.raises(CannotImport) as caught:
        read("[a]\nmodel = /m\nnonsense\n[b\nmodel = /m\n= 3\n")
    assert [problem.line for problem in caught.value.problems] == [3, 4, 6]


def test_an_alias_bomb_is_refused() -> None:
    levels = "\n".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 9))
    with pytest.raises(CannotImport, match="more than 200000 values"):
        read(f"x0: &x0 [1]\n{levels}\nmodels: {{a: {{cmd: x}}}}\n")


def test_duplicate_keys_of_yaml_are_refused_with_their_lines() -> None:
    with pytest.raises(CannotImport, match=r":3: cannot use key 'a' twice"):
        read("models:\n  a: {cmd: x}\n  a: {cmd: y}\n")


# models.ini


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


# llama-swap


def test_a_llama_server_becomes_one() -> None:
    found = swap("llama-server --port ${PORT} --host 127.0.0.1 -m m.gguf -c 4096 -np 2 -ngl 99 -t 4 --jinja")
    assert keys(found) == {
        "backend": "llama-server",
        "model": "/etc/x/m.gguf",
        "context": 4096,
        "gpu_layers": 99,
        "parallel": 2,
        "threads": 4,
        "options": {"jinja": True},
    }
    assert said(found) == []


def test_comments_and_joined_lines_of_a_command() -> None:
    found = swap("# one\nllama-server \\\n  -m '/a b.gguf' \\  \n # two ${nothing}\n --port ${PORT}\n\n")
    assert keys(found)["model"] == "/a b.gguf"


def test_a_macro_in_a_comment_is_no_part_of_the_command() -> None:
    found = swap("# ${run} is a macro\n${run} -m /m", macros={"run": "llama-server\n--port ${PORT}\n"})
    assert keys(found)["model"] == "/m"
    assert said(found) == []


@pytest.mark.parametrize(
    ("cmd", "why"),
    [
        ("llama-server --port ${PORT} -hf a/b", "downloads this model by itself"),
        ("llama-server --port ${PORT}", "names no model's file"),
        ("llama-server --port ${PORT} -m /m --slot-save-path /tmp/${PORT}", "for more than --port"),
        ("llama-server --port ${PORT} -m /m --control-vector-layer-range 1 2", "takes two values"),
    ],
)
def test_a_llama_server_that_only_a_command_can_be(cmd: str, why: str) -> None:
    found = swap(cmd)
    assert keys(found)["command"] == cmd.replace("${PORT}", "{port}").split()
    assert keys(found)["ready"] == {"http": "/health"}
    assert said(found, "models.a.cmd: ", why)


@pytest.mark.parametrize("cmd", ["vllm serve m --port ${PORT}", "env A=1 llama-server -m /m --port ${PORT}"])
def test_other_programs_become_commands(cmd: str) -> None:
    found = swap(cmd)
    assert keys(found) == {
        "backend": "command",
        "command": cmd.replace("${PORT}", "{port}").split(),
        "ready": {"http": "/health"},
        "max_concurrency": 10,
    }


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("ttl", 60, {"idle_timeout": "1min"}),
        ("ttl", 0, {"idle_timeout": "never"}),
        ("ttl", -1, {"idle_timeout": None}),
        ("unloadTimeout", 30, {"stop_timeout": "30s"}),
        ("concurrencyLimit", 3, {"max_concurrency": 3}),
        ("concurrencyLimit", 0, {"max_concurrency": 10}),
        ("checkEndpoint", "/ok", {"ready": {"http": "/ok"}}),
        ("checkEndpoint", "none", {"ready": "tcp"}),
        ("aliases", ["x", "a", "x"], {"aliases": ["x"]}),
        ("env", ["A=1", "B=x=y", "C="], {"env": {"A": "1", "B": "x=y", "C": ""}}),
        ("name", "N", {"description": "N"}),
        ("useModelName", "x/y", {"request": {"set": {"model": "x/y"}}}),
        ("filters", {"stripParams": "a, model,b,a,"}, {"request": {"remove": ["a", "b"]}}),
        ("filters", {"strip_params": "a"}, {"request": {"remove": ["a"]}}),
        (
            "filters",
            {"setParams": {"model": "x", "t": [1, {"a": None}]}},
            {"request": {"set": {"t": [1, {"a": None}]}}},
        ),
        ("proxy", "http://localhost:${PORT}", {"ready": {"http": "/health"}}),
        ("unlisted", False, {}),
        ("metadata", {}, {}),
        ("cmdStop", "", {}),
    ],
)
def test_keys_of_a_model(key: str, value: object, expected: dict[str, object]) -> None:
    found = swap("x ${PORT}", **{key: value})
    assert {name: keys(found).get(name) for name in expected} == expected
    assert said(found) == []


@pytest.mark.parametrize(
    ("key", "value", "remark"),
    [
        ("cmdStop", "docker stop a", "SIGTERM"),
        ("unlisted", True, "GET /v1/models"),
        ("metadata", {"a": 1}, "description"),
        ("sendLoadingState", True, "wait"),
        ("timeouts", {"connect": 1}, "as long as the client"),
        ("compat", {"ignoreWebsockets": True}, "WebSockets"),
        ("capabilities", {"tools": True}, "knows"),
        ("capabilitie", {"tools": True}, "no such key"),
        ("ttl", "soon", "cannot read 'soon' as a whole number"),
        ("aliases", "x", "cannot read 'x' as a list"),
        ("env", ["A"], "models.a.env.0: cannot read 'A' as a variable"),
        ("filters", {"setParamsByID": {"b": {"t": 1}}}, "these became aliases"),
        ("filters", {"strip": "a"}, "no such key"),
        ("filters", 3, "cannot read 3 as a mapping"),
        ("proxy", "http://192.0.2.1:${PORT}", "cannot forward to"),
        ("proxy", "http://localhost:${PORT}/v2", "cannot add '/v2'"),
        ("proxy", "http://[", "cannot read 'http://['"),
        ("proxy", "http://localhost:7", "cannot forward to port 7"),
        ("checkEndpoint", "no path", "ready: "),
        ("macros", {"PORT": 1}, "llama-swap gives this name its own meaning"),
        ("macros", {"m": "${m}"}, "uses itself"),
        ("macros", {"m": [1]}, "must be text"),
        ("description", "see ${unknown}", "cannot replace ${unknown}"),
    ],
)
def test_what_a_model_cannot_bring_along_is_told(key: str, value: object, remark: str) -> None:
    found = swap("x ${PORT}", **{key: value})
    assert said(found, "models.a", remark), found.remarks
    assert found.drafts[0].is_usable


def test_a_key_of_llama_swap_is_never_dropped_in_silence() -> None:
    root = [
        *(
            "logLevel",
            "logTimeFormat",
            "logToStdout",
            "logRequests",
            "metricsMaxInMemory",
            "captureBuffer",
            "store",
            "ui",
        ),
        *("performance", "upstream", "profiles", "selectors", "startPort", "sendLoadingState", "includeAliasesInList"),
        *("apiKeys", "peers", "matrix", "unheard-of"),
    ]
    for key in root:
        found = read(written.dump({"models": {"a": {"cmd": "x ${PORT}"}}, key: {"x": 1}}))
        assert said(found, f"{key}: "), key


@pytest.mark.parametrize("cmd", ["", "# only this", "llama-server -m 'open", 'x "', "x --no-port"])
def test_a_model_that_cannot_run_is_left_out_and_told(cmd: str) -> None:
    found = read(written.dump({"models": {"a": {"cmd": cmd}, "b": {"cmd": "x ${PORT}"}}}))
    assert [draft.name for draft in found.drafts] == ["b"]
    assert said(found, "models.a.cmd: ", "left out")


def test_a_fixed_port_becomes_a_free_one() -> None:
    found = swap("x --listen 0.0.0.0:8999 --also 18999", proxy="http://127.0.0.1:8999", env=["P=8999"])
    assert keys(found)["command"] == ["x", "--listen", "0.0.0.0:{port}", "--also", "18999"]
    assert keys(found)["env"] == {"P": "{port}"}


def test_times_for_all_models_become_defaults() -> None:
    found = read("healthCheckTimeout: 5\nglobalTTL: 600\nunloadTimeout: 20\nmodels: {a: {cmd: 'x ${PORT}'}}")
    assert found.defaults == {"start_timeout": "15s", "stop_timeout": "20s", "idle_timeout": "10min"}


def test_a_default_that_cannot_be_is_dropped_and_no_model_with_it() -> None:
    found = read("globalTTL: 99999999999\nhealthCheckTimeout: 60\nmodels: {a: {cmd: 'x ${PORT}'}}")
    assert found.defaults == {"start_timeout": "1min"}
    assert found.drafts[0].is_usable
    assert said(found, "idle_timeout: ", "it must be 0 to 10 years")


@pytest.mark.parametrize(
    ("groups", "most", "pinned"),
    [
        ({}, 1, []),
        ({"g": {"members": ["a", "b"]}}, 1, []),
        ({"g": {"swap": False, "members": ["a", "b"]}}, 2, []),
        ({"g": {"swap": False, "exclusive": False, "members": ["a", "b"]}}, 3, []),
        ({"g": {"persistent": True, "members": ["a"]}}, 2, ["a"]),
        ({"g": {"swap": False, "members": ["a", "x"]}, "h": {"members": ["b", "c"]}}, 2, []),
    ],
)
@pytest.mark.parametrize("place", ["groups", "routing"])
def test_groups_become_pins_and_a_suggestion(groups: dict[str, Any], most: int, pinned: list[str], place: str) -> None:
    models = {name: {"cmd": "x ${PORT}"} for name in "abc"} | {"d": {"cmd": "x ${PORT}", "aliases": ["x"]}}
    under = {"groups": groups} if place == "groups" else {"routing": {"router": {"settings": {"groups": groups}}}}
    found = read(written.dump({"models": models, **under}))
    assert found.config == {"max_models": most}
    assert [draft.name for draft in found.drafts if draft.keys.get("pinned")] == pinned
    assert len(said(found, "cannot carry over this group")) == len(groups)


def test_preloading_becomes_autostart() -> None:
    found = read("models: {a: {cmd: 'x ${PORT}', aliases: [b]}}\nhooks: {on_startup: {preload: [b, c], x: 1}, y: 2}")
    assert keys(found)["autostart"] is True
    assert len(said(found, "hooks.")) == 3


def test_aliases_that_meet_are_kept_once() -> None:
    found = read("models: {a: {cmd: 'x ${PORT}', aliases: [b, c]}, b: {cmd: 'x ${PORT}', aliases: [c, d]}}")
    assert [draft.keys.get("aliases") for draft in found.drafts] == [["c"], ["d"]]
    assert len(said(found, "another model has it")) == 2


def test_a_name_that_no_preset_may_have_is_left_to_a_person() -> None:
    found = read("models: {'a#1': {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}'}}")
    assert [draft.is_usable for draft in found.drafts] == [False, True]
    assert said(found, "it must hold no '#'")


def test_the_same_model_may_be_imported_a_thousand_times() -> None:
    models = {f"m{number}": {"cmd": "${run} ${MODEL_ID}"} for number in range(1000)}
    started = time.monotonic()
    found = read(written.dump({"macros": {"run": "llama-server --port ${PORT} -m"}, "models": models}))
    text = written.to_yaml(found)
    assert len(found.remarks) >= 1000
    assert text.count("/etc/x/m") == 1000
    assert time.monotonic() - started < 60


# Macros


@pytest.mark.parametrize(
    ("known", "text", "expected"),
    [
        ({"a": "x"}, "${a}-${a}", "x-x"),
        ({"a": 4096}, "${a}", 4096),
        ({"a": 4096}, "-c ${a}", "-c 4096"),
        ({"a": True}, "is ${a}", "is true"),
        ({"a": "x", "b": "${a}y"}, "${b}", "xy"),
        ({"b": "${a}y", "a": "x"}, "${b}", "${a}y"),
        ({"a": "${b}", "b": "${a}"}, "${a}", "${b}"),
        ({"a": "${b}", "b": "${a}"}, "${b}", "${b}"),
        ({}, "${c} $a ${} ${a b}", "${c} $a ${} ${a b}"),
        ({"a": "${env.E}"}, "${a}/${env.E}/${env.NONE}", "v/v/${env.NONE}"),
        ({}, "${env.N}", 7),
    ],
)
def test_macros(known: dict[str, Any], text: str, expected: object) -> None:
    assert Macros(known, {"E": "v", "N": "7"}).expand(text) == expected


def test_macros_of_a_model_come_before_those_of_all() -> None:
    assert Macros({"a": 1, "b": "${a}"}, {}).over({"a": 2}).expand(["${a}", {"${a}": "${b}"}]) == [2, {"${a}": 2}]


def test_macros_that_double_are_stopped() -> None:
    doubling = {"m0": "x" * 8} | {f"m{number}": f"${{m{number - 1}}}" * 2 for number in range(1, 60)}
    with pytest.raises(CannotExpand, match="128 KiB"):
        Macros(doubling, {}).expand("${m59}")
    found = read(written.dump({"macros": doubling, "models": {"a": {"cmd": "x ${PORT} ${m59}"}}}))
    assert said(found, "models.a.cmd: cannot carry over: it would be longer")


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.sampled_from(["${a}", "${b}", "${c}", "${d}", "x", "$", "{"])).map("".join)
    ),
    st.lists(st.sampled_from(["${a}", "${b}", "${c}", "${d}", "-"])).map("".join),
)
def test_macros_agree_with_replacing_them_from_the_last_to_the_first(known: dict[str, str], text: str) -> None:
    expected = text
    for name in reversed(known):
        expected = expected.replace(f"${{{name}}}", known[name])
    assert Macros(known, {}).expand(text) == expected


def test_a_variable_is_taken_from_the_environment_and_told_once() -> None:
    text = "models: {a: {cmd: 'x ${PORT} ${env.KEY} ${env.KEY} ${env.GONE}'}}"
    found = read(text, environment={"KEY": "k"})
    assert keys(found)["command"] == ["x", "{port}", "k", "k", "${env.GONE}"]
    assert len(said(found, "${env.KEY} became the value")) == 1
    assert len(said(found, "cannot replace ${env.GONE}")) == 1


def test_a_hundred_thousand_unknown_keys_take_seconds() -> None:
    started = time.monotonic()
    found = section(*(f"unknown-{number} = 1" for number in range(100_000)))
    assert len(said(found, "cannot use unknown key")) == 100_000
    assert time.monotonic() - started < 60


def test_variables_of_what_is_left_out_are_not_told() -> None:
    found = read("models: {a: {cmd: 'x ${PORT}'}}\napiKeys: ['${env.KEY}']")
    assert [str(remark).partition(": cannot")[0] for remark in found.remarks] == ["/etc/x/file:2: apiKeys"]


def test_too_many_macros_are_not_read() -> None:
    many = {f"m{number}": 1 for number in range(macros.MAX_MACROS + 1)}
    found = read(written.dump({"macros": many, "models": {"a": {"cmd": "x ${PORT}"}}}))
    assert said(found, f"more than {macros.MAX_MACROS}")


# What is written

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    st.sampled_from(
        ["1e5", "on", "No", "~", "null", "0x1F", "022", "1_000", "1:30", "2024-01-01", "- a", "a: b", "a #b"]
    ),
    st.sampled_from(
        ["'", '"', "\n", "\ta", "!x", "&a", "*a", "{port}", "|", ">", "%", "@", "`", "=", "<<", "a\u2028b", "\x85"]
    ),
    st.sampled_from(["--port", "-c", "30s", "1min30s", "5", "5.", ".5", "-", "--", "?", ", ", "]", "\ufeffx", "😀"]),
)
VALUES = st.recursive(
    TEXTS | st.integers(-(10**9), 10**9) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, TEXTS)
def test_what_is_written_reads_as_it_was(value: Any, name: str) -> None:
    found = Imported("llama-swap", f"/x/{name}", [Draft("a", 1, "a", {"request": value})], config={"max_models": 1})
    text = written.to_yaml(found)
    assert yaml_positions.parse(text.encode(), "y").value == {"models": {"a": {"request": value}}}


@given(VALUES)
def test_what_is_left_to_complete_is_all_comments(value: Any) -> None:
    found = Imported("llama-swap", "/x", [Draft("a", 1, "a", {"request": value}, is_usable=False)])
    assert yaml_positions.parse(written.to_yaml(found).encode(), "y").value == {"models": {}}


@pytest.mark.parametrize("sample", ["models.ini", "swap.yaml"])
def test_the_samples_become_presets_that_check_takes_but_for_missing_files(sample: str) -> None:
    found = importing.read((SAMPLES / sample).read_bytes(), PurePath("/etc/x") / sample, None, {})
    yaml_check.check(found, Path("/etc/x"))
    problems, _ = presets_dir.look_through(Path("/etc/x/p.yaml"), written.to_yaml(found))
    assert [problem for problem in problems if "No such file" not in problem.message] == []
    lines = (SAMPLES / sample).read_text().splitlines()
    for draft in found.drafts:
        assert f"# {sample}:{draft.line}" in written.to_yaml(found)
        assert draft.place.strip("[]").removeprefix("models.") in lines[draft.line - 1]
