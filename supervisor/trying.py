"""Judges a configuration that somebody is writing in a browser: quickly, and without running what it names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from supervisor.configuration import Configuration, Judge
from supervisor.core import guarded
from supervisor.core.config import Config
from supervisor.core.misfits import Misfit
from supervisor.core.need import Need
from supervisor.core.preset import Preset


class Trying:
    """`judge`, for a configuration in which the models of these `names` may be others than in the `running` one.

    A program that no running preset names is asked only if it `runs`: what is half written names any.
    """

    def __init__(self, judge: Judge, running: Configuration, names: Collection[str], *, runs: bool) -> None:
        self._judge = judge
        self._running = running
        self._names = names
        self._runs = runs
        self._programs = {_program(preset) for preset in running.presets.values()} | {(None, ())}

    def needs(self, config: Config, presets: Mapping[str, Preset]) -> Mapping[str, Need]:
        """Only what differs is looked at anew."""
        known, running = self._running.needs, self._running.presets
        same = {name for name, preset in presets.items() if name in known and running.get(name) == preset}
        rest = {name: preset for name, preset in presets.items() if name not in same}
        found = self._judge.needs(config, rest) if rest else {}
        return {name: known[name] if name in same else found[name] for name in presets if name in same or name in found}

    def misfits(self, config: Config, presets: Mapping[str, Preset], needs: Mapping[str, Need]) -> Sequence[Misfit]:
        return self._judge.misfits(config, presets, needs)

    def why_no_model(self, path: str) -> str | None:
        return self._judge.why_no_model(path)

    def why_incomplete(self, path: str) -> str | None:
        return self._judge.why_incomplete(path)

    def prepare(self, presets: Iterable[Preset]) -> None:
        self._judge.prepare([preset for preset in presets if not self._kept(preset) and self._may_run(preset)])

    def refused(self, preset: Preset) -> Sequence[tuple[tuple[str, ...], str]]:
        """That first which a browser may not change: no program is run that it names."""
        if kept := self._kept(preset):
            return kept
        return self._judge.refused(preset) if self._may_run(preset) else ()

    def _kept(self, preset: Preset) -> Sequence[tuple[tuple[str, ...], str]]:
        """Whether it may is for config.yaml in force to say: one that is on disk only has not been accepted yet."""
        if preset.name not in self._names or self._running.config.web.edit_commands:
            return ()
        return guarded.refused(self._running.presets.get(preset.name), preset)

    def _may_run(self, preset: Preset) -> bool:
        return self._runs or preset.name not in self._names or _program(preset) in self._programs


def _program(preset: Preset) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    return preset.binary, tuple(sorted(preset.env.items()))
