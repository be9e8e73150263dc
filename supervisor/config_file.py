"""config.yaml itself: read and checked, with what it names beside presets and models."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from pydantic import ValidationError

from supervisor import certificate, key_file
from supervisor.core.config import Config
from supervisor.core.fields import complaints, sound
from supervisor.core.quantities import shown
from supervisor.preset_paths import absolute, below
from supervisor.yaml_source import Source

DEFAULT_PRESETS: str = Config.model_fields["presets"].default
DEFAULT_MODELS: str = Config.model_fields["models_dir"].default


def read_config(source: Source) -> tuple[Config | None, Path | None]:
    """The config without what is wrong in it, and the directory of presets as far as it is known."""
    written = source.root
    if not isinstance(written, dict):
        source.complain((), f"cannot use {shown(written)} as a configuration: write 'key: value' lines")
        return None, default_directory(source.path)
    written = certificate.with_paths(written, source.path.parent)
    config = None
    try:
        config = Config.model_validate(written)
    except ValidationError as error:
        wrong = complaints(Config, error)
        for keys, message in wrong:
            source.complain(keys, message)
        config = sound(Config, written, {str(keys[0]) for keys, _ in wrong if keys})
    if config is not None and config.web.tls is not None:
        wrong_file = certificate.problem(config.web.tls.certificate, config.web.tls.key)
        if wrong_file is not None:
            source.complain(("web", "tls", wrong_file[0]), wrong_file[1])
    if config is not None and config.web.api_key_file is not None:
        no_keys = key_file.problem(source.path.parent / config.web.api_key_file)
        if no_keys is not None:
            source.complain(("web", "api_key_file"), no_keys)
    directory = written.get("presets", DEFAULT_PRESETS)
    if not isinstance(directory, str) or not directory or "\0" in directory:
        return config, None
    return config, below(source.path.parent, directory)


def check_fallback(source: Source, fallback: str, names: list[str]) -> None:
    """Complain about a `fallback` that is none of `names`."""
    if fallback not in names:
        close = difflib.get_close_matches(fallback, names, n=1)
        hint = f"did you mean {shown(close[0])}?" if close else "write the name of a preset, or null"
        source.complain(("fallback",), f"cannot fall back on {shown(fallback)}: no model has that name; {hint}")


def models_directory(config: Path, written: str) -> Path:
    """Where `models_dir` of the file `config` leads."""
    return Path(absolute(config.parent, written))


def default_directory(path: Path) -> Path | None:
    """Where presets are if the config.yaml at `path` does not say so; None if there is no such directory."""
    directory = path.parent / DEFAULT_PRESETS
    return directory if os.path.isdir(directory) else None  # noqa: PTH112  # Path.is_dir may raise PermissionError
