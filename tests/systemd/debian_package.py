"""The package that `make deb` left in dist/, a later one made of it, and a booted Debian to install them in."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from booted import Machine
from installed import ADDRESS, MODEL, PRESETS, ROOT
from served import gguf

LATER = "999.0"
INSTALL_SECONDS = 300
ENVIRONMENT = Path("usr/lib/llama-router")
PACKAGES = "/srv/packages"


def built() -> Path:
    """The package. Skips where there is none, or one of other sources than this checkout's."""
    architecture = subprocess.run(("dpkg", "--print-architecture"), capture_output=True, text=True, check=True).stdout
    found = sorted(ROOT.glob(f"dist/llama-router_*_{architecture.strip()}.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip("there is no package in dist/: make deb")
    if sources(found[-1]) != {
        str(path.relative_to(ROOT)): path.read_bytes() for path in ROOT.glob("supervisor/**/*.py")
    }:
        pytest.skip(f"{found[-1].name} is not of the sources that are here: make deb")
    return found[-1]


def sources(package: Path) -> dict[str, bytes]:
    """The supervisor's modules in it, by their paths in a checkout."""
    data = subprocess.run(("dpkg-deb", "--fsys-tarfile", package), capture_output=True, check=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            _, _, path = member.name.partition("/site-packages/")
            if path.startswith("supervisor/") and path.endswith(".py"):
                file = archive.extractfile(member)
                assert file is not None
                found[path] = file.read()
    return found


def later(package: Path, directory: Path) -> Path:
    """The package as version LATER, with other files in /etc; in `directory`."""
    tree = directory / "tree"
    subprocess.run(("dpkg-deb", "--raw-extract", package, tree), check=True)
    control = tree / "DEBIAN/control"
    lines = (f"Version: {LATER}" if line.startswith("Version:") else line for line in control.read_text().splitlines())
    control.write_text("\n".join(lines) + "\n")
    [supervisor] = (tree / ENVIRONMENT).glob("lib/python3.*/site-packages/supervisor")
    (supervisor / "__init__.py").write_text(f'__version__ = "{LATER}"\n')
    for compiled in (supervisor / "__pycache__").glob("__init__.*"):
        compiled.unlink()
    for name in ("config.yaml", "presets.d/example.yaml"):
        with (tree / "etc/llama-router" / name).open("a") as file:
            file.write("# What a later version says here.\n")
    made = directory / f"llama-router_{LATER}.deb"
    subprocess.run(("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, made), check=True, capture_output=True)
    shutil.rmtree(tree)
    return made


class Debian(Machine):
    """A Debian with these packages at hand, not installed, and with a GGUF file at MODEL."""

    def __init__(self, *packages: Path) -> None:
        super().__init__({f"{PACKAGES}/{path.name}": path for path in packages} | {MODEL: gguf().resolve()})

    def apt(self, *arguments: str) -> str:
        """What apt-get says; it asks nothing, and keeps edited files as unattended-upgrades does if told to."""
        keep = "Dpkg::Options::=--force-confold"
        command = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--option", keep)
        return self.run(*command, *arguments, seconds=INSTALL_SECONDS)

    def install(self, package: Path) -> None:
        """With apt, from the file."""
        self.apt("install", f"{PACKAGES}/{package.name}")

    def files(self) -> set[str]:
        """All paths that are on disk, thus without /proc, /run and /tmp."""
        return set(self.run("find", "/", "-xdev").splitlines())

    def preset(self, name: str, **keys: Any) -> None:
        """Written and applied."""
        file = self.root / PRESETS.lstrip("/") / f"{name}.yaml"
        file.write_text(json.dumps({"models": {name: keys}}))
        self.run("llama-router", "reload")

    def get(self, path: str, *options: str) -> str:
        """What the web tier answers; it must not be an error."""
        return self.run("curl", "--silent", "--show-error", "--fail", *options, f"{ADDRESS}{path}")

    def chat(self, model: str, **keys: Any) -> str:
        """The body of a chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": "Tell me of the sea."}], **keys}
        options = ("--header", "Content-Type: application/json", "--data", json.dumps(body))
        return self.get("/v1/chat/completions", *options)
