"""llama.cpp's llama-server: in router mode, and asked directly, which is the limit for everybody in front of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.bench.routers.router import CONTEXT, THREADS, UPSTREAM, VENV, Model, Router, Scene
from tests.bench.wire import Address, loopback


def binary() -> Path | None:
    """The program that `make peers` made, else the one on PATH."""
    made = VENV / "peers" / "bin" / "llama-server"
    found = str(made) if made.exists() else shutil.which("llama-server")
    return Path(found).resolve() if found else None


def build() -> str:
    """The version that the program tells, with its package's if that is where it is from."""
    program = binary()
    if program is None:
        return ""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version: (.*)", told.stderr + told.stdout)
    pin = VENV / "peers" / "pin"
    package = f", {pin.read_text().strip()}" if program.is_relative_to(VENV) and pin.exists() else ""
    return (version[1].strip() if version else "unknown") + package


def arguments(model: Model, address: Address) -> list[str]:
    """The command line of a server for one model."""
    host, _, port = address.text.rpartition(":")
    served = ["--model", str(model.file), "--host", host, "--port", port]
    return [str(binary()), *served, "--ctx-size", str(CONTEXT), "--threads", str(THREADS)]


class LlamaServer(Router):
    """Its router mode, with presets in an INI file."""

    name = "llama-server"
    serves_only_gguf = True
    cannot: ClassVar = {
        "streams": "it serves its own models only, and none here makes 10,000 tokens a second",
        "slow": "it serves its own models only, and none here makes 2,000 streams at once",
    }

    def missing(self) -> str | None:
        """Whether the program is there."""
        return None if binary() else "no llama-server: make peers"

    def version(self) -> str:
        """The build."""
        return build()

    def argv(self, scene: Scene) -> Sequence[str | Path]:
        """Router mode: no model on the command line."""
        ini = self.directory / "models.ini"
        sections = [
            f"[{model.name}]\nmodel = {model.file}\nctx-size = {CONTEXT}\nthreads = {THREADS}\n"
            for model in scene.models
            if model.file is not None
        ]
        ini.write_text("version = 1\n\n" + "\n".join(sections))
        host, _, port = self.address.text.rpartition(":")
        program = binary()
        assert program is not None
        return [program, "--models-preset", ini, "--models-max", str(scene.room), "--host", host, "--port", port]

    def env(self) -> dict[str, str]:
        """A cache of its own, where it looks for more models."""
        return {"LLAMA_CACHE": str(self.directory / "cache"), "HF_HOME": str(self.directory / "cache")}


class Direct(Router):
    """No router: the model server that the small requests are for, and the upstream that streams."""

    name = "direct"
    is_limit = True
    counts_cpu = False
    cannot = dict.fromkeys(("swap", "contention", "crash", "streams", "idle", "size"), "there is no router")

    def missing(self) -> str | None:
        """Whether there is a llama-server."""
        return None if binary() else "no llama-server: make peers"

    def version(self) -> str:
        """The build."""
        return build()

    def before(self, scene: Scene) -> None:
        """The upstream."""
        self._paced = loopback()
        upstream = self.beside(sys.executable, "-IS", UPSTREAM, self._paced.text)
        self.await_answer(upstream, self._paced, "/health")

    def argv(self, scene: Scene) -> Sequence[str | Path]:
        """The server of the model that tokenizes."""
        return arguments(next(model for model in scene.models if model.tokenizes), self.address)

    def address_of(self, model: Model) -> Address:
        """Each model has its own server."""
        return self._paced if model.file is None else self.address
