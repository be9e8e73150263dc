"""What the models API tells of each model beside its state, put together once for each configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.backends import shown_args
from supervisor.configuration import Configuration
from supervisor.core import facts
from supervisor.core.preset import Preset
from supervisor.needs import Header

Facts = dict[str, dict[str, Any]]


class FactBook:
    """The facts of the configuration in use. `header` is asked what was read of a file for it."""

    def __init__(self, header: Callable[[str], Header | None], revision: int = 0) -> None:
        """`revision` is the last number that another program gave, which this one takes over from."""
        self._header = header
        self._of: Configuration | None = None
        self._facts: Facts | None = None
        self._revision = revision

    def revision(self, configuration: Configuration) -> int:
        """A number that is another one for each configuration: what is known of an older one is out of date."""
        if configuration is not self._of:
            self._of, self._facts = configuration, None
            self._revision += 1
        return self._revision

    def of(self, configuration: Configuration) -> Facts:
        """The facts by the name of the model."""
        self.revision(configuration)
        if self._facts is None:
            self._facts = {name: self._facts_of(preset) for name, preset in configuration.presets.items()}
        return self._facts

    def _facts_of(self, preset: Preset) -> dict[str, Any]:
        model = self._header(preset.model) if preset.model else None
        projector = self._header(preset.mmproj) if preset.mmproj else None
        return {
            "args": shown_args(preset),
            "preset": facts.ini(preset),
            "architecture": facts.architecture(projector.inputs if projector else ()),
            "meta": facts.meta(preset, model.shape) if model and model.shape else None,
        }
