"""What routers are started with, as far as that can be told without them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from supervisor import presets_dir
from tests.bench.routers.litellm import LiteLLM
from tests.bench.routers.llama_router import LlamaRouter, WithLlamaServer
from tests.bench.routers.llama_swap import LlamaSwap
from tests.bench.routers.router import Router, Scene
from tests.bench.scenes import IDLE, PACED, PROXY, SIZE, SWAP, TOKENS

SCENES = pytest.mark.parametrize("scene", [PROXY, SWAP, IDLE, SIZE], ids=lambda scene: scene.name)


def configuration(router: Router, scene: Scene, option: str) -> Path:
    """The file that a router is started with."""
    argv = list(router.argv(scene))
    return Path(argv[argv.index(option) + 1])


@SCENES
@pytest.mark.parametrize("router", [LlamaRouter, WithLlamaServer])
def test_llama_router_takes_its_configuration(tmp_path: Path, router: type[LlamaRouter], scene: Scene) -> None:
    found = presets_dir.load(configuration(router(tmp_path), scene, "--config"))
    assert sorted(found.presets) == sorted(model.name for model in scene.models)
    assert found.config.max_models == scene.room


@SCENES
def test_llama_swap_is_given_commands_with_its_own_ports(tmp_path: Path, scene: Scene) -> None:
    config = json.loads(configuration(LlamaSwap(tmp_path), scene, "-config").read_text())
    [group] = config["routing"]["router"]["settings"]["groups"].values()
    assert group["members"] == list(config["models"]) == [model.name for model in scene.models]
    assert group["swap"] is (scene is SWAP)
    for model in config["models"].values():
        assert any(word.endswith("${PORT}") for word in shlex.split(model["cmd"]))


def test_litellm_is_in_front_of_servers_that_it_did_not_start(tmp_path: Path) -> None:
    router = LiteLLM(tmp_path)
    config = json.loads(configuration(router, PROXY, "--config").read_text())
    assert [model["model_name"] for model in config["model_list"]] == [TOKENS.name, PACED.name]
    assert config["general_settings"]["pass_through_endpoints"][0]["path"] == "/tokenize"
