"""Every rule of a preset, one row each."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from supervisor.core.fields import complaints
from supervisor.core.preset import COMMAND_KEYS, LLAMA_KEYS, LLAMA_SERVER_KEYS, HttpReady, Preset, Restart

LLAMA: dict[str, Any] = {"model": "/m.gguf"}
COMMAND: dict[str, Any] = {"backend": "command", "command": ["/bin/serve", "{port}"]}


def preset(base: dict[str, Any] = LLAMA, /, **keys: Any) -> Preset:
    return Preset.model_validate({"name": "qwen", **base, **keys})


def problems(base: dict[str, Any] = LLAMA, /, **keys: Any) -> dict[str, str]:
    """What is wrong with a preset: dotted path to message."""
    with pytest.raises(ValidationError) as caught:
        preset(base, **keys)
    return {".".join(map(str, path)): message for path, message in complaints(Preset, caught.value)}


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert preset().model_dump() == {
        "name": "qwen",
        "description": None,
        "aliases": (),
        "backend": "llama-cpp-python",
        "model": "/m.gguf",
        "mmproj": None,
        "context": None,
        "gpu_layers": None,
        "parallel": None,
        "threads": None,
        "embedding": False,
        "options": {},
        "binary": None,
        "env": {},
        "command": (),
        "ready": "notify",
        "autostart": False,
        "pinned": False,
        "replicas": 1,
        "max_concurrency": None,
        "memory": None,
        "limits": {"memory": None, "cpu_weight": None},
        "start_timeout": 300.0,
        "stop_timeout": 10.0,
        "idle_timeout": None,
        "min_residency": 0.0,
        "restart": {"policy": "on-failure", "delay": 1.0, "max_delay": 60.0, "limit": 5, "within": 600.0},
        "watchdog": None,
        "request": None,
    }


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("start_timeout", "5min", 300.0),
        ("start_timeout", "never", None),
        ("start_timeout", None, None),
        ("stop_timeout", "500ms", 0.5),
        ("idle_timeout", "15min", 900.0),
        ("idle_timeout", "never", None),
        ("watchdog", "never", None),
        ("autostart", "yes", True),
        ("autostart", "off", False),
        ("env", {"CUDA_VISIBLE_DEVICES": 0}, {"CUDA_VISIBLE_DEVICES": "0"}),
        ("env", None, {}),
        ("options", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        ("aliases", None, ()),
        ("aliases", ["a b", "org/model", "größe"], ("a b", "org/model", "größe")),
        ("memory", {"host": "6GiB", "gpu12": 7}, {"host": 6 * 2**30, "gpu12": 7}),
        ("memory", None, None),
        ("context", 0, 0),
        ("gpu_layers", -1, -1),
        ("replicas", 64, 64),
        ("restart", None, Restart()),
        ("restart", {"limit": 0, "policy": "no"}, Restart(limit=0, policy="no")),
        ("ready", "notify", "notify"),
    ],
)
def test_keys_that_are_read(key: str, written: object, value: object) -> None:
    assert getattr(preset(**{key: written}), key) == value


@pytest.mark.parametrize(
    ("path", "keys", "message"),
    [
        ("context", {"context": True}, "cannot read true as a whole number"),
        ("context", {"context": "4096"}, "cannot read '4096' as a whole number"),
        ("context", {"context": 4096.0}, "cannot read 4096.0 as a whole number"),
        ("context", {"context": -1}, "cannot be -1: it must be 0 or more"),
        ("context", {"context": 2**31}, "it must be 2147483647 or less"),
        ("gpu_layers", {"gpu_layers": -2}, "it must be -1 or more"),
        ("parallel", {"parallel": 0}, "it must be 1 or more"),
        ("threads", {"threads": 0}, "it must be 1 or more"),
        ("max_concurrency", {"max_concurrency": 0}, "it must be 1 or more"),
        ("replicas", {"replicas": 0}, "it must be 1 or more"),
        ("replicas", {"replicas": 65}, "it must be 64 or less"),
        ("replicas", {"replicas": None}, "cannot read null as a whole number"),
        ("autostart", {"autostart": 1}, "cannot read 1 as true or false"),
        ("autostart", {"autostart": "maybe"}, "cannot read 'maybe' as true or false"),
        ("description", {"description": 3}, "cannot read 3 as text: put it in quotes"),
        ("model", {"model": "a\0b"}, "NUL"),
        ("model", {"model": ""}, "cannot be empty"),
        ("model", {"model": None}, "cannot be missing for backend llama-cpp-python"),
        ("backend", {"backend": "lama"}, "cannot be 'lama': write llama-cpp-python, llama-server or command"),
        ("backend", {"backend": ["x"]}, "write llama-cpp-python, llama-server or command"),
        ("env.A", {"env": {"A": True}}, "cannot read true as text: put it in quotes"),
        ("env.A", {"env": {"A": 0.5}}, "cannot read 0.5 as text: put it in quotes"),
        ("env.A", {"env": {"A": "x\0"}}, "NUL"),
        ("env.A=B", {"env": {"A=B": "x"}}, "must not be empty or hold '='"),
        ("env.", {"env": {"": "x"}}, "must not be empty or hold '='"),
        ("env", {"env": ["A=1"]}, "cannot read ['A=1'] as a mapping"),
        ("options.a", {"options": {"a": float("nan")}}, "not a finite number"),
        ("options.a", {"options": {"a": ["\0"]}}, "NUL"),
        ("aliases", {"aliases": "a"}, "cannot read 'a' as a list"),
        ("aliases", {"aliases": ["qwen"]}, "it is the model's own name"),
        ("aliases", {"aliases": ["a", "a"]}, "cannot use alias 'a' twice"),
        ("aliases.0", {"aliases": [4]}, "cannot read 4 as text"),
        ("aliases.0", {"aliases": ["a#1"]}, "no '#'"),
        ("limits.memory", {"limits": {"memory": 0}}, "write a size such as 12GiB, or remove it"),
        ("limits.memory", {"limits": {"memory": {"host": "1G"}}}, "as a size"),
        ("limits.cpu_weight", {"limits": {"cpu_weight": 0}}, "it must be 1 or more"),
        ("limits.cpu_weight", {"limits": {"cpu_weight": 10001}}, "it must be 10000 or less"),
        ("limits.cpu_wieght", {"limits": {"cpu_wieght": 1}}, "did you mean 'cpu_weight'?"),
        ("memory.cpu", {"memory": {"cpu": 1}}, "write host, gpu0, gpu1"),
        ("memory.gpu", {"memory": {"gpu": 1}}, "write host, gpu0, gpu1"),
        ("memory.host", {"memory": {"host": "auto"}}, "cannot read 'auto' as a size"),
        ("start_timeout", {"start_timeout": 0}, "write a longer time, or never"),
        ("watchdog", {"watchdog": "0s"}, "write a longer time, or never"),
        ("stop_timeout", {"stop_timeout": "never"}, "cannot read 'never' as a duration"),
        ("stop_timeout", {"stop_timeout": "-1s"}, "cannot read '-1s' as a duration"),
        ("restart", {"restart": "always"}, "cannot read 'always' as a mapping"),
        ("restart.policy", {"restart": {"policy": False}}, "cannot be false: write on-failure, always or no"),
        ("restart.limit", {"restart": {"limit": -1}}, "it must be 0 or more"),
        ("restart.within", {"restart": {"within": 0}}, "it must be more than 0"),
        ("restart.max_delay", {"restart": {"delay": "2min"}}, "cannot be 1min: delay is 2min"),
        ("restart.max_delay", {"restart": {"delay": 2, "max_delay": 1}}, "cannot be 1s: delay is 2s"),
        ("restart.dely", {"restart": {"dely": 1}}, "did you mean 'delay'?"),
        ("request.sett", {"request": {"sett": {}}}, "did you mean 'set'?"),
        ("request.remove", {"request": {"remove": "user"}}, "as a list"),
        ("contxt", {"contxt": 1}, "cannot use unknown key 'contxt': did you mean 'context'?"),
        ("zzz", {"zzz": 1}, "known are aliases, autostart"),
        ("command", {"command": ["x", "{port}"]}, "cannot be given for backend llama-cpp-python"),
        ("ready", {"ready": "tcp"}, "cannot be given for backend llama-cpp-python"),
        ("ready", {"ready": {"http": "/health"}}, "cannot be given for backend llama-cpp-python"),
    ],
)
def test_keys_that_are_refused(path: str, keys: dict[str, Any], message: str) -> None:
    found = problems(**keys)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a\n", "a\0", "a#1", "@web", "\u200b", "a\u00a0b", "\ud800", "x" * 201], ids=ascii
)
def test_names_that_are_refused(name: str) -> None:
    assert "cannot use" in problems(name=name)["name"]
    assert "cannot use" in problems(aliases=[name])["aliases.0"]


@pytest.mark.parametrize("name", ["a", "2.5", "org/model:Q4_K_M", "a b", "é", "模型", "a@b", "x" * 200])
def test_names_that_are_accepted(name: str) -> None:
    assert preset(name=name).name == name


def test_all_problems_show_at_once() -> None:
    assert problems(context=-1, env={"A": True}, restart={"limit": -1}, nope=1).keys() == {
        "context",
        "env.A",
        "restart.limit",
        "nope",
    }


def test_a_command_is_ready_when_it_takes_connections_unless_told_otherwise() -> None:
    assert preset(COMMAND).ready == "tcp"
    assert preset(COMMAND, ready="notify").ready == "notify"
    assert preset(COMMAND, ready={"http": "/up?x=1"}).ready == HttpReady(http="/up?x=1")


def test_llama_server_is_asked_for_its_health() -> None:
    assert preset(backend="llama-server").ready == HttpReady(http="/health")


@pytest.mark.parametrize(
    "ready", ["http", True, 1, [], {}, {"http": 3}, {"http": "/", "x": 1}, {"http": "health"}, {"http": "/a b"}]
)
def test_readiness_that_is_refused_gets_one_message(ready: object) -> None:
    assert list(problems(COMMAND, ready=ready)) == ["ready"]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ({"command": ["serve", "--port", 8080, "{port}"]}, ("serve", "--port", "8080", "{port}")),
        ({"command": ["serve", "--listen=unix:{socket}"]}, ("serve", "--listen=unix:{socket}")),
        ({"command": ["serve"], "env": {"PORT": "{port}"}}, ("serve",)),
    ],
)
def test_commands_that_are_accepted(keys: dict[str, Any], value: tuple[str, ...]) -> None:
    assert preset({"backend": "command"}, **keys).command == value


@pytest.mark.parametrize(
    ("command", "path", "message"),
    [
        (None, "command", "cannot be missing or empty"),
        ([], "command", "cannot be missing or empty"),
        (["", "{port}"], "command", "cannot be missing or empty"),
        ("serve {port}", "command", "as a list"),
        (["serve"], "command", "put {port} or {socket}"),
        (["serve", "{port}", "{socket}"], "command", "both {port} and {socket}"),
        (["serve", "{port}", 0.5], "command.2", "put it in quotes"),
        (["serve", "{port}", {"port": None}], "command.2", "cannot read {'port': null} as text: put it in quotes"),
        (["serve", "{port}", "\0"], "command.2", "NUL"),
    ],
)
def test_commands_that_are_refused(command: object, path: str, message: str) -> None:
    found = problems({"backend": "command", "command": command})
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "/m.gguf"),
        ("mmproj", "/p.gguf"),
        ("context", 0),
        ("gpu_layers", 0),
        ("parallel", 2),
        ("threads", 1),
        ("embedding", True),
        ("options", {"a": 1}),
    ],
)
def test_a_command_takes_no_llama_keys(key: str, value: object) -> None:
    assert key in LLAMA_KEYS
    found = problems(COMMAND, **{key: value})
    assert list(found) == [key]
    assert "cannot be given for backend command" in found[key]


def test_a_wrong_backend_hides_the_rules_that_depend_on_it() -> None:
    assert list(problems({}, backend="x", command=["y"], ready="tcp")) == ["backend"]


@pytest.mark.parametrize(("keys", "limit"), [({}, 1), ({"parallel": 4}, 4), ({"parallel": 4, "max_concurrency": 2}, 2)])
def test_lease_limit(keys: dict[str, Any], limit: int) -> None:
    assert preset(**keys).lease_limit == limit


@pytest.mark.parametrize(
    "made", [preset(options={"a": [1]}), preset(backend="llama-server"), preset(COMMAND, ready={"http": "/x"})]
)
def test_a_preset_is_equal_to_what_its_dump_reads_as(made: Preset) -> None:
    again = Preset.model_validate(made.model_dump())
    assert again == made
    assert hash(again) == hash(made)
    assert Preset.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"options": {"a": 1}}, {"options": {"a": True}}),
        ({"options": {"a": 1}}, {"options": {"a": 1.0}}),
        ({"request": {"set": {"a": 0}}}, {"request": {"set": {"a": False}}}),
        ({"context": 1}, {"context": 2}),
        ({"name": "a"}, {"name": "b"}),
    ],
)
def test_presets_that_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert preset(**one) != preset(**other)


def test_the_order_of_keys_makes_no_difference() -> None:
    assert preset(env={"A": "1", "B": "2"}) == preset(env={"B": "2", "A": "1"})
    assert preset() != "qwen"


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        preset().context = 3  # type: ignore[misc]


def test_the_lists_of_keys_name_keys() -> None:
    assert Preset.model_fields.keys() >= LLAMA_KEYS | LLAMA_SERVER_KEYS | COMMAND_KEYS


def test_options_nested_without_end_are_refused() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    assert "nested" in problems(options={"a": nested})["options.a"]
