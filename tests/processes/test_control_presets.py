"""The files of presets over the control socket: read, tried, saved and remembered, by a real supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import MISBEHAVING, READY, Supervisor, refused
from made_gguf import make

TEXT = "models:\n  a:\n    model: {}\n    context: 512\n"


@pytest.fixture
def weights(supervisor: Supervisor) -> Iterator[Path]:
    path = supervisor.directory / "m.gguf"
    make(path)
    yield path
    path.unlink()


def text(weights: Path, **keys: Any) -> str:
    return TEXT.format(weights) + "".join(f"    {key}: {value}\n" for key, value in keys.items())


def save(supervisor: Supervisor, file: str, content: str | None, base: str | None) -> Any:
    return supervisor.call("save", file=file, text=content, base=base)


def sha(supervisor: Supervisor, file: str) -> str:
    found: str = supervisor.call("file", file=file)["sha"]
    return found


def test_a_new_file_is_saved_and_in_use_at_once(supervisor: Supervisor, weights: Path) -> None:
    tried = supervisor.call("try", file="a.yaml", text=text(weights))
    assert (tried["savable"], tried["problems"], tried["changes"]["added"]) == (True, [], ["a"])
    assert not (supervisor.presets / "a.yaml").exists()
    saved = save(supervisor, "a.yaml", text(weights), None)
    assert (saved["outcome"], saved["changes"]["added"]) == ("saved", ["a"])
    assert supervisor.model("a")["file"] == "presets.d/a.yaml"
    listed = supervisor.call("files")
    [about] = listed["files"]
    assert listed["writable"]
    assert (about["file"], about["models"], about["sha"]) == ("a.yaml", ["a"], saved["sha"])
    assert supervisor.call("file", file="a.yaml")["text"] == text(weights)
    assert list(supervisor.presets.iterdir()) == [supervisor.presets / "a.yaml"]


def test_what_is_wrong_is_told_with_its_line_and_never_written(supervisor: Supervisor, weights: Path) -> None:
    first = save(supervisor, "a.yaml", text(weights), None)["sha"]
    wrong = text(weights, contxt=5)
    tried = supervisor.call("try", file="a.yaml", text=wrong)
    assert tried["savable"] is False
    problem = tried["problems"][0]
    assert (problem["line"], problem["field"], problem["here"]) == (5, "models.a.contxt", True)
    assert "did you mean 'context'?" in problem["message"]
    answer = save(supervisor, "a.yaml", wrong, first)
    assert (answer["outcome"], answer["problems"]) == ("refused", [problem])
    assert sha(supervisor, "a.yaml") == first
    assert supervisor.call("history", file="a.yaml")["versions"] == []


def test_a_model_whose_file_is_not_there_is_not_saved_but_its_neighbours_are(
    supervisor: Supervisor, weights: Path
) -> None:
    missing = "models:\n  a:\n    context: 512\n"
    assert [each["field"] for each in save(supervisor, "a.yaml", missing, None)["problems"]] == ["models.a.model"]
    supervisor.write("a", missing)
    supervisor.call("reload")
    both = missing + text(weights).replace("models:\n", "").replace("  a:", "  b:")
    saved = save(supervisor, "a.yaml", both, sha(supervisor, "a.yaml"))
    assert (saved["outcome"], saved["changes"]["added"]) == ("saved", ["b"])
    assert [each["field"] for each in saved["notices"]] == ["models.a.model"]


def test_a_preview_tells_what_a_save_would_do(supervisor: Supervisor, weights: Path) -> None:
    save(supervisor, "a.yaml", text(weights), None)
    changes = supervisor.call("try", file="a.yaml", text=text(weights, threads=1))["changes"]
    assert (changes["changed"], changes["outcomes"]["a"]["when"]) == (["a"], "not_running")
    changes = supervisor.call("try", file="a.yaml", text=text(weights, description="x"))["changes"]
    assert (changes["changed"], changes["adjusted"]) == ([], ["a"])
    changes = supervisor.call("try", file="a.yaml", text=None)["changes"]
    assert changes["removed"] == ["a"]
    assert supervisor.model("a")["description"] is None


def test_a_file_that_changed_on_disk_is_a_conflict(supervisor: Supervisor, weights: Path) -> None:
    base = save(supervisor, "a.yaml", text(weights), None)["sha"]
    other = text(weights, threads=2)
    (supervisor.presets / "a.yaml").write_text(other)
    answer = save(supervisor, "a.yaml", text(weights, threads=1), base)
    assert (answer["outcome"], answer["text"]) == ("conflict", other)
    assert (supervisor.presets / "a.yaml").read_text() == other
    again = save(supervisor, "a.yaml", text(weights, threads=1), answer["sha"])
    assert again["outcome"] == "saved"
    (supervisor.presets / "a.yaml").unlink()
    assert save(supervisor, "a.yaml", "models:\n", again["sha"])["text"] is None


def test_a_new_file_never_replaces_one(supervisor: Supervisor, weights: Path) -> None:
    supervisor.write("a", text(weights))
    assert save(supervisor, "a.yaml", text(weights, threads=1), None)["outcome"] == "conflict"


def test_history_keeps_what_was_replaced(supervisor: Supervisor, weights: Path) -> None:
    supervisor.write("h", text(weights))
    save(supervisor, "h.yaml", text(weights, threads=1), sha(supervisor, "h.yaml"))
    save(supervisor, "h.yaml", text(weights, threads=1), sha(supervisor, "h.yaml"))  # the same again is no version
    save(supervisor, "h.yaml", None, sha(supervisor, "h.yaml"))
    versions = supervisor.call("history", file="h.yaml")["versions"]
    texts = [supervisor.call("history", file="h.yaml", at=each["at"])["text"] for each in versions]
    assert texts == [text(weights, threads=1), text(weights)]
    assert not (supervisor.presets / "h.yaml").exists()
    assert (supervisor.directory / "state" / "history").stat().st_mode & 0o777 == 0o700
    with refused() as errors:
        supervisor.call("history", file="h.yaml", at=1)
    assert errors[0].status == 404


def test_mode_is_kept(supervisor: Supervisor, weights: Path) -> None:
    supervisor.write("a", text(weights))
    (supervisor.presets / "a.yaml").chmod(0o640)
    save(supervisor, "a.yaml", text(weights, threads=1), sha(supervisor, "a.yaml"))
    assert (supervisor.presets / "a.yaml").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "a.txt",
        ".a.yaml",
        "../a.yaml",
        "a/b.yaml",
        "/etc/x.yaml",
        "#a.yaml",
        "a b.yaml",
        "é.yaml",
        "a\x00.yaml",
        "a" * 96 + ".yaml",
        None,
        5,
    ],
)
def test_names_that_are_none(supervisor: Supervisor, name: Any) -> None:
    with refused() as errors:
        save(supervisor, name, "models:\n", None)
    assert errors[0].status == 400
    assert list(supervisor.presets.iterdir()) == []


def test_a_link_is_never_written_through(supervisor: Supervisor, weights: Path) -> None:
    target = supervisor.directory / "target"
    target.write_text(text(weights))
    (supervisor.presets / "l.yaml").symlink_to(target)
    for ask in (lambda: supervisor.call("file", file="l.yaml"), lambda: save(supervisor, "l.yaml", "models:\n", None)):
        with refused() as errors:
            ask()
        assert "it is a symbolic link" in str(errors[0])
    assert "symbolic link" in supervisor.call("files")["files"][0]["why_not"]
    assert target.read_text() == text(weights)
    target.unlink()


@pytest.mark.parametrize("content", ["x" * (2**20 + 1), 5, ["a"]])
def test_texts_that_are_none(supervisor: Supervisor, content: Any) -> None:
    with refused():
        save(supervisor, "a.yaml", content, None)


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform == "linux", reason="root may write everywhere")
def test_a_directory_that_nobody_may_write(supervisor: Supervisor, weights: Path) -> None:
    supervisor.presets.chmod(0o500)
    assert not supervisor.call("files")["writable"]
    with refused() as errors:
        save(supervisor, "a.yaml", text(weights), None)
    supervisor.presets.chmod(0o700)
    assert "writable" in str(errors[0])


RUNS: list[tuple[str, dict[str, Any]]] = [
    ("models.a.env.LD_PRELOAD", {"env": "{LD_PRELOAD: /tmp/x.so}"}),
    ("models.a.options.lora_path", {"options": "{lora_path: x}"}),
    ("models.a.options.x", {"options": "{x: /etc/passwd}"}),
    ("models.a.options.cache_type", {"options": "{cache_type: disk}"}),
]


@pytest.mark.parametrize(("field", "keys"), RUNS)
def test_what_runs_programs_is_not_for_browsers(
    supervisor: Supervisor, weights: Path, field: str, keys: dict[str, Any]
) -> None:
    problem = save(supervisor, "a.yaml", text(weights, **keys), None)["problems"][0]
    assert (problem["field"], problem["line"]) == (field, 5)
    assert "web: {edit_commands: true}" in problem["message"]


def test_commands_of_others_stay_and_may_not_change(supervisor: Supervisor) -> None:
    supervisor.add("c")
    before = supervisor.call("file", file="c.yaml")
    words = before["text"].replace('"stop_timeout"', '"description": "x", "stop_timeout"')
    saved = save(supervisor, "c.yaml", words, before["sha"])
    assert (saved["outcome"], saved["changes"]["adjusted"]) == ("saved", ["c"])
    evil = save(supervisor, "c.yaml", words.replace('"serve"', '"sleep"'), saved["sha"])
    assert [problem["field"] for problem in evil["problems"]] == ["models.c.command"]
    other_name = save(supervisor, "c.yaml", words.replace('"c":', '"d":'), saved["sha"])
    assert {problem["field"] for problem in other_name["problems"]} == {"models.d.command"}


def test_a_try_runs_no_program_that_is_not_in_use(supervisor: Supervisor, weights: Path) -> None:
    program = supervisor.directory / "program"
    program.write_text(f"#!/bin/sh\ntouch {supervisor.directory}/ran.dump\n")
    program.chmod(0o755)
    evil = text(weights, backend="llama-server", binary=program)
    assert supervisor.call("try", file="a.yaml", text=evil)["problems"][0]["field"] == "models.a.binary"
    assert save(supervisor, "a.yaml", evil, None)["outcome"] == "refused"
    allow(supervisor, True)
    supervisor.call("try", file="a.yaml", text=evil)
    assert not (supervisor.directory / "ran.dump").exists()
    assert save(supervisor, "a.yaml", evil, None)["outcome"] == "refused"
    assert (supervisor.directory / "ran.dump").exists()
    allow(supervisor, False)
    program.unlink()


def allow(supervisor: Supervisor, edit: bool) -> None:
    word = "{workers: 1, edit_commands: true}" if edit else "{workers: 1}"
    old = "{workers: 1}" if edit else "{workers: 1, edit_commands: true}"
    supervisor.config.write_text(supervisor.config.read_text().replace(old, word))
    assert supervisor.call("reload")["changes"]["needs_restart"] == []
    assert supervisor.call("files")["edit_commands"] is edit


def test_commands_where_config_allows_it(supervisor: Supervisor) -> None:
    allow(supervisor, True)
    command = [*MISBEHAVING, *READY]
    body = {"backend": "command", "command": command, "env": {"A": "{socket}"}, "ready": "notify"}
    assert save(supervisor, "c.yaml", f"models: {{c: {body}}}".replace("'", '"'), None)["outcome"] == "saved"
    allow(supervisor, False)


def test_problems_of_other_files_keep_nobody_from_saving(supervisor: Supervisor, weights: Path) -> None:
    supervisor.write("broken", "models: [")
    saved = save(supervisor, "a.yaml", text(weights), None)
    assert (saved["outcome"], saved["changes"]) == ("saved", None)
    assert [problem["here"] for problem in saved["problems"]] == [False]
    # A name that another file has is told at the later one of the two, and is this save's doing.
    clash = save(supervisor, "0.yaml", text(weights), None)
    assert clash["outcome"] == "refused"
    assert any("is taken by" in problem["message"] for problem in clash["problems"])


def test_config_yaml_can_be_read_only(supervisor: Supervisor) -> None:
    assert "listen:" in supervisor.call("file", file="@config")["text"]
    with refused():
        save(supervisor, "@config", "x", None)


def test_a_keystroke_does_not_parse_a_thousand_presets_again(supervisor: Supervisor, weights: Path) -> None:
    """In processor time, against a load of the same presets whose files have all changed."""

    def write(context: int) -> None:
        for number in range(50):
            models = {f"m{number}-{each}": {"model": str(weights), "context": context} for each in range(20)}
            supervisor.write(f"f{number:02}", {"models": models})

    write(256)
    supervisor.call("reload")
    write(512)
    cpu = cpu_seconds(supervisor)
    supervisor.call("reload")
    whole = cpu_seconds(supervisor) - cpu
    content = supervisor.call("file", file="f25.yaml")["text"]
    supervisor.call("try", file="f25.yaml", text=content)
    cpu = cpu_seconds(supervisor)
    for number in range(5):
        changes = supervisor.call("try", file="f25.yaml", text=content + f"\n# {number}")["changes"]
        assert changes["unchanged"] == 1000
    used = (cpu_seconds(supervisor) - cpu) / 5
    assert used < whole / 2, f"{used} s of CPU each, a whole load takes {whole} s"


def cpu_seconds(supervisor: Supervisor) -> float:
    return int(Path(f"/proc/{supervisor.pid}/schedstat").read_text().split()[0]) / 1e9


def test_of_two_saves_at_once_one_is_a_conflict(supervisor: Supervisor, weights: Path) -> None:
    base = save(supervisor, "a.yaml", text(weights), None)["sha"]
    clients = [supervisor.client() for _ in range(2)]
    for threads, client in enumerate(clients, 1):
        client._send({"op": "save", "file": "a.yaml", "text": text(weights, threads=threads), "base": base})
    answers = [client._receive() for client in clients]
    assert sorted(answer["outcome"] for answer in answers) == ["conflict", "saved"]
    assert text(weights, threads=1) in {answer.get("text") for answer in answers}


def test_whoever_asks_and_hangs_up_harms_nobody(supervisor: Supervisor, weights: Path) -> None:
    client = supervisor.client()
    client._send({"op": "save", "file": "a.yaml", "text": text(weights), "base": None})
    client.close()
    supervisor.eventually(lambda: bool(supervisor.status()["models"]), "it was saved all the same")
    assert (supervisor.presets / "a.yaml").read_text() == text(weights)
