"""llama-swap's config.yaml read into presets."""

from __future__ import annotations

import time
from typing import Any

import pytest

from supervisor.importing import written
from tests.core.imported import keys, read, said, swap


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


@pytest.mark.parametrize(
    ("program", "binary"),
    [
        ("llama-server", None),
        ("llama-server.exe", None),
        ("/opt/llama.cpp/llama-server", "/opt/llama.cpp/llama-server"),
        ("'/opt/llama cpp/llama-server'", "/opt/llama cpp/llama-server"),
        ("build/bin/llama-server", "/etc/x/build/bin/llama-server"),
        ("./llama-server", "/etc/x/llama-server"),
        ("~/bin/llama-server", "~/bin/llama-server"),
        ("a,b/llama-server", "/etc/x/a,b/llama-server"),
    ],
)
def test_the_llama_server_that_is_named_is_the_one_that_serves(program: str, binary: str | None) -> None:
    found = swap(f"{program} -m /m --port ${{PORT}}")
    assert (keys(found)["backend"], keys(found).get("binary")) == ("llama-server", binary)
    assert said(found) == []


def test_a_program_whose_path_names_the_port_stays_a_command() -> None:
    found = swap("/opt/${PORT}/llama-server -m /m --port ${PORT}")
    assert keys(found)["command"][0] == "/opt/{port}/llama-server"


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
