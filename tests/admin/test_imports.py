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


AS_THE_MASTER = """
import os, sys, threading
import admin.gunicorn_conf, admin.application
import gevent.monkey
from gevent._hub_local import get_hub_if_exists

assert get_hub_if_exists() is None
assert threading.enumerate() == [threading.main_thread()]
assert len(os.listdir("/proc/self/fd")) == 4, "the usual three, and the listing itself"
assert not {"pynvml", "pydantic", "yaml"} & sys.modules.keys()
gevent.monkey.patch_all()
unpatched = {id(value): name for items in gevent.monkey.saved.values() for name, value in items.items()}
ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("admin", "supervisor")}
print(*(f"{name}.{key}" for name, module in ours.items() for key, value in vars(module).items()
        if callable(value) and id(value) in unpatched))
"""


def test_what_the_master_imports_begins_nothing() -> None:
    """gunicorn's master imports all of it before workers are forked, and before gevent's patching there: no hub, thread
    or file may be shared, and nothing of ours may hold on to what is patched later."""
    run = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", AS_THE_MASTER], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
