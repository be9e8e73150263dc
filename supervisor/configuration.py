"""What was read from the configuration on disk, where each part of it comes from, and who judges it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from supervisor.core.config import Config
from supervisor.core.misfits import Misfit
from supervisor.core.need import Need
from supervisor.core.preset import Preset
from supervisor.errors import Problem
from supervisor.files import Files
from supervisor.yaml_source import Source


class Judge(Protocol):
    """Says what presets need, what of a configuration does not fit the machine, what makes a file no model, or only the
    beginning of a model or a projector (None if nothing does), and what of a preset the program would refuse that is to
    serve it, each with the keys that it belongs to. It is told all presets of which it will be asked that, to `prepare`
    for them together."""

    def needs(self, config: Config, presets: Mapping[str, Preset]) -> Mapping[str, Need]: ...

    def misfits(self, config: Config, presets: Mapping[str, Preset], needs: Mapping[str, Need]) -> Sequence[Misfit]: ...

    def why_no_model(self, path: str) -> str | None: ...

    def why_incomplete(self, path: str) -> str | None: ...

    def prepare(self, presets: Iterable[Preset]) -> None: ...

    def refused(self, preset: Preset) -> Sequence[tuple[tuple[str, ...], str]]: ...


class _Lenient:
    """Lets everything pass."""

    def needs(self, _config: Config, _presets: Mapping[str, Preset]) -> Mapping[str, Need]:
        return {}

    def misfits(self, _config: Config, _presets: Mapping[str, Preset], _needs: Mapping[str, Need]) -> Sequence[Misfit]:
        return ()

    def why_no_model(self, _path: str) -> str | None:
        return None

    def why_incomplete(self, _path: str) -> str | None:
        return None

    def prepare(self, _presets: Iterable[Preset]) -> None:
        pass

    def refused(self, _preset: Preset) -> Sequence[tuple[tuple[str, ...], str]]:
        return ()


LENIENT: Judge = _Lenient()


@dataclass(frozen=True)
class Origin:
    """Where a preset is written: `file`, relative to config.yaml's directory if it lies below it, and `line` from 1.

    Of one that no preset names, it is the path of the model's file, without a line.
    """

    file: str
    line: int | None
    source: Literal["preset", "models_dir"] = "preset"


@dataclass(frozen=True)
class Configuration:
    """A configuration without problems.

    `path`, `presets_dir` and `models_dir` are absolute; `aliases` leads from alias to the name of a preset; `needs` is
    what was known of the presets' memory; `notices` are about keys without effect, and files that are no models; among
    them the `faults`, which keep single models from being served; `incomplete` are those models whose files were;
    `sources` has the files of those presets that are written in one, and `files` what was parsed, for the next reading.
    """

    config: Config
    path: Path
    presets_dir: Path
    models_dir: Path
    presets: dict[str, Preset]
    aliases: dict[str, str]
    needs: Mapping[str, Need]
    origins: dict[str, Origin]
    notices: tuple[Problem, ...]
    faults: tuple[Problem, ...] = ()
    incomplete: frozenset[str] = frozenset()
    sources: Mapping[str, Source] = field(default_factory=dict)
    files: Files = field(default_factory=Files, compare=False)

    def written(self) -> list[str]:
        """The names of the models that files of presets name."""
        return [name for name, origin in self.origins.items() if origin.source == "preset"]

    def found(self) -> list[str]:
        """The names of those that are there because of their files only."""
        return [name for name, origin in self.origins.items() if origin.source == "models_dir"]

    def in_models_dir(self) -> list[str]:
        """The names of those whose files are in the directory of models, whoever names them."""
        presets = self.presets.items()
        return [name for name, each in presets if each.model and Path(each.model).is_relative_to(self.models_dir)]
