"""Whole configurations on a real disk, and what is told of them."""

from __future__ import annotations

from pathlib import Path

from supervisor.configuration import Configuration
from supervisor.errors import ConfigurationError
from supervisor.presets_dir import load

MINIMAL = "models:\n  qwen: {model: ../m.gguf}\n"


def lay_out(directory: Path) -> Path:
    """Make a model file, an empty directory of presets and a config.yaml that changes nothing."""
    (directory / "presets.d").mkdir()
    (directory / "m.gguf").write_bytes(b"GGUF")
    (directory / "config.yaml").write_text("# as it comes\n")
    return directory


def read(directory: Path, presets: str | None = None, **more: str) -> Configuration:
    """Load what is there, after writing presets.d/a.yaml and others."""
    files = {**({"a": presets} if presets is not None else {}), **more}
    for name, text in files.items():
        (directory / "presets.d" / f"{name}.yaml").write_text(text)
    return load(directory / "config.yaml")


def problems(directory: Path, presets: str | None = None, **more: str) -> list[str]:
    """What `check` tells."""
    try:
        found = list(read(directory, presets, **more).faults)
    except ConfigurationError as error:
        found = error.problems
    assert found
    return [str(problem).replace(f"{directory}/", "") for problem in found]


def notices(configuration: Configuration, directory: Path) -> list[str]:
    return [str(notice).replace(f"{directory}/", "") for notice in configuration.notices]
