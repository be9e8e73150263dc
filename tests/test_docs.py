"""What can drift is in the documentation: each state, key, command and path; and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from admin import routes
from admin.application import create_app
from supervisor.cli import program
from supervisor.core import schema
from supervisor.core.states import State

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "HACKING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def keys(definition: str, schemas: Any) -> list[str]:
    return list(schemas["$defs"][definition]["properties"])


@pytest.mark.parametrize("state", State)
def test_states(state: State) -> None:
    assert re.search(rf"^\| {state.value} \| \w", document("models.md"), re.MULTILINE)


@pytest.mark.parametrize("key", keys("Preset", schema.presets()))
def test_keys_of_a_preset(key: str) -> None:
    assert re.search(rf"^\| .*`{key}[`.]", document("presets.md"), re.MULTILINE)


OF_THE_WEB = [f"web.{key}" for key in keys("Web", schema.config())]


@pytest.mark.parametrize("key", [*keys("Config", schema.config()), *OF_THE_WEB])
def test_keys_of_the_configuration(key: str) -> None:
    assert f"`{key}" in document("configuration.md")


def test_the_example_has_every_key_of_the_configuration() -> None:
    example = yaml.safe_load((ROOT / "packaging/examples/config.yaml").read_text())
    assert sorted(example) == sorted(keys("Config", schema.config()))
    assert sorted(example["web"]) == sorted(keys("Web", schema.config()))


@pytest.mark.parametrize("command", list(program.commands))
def test_commands(command: str) -> None:
    assert re.search(rf"^\| .*`{command}\b.*\| \w", document("command-line.md"), re.MULTILINE)


def test_paths(tmp_path: Path) -> None:
    app = create_app(str(tmp_path), str(tmp_path))
    own = {rule.rule for rule in app.url_map.iter_rules() if not rule.rule.startswith(("/ui", "/static"))}
    # Parameters are written as words there, and /v1 is said to be optional.
    plain = {re.sub(r"<[^>]*>", "", path).removeprefix("/v1").rstrip("/") for path in own | set(routes.PATHS)}
    text = document("api.md")
    assert [path for path in sorted(plain) if path and path not in text] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links(path: Path) -> None:
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_document_is_reached(path: Path) -> None:
    if path.parent.name == "docs":
        assert f"docs/{path.name}" in (ROOT / "README.md").read_text()
