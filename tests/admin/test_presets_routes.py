"""The presets page without a browser: what it shows, asks and refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_supervisor import FakeSupervisor, model
from test_dashboard import check_page, text
from web_tier import FOREIGN, WebTier

from supervisor import protocol
from supervisor.errors import Refused

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SCRIPT = {"Accept": "application/json", "Content-Type": "application/json"}
FILES = [
    {"file": "a.yaml", "size": 5, "sha": "aa", "models": ["a", "b/c"], "why_not": None},
    {"file": "l.yaml", "size": None, "sha": None, "models": [], "why_not": "it is a symbolic link"},
]
VERSION = {"at": 1760000000123456789, "sha": "bb", "size": 2048}
VERSIONS = [
    VERSION | {"added": 3, "removed": 1, "by": "192.0.2.7"},
    VERSION | {"added": 0, "removed": 1, "by": None},
    VERSION | {"added": 0, "removed": 0, "by": None},
    VERSION | {"added": None, "removed": None, "by": None},
]
PROBLEM = {"file": "a.yaml", "line": 3, "field": "models.a.x", "message": "unknown <key>", "here": True}
OTHER = {"file": "/etc/b.yaml", "line": 1, "field": None, "message": "broken", "here": False}


@pytest.fixture(autouse=True)
def _files(supervisor: FakeSupervisor) -> None:
    def file(message: Any) -> Any:
        if message["file"] not in ("a.yaml", "@config"):
            raise Refused("there is no such file", status=404, error_type="not_found_error")
        return protocol.ok(path="/etc/x", text="\nmodels: </textarea>\n", sha="aa")

    def history(message: Any) -> Any:
        if "at" in message:
            return protocol.ok(text="older", sha="bb")
        return protocol.ok(versions=VERSIONS)

    supervisor.answers |= {
        "files": lambda _: protocol.ok(directory="/etc/presets.d", edit_commands=False, files=FILES),
        "file": file,
        "history": history,
        "facts": lambda _: protocol.ok(),
    }


def outcome(kind: str | None, **fields: Any) -> Any:
    answer = {"problems": [], "notices": [], "changes": None, "words": None} | fields
    return lambda _: protocol.ok(**answer, **({"outcome": kind} if kind else {}))


def test_the_first_file_is_open(web: WebTier) -> None:
    answer = web.request("GET", "/ui/presets")
    page = check_page(answer)
    assert b">\n\nmodels: &lt;/textarea&gt;\n</textarea>" in answer.body  # a parser drops the first newline
    assert "a.yaml a, b/c l.yaml can&#39;t be edited here config.yaml read-only" in text(answer).replace("'", "&#39;")
    assert {field["name"]: field.get("value") for field in page.of("input") if field["type"] == "hidden"} == {
        "file": "a.yaml",
        "base": "aa",
    }
    for words in ("3 lines added, 1 removed, from 192.0.2.7", "1 line removed", "lines moved", "replaced"):
        assert words in text(answer)
    assert "2025-10-09 08:53 UTC" in text(answer)


def test_an_older_version_is_to_be_saved_over_what_is_there(web: WebTier, supervisor: FakeSupervisor) -> None:
    answer = web.request("GET", "/ui/presets?file=a.yaml&at=1760000000123456789")
    assert b">\nolder</textarea>" in answer.body and b'id="base" value="aa"' in answer.body
    assert supervisor.of("history")[0]["at"] == 1760000000123456789


@pytest.mark.parametrize("path", ["?file=l.yaml", "?file=@config"])
def test_what_can_only_be_read(web: WebTier, path: str) -> None:
    answer = web.request("GET", f"/ui/presets{path}")
    page = check_page(answer)
    assert "readonly" in page.of("textarea")[0]
    assert b'value="save"' not in answer.body


def test_files_that_are_not_there(web: WebTier) -> None:
    assert web.request("GET", "/ui/presets?file=none.yaml").status == 404
    found = web.request("GET", "/ui/presets/file/none.yaml", headers=SCRIPT)
    assert found.json == {"text": None, "sha": None}


def test_a_directory_that_nobody_may_write(web: WebTier, supervisor: FakeSupervisor) -> None:
    listed = {"directory": "/etc/presets.d", "edit_commands": False, "files": FILES}
    supervisor.answers["files"] = lambda _: protocol.ok(**listed, writable=False)
    assert "can be checked, but not saved" in text(web.request("GET", "/ui/presets"))
    supervisor.answers["files"] = lambda _: protocol.ok(**listed, writable=True)
    assert "can be checked, but not saved" not in text(web.request("GET", "/ui/presets"))


def test_no_files(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.answers["files"] = lambda _: protocol.ok(directory="/etc/presets.d", edit_commands=False, files=[])
    answer = web.request("GET", "/ui/presets")
    check_page(answer)
    assert "No presets yet" in text(answer)


@pytest.mark.parametrize(
    ("name", "file", "key"),
    [("small", "small.yaml", "small"), ("a", "a-2.yaml", "a"), ("ü/x: y", "x-y.yaml", '"ü/x: y"')],
)
def test_a_new_model(web: WebTier, supervisor: FakeSupervisor, name: str, file: str, key: str) -> None:
    supervisor.models = [model(name, source="models_dir")]
    supervisor.told = {name: {"meta": {"size": 5 * 2**20, "n_ctx_train": 2048, "ftype": "Q8_0"}}}
    del supervisor.answers["facts"]
    listed = web.request("GET", "/ui/presets")
    assert "5.0 MiB, Q8_0, 2048 tokens" in text(listed)
    link = next(each["href"] for each in check_page(listed).of("a") if "new=" in (each["href"] or ""))
    answer = web.request("GET", str(link))
    page = check_page(answer)
    assert next(each["value"] for each in page.of("input") if each["name"] == "file") == file
    assert f"models:\n  {key}:  # its file is in models_dir\n    context: 2048\n" in (
        answer.body.decode().replace("&#34;", '"')
    )


@pytest.mark.parametrize(
    ("kind", "fields", "status", "shown"),
    [
        ("refused", {"problems": [PROBLEM, OTHER]}, 422, "line 3: unknown &lt;key&gt; /etc/b.yaml, line 1: broken"),
        ("conflict", {"text": "<theirs>", "sha": "cc"}, 409, "&lt;theirs&gt;"),
        ("conflict", {"text": None, "sha": None}, 409, "the file was removed"),
    ],
)
def test_a_form_that_is_not_saved(
    web: WebTier, supervisor: FakeSupervisor, kind: str, fields: Any, status: int, shown: str
) -> None:
    supervisor.answers["save"] = outcome(kind, **fields)
    supervisor.answers["try"] = outcome(None, words="a reload would: add a")
    answer = web.request("POST", "/ui/presets", b"action=save&file=a.yaml&base=aa&text=x%0D%0Ay", FORM)
    assert answer.status == status
    check_page(answer)
    assert shown in text(answer)
    assert b">\nx\ny</textarea>" in answer.body
    assert supervisor.of("save") == [
        {"op": "save", "file": "a.yaml", "text": "x\r\ny", "base": "aa", "by": "127.0.0.1"}
    ]
    if kind == "conflict":
        assert "A save would: add a" in text(answer)
        assert f'id="base" value="{fields["sha"] or ""}"'.encode() in answer.body


def test_buttons(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.answers["save"] = outcome("saved", words="reloaded: added a")
    supervisor.answers["try"] = outcome(None, words="a reload would: add a")
    checked = web.request("POST", "/ui/presets", b"action=check&file=a.yaml&text=x", FORM)
    assert "A save would: add a" in text(checked)
    saved = web.request("POST", "/ui/presets", b"action=save&file=a.yaml&text=x&base=", FORM)
    assert (saved.status, saved.headers["location"]) == (303, "/ui/presets?file=a.yaml")
    deleted = web.request("POST", "/ui/presets", b"action=delete&file=a.yaml&text=x&base=aa", FORM)
    assert (deleted.status, deleted.headers["location"]) == (303, "/ui/presets")
    assert [(each["text"], each["base"]) for each in supervisor.of("save")] == [("x", None), (None, "aa")]


def test_a_refused_save_keeps_what_was_typed(web: WebTier, supervisor: FakeSupervisor) -> None:
    def refuse(_: object) -> Any:
        raise Refused("cannot save: the disk is <full>", status=507)

    supervisor.answers["save"] = refuse
    answer = web.request("POST", "/ui/presets", b"action=save&file=a.yaml&text=mine&base=aa", FORM)
    assert answer.status == 507
    assert b"the disk is &lt;full&gt;" in answer.body and b">\nmine</textarea>" in answer.body
    asked = web.request("POST", "/ui/presets/save", b'{"file": "a.yaml", "text": "x"}', SCRIPT)
    assert "the disk is <full>" in asked.error["message"]


def test_scripts_send_large_texts(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.answers["try"] = outcome(None, words="a reload would change nothing")
    body = json.dumps({"file": "a.yaml", "text": "\u00e9" * 2**20}).encode()
    answer = web.request("POST", "/ui/presets/try", body, SCRIPT)
    assert answer.json["words"] == "A save would change nothing"
    assert len(supervisor.of("try")[0]["text"]) == 2**20
    too_large = web.request("POST", "/ui/presets/try", b"x" * (8 * 2**20 + 1), SCRIPT)
    assert too_large.status == 413


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_scripts_that_send_something_else(web: WebTier, body: bytes) -> None:
    assert web.request("POST", "/ui/presets/save", body, SCRIPT).error["code"] == 400


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", ["", "/try", "/save"])
def test_a_foreign_page_can_write_nothing(
    web: WebTier, supervisor: FakeSupervisor, path: str, headers: dict[str, str]
) -> None:
    answer = web.request("POST", f"/ui/presets{path}", b'{"file": "a.yaml", "text": "x"}', SCRIPT | headers)
    assert answer.status == 403
    assert supervisor.of("save") == supervisor.of("try") == []


@pytest.mark.parametrize("path", ["", "/schema", "/file/a.yaml"])
def test_only_an_admin_sees_them(web: WebTier, supervisor: FakeSupervisor, path: str) -> None:
    viewer = {"Host": "x", "Cookie": web.cookie("x", "viewer")}
    assert web.request("GET", f"/ui/presets{path}", headers=viewer).status == 403
    assert supervisor.of("file") == supervisor.of("files") == []


def test_supervisor_away(web: WebTier, supervisor: FakeSupervisor) -> None:
    supervisor.stop()
    try:
        answer = web.request("GET", "/ui/presets")
        asked = web.request("POST", "/ui/presets/try", b"{}", SCRIPT)
    finally:
        supervisor.start()
    assert answer.status == 503 and "The supervisor is not answering" in text(answer)
    assert asked.error["code"] == 503
