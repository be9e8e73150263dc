"""YAML read with the lines of its values, and everything that a file can be instead of YAML."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from supervisor import yaml_positions
from supervisor.errors import ConfigurationError
from supervisor.yaml_positions import MAX_DEPTH, MAX_PROBLEMS, MAX_VALUES, parse


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with libyaml and with PyYAML's own scanner."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yaml_positions, "_LOADER", getattr(yaml, request.param))
    return str(request.param)


def value(text: str) -> object:
    return parse(text.encode(), "x.yaml").value


def problems(data: bytes) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(data, "x.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((word, word) for word in ("yes", "no", "on", "off", "y", "n", "No", "ON", "022", "0o17", "0x1F", "1_000")),
        *((word, word) for word in ("1:30", "12:30:45", "2024-01-01", "+1", "-0", "1e", "e1", "0.1.2", "=", "9" * 65)),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("~", "null", "Null", "NULL", "")),
        ("0", 0),
        ("-12", -12),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ('"3"', "3"),
        ("'true'", "true"),
        ("!!str 3", "3"),
        ("! 3", "3"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("{}", {}),
        ("[]", []),
        ("é", "é"),
    ],
)
@pytest.mark.usefixtures("loader")
def test_scalars(text: str, expected: object) -> None:
    found = value(f"key: {text}")
    assert found == {"key": expected}
    assert isinstance(found, dict)
    assert type(found["key"]) is type(expected)


@pytest.mark.usefixtures("loader")
def test_nan_is_a_float() -> None:
    found = value("[.nan]")
    assert isinstance(found, list)
    assert math.isnan(found[0])


@pytest.mark.usefixtures("loader")
def test_keys_are_text() -> None:
    assert value("{1: a, 2.50: b, true: c, null: d, '': e}") == {
        "1": "a",
        "2.50": "b",
        "true": "c",
        "null": "d",
        "": "e",
    }


@pytest.mark.usefixtures("loader")
def test_a_byte_order_mark_is_skipped() -> None:
    assert value("\ufeffa: 1") == {"a": 1}


@pytest.mark.usefixtures("loader")
def test_every_value_has_its_line() -> None:
    document = parse(b"# comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n", "x.yaml")
    assert document.value == {"a": {"b": 1, "c": ["x", {"d": 2, "e": 3}]}}
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
        ("a", "c", 1, "e"): 7,
    }
    assert document.known(("a", "c", 1, "f", "g")) == ("a", "c", 1)
    assert document.known(("z",)) == ()


@pytest.mark.usefixtures("loader")
def test_anchors_and_merges() -> None:
    text = """\
    base: &base {a: 1, b: 2}
    more: &more {b: 3, c: 4}
    one: {<<: *base, a: 9}
    two: {<<: [*base, *more], <<x: 1}
    chain: &chain {<<: *more, d: 5}
    three: {<<: *chain}
    text: {"<<": *base}
    same: *base
    """
    found = value(text)
    assert isinstance(found, dict)
    assert found["one"] == {"a": 9, "b": 2}
    assert found["two"] == {"a": 1, "b": 2, "c": 4, "<<x": 1}
    assert found["three"] == {"b": 3, "c": 4, "d": 5}
    assert found["text"] == {"<<": {"a": 1, "b": 2}}
    assert found["same"] == {"a": 1, "b": 2}


def test_a_merged_value_has_the_line_where_it_is_written() -> None:
    document = parse(b"base: &base\n  a: 1\none:\n  <<: *base\n  b: 2\n", "x.yaml")
    assert document.lines["one", "a"] == 2
    assert document.lines["one", "b"] == 5


@pytest.mark.parametrize("data", [b"# nothing\n", b"---\n", b"---\n# x\n...\n", b"\xef\xbb\xbf# bom\n"])
@pytest.mark.usefixtures("loader")
def test_a_file_of_comments_has_no_value(data: bytes) -> None:
    document = parse(data, "x.yaml")
    assert document.value is None
    assert document.lines.keys() == {()}


def bomb(template: str, levels: int, width: int) -> bytes:
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} " + template % ", ".join([f"*a{level - 1}"] * width))
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"", None, "empty file"),
        (b" \n\n", None, "empty file"),
        (b"\0\0\0\0", 1, "control character U+0000"),
        (b"a: 1\nb: \x07\n", 2, "control character U+0007"),
        ("a: 1\nb: größe".encode("latin-1"), 2, "byte 0xf6: save the file as UTF-8"),
        ("a: 1".encode("utf-16"), 1, "save the file as UTF-8"),
        (bytes(range(256)), 2, "save the file as UTF-8"),
        (b"a:\n\tb: 1\n", 2, "indent with spaces instead of tabs"),
        (b"a:\n  b: 1\n c: 2\n", 3, "cannot read as YAML"),
        (b"a: b: c\n", 1, "put text that holds ': ' in quotes"),
        (b"a: 1\nb: @x\n", 2, "put the text in quotes"),
        (b"a: [1, 2\n", 1, "cannot read as YAML"),
        (b"a: 'x\n", 1, "cannot read as YAML"),
        (b"a: 1\n---\nb: 2\n", 2, "cannot use a second document"),
        (b"a: *x\n", 1, "cannot find anchor '&x'"),
        (b"a: &x [*x]\n", 1, "cannot use '*x' inside '&x' itself"),
        (b"a: &x {b: {c: *x}}\n", 1, "cannot use '*x' inside '&x' itself"),
        (b"a: &x\n  <<: *x\n", 2, "cannot use '*x' inside '&x' itself"),
        (b"a: 1\n<<: 3\n", 2, "cannot merge this with '<<'"),
        (b"? [a]\n: 1\n", 1, "cannot use a list or mapping as a key"),
        (b"a: !!python/object/apply:os.system [x]\n", 1, "cannot use tag"),
        (b"a: !secret x\n", 1, "cannot use tag '!secret'"),
        (b'a: "\\ud800"\n', 1, ""),
        (b'a: "\\Uffffffff"\n', None, ""),
        (b"[" * 100_000, 1, f"more than {MAX_DEPTH} deep"),
        (b"{a: " * 100_000, 1, f"more than {MAX_DEPTH} deep"),
        (b"- " * 100_000, 1, f"more than {MAX_DEPTH} deep"),
        (bomb("[%s]", 10, 10), None, f"more than {MAX_VALUES} values"),
        (bomb("{<<: [%s]}", 10, 10), None, f"more than {MAX_VALUES} values"),
        (bomb("[%s]", 1000, 1), None, f"more than {MAX_DEPTH} deep"),
        (bomb("{<<: [%s]}", 1000, 1), None, f"more than {MAX_DEPTH} deep"),
    ],
    ids=lambda part: ascii(part[:20]) if isinstance(part, bytes) else None,
)
@pytest.mark.usefixtures("loader")
def test_files_that_are_refused(data: bytes, line: int | None, message: str) -> None:
    found = problems(data)
    assert len(found) == 1
    assert found[0].startswith("x.yaml:" if line is None else f"x.yaml:{line}: ")
    assert message in found[0]


def test_many_values_are_refused_before_they_fill_the_memory() -> None:
    assert f"more than {MAX_VALUES} values" in problems(b"[" + b"0," * MAX_VALUES + b"]")[0]


def test_duplicate_keys_are_all_reported_with_both_lines() -> None:
    data = b"a: 1\nb:\n  c: 1\n  d: 2\n  'c': 3\na: 2\n"
    assert problems(data) == [
        "x.yaml:5: cannot use key 'c' twice: it is also in line 3; remove one",
        "x.yaml:6: cannot use key 'a' twice: it is also in line 1; remove one",
    ]


def test_endless_duplicates_are_cut() -> None:
    assert len(problems(b"a: 1\n" * 10_000)) == MAX_PROBLEMS


@given(st.binary() | st.text().map(str.encode) | st.text("ab:-[]{}&*<>!|#'\" \n\t0.", max_size=60).map(str.encode))
def test_anything_is_read_or_refused(data: bytes) -> None:
    for name in ("CSafeLoader", "SafeLoader"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml_positions, "_LOADER", getattr(yaml, name, yaml.SafeLoader))
            try:
                document = parse(data, "x.yaml")
            except ConfigurationError as error:
                assert error.problems
            else:
                assert document.lines[()] >= 1
