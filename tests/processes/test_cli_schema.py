"""`llama-router schema`: what it prints fits JSON Schema, examples, the documentation, and what the loader takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from pydantic import ValidationError

from supervisor import presets_dir, yaml_positions
from supervisor.cli import program
from supervisor.core import quantities, schema
from supervisor.core.config import Config
from supervisor.core.fields import complaints
from supervisor.core.preset import Preset
from supervisor.errors import ConfigurationError, Problem
from supervisor.importing import written

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [*ROOT.glob("packaging/*/*.yaml"), *ROOT.glob("packaging/*/presets.d/*.yaml")]
CONFIG = Draft202012Validator(schema.config())
PRESETS = Draft202012Validator(schema.presets())
BLOCK = re.compile(r"(?:^    .*\n|^\n)+", re.MULTILINE)


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"LLAMA_ROUTER_DEBUG": None}).invoke(program, list(arguments))


@pytest.mark.parametrize("kind", ["config", "presets"])
def test_it_prints_a_valid_schema(kind: str) -> None:
    result = invoke("schema", kind)
    assert (result.exit_code, result.stderr) == (0, "")
    printed = json.loads(result.stdout)
    Draft202012Validator.check_schema(printed)
    assert printed == getattr(schema, kind)()
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_presets_are_what_it_prints_if_nobody_says() -> None:
    assert invoke("schema").stdout == invoke("schema", "presets").stdout


def test_an_unknown_kind_is_wrong_usage() -> None:
    assert invoke("schema", "unit").exit_code == 64


def objects(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects(inner)


@pytest.mark.parametrize("kind", [schema.config(), schema.presets()], ids=["config", "presets"])
def test_every_key_is_described_in_a_sentence(kind: Mapping[str, Any]) -> None:
    names = {name for definition in kind["$defs"].values() for name in definition["properties"]}
    assert len(names) > 10
    for definition in kind["$defs"].values():
        for name, value in definition["properties"].items():
            assert re.fullmatch(r"[A-Z\d].{8,110}\.", value["description"]), name


def test_it_has_every_key_and_refuses_others() -> None:
    assert schema.presets()["$defs"]["Preset"]["properties"].keys() == Preset.model_fields.keys() - {"name"}
    assert schema.config()["$defs"]["Config"]["properties"].keys() == Config.model_fields.keys()
    for kind in (schema.config(), schema.presets()):
        for node in objects(kind):
            if "properties" in node and node.get("type") in ("object", ["object", "null"]):
                assert node["additionalProperties"] is False or "propertyNames" in node
            assert not node.keys() & {"title", "le", "ge"} or node is kind


def test_it_refers_to_nothing_that_is_missing() -> None:
    for kind in (schema.config(), schema.presets()):
        used = {node["$ref"] for node in objects(kind) if isinstance(node.get("$ref"), str)}
        assert used == {f"#/$defs/{name}" for name in kind["$defs"]}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_packaged_files_fit(path: Path) -> None:
    value = yaml_positions.parse(path.read_bytes(), path.name).value
    error = best_match((CONFIG if path.name == "config.yaml" else PRESETS).iter_errors(value))
    assert error is None, error


def documented_blocks() -> list[str]:
    """The indented blocks of the README and of docs/ that hold presets or a config.yaml."""
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
    blocks = [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in BLOCK.findall(text)]
    return [block for block in blocks if re.match(r"\s*(# yaml|models:|defaults:|listen:|memory:)", block)]


def test_the_yaml_of_the_documentation_fits() -> None:
    blocks = documented_blocks()
    assert len(blocks) > 3
    for block in blocks:
        value = yaml_positions.parse(block.encode(), "README.md").value
        assert PRESETS.is_valid(value) or CONFIG.is_valid(value), block


def test_a_default_is_written_as_in_a_file_and_fits() -> None:
    model = schema.presets()["$defs"]["Preset"]["properties"]
    assert model["start_timeout"]["default"] == "5min"
    assert schema.config()["$defs"]["Log"]["properties"]["keep"]["default"] == "50MiB"
    assert schema.config()["$defs"]["Config"]["properties"]["listen"]["default"] == "127.0.0.1:8080"
    defaults = {name: value["default"] for name, value in model.items() if "default" in value}
    assert PRESETS.is_valid({"defaults": defaults})


# What each key of the files might hold, right and wrong.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70000),
    st.sampled_from([2**31 - 1, 2**31, 10**12, 2**60, 2**70, -(2**70)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "a", "on", "No", "never", "auto", "yes ", "notify", "tcp", "host", "gpu0", "always", "command"]
    ),
    st.sampled_from(
        ["30s", "1h30min", "1h 30 min", "5", " 7 ", "1.5", "1.0", "6GiB", "512M", "3XB", "1e3", "-1", "0x10"]
    ),
    st.sampled_from(["127.0.0.1:80", "[::1]:80", ":80", "a:b", "unix:/a", "/a", "/a/", "unix:a", "host:99999"]),
    st.sampled_from(["@a", "a#b", " a", "a ", "a b", "x" * 200, "x" * 201, "é"]),
    st.text(max_size=5),
)
NAMES = st.sampled_from(["host", "gpu0", "gpu123", "A", "A=B", "", "http", "policy", "limit", "delay", "set", "remove"])
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=2), max_size=2)
)
PRESET_KEYS = st.sampled_from([*sorted(Preset.model_fields.keys() - {"name"}), "contxt", "name"])
CONFIG_KEYS = st.sampled_from([*Config.model_fields, "prests"])

# What the loader refuses by looking at other keys or at the disk: no schema sees it.
ELSEWHERE = re.compile(
    r"cannot be (given for|missing)|cannot read '.*: (No such file|Is a directory|File name too long|Not a directory|"
    r"it is not a regular file)|cannot tell the program|cannot listen on both|cannot use alias|, which is longer"
)
# What it calculates or compares: a schema sees some of it. To JSON Schema 1.0 is a whole number.
CALCULATED = re.compile(
    r"cannot read -?[0-9.e+]+ as text|"
    r"it must be 0 to|cannot be 0|more than 0|as a whole number|a plain number is whole bytes|cannot listen on |"
    r"as a name: it must be printable|NUL character|cannot run "
)


def refused_by_loader(document: object) -> list[Problem]:
    try:
        return presets_dir.look_through(Path("/nowhere/p.yaml"), written.dump(document))
    except ConfigurationError as error:
        return error.problems


def loadable(document: object) -> bool:
    """Whether YAML can hold it: keys and texts of characters that the reader takes."""
    try:
        return yaml_positions.parse(written.dump(document).encode(), "p").value == document
    except ConfigurationError:
        return False


def require_agreement(fits: bool, messages: list[str], document: object) -> None:
    """What loads fits; what fits is refused only for what a schema can't see."""
    if all(ELSEWHERE.search(message) for message in messages):
        assert fits, document
    if fits:
        assert [each for each in messages if not ELSEWHERE.search(each) and not CALCULATED.search(each)] == []


