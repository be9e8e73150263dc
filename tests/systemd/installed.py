"""llama-router in a booted tree without its package: this checkout and this Python, seen from there, and the units."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from booted import RUN_SECONDS, Machine
from observed import Timeout
from served import gguf

ROOT = Path(__file__).resolve().parents[2]
UNITS = {
    "llama-router.service": "/etc/systemd/system/llama-router.service",
    "llama-router.socket": "/etc/systemd/system/llama-router.socket",
    "llama-router.sysusers": "/etc/sysusers.d/llama-router.conf",
    "llama-router.tmpfiles": "/etc/tmpfiles.d/llama-router.conf",
}
SERVICE = "llama-router.service"
CONFIG = "/etc/llama-router/config.yaml"
PRESETS = "/etc/llama-router/presets.d"
MODEL = "/srv/models/smollm2.gguf"
ADDRESS = "http://127.0.0.1:8080"

# Not where they are here, which may be below a home directory.
PYTHON, PACKAGES, CHECKOUT = "/opt/python", "/opt/llama-router/packages", "/opt/llama-router/checkout"
PROGRAM = f"{PYTHON}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
SCRIPT = f"""#!{{python}} -P
import os, sys
sys.path[:0] = ["{CHECKOUT}", "{PACKAGES}"]
os.environ["PYTHONPATH"] = "{CHECKOUT}:{PACKAGES}"
from supervisor.cli import main
main()
"""


class Installed(Machine):
    """A machine with llama-router and its units in it, and SmolLM2 as the model smollm2."""

    def __init__(self) -> None:
        binds = {PYTHON: Path(sys.base_prefix), PACKAGES: Path(sysconfig.get_path("purelib")), CHECKOUT: ROOT}
        super().__init__({**binds, MODEL: gguf().resolve()})

    @property
    def inside(self) -> str:
        """Where the scripts are that run in there."""
        return f"{CHECKOUT}/tests/systemd/inside"

    def install(self) -> None:
        """Put everything in its place."""
        self.provide("/usr/bin/llama-router", PROGRAM)
        for source, target in UNITS.items():
            self.write(target, (ROOT / "units" / source).read_text())
        self.run("systemd-sysusers")
        self.run("systemd-tmpfiles", "--create", "llama-router.conf")
        self.write(CONFIG, "web: {workers: 1}\nmax_models: 2\n")
        self.preset("smollm2", model=MODEL, context=1024, threads=2)
        self.run("systemctl", "daemon-reload")

    def provide(self, script: str, python: str) -> None:
        """The console script, as pip would make it for this Python."""
        self.write("/etc/ld.so.conf.d/python.conf", f"{PYTHON}/lib\n")
        self.run("ldconfig")
        self.write(script, SCRIPT.format(python=python), 0o755)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file of root's."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def preset(self, name: str, **keys: Any) -> None:
        """A preset in a file of its name."""
        self.write(f"{PRESETS}/{name}.yaml", json.dumps({"models": {name: keys}}))

    # Requests

    def curl(self, *arguments: str) -> str:
        """The body of a successful answer; the last argument is a path."""
        *options, path = arguments
        return self.run("curl", "--silent", "--show-error", "--fail-with-body", *options, f"{ADDRESS}{path}")

    def chat(self) -> str:
        """What SmolLM2 says."""
        messages = [{"role": "user", "content": "Say hello."}]
        body = json.dumps({"model": "smollm2", "max_tokens": 4, "messages": messages})
        answer = self.curl("--header", "Content-Type: application/json", "--data", body, "/v1/chat/completions")
        said: str = json.loads(answer)["choices"][0]["message"]["content"]
        return said

    def models(self) -> list[str]:
        """Their names."""
        return [model["id"] for model in json.loads(self.curl("/v1/models"))["data"]]

    # Processes

    def parts(self) -> dict[str, int]:
        """The processes of the service, by what they are; of one worker and one model server."""
        argv, main = self.processes(SERVICE), int(self.show(SERVICE, "MainPID"))
        web = sorted(pid for pid, line in argv.items() if "gunicorn" in line)
        found = {
            "supervisor": [main],
            "guard": sorted(pid for pid, line in argv.items() if "guard_program" in line),
            "forkserver": [pid for pid, line in argv.items() if "supervisor.forkserver " in line],
            "web": web[:1],
            "worker": web[1:],
            # Forked by the forkserver, or else spawned.
            "model": [pid for pid, line in argv.items() if re.search("model smollm2|supervisor.model_server ", line)],
        }
        return {name: pids[0] for name, pids in found.items() if pids}

    def eventually(self, true: Callable[[], bool], what: str) -> None:
        """Look again and again until something that no event tells is true."""
        deadline = time.monotonic() + RUN_SECONDS
        while not true():
            if time.monotonic() > deadline:
                raise Timeout(f"not true: {what}; there are {self.processes(SERVICE)}")

    @contextmanager
    def drop_in(self, unit: str, section: str, **settings: str) -> Iterator[None]:
        """For a while, settings of a unit of the administrator's own."""
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        path = f"/etc/systemd/system/{unit}.d/test.conf"
        self.write(path, f"[{section}]\n{text}")
        self.run("systemctl", "daemon-reload")
        try:
            yield
        finally:
            (self.root / path.lstrip("/")).unlink()
            self.run("systemctl", "daemon-reload")
