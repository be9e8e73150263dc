"""Every key of a model's preset as it counts, and where its value comes from: a line of a file, or whose default."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from supervisor.configuration import Configuration
from supervisor.core import quantities
from supervisor.core.llama_options import llama_options
from supervisor.core.preset import LLAMA_KEYS, Preset
from supervisor.core.quantities import shown
from supervisor.core.secrets import HIDDEN, is_secret, without_secrets
from supervisor.errors import Refused
from supervisor.needs import Header
from supervisor.preset_files import Answer, Handler
from supervisor.protocol import Message
from supervisor.yaml_source import Source

# Of these None says that the program decides, and not that there is none.
_LEFT_TO_THE_BACKEND = LLAMA_KEYS - {"model", "mmproj", "embedding", "options"}
_DURATIONS = (quantities.duration, quantities.duration_or_never)

Path = tuple[str, ...]
Place = tuple[str, int | None]  # where a value comes from, and the line of the preset's file


def handler(
    running: Callable[[], Configuration], resolve: Callable[[str], str | None], header: Callable[[str], Header | None]
) -> Handler:
    """Answers the op "preset". `resolve` leads from a name or an alias to the name of a model."""

    def tell(message: Message, answer: Answer) -> None:
        asked = message.get("model")
        name = resolve(asked) if isinstance(asked, str) else None
        configuration = running()
        if name is None or name not in configuration.presets:
            raise Refused(
                f"model is not in the configuration: {shown(asked)}", status=404, error_type="not_found_error"
            )
        preset = configuration.presets[name]
        answer({"preset": origins(configuration, name, header(preset.model) if preset.model else None)})

    return tell


def origins(configuration: Configuration, name: str, header: Header | None) -> list[Message]:
    """Each key with its `value` as text, its `source` and, where it is written, `file` and `line`.

    Keys within keys have dots: "restart.delay". `source` is "preset", "defaults" (of the same file), "models_dir",
    "gguf", "backend" (which decides by itself) or "default" (llama-router's). Secrets and values of `env` are hidden.
    """
    preset, source = configuration.presets[name], configuration.sources.get(name)
    rows = []
    for path, value in _values(preset):
        kind, line = _place(source, name, path, value)
        text = _text(path, value)
        if path == ("context",) and header is not None and header.shape is not None and not value:
            text, kind = _context(preset, header.shape.context, kind)
        elif value is None and kind == "default" and preset.backend != "command" and path[0] in _LEFT_TO_THE_BACKEND:
            kind = "backend"
        file = configuration.origins[name].file if line is not None else None
        rows.append({"key": ".".join(path), "value": text, "source": kind, "file": file, "line": line})
    return rows


def _values(model: BaseModel, above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What is in a preset by its keys; mappings are taken apart, empty ones are as they are."""
    for key, info in type(model).model_fields.items():
        path, value = (*above, key), getattr(model, key)
        if isinstance(value, BaseModel):
            yield from _values(value, path)
        elif isinstance(value, Mapping) and value:
            yield from (((*path, inner), _written(info, entry, path)) for inner, entry in value.items())
        elif path != ("name",):
            yield path, _written(info, value, path)


def _written(info: FieldInfo, value: Any, path: Path) -> Any:
    """Times, sizes and command lines as people write them."""
    if any(isinstance(each, BeforeValidator) and each.func in _DURATIONS for each in info.metadata):
        return quantities.format_duration(value)
    if path == ("memory",) and value is not None:
        return quantities.format_size(value)
    return without_secrets(value) if path == ("command",) else value


def _place(source: Source | None, name: str, path: Path, value: Any) -> Place:
    if source is None:
        return ("models_dir" if path in (("model",), ("mmproj",)) and value is not None else "default"), None
    lines = source.document.lines
    if (line := lines.get(("models", name, *path))) is not None:
        return "preset", line
    body, _ = source.made[name]
    if not _holds(body, path):
        return "default", None
    line = lines.get(("defaults", *path))
    return ("models_dir", None) if line is None else ("defaults", line)


def _holds(body: Any, path: Path) -> bool:
    """Whether the model is written with that key, be it by itself or by its file's defaults."""
    for key in path:
        if not isinstance(body, Mapping) or key not in body:
            return False
        body = body[key]
    return True


def _context(preset: Preset, trained: int, kind: str) -> tuple[str, str]:
    """A context that the model decides on, or the default that is cut to what it was trained for."""
    tokens = llama_options(preset, trained).context
    if preset.context == 0:
        return f"0, which is {tokens}", kind
    return str(tokens), kind if kind != "default" else "gguf" if tokens >= trained else "default"


def _text(path: Path, value: Any) -> str:
    """On one line, and without what is nobody's business."""
    if path[1:] and (path[0] == "env" or any(map(is_secret, path[1:]))):
        return HIDDEN
    if isinstance(value, str) and value.isprintable():
        return value
    if not value and isinstance(value, Mapping | list | tuple):
        return "none"
    return "none" if value is None else json.dumps(value, ensure_ascii=isinstance(value, str), default=list)