UNITS = ["ms", "s", "sec", "m", "min", "h", "d", "w"]
SIZES = ["B", *(f"{prefix}{suffix}" for prefix in "KMGTP" for suffix in ("", "B", "iB"))]


@pytest.mark.parametrize(
    "text", [f"{count}{gap}{unit}" for count in ("0", "1", "1.5") for gap in ("", " ") for unit in UNITS]
)
def test_every_unit_of_time_fits(text: str) -> None:
    for value in (text, f"{text}2s", f"{text} 3min"):
        quantities.duration(value)
        assert PRESETS.is_valid({"defaults": {"stop_timeout": value, "idle_timeout": value}})


@pytest.mark.parametrize(
    "text", ["1", " 2 ", "3.0", *(f"{count} {unit}" for count in ("0", "1.5") for unit in SIZES), 0, 2**60]
)
def test_every_unit_of_size_fits(text: str | int) -> None:
    quantities.size(text)
    assert CONFIG.is_valid({"memory": {"host": text, "gpu0": text, "gpu12": "auto"}})


@given(st.dictionaries(PRESET_KEYS, VALUES, max_size=2))
def test_presets_that_load_fit_and_what_fits_loads(keys: dict[str, Any]) -> None:
    document = {"models": {"m": keys}}
    assume(loadable(document))
    messages = [problem.message for problem in refused_by_loader(document)]
    require_agreement(PRESETS.is_valid(document), messages, document)


@given(st.dictionaries(CONFIG_KEYS, VALUES, max_size=2))
def test_config_yaml_that_loads_fits_and_what_fits_loads(keys: dict[str, Any]) -> None:
    assume(loadable(keys))
    try:
        Config.model_validate(keys)
        messages = []
    except ValidationError as error:
        messages = [message for _, message in complaints(Config, error)]
    require_agreement(CONFIG.is_valid(keys), messages, keys)


@pytest.mark.parametrize(
    ("document", "fits"),
    [
        (None, True),
        ({"models": None, "defaults": None}, True),
        ({"models": {"a": None}}, True),
        ({"modles": {}}, False),
        ({"models": {"a": {"contxt": 1}}}, False),
        ({"models": {"#": {}}}, False),
        ({"models": {"a": {"restart": {"limit": -1}}}}, False),
        ({"defaults": {"stop_timeout": "10 parsecs"}}, False),
        ({"models": {"a": {"env": {"A=B": "1"}}}}, False),
        ({"models": {"a": {"env": {"A": 1}}}}, True),
    ],
)
def test_examples_of_presets(document: object, fits: bool) -> None:
    assert PRESETS.is_valid(document) is fits
