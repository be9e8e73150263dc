"""A model's page, and what of it is pure."""

from __future__ import annotations

import html
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor, event_of, model, reason, replica
from keyed_web import keyed_web, without_keys
from made_keys import make
from test_dashboard import check_page, text
from web_tier import WebTier

from admin.facts import NONE_KNOWN
from admin.model_view import MOST_EVENTS, gguf, history, origin, preset, usage
from supervisor import protocol
from supervisor.core.keys import KEYS_FILE, VARIABLE
from supervisor.errors import Refused
from supervisor.protocol import Message

NAMES = [
    "m",
    "a/b c",
    "it's",
    'say "hi"',
    "$(date)",
    "`id`",
    "back\\slash",
    "naïve-é",
    "🦙",
    "a;b&c|d",
    "{0}",
    "%41",
    "-x",
]


def row(key: str, **fields: Any) -> Message:
    """A row of the answer to "preset", nobody's decision unless told otherwise."""
    return {"key": key, "value": "1", "source": "default", "file": None, "line": None} | fields


def written(key: str, line: int, **fields: Any) -> Message:
    return row(key, **{"source": "preset", "file": "presets.d/chat.yaml", "line": line} | fields)


def script(supervisor: FakeSupervisor, *events: Message, rows: list[Message] | None = None) -> None:
    """What a supervisor tells of events and presets, at once."""
    supervisor.streams["events"] = [*({"event": event} for event in events), {"end": True}]
    supervisor.answers["preset"] = lambda _: protocol.ok(preset=rows or [])


@pytest.fixture
def page_of(web: WebTier, supervisor: FakeSupervisor) -> Any:
    """page_of(model, *events, rows=[…]): the page's answer."""

    def ask(about: Message, *events: Message, rows: list[Message] | None = None) -> Any:
        supervisor.models = [about]
        script(supervisor, *events, rows=rows)
        return web.request("GET", "/ui/model/m")

    return ask


def test_what_is_known_of_a_model(page_of: Any) -> None:
    about = model(
        "m",
        state="ready",
        description="a small one",
        aliases=["small"],
        pid=4242,
        restarts=2,
        served=17,
        in_flight=1,
        waiting=2,
        waiting_for="room for m",
        memory={"used": {"host": 2**30}, "need": {"host": 2**31}, "source": "estimated", "parts": "weights 1.9 GiB"},
        since=time.time() - 300,
    )
    answer = page_of(about)
    page = check_page(answer)
    shown = text(answer)
    assert "m Unload Restart a small one · also small ready" in shown
    assert "Since 5 min ago Requests 1 in flight, 2 waiting room for m Served 17 Restarts 2" in shown
    assert "Memory used 1.0 GiB Memory needed 2.0 GiB (estimated) weights 1.9 GiB Process 4242" in shown
    assert "Nothing has happened to this model since llama-router started." in shown
    assert [script["src"] for script in page.of("script")] == ["/static/model.js"]
    assert page.of("h1") == [{"id": "name"}]


def test_replicas_and_a_failure(page_of: Any) -> None:
    exited = reason("exited", "exited with code 65", code=65, last_lines=["error: <b>no such file</b>"])
    several = [replica("m", pid=8), replica("m#2", state="failed", pid=None, reason=exited)]
    answer = page_of(model("m", state="failed", reason=exited, replicas=several))
    assert "failed 1/2 exited with code 65 Its last log lines error: &lt;b&gt;no such" in text(answer)
    assert "m ready process 8, 0 in flight m#2 failed 0 in flight; exited with code 65" in text(answer)


def test_the_preset_with_origins(page_of: Any) -> None:
    rows = [
        written("model", 7, value="/srv/x.gguf"),
        row("idle_timeout", value="15min", source="defaults", file="presets.d/chat.yaml", line=3),
        row("context", value="8192", source="gguf"),
        row("pinned", value="false"),
        row("threads", value="none", source="backend"),
    ]
    answer = page_of(model("m", file="presets.d/chat.yaml", line=6, source="preset"), rows=rows)
    shown = text(answer)
    assert "Written in presets.d/chat.yaml , line 6." in shown
    assert "model /srv/x.gguf presets.d/chat.yaml line 7 edit" in shown
    assert "idle_timeout 15min defaults of presets.d/chat.yaml line 3 edit" in shown
    assert "context 8192 from the GGUF" in shown
    assert "and 2 defaults" in shown
    assert "pinned false llama-router's default" in shown.replace("&#39;", "'")
    assert "threads none left to llama-cpp-python" in shown
    links = [link["href"] for link in check_page(answer).of("a") if (link["href"] or "").startswith("/ui/presets?")]
    assert links == ["/ui/presets?file=chat.yaml&line=7", "/ui/presets?file=chat.yaml&line=3"]


