"""Starts llama.cpp's own llama-server: found on PATH or named by `binary`, on a UNIX socket, its options checked.

It is told that a router has started it (LLAMA_SERVER_ROUTER_PORT), as llama-server's own router does: so it says how
far it has loaded and when it sleeps. It then takes a line on its standard input for the wish to end. Unlike its handler
of SIGTERM, which locks a mutex that the interrupted thread may hold, that can't hang.
"""

from __future__ import annotations

from collections.abc import Callable

from supervisor.backends import Dialect, Known, Place, Plan
from supervisor.backends.llama_server_binary import Binary
from supervisor.backends.llama_server_help import Option
from supervisor.core import llama_server_log
from supervisor.core.preset import Preset
from supervisor.errors import CannotStart

AS_CHILD = {"LLAMA_SERVER_ROUTER_PORT": "0"}
DIALECT = Dialect(
    notice=llama_server_log.notice, explained=llama_server_log.explained, farewell=b"cmd_router_to_child:exit\n"
)
# An explicit number of layers, of which it takes as many as there are; older builds know neither "all" nor -1.
ALL_LAYERS = 9999
# Of the supervisor's environment: each of them would have llama-router knock in vain.
KEPT_OUT = frozenset(
    {"LLAMA_API_KEY", "LLAMA_ARG_API_KEY_FILE", "LLAMA_ARG_API_PREFIX", "LLAMA_SERVER_CHILD_MODE", "AIP_MODE"}
    | {"LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_MODEL_URL"}
    | {"LLAMA_ARG_HF_FILE", "LLAMA_ARG_DOCKER_REPO"}
)

Keys = tuple[str, ...]


def plan(preset: Preset, place: Place, known: Known) -> Plan:
    """How to start it. Raises CannotStart if the program is missing or unfit, or does not take one of the options."""
    found = known.binary(preset)
    wrong = _wrong_options(preset, found) or _wrong_env(preset)
    if wrong:
        keys, why = wrong[0]
        raise CannotStart(f"cannot start {preset.name}: {'.'.join(keys)}: {why}")
    listening = ("--host", str(place.socket))
    argv = (found.path, *listening, *_common(preset, found, known), *_own(preset, found))
    return Plan(
        argv, {**AS_CHILD, **preset.env}, f"unix:{place.socket}", without=KEPT_OUT - preset.env.keys(), dialect=DIALECT
    )


def problems(preset: Preset, program: Callable[[Preset], Binary | None]) -> list[tuple[Keys, str]]:
    """What would keep it from starting, each with the keys it belongs to, as far as the program is known."""
    wrong = _wrong_env(preset)
    try:
        found = program(preset)
    except CannotStart as error:
        return [(("binary",) if preset.binary else ("backend",), str(error)), *wrong]
    return (_wrong_options(preset, found) if found is not None else []) + wrong


def _common(preset: Preset, found: Binary, known: Known) -> list[str]:
    """The keys that mean the same for each backend. What is not given is left to llama-server."""
    layers = ALL_LAYERS if preset.gpu_layers == -1 else preset.gpu_layers
    given: dict[str, str | int | None] = {
        "--model": preset.model,
        "--alias": preset.name,
        "--mmproj": preset.mmproj,
        "--ctx-size": preset.context,
        "--gpu-layers": layers,
        "--parallel": preset.parallel,
        "--threads": preset.threads,
    }
    if preset.embedding and preset.context:  # an input has to fit into one micro-batch
        given |= {"--batch-size": preset.context, "--ubatch-size": preset.context}
    # `options` win, and what they say shall be there once.
    own = _given(preset, found)
    told = {name: value for name, value in given.items() if value is not None and found.options.get(name) not in own}
    arguments = [word for name, value in told.items() for word in (name, str(value))]
    return [*arguments, *_embedding(preset, found, known)] if preset.embedding else arguments


def _embedding(preset: Preset, found: Binary, known: Known) -> list[str]:
    """What /v1/embeddings needs: the vectors of an input's tokens are made into one."""
    words = ["--embedding"]
    # A model that was not made for it names no way, and is refused with "Pooling type 'none' is not OAI compatible".
    pooling = found.options.get("--pooling")
    if pooling and pooling not in _given(preset, found) and preset.model and not known.names_pooling(preset.model):
        words += ["--pooling", "mean"]
    return words


def _given(preset: Preset, found: Binary) -> set[Option]:
    """What `options` say."""
    return {option for key in preset.options if (option := found.options.meant(key))}


def _own(preset: Preset, found: Binary) -> list[str]:
    """`options`, of which `_common` leaves out what they say."""
    return [word for key, value in preset.options.items() for word in found.options.arguments(key, value)]


def _wrong_options(preset: Preset, found: Binary) -> list[tuple[Keys, str]]:
    wrong: list[tuple[Keys, str]] = []
    known: dict[Option, str] = {}
    for key, value in preset.options.items():
        try:
            found.options.arguments(key, value)
        except ValueError as error:
            wrong.append((("options", key), str(error)))
            continue
        option = found.options.meant(key)
        if option is not None and known.setdefault(option, key) != key:
            wrong.append(
                (("options", key), f"cannot be given beside {known[option]!r}, which means the same: remove one")
            )
    return wrong


def _wrong_env(preset: Preset) -> list[tuple[Keys, str]]:
    """Variables that say what `options` may not."""
    why = "cannot be given: llama-router could not reach the server, or would serve another model"
    return [(("env", name), why) for name in sorted(KEPT_OUT & preset.env.keys())]
