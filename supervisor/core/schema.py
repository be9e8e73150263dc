"""JSON Schema (2020-12) of config.yaml and of a file of presets, made from the models that read them.

A file that loads always fits its schema. The other way round the loader refuses more: what depends on other keys, on
files, or on names used elsewhere; times and sizes out of range; 1.0 for a whole number; NUL characters.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from supervisor.core import quantities, spelling
from supervisor.core.config import Config, Listen
from supervisor.core.fields import Dictionary, Sequence
from supervisor.core.preset import Preset
from supervisor.core.spelling import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Pydantic's names for limits of a value that a function has looked at first.
_KEYWORDS = {"le": "maximum", "ge": "minimum"}


def config() -> Schema:
    """The schema of config.yaml."""
    return _document("config.yaml of llama-router", {"anyOf": [_reference(Config), spelling.NULL]}, Config)


def presets() -> Schema:
    """The schema of a file in the directory of presets."""
    models = {
        "description": 'The models, by the names that clients put in "model".',
        "type": ["object", "null"],
        "propertyNames": spelling.NAME,
        "additionalProperties": _or_null(_reference(Preset)),
    }
    file = {
        "type": ["object", "null"],
        "properties": {
            "defaults": {"description": "Keys for all models of this file.", **_or_null(_reference(Preset))},
            "models": models,
        },
        "additionalProperties": False,
    }
    return _document("presets of llama-router", file, Preset)


def _document(title: str, root: Schema, model: type[BaseModel]) -> Schema:
    """`root`, with `model` and the models inside it as the definitions that it refers to."""
    schema = model.model_json_schema()
    inner = schema.pop("$defs", {})
    definitions = {each.__name__: _mapping(inner[each.__name__], each) for each in _inside(model, inner)}
    definitions[model.__name__] = _mapping(schema, model)
    return {"$schema": DIALECT, "title": title, **root, "$defs": definitions}


def _inside(model: type[BaseModel], known: Container[str]) -> Iterator[type[BaseModel]]:
    """The models that are values of the model's keys, as far as they are `known` by name."""
    pending: list[Any] = [info.annotation for info in model.model_fields.values()]
    while pending:
        kind = pending.pop()
        pending += get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ in known:
            yield kind
            pending += [info.annotation for info in kind.model_fields.values()]


def _mapping(schema: Schema, model: type[BaseModel]) -> Schema:
    """A mapping with the model's keys and no others; a preset's name is the key above it."""
    properties = {
        key: _property(schema["properties"][key], info)
        for key, info in model.model_fields.items()
        if (model, key) != (Preset, "name")
    }
    required = [key for key in properties if model.model_fields[key].is_required()]
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _property(schema: Schema, info: FieldInfo) -> Schema:
    value = {key: part for key, part in _plain(schema).items() if key not in ("default", "description")}
    if Sequence in info.metadata or Dictionary in info.metadata:
        value = _or_null(value)
    default = None if info.is_required() else _written(info.get_default(call_default_factory=True), _is_size(value))
    return {"description": info.description, **value, **({} if default is None else {"default": default})}


def _plain(schema: Any) -> Any:
    """Without what pydantic adds for code: titles, keywords that JSON Schema does not have, names for "anything"."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref") == "#/$defs/JsonValue":
        return {}
    plain = {_KEYWORDS.get(key, key): _plain(part) for key, part in schema.items() if key != "title"}
    if "maximum" in schema:
        plain["maximum"] = schema["maximum"]
    return {**plain, "additionalProperties": False} if "patternProperties" in plain else plain


def _written(default: object, is_size: bool) -> object:
    """A default as the file would have it; None if it is nothing, or told by the keys inside."""
    if isinstance(default, BaseModel) or default in (None, (), {}):
        return None
    if isinstance(default, float):
        return quantities.format_duration(default)
    if isinstance(default, Listen):
        return str(default)
    if isinstance(default, tuple):
        return list(default)
    return quantities.format_size(default) if is_size and isinstance(default, int) else default


def _is_size(schema: Schema) -> bool:
    return bool(schema.get("anyOf") == spelling.SIZE["anyOf"])


def _reference(model: type[BaseModel]) -> Schema:
    return {"$ref": f"#/$defs/{model.__name__}"}


def _or_null(schema: Schema) -> Schema:
    return spelling.either(schema, spelling.NULL)