@pytest.mark.parametrize(
    ("backend", "args", "told"),
    [
        ("llama-server", None, "Will be started with llama-server --alias m"),
        ("llama-server", ["llama-server", "--port", "1"], "Started with llama-server --port 1"),
        ("llama-cpp-python", None, "Settings of its server n_ctx 512"),
    ],
)
def test_how_it_is_started(web: WebTier, supervisor: FakeSupervisor, backend: str, args: Any, told: str) -> None:
    supervisor.models = [model("-m m", state="ready", launch=1, backend=backend, args=args)]
    script(supervisor, rows=[])
    supervisor.facts = {"revision": f"{backend} {args}"}
    settings = ["llama-cpp-python", "--n_ctx", "512"]
    supervisor.told = {
        "-m m": dict(NONE_KNOWN)
        | {"args": settings if backend == "llama-cpp-python" else ["llama-server", "--alias", "m"]}
    }
    answer = web.request("GET", "/ui/model/-m%20m")
    assert told in text(answer)
    assert "llama-cpp-python --" not in text(answer)
    assert " -- &#39;-m m&#39;" in text(answer)


def test_a_model_without_a_preset_any_more(web: WebTier, supervisor: FakeSupervisor) -> None:
    def gone(_: Message) -> Message:
        raise Refused("not in the configuration", status=404)

    supervisor.models = [model("m", state="stopping", removed=True)]
    script(supervisor)
    supervisor.answers["preset"] = gone
    assert "not in the configuration any more" in text(web.request("GET", "/ui/model/m"))


