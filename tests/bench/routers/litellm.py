"""LiteLLM's proxy, which starts no models: it is in front of servers that the benchmark starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.routers import llama_server
from tests.bench.routers.router import UPSTREAM, VENV, Router, Scene
from tests.bench.wire import loopback

ENVIRONMENT = VENV / "litellm-proxy"


class LiteLLM(Router):
    """As its documentation starts it: `litellm --config FILE`, one worker."""

    name = "LiteLLM"
    cannot = dict.fromkeys(("swap", "contention", "crash", "idle"), "it starts no models")
    health = "/health/liveliness"
    most_turns = 1

    def missing(self) -> str | None:
        """Whether its environment was made."""
        if not (ENVIRONMENT / "bin" / "litellm").exists():
            return "no LiteLLM: make litellm"
        return None if llama_server.binary() else "no llama-server: make peers"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._paced, self._tokens = loopback(), loopback()

    def version(self) -> str:
        """The package's."""
        code = "import importlib.metadata as m; print(m.version('litellm'))"
        call = [str(ENVIRONMENT / "bin" / "python"), "-c", code]
        return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()

    def before(self, scene: Scene) -> None:
        """The servers."""
        upstream = self.beside(sys.executable, "-IS", UPSTREAM, self._paced.text)
        self.await_answer(upstream, self._paced, "/health")
        for model in scene.models:
            if model.tokenizes:
                server = self.beside(*llama_server.arguments(model, self._tokens))
                self.await_answer(server, self._tokens, "/health")

    def argv(self, scene: Scene) -> Sequence[str | Path]:
        """/tokenize, which it does not know, as a path that it passes through."""
        models = [
            {
                "model_name": model.name,
                "litellm_params": {
                    "model": f"openai/{model.name}",
                    "api_base": f"http://{self._paced.text}/v1",
                    "api_key": "unused",
                },
            }
            for model in scene.models
        ]
        through = [{"path": "/tokenize", "target": f"http://{self._tokens.text}/tokenize", "auth": False}]
        # It has no key, as the others here have none.
        settings = {"pass_through_endpoints": through, "dangerously_permit_weak_or_unset_master_key": True}
        config = {"model_list": models, "general_settings": settings}
        file = self.directory / "litellm.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        host, _, port = self.address.text.rpartition(":")
        return [ENVIRONMENT / "bin" / "litellm", "--config", file, "--host", host, "--port", port]

    def env(self) -> dict[str, str]:
        """Its table of prices is not fetched: nothing here leaves the machine."""
        return {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}

    def model_servers(self) -> set[int]:
        """It has none."""
        return set()
