"""admin/ knows the supervisor by its client, its protocol, its errors and the file of keys, and of its core how
presets, the configuration and sizes are written, what of a command line is secret, and who is let in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import admin

ALLOWED = {
    "supervisor.client",
    "supervisor.protocol",
    "supervisor.errors",
    "supervisor.keys_db",
    "supervisor.core.access",
    "supervisor.core.keys",
    "supervisor.core.preset",
    "supervisor.core.config",
    "supervisor.core.need",
    "supervisor.core.quantities",
    "supervisor.core.reasons",
    "supervisor.core.secrets",
    "supervisor.core.states",
}
SOURCES = sorted(Path(admin.__file__).parent.rglob("*.py"))


def imported(source: Path) -> set[str]:
    """Every module that a file imports, wherever in it; `from a import b` counts as a.b for packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            packages = ("supervisor", "supervisor.core")
            found |= {f"{module}.{alias.name}" for alias in node.names} if module in packages else {module}
    return found


def test_admin_imports_little_of_the_supervisor() -> None:
    assert SOURCES
    for source in SOURCES:
        used = {name for name in imported(source) if name.split(".")[0] == "supervisor"}
        assert used <= ALLOWED, source.name


def test_the_master_stays_small() -> None:
    """gunicorn's master reads the configuration; the application is for the workers, after gevent's patching."""
    code = "import sys, admin.gunicorn_conf; print(*(m for m in ('admin.proxy', 'jinja2') if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
