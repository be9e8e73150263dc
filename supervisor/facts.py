"""What the models API tells of each model beside its state, put together once for each configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor import gguf_file
from supervisor.backends import shown_args
from supervisor.configuration import Configuration
from supervisor.core import facts
from supervisor.core.preset import Preset
from supervisor.core.shape import Shape
from supervisor.errors import CannotReadModel

Facts = dict[str, dict[str, Any]]


class FactBook:
    """The facts of the configuration in use. `shape` is asked what the header of a model's file says."""

    def __init__(self, shape: Callable[[str], Shape | None]) -> None:
        self._shape = shape
        self._of: Configuration | None = None
        self._facts: Facts | None = None
        self._revision = 0

    def revision(self, configuration: Configuration) -> int:
        """A number that is another one for each configuration: what is known of an older one is out of date."""
        if configuration is not self._of:
            self._of, self._facts = configuration, None
            self._revision += 1
        return self._revision

    def of(self, configuration: Configuration) -> Facts:
        """The facts by the name of the model. Reads the headers of projectors, some ms each, once for each
        configuration."""
        self.revision(configuration)
        if self._facts is None:
            inputs: dict[str, list[str]] = {}
            self._facts = {name: self._facts_of(preset, inputs) for name, preset in configuration.presets.items()}
        return self._facts

    def _facts_of(self, preset: Preset, inputs: dict[str, list[str]]) -> dict[str, Any]:
        shape = self._shape(preset.model) if preset.model else None
        if preset.mmproj and preset.mmproj not in inputs:
            inputs[preset.mmproj] = _inputs(preset.mmproj)
        return {
            "args": shown_args(preset),
            "preset": facts.ini(preset),
            "architecture": facts.architecture(inputs[preset.mmproj] if preset.mmproj else ()),
            "meta": facts.meta(preset, shape) if shape else None,
        }


def _inputs(projector: str) -> list[str]:
    """What a projector can be given beside text; nothing where it can't be read."""
    try:
        return gguf_file.inputs(projector)
    except CannotReadModel:
        return []
