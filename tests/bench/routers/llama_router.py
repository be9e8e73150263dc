"""llama-router itself, from this checkout, as `llama-router run` starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from admin import sessions
from supervisor import __version__
from supervisor.access import known
from supervisor.client import Client
from tests.bench.routers import llama_server
from tests.bench.routers.router import CONTEXT, ROOT, THREADS, UPSTREAM, Model, Router, Scene
from tests.bench.wire import get

MANY = 4096  # requests at once that the upstream takes


class LlamaRouter(Router):
    """With the backend that models have by default."""

    name = "llama-router"
    is_ours = True
    backend = "llama-cpp-python"

    def missing(self) -> str | None:
        """Only llama-server may be."""
        return None

    def version(self) -> str:
        """The version with its commit."""
        call = ("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
        commit = subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()
        return f"{__version__} {commit}".strip()

    @property
    def _runtime(self) -> Path:
        return self.directory / "run"

    def argv(self, scene: Scene) -> Sequence[str | Path]:
        """`run` with a configuration of its own."""
        presets = self.directory / "presets.d"
        presets.mkdir(exist_ok=True)
        models = {model.name: self._preset(model) for model in scene.models}
        (presets / "models.yaml").write_text(json.dumps({"models": models}))  # JSON is YAML
        config = self.directory / "config.yaml"
        found = self.directory / "models"  # empty: what lies in the machine's own is not measured
        found.mkdir(exist_ok=True)
        about = {"listen": self.address.text, "max_models": scene.room, "models_dir": str(found)}
        config.write_text(json.dumps(about))
        paths = ("--config", config, "--state-dir", self.directory / "state", "--runtime-dir", self._runtime)
        return [Path(sys.prefix) / "bin" / "llama-router", "run", *paths]

    def _preset(self, model: Model) -> Mapping[str, object]:
        if model.file is None:
            command = [sys.executable, "-IS", str(UPSTREAM), "{socket}"]
            return {
                "backend": "command",
                "command": command,
                "ready": {"http": "/health"},
                "max_concurrency": MANY,
                "memory": {"host": "64MiB"},
            }
        common = {"model": str(model.file), "context": CONTEXT, "threads": THREADS}
        if model.tokenizes or self.backend == "llama-server":
            return common | {"backend": "llama-server", "binary": str(llama_server.binary())}
        return common

    def pages(self) -> list[bytes]:
        """The dashboard too, for somebody who is signed in."""
        value = sessions.sealed("admin", known(self.directory / "state", print))
        name = f"{sessions.COOKIE}_{self.address.text.rpartition(':')[2]}"
        return [get(self.health), get("/", host=self.address.text, cookie=f"{name}={value}")]

    def model_servers(self) -> set[int]:
        """As the supervisor knows them."""
        with Client(self._runtime, timeout=10.0) as client:
            models = client.call("status")["status"]["models"]
        return {replica["pid"] for model in models for replica in model["replicas"] if replica["pid"]}


class WithLlamaServer(LlamaRouter):
    """With the backend llama-server: what a swap, a crash or contention takes with the same server as the peers'."""

    name = "llama-router+llama-server"
    is_ours = False
    backend = "llama-server"
    cannot = dict.fromkeys(("small", "streams", "many", "slow", "size"), "the same as llama-router")

    def missing(self) -> str | None:
        """Whether there is a llama-server."""
        return None if llama_server.binary() else "no llama-server: make peers"
