"""The layering of the packages, read from their source: what may import what, and how long a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path for package in ("supervisor", "admin") for path in (ROOT / package).rglob("*.py"))
CORE = [path for path in MODULES if path.is_relative_to(ROOT / "supervisor" / "core")]
ADMIN = [path for path in MODULES if path.is_relative_to(ROOT / "admin")]

# Modules that only compute; none of them reaches outside of the process or answers differently each time it is asked.
PURE = {
    *("__future__", "abc", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum", "functools", "heapq"),
    *("itertools", "math", "operator", "pydantic", "types", "typing"),
    *("datetime", "decimal", "difflib", "fnmatch", "fractions", "hashlib", "hmac", "ipaddress", "json", "re", "shlex"),
    *("string", "textwrap", "unicodedata"),
}
IMPURE_BUILTINS = frozenset({"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})
FOR_ADMIN = (
    *("supervisor.client", "supervisor.protocol", "supervisor.errors", "supervisor.core"),
    "supervisor.keys_db",  # one file that both read and write
)
MAX_LINES = 400


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def imports(path: Path) -> Iterator[str]:
    """The absolute name of each thing a file imports, at any depth: "os", "supervisor.core.states", "os.path.join"."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package_of(path).split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_packages_are_found() -> None:
    assert len(CORE) > 5
    assert ROOT / "supervisor" / "errors.py" in MODULES
    assert ROOT / "admin" / "__init__.py" in ADMIN


@pytest.mark.parametrize("path", CORE, ids=ids)
def test_core_imports_only_core_and_what_is_pure(path: Path) -> None:
    strangers = [name for name in imports(path) if not within(name, "supervisor.core")]
    assert [name for name in strangers if name.split(".")[0] not in PURE] == []


@pytest.mark.parametrize("path", CORE, ids=ids)
def test_core_calls_no_clock_and_does_no_input_or_output(path: Path) -> None:
    found = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in IMPURE_BUILTINS:
                found.append(f"line {node.lineno}: {name}()")
            case ast.Attribute(attr=name) if name in CLOCK_METHODS:
                found.append(f"line {node.lineno}: .{name}()")
    assert found == []


@pytest.mark.parametrize("path", ADMIN, ids=ids)
def test_admin_asks_the_supervisor_only_through_its_client(path: Path) -> None:
    ours = [name for name in imports(path) if within(name, "supervisor")]
    assert [name for name in ours if not within(name, *FOR_ADMIN)] == []


@pytest.mark.parametrize("path", [path for path in MODULES if path not in ADMIN], ids=ids)
def test_the_supervisor_never_imports_the_web_tier(path: Path) -> None:
    assert [name for name in imports(path) if within(name, "admin")] == []


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_a_file_fits_in_a_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert (ast.get_docstring(tree(path)) or "").strip()
