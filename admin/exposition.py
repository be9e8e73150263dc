"""Prometheus' text format 0.0.4: writing it, and adding a label to what another program has written. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A sample's name, what stands in its braces, and its value; a time that may follow is not taken over.
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\\n]|\\["\\n])*"')
_LABELS = re.compile(rf"{_LABEL.pattern}(?:,{_LABEL.pattern})*,?")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|Inf|NaN)")
_META = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)")
OWN_PREFIX = "llama_router_"
KINDS = frozenset(["counter", "gauge", "histogram", "summary", "untyped"])
_SUFFIXES = ("_bucket", "_sum", "_count")


@dataclass
class Family:
    """A metric with all of its samples; they stand together, which the format demands."""

    name: str
    kind: str
    help: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, labels: Mapping[str, str] | None = None, suffix: str = "") -> None:
        """A sample."""
        self.lines.append(f"{self.name}{suffix}{braces(labels or {})} {number(value)}")

    def histogram(self, bounds: Iterable[float], counts: Mapping[int, int], total: float, **labels: str) -> None:
        """Of counts by the number of their bucket; the one behind the last bound has none."""
        seen = 0
        limits = [*map(number, bounds), "+Inf"]
        for place, limit in enumerate(limits):
            seen += counts.get(place, 0)
            self.add(seen, {**labels, "le": limit}, "_bucket")
        self.add(total, labels, "_sum")
        self.add(seen, labels, "_count")


def text(families: Iterable[Family]) -> str:
    """The whole answer; families without samples are left out."""
    parts = []
    for family in families:
        if family.lines:
            words = family.help.replace("\\", "\\\\").replace("\n", "\\n")
            parts += [f"# HELP {family.name} {words}", f"# TYPE {family.name} {family.kind}", *family.lines]
    return "".join(f"{part}\n" for part in parts)


def braces(labels: Mapping[str, str]) -> str:
    """Such as {model="qwen"}, with what must be escaped."""
    inner = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def escaped(value: str) -> str:
    """A label's value."""
    safe = value.encode(errors="replace").decode()
    return safe.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    """A value as Prometheus reads it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def relabelled(answers: Mapping[str, str]) -> list[Family]:
    """What several servers told, by the name of the model, as families with a label `model`.

    Left out are lines that are no samples, samples that have that label already, or were there before (Prometheus
    refuses a whole scrape for one of them), and names that are llama-router's own.
    """
    families: dict[str, Family] = {}
    for model, answer in answers.items():
        own, seen = braces({"model": model})[1:-1], set()
        for line in answer.splitlines():
            if described := _META.fullmatch(line):
                _describe(families, *described.groups())
                continue
            sample = _SAMPLE.fullmatch(line)
            labels = _labels(sample[2]) if sample and _NUMBER.fullmatch(sample[3]) else None
            if sample is None or labels is None or (sample[1], *sorted(labels)) in seen:
                continue
            seen.add((sample[1], *sorted(labels)))
            _family_of(families, sample[1]).lines.append(f"{sample[1]}{{{','.join([own, *labels])}}} {sample[3]}")
    return [family for family in families.values() if not family.name.startswith(OWN_PREFIX)]


def _labels(inner: str | None) -> list[str] | None:
    """What stands in a sample's braces, label by label; None if it is wrong, or `model` is among them."""
    if not inner:
        return []
    if _LABELS.fullmatch(inner) is None:
        return None
    found = [(match[1], match[0]) for match in _LABEL.finditer(inner)]
    names = {name for name, _ in found}
    if len(names) < len(found) or "model" in names or any(name.startswith("__") for name in names):
        return None
    return [label for _, label in found]


def _describe(families: dict[str, Family], what: str, name: str, words: str) -> None:
    family = families.setdefault(name, Family(name, "untyped", ""))
    if what == "TYPE" and words in KINDS and family.kind == "untyped":
        family.kind = words
    elif what == "HELP" and not family.help:
        family.help = words.replace("\\n", " ").replace("\\\\", "\\")


def _family_of(families: dict[str, Family], name: str) -> Family:
    """That of a sample's name: a histogram's and a summary's samples have suffixes."""
    for suffix in _SUFFIXES:
        family = families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if family is not None and family.kind in ("histogram", "summary"):
            return family
    return families.setdefault(name, Family(name, "untyped", ""))
