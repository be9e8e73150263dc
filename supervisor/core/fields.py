"""The kinds of values that the YAML files hold, as pydantic types that take no type for another.

A number in quotes is no number, `true` is no 1, and a message says what to write instead.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
)

from supervisor.core import quantities, spelling
from supervisor.core.quantities import shown
from supervisor.core.spelling import MAX_NAME

_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
Path = tuple[int | str, ...]

MAX_DEPTH = 100
MAX_INT = 2**31 - 1

Kind = TypeVar("Kind", bound=BaseModel)


class Strict(BaseModel):
    """A frozen mapping of known keys, whose defaults obey the same rules as what is written.

    The text below a field is its description in the JSON Schema.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"cannot read {shown(value)} as text: put it in quotes")
    if "\0" in value:
        raise ValueError(f"cannot use {shown(value)}: it holds a NUL character")
    return value


def _argument(value: object) -> str:
    """Text, or a whole number's digits: `CUDA_VISIBLE_DEVICES: 0` can mean nothing else."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    return _text(value)


def _filled(value: str) -> str:
    if not value:
        raise ValueError("cannot be empty")
    return value


def as_flag(value: object) -> bool:
    """A bool, or one of the words for it. Raises ValueError for anything else, numbers included."""
    if isinstance(value, bool):
        return value
    flag = _FLAGS.get(value.lower()) if isinstance(value, str) else None
    if flag is None:
        raise ValueError(f"cannot read {shown(value)} as true or false: write true or false")
    return flag


def as_whole(value: object) -> int:
    """An int that is no bool. Raises ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"cannot read {shown(value)} as a whole number: write it in digits, without quotes")


def _sequence(value: object) -> object:
    """A list; None, which is what a key with nothing but comments below it holds, is an empty one."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"cannot read {shown(value)} as a list: write [a, b] or one '- item' a line")


def _mapping(value: object) -> object:
    """A mapping; None is an empty one, as for lists."""
    if value is None:
        return {}
    if isinstance(value, Mapping | BaseModel):
        return value
    raise ValueError(f"cannot read {shown(value)} as a mapping: write 'key: value' lines")


def _name(value: str) -> str:
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(
            f"cannot use {shown(value)} as a name: it must be printable text, with no space before or after it"
        )
    if "#" in value or value.startswith("@"):
        raise ValueError(f"cannot use {shown(value)} as a name: it must hold no '#' and not start with '@'")
    if len(value) > MAX_NAME:
        raise ValueError(f"cannot use {shown(value)} as a name: it is longer than {MAX_NAME} characters")
    return value


def _device(value: str) -> str:
    if value == "host" or re.fullmatch(r"gpu[0-9]{1,2}", value):
        return value
    raise ValueError(f"cannot use {shown(value)} as a device: write host, gpu0, gpu1, …")


def _variable(value: str) -> str:
    if not value or "=" in value:
        raise ValueError(f"cannot use {shown(value)} as a variable's name: it must not be empty or hold '='")
    return value


def _json(value: Any, depth: int = 0) -> Any:
    """Refuse what JSON and command lines can't carry: NaN, infinities and NUL characters, at any depth."""
    if depth > MAX_DEPTH:
        raise ValueError(f"cannot use values nested more than {MAX_DEPTH} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"cannot use {shown(value)}: it is not a finite number")
    if isinstance(value, str):
        _text(value)
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            _text(key)
            _json(entry, depth + 1)
    elif isinstance(value, list | tuple):
        for entry in value:
            _json(entry, depth + 1)
    return value


Text = Annotated[str, BeforeValidator(_text)]
Filled = Annotated[Text, AfterValidator(_filled), WithJsonSchema(spelling.FILLED)]
Argument = Annotated[str, BeforeValidator(_argument), WithJsonSchema(spelling.ARGUMENT)]
Variable = Annotated[Text, AfterValidator(_variable), WithJsonSchema(spelling.VARIABLE)]
Name = Annotated[Text, AfterValidator(_name), WithJsonSchema(spelling.NAME)]
Device = Annotated[Text, AfterValidator(_device), WithJsonSchema(spelling.DEVICE)]
Flag = Annotated[bool, BeforeValidator(as_flag), WithJsonSchema(spelling.FLAG)]
Whole = Annotated[int, BeforeValidator(as_whole), Field(le=MAX_INT)]
Json = Annotated[JsonValue, BeforeValidator(lambda value: _json(value))]
Duration = Annotated[float, BeforeValidator(quantities.duration), WithJsonSchema(spelling.DURATION)]
DurationOrNever = Annotated[
    float | None, BeforeValidator(quantities.duration_or_never), WithJsonSchema(spelling.DURATION_OR_NEVER)
]
Size = Annotated[int, BeforeValidator(quantities.size), WithJsonSchema(spelling.SIZE)]
Sequence = BeforeValidator(_sequence)
Dictionary = BeforeValidator(_mapping)


def complaints(model: type[BaseModel], error: ValidationError, limit: int = 100) -> list[tuple[Path, str]]:
    """At most `limit` of pydantic's errors about `model` in plain words, each with the path of keys it is about."""
    found = []
    for detail in itertools.islice(error.errors(include_url=False), limit):
        path = tuple(part for part in detail["loc"] if part != "[key]")
        found.append((path, _plain_words(model, path, detail)))
    return found


def sound(kind: type[Kind], written: Mapping[str, object], wrong: Collection[str]) -> Kind | None:
    """What is left of `written` without its `wrong` keys, so that all that is wrong elsewhere is told at once."""
    try:
        return kind.model_validate({key: value for key, value in written.items() if key not in wrong})
    except ValidationError:
        return None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message about a key that nothing reads."""
    candidates = list(known)
    close = difflib.get_close_matches(key[: 2 * MAX_NAME], candidates, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(candidates))}"
    return f"cannot use unknown key {shown(key)}: {hint}"


def _plain_words(model: type[BaseModel], path: Path, detail: Mapping[str, Any]) -> str:
    given = shown(detail["input"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return unknown_key(str(path[-1]), _model_at(model, path[:-1]).model_fields.keys() - {"name"})
        case "missing":
            return f"cannot do without {shown(str(path[-1]))}: write it too"
        case "literal_error":
            return f"cannot be {given}: write {context['expected'].replace(chr(39), '')}"
        case "greater_than_equal":
            return f"cannot be {given}: it must be {context['ge']} or more"
        case "greater_than":
            return f"cannot be {given}: it must be more than {context['gt']:g}"
        case "less_than_equal":
            return f"cannot be {given}: it must be {context['le']} or less"
    return f"cannot be {given}: {detail['msg']}"


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The mapping below `model` that `path` leads to."""
    for part in path:
        pending: list[Any] = [model.model_fields[str(part)].annotation]
        while not (isinstance(pending[-1], type) and issubclass(pending[-1], BaseModel)):
            pending += get_args(pending.pop())
        model = pending[-1]
    return model
