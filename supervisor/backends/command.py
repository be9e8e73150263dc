"""Starts a server of any kind: the preset's own command line, told where to listen by {port} or {socket}."""

from __future__ import annotations

from supervisor.backends import Place, Plan
from supervisor.core.preset import Preset
from supervisor.errors import CannotStart

_PORT, _SOCKET = "{port}", "{socket}"


def plan(preset: Preset, place: Place) -> Plan:
    """The command with its token replaced in every argument and variable; a port is picked only if one is asked for.

    Only the exact tokens are replaced, so JSON in an argument keeps its braces. Raises CannotStart when the command
    is empty or nothing says where it is to listen.
    """
    if not preset.command:
        raise CannotStart(f"cannot start {preset.name}: it has no command; write command: [PROGRAM, ARGUMENT, …]")
    texts = [*preset.command, *preset.env.values()]
    if any(_PORT in text for text in texts):
        port = str(place.port())
        return _replaced(preset, _PORT, port, f"tcp:127.0.0.1:{port}")
    if any(_SOCKET in text for text in texts):
        return _replaced(preset, _SOCKET, str(place.socket), f"unix:{place.socket}")
    raise CannotStart(
        f"cannot start {preset.name}: its command does not say where to listen; write {_PORT} or {_SOCKET} in it"
    )


def _replaced(preset: Preset, token: str, value: str, address: str) -> Plan:
    argv = tuple(argument.replace(token, value) for argument in preset.command)
    env = {name: text.replace(token, value) for name, text in preset.env.items()}
    return Plan(argv, env, address)