@pytest.mark.parametrize("path", ["/ui/model/nothing", "/ui/model-part/nothing"])
def test_an_unknown_model(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    supervisor.models = [model("m")]
    answer = web.request("GET", path)
    assert answer.status == 404
    assert {"class": "button", "href": "/"} in check_page(answer).of("a")
    assert "there is no model" in text(answer)


def test_an_alias_leads_to_the_name(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("a/b c", aliases=["x"])]
    answer = web.request("GET", "/ui/model/x")
    assert (answer.status, answer.headers["location"]) == (302, "/ui/model/a/b%20c")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_page(web: WebTier, supervisor: FakeSupervisor, name: str) -> None:
    supervisor.models = [model(name)]
    script(supervisor)
    listed = check_page(web.request("GET", "/")).of("a")
    path = next(link["href"] for link in listed if link.get("class") == "name")
    assert path is not None
    answer = web.request("GET", path)
    page = check_page(answer)
    assert answer.status == 200
    assert next(each["data-name"] for each in page.of("div") if "data-name" in each) == name


def test_a_viewer_sees_it_and_changes_nothing(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("m", state="ready")]
    script(supervisor, rows=[written("model", 7)])
    host = f"127.0.0.1:{web.address[1]}"
    answer = web.request("GET", "/ui/model/m", headers={"Host": host, "Cookie": web.cookie(host, "viewer")})
    assert answer.status == 200
    page = check_page(answer)
    assert [form["action"] for form in page.of("form")] == ["/ui/logout"]
    assert not [link for link in page.of("a") if "presets?" in (link["href"] or "")]


def test_the_part_is_of_the_page(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.models = [model("m")]
    script(supervisor, event_of(at=1.0), rows=[written("model", 7)])
    part = web.request("GET", "/ui/model-part/m").body.decode()
    page = web.request("GET", "/ui/model/m").body.decode()
    assert "<html" not in part
    assert all(section in page for section in part.strip().split("</section>\n") if section)


def event(seq: int, at: float, before: str, to: str, **fields: Any) -> Message:
    return event_of(seq=seq, at=at, **{"from": before, "to": to}, **fields)


def test_history_says_how_long() -> None:
    events = [
        event(1, 10.0, "stopped", "starting", text="m: loading"),
        event(2, 11.5, "starting", "ready"),
        event_of(kind="queue", seq=3, at=20.0, text="m: requests wait: no room", **{"from": None, "to": None}),
        event(4, 21.5, "ready", "starting", model="other"),
        event(5, 71.5, "ready", "failed", reason=reason("exited", "exited", last_lines=["oh"])),
    ]
    rows = history(events, "m")
    assert [each["seq"] for each in rows] == [5, 3, 2, 1]
    assert [each["lasted"] for each in rows] == [None, None, "1 min 0 s", "1.50 s"]
    assert [each["current"] for each in rows] == [True, False, False, False]
    assert [each["lines"] for each in rows] == [["oh"], [], [], []]
    assert [each["text"] for each in rows[1:]] == ["requests wait: no room", "state", "loading"]


def test_history_of_replicas_is_each_ones_own() -> None:
    events = [event(1, 0.0, "stopped", "starting"), event(2, 5.0, "stopped", "starting", instance="m#2", text="m#2: x")]
    rows = history(events, "m")
    assert [(each["replica"], each["lasted"], each["text"]) for each in rows] == [
        ("#2", None, "x"),
        ("", None, "state"),
    ]


def test_history_is_bounded() -> None:
    assert len(history([event(n, n, "ready", "stopped") for n in range(1000)], "m")) == MOST_EVENTS


def test_a_file_of_presets_elsewhere_is_edited_by_its_name() -> None:
    found = preset([written("a", 2, file="/etc/x/presets.d/chät 1.yaml")], "command")["decided"][0]
    assert found["edit"] == "file=ch%C3%A4t+1.yaml&line=2"
    assert origin(row("a", source="models_dir"), "x") == "found in models_dir"


def test_what_the_gguf_says() -> None:
    meta = {"n_ctx_train": 131072, "n_params": 8_030_261_248, "size": 2**32, "ftype": "Q4_0", "n_ctx": None}
    assert dict(gguf(meta)) == {
        "Trained for": "131\N{NARROW NO-BREAK SPACE}072 tokens of context",
        "Parameters": "8.03 B",
        "Weights": "4.0 GiB",
        "Type": "Q4_0",
    }
    assert gguf(None) == []


@pytest.mark.parametrize(
    ("ini", "endpoint"),
    [
        ("[m]\nmodel = x\n", "/v1/chat/completions"),
        ("[m]\nembeddings = true\n", "/v1/embeddings"),
        ("[m]\nembedding = 1\nreranking = true\n", "/v1/rerank"),
        ("[m]\nalias = embeddings = true\n", "/v1/chat/completions"),
    ],
)
def test_the_endpoint_is_what_the_model_does(ini: str, endpoint: str) -> None:
    told = usage("m", ini, "http://x", needs_key=False)
    assert told["endpoint"] == endpoint
    assert f"http://x{endpoint} " in told["curl"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ini", ["", "embeddings = true\n", "rerank = true\n"])
@pytest.mark.parametrize("key", [None, "a key'$(false)"])
def test_examples_quote_names_and_take_a_key_where_it_is_needed(
    name: str, ini: str, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, key or "of no use")
    told = usage(name, ini, "http://x", needs_key=key is not None)
    curl = subprocess.run(
        ["sh", "-c", f"curl() {{ printf '%s\\0' \"$@\"; }}\n{told['curl']}"], capture_output=True, check=True, text=True
    )
    arguments = curl.stdout.split("\0")
    assert json.loads(arguments[arguments.index("-d") + 1])["model"] == name
    shown = [each for each in arguments if each.startswith("Authorization")]
    assert shown == ([] if key is None else [f"Authorization: Bearer {key}"])
    asked: list[Any] = []

    class Anything:
        def __init__(self, *, base_url: str, api_key: str) -> None:
            assert (base_url, api_key) == ("http://x/v1", key or "none")

        def __getattr__(self, _: str) -> Any:
            return self

        def __iter__(self) -> Any:
            return iter(())

        def __getitem__(self, _: object) -> Any:
            return self

        def __call__(self, *_: Any, **fields: Any) -> Any:
            asked.append(fields.get("model") or fields["body"]["model"])
            return self

    source = told["python"].replace("from openai import OpenAI", "pass")
    exec(compile(source, "example", "exec"), {"OpenAI": Anything, "print": lambda *_, **__: None})
    assert asked == [name]


def test_examples_show_a_key_as_soon_as_there_is_one(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    supervisor.models = [model("m")]
    script(supervisor)

    def examples(tier: WebTier) -> tuple[bool, bool, bool]:
        text = html.unescape(tier.request("GET", "/ui/model/m").body.decode())
        return (
            f'-H "Authorization: Bearer ${VARIABLE}"' in text,
            f'api_key=os.environ["{VARIABLE}"]' in text,
            "llama-router key create" in text,
        )

    with keyed_web(supervisor, tmp_path) as tier:
        assert examples(tier) == (False, False, False)
        make(tier.state_dir)
        assert examples(tier) == (True, True, True)
        without_keys(tier)
        (tier.state_dir / KEYS_FILE).write_bytes(b"damaged")
        assert examples(tier) == (True, True, True), "nobody gets in without one"


@pytest.mark.parametrize("path", ["/ui/model/m", "/ui/model-part/m", "/ui/model-log/m", "/ui/model-log/m?follow=1"])
def test_supervisor_away(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    supervisor.stop()
    try:
        answer = web.request("GET", path)
    finally:
        supervisor.start()
    assert answer.status == 503
    assert "Traceback" not in answer.body.decode()
