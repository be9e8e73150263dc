"""One model of llama-swap's config.yaml as a preset."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from supervisor.core.quantities import shown
from supervisor.importing import server_settings
from supervisor.importing.draft import Draft, Written
from supervisor.importing.macros import Macros
from supervisor.importing.server_settings import PORT, SLOTS
from supervisor.importing.swap_values import Values, field
from supervisor.yaml_positions import Path

# llama-swap forwards so many requests at once to a model without concurrencyLimit.
CONCURRENCY = 10
LLAMA_SERVER = ("llama-server", "llama-server.exe")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104  # compared with, not listened on

_INSTEAD = {
    "cmdStop": "a model and its children get SIGTERM, and SIGKILL after stop_timeout (docker run without -d passes "
    "SIGTERM on); where that is not enough, start it through a script that stops it when SIGTERM comes",
    "unlisted": "every model is in GET /v1/models",
    "metadata": "GET /v1/models has llama-router's own facts; write what people should read into description",
    "sendLoadingState": "clients wait until the model is loaded",
    "timeouts": "llama-router waits for an answer as long as the client does",
    "compat": "llama-router forwards no WebSockets",
    "capabilities": "GET /v1/models tells what llama-router knows of a model",
}
_HANDLED = frozenset(
    {"cmd", "macros", "proxy", "checkEndpoint", "aliases", "env", "ttl", "unloadTimeout", "useModelName", "name"}
    | {"description", "concurrencyLimit", "filters", "healthCheckTimeout"}
)
_FILTERS = ("stripParams", "strip_params", "setParams", "setParamsByID")


def read_model(values: Values, name: str, written: Any, shared: Macros, base: PurePath) -> Draft | None:
    """The model as a draft; None, with a remark, if there is nothing to run. Relative paths count from `base`."""
    path: Path = ("models", name)
    known = shared.under({"PORT": PORT, "MODEL_ID": name}).over(values.macros(path))
    keys = values.mapping(path, written)
    # A macro in a comment must not become a part of the command.
    before = {"cmd": _without_comments, "cmdStop": _without_comments}
    model = {key: values.expand((*path, key), known, before.get(key, str)) for key in keys if key != "macros"}
    return _Model(values, path, model, known, base).draft(name)


def _without_comments(command: str) -> str:
    return "\n".join(line for line in command.split("\n") if not line.lstrip().startswith("#"))


class _Model:
    """The keys of one model, their macros replaced."""

    def __init__(self, values: Values, path: Path, keys: Mapping[str, Any], known: Macros, base: PurePath) -> None:
        self._values = values
        self._path = path
        self._keys = keys
        self._known = known
        self._base = base

    def draft(self, name: str) -> Draft | None:
        arguments = self._arguments()
        if not arguments:
            return None
        written: Written = {"aliases": self._texts("aliases"), "env": self._env()} | self._times()
        if description := ": ".join(filter(None, (self._text("name"), self._text("description")))):
            written["description"] = description
        launch = self._by_llama_server(arguments, written) or self._by_command(arguments, written)
        if launch is None:
            return None
        written |= launch
        if limit := self._whole("concurrencyLimit"):
            written["max_concurrency"] = limit
        if request := self._request(written["aliases"]):
            written["request"] = request
        for key, value in self._keys.items():
            if key in _INSTEAD:
                self._values.lose((*self._path, key), value, _INSTEAD[key])
            elif key not in _HANDLED:
                self._remark(key, f"cannot carry over {shown(key)}: llama-swap has no such key either")
        written = {key: value for key, value in written.items() if value not in ([], {})}
        return Draft(name, self._values.line(self._path), field(self._path) or "", written)

    def _arguments(self) -> list[str]:
        """The command's words; a backslash at the end of a line joins it to the next."""
        lines = _without_comments(self._text("cmd")).split("\n")
        try:
            words = shlex.split("\n".join(re.sub(r"\\\s*$", " ", line) for line in lines))
        except ValueError as error:
            self._remark("cmd", f"cannot split this into arguments: {str(error).lower()}; the model is left out")
            return []
        if not words:
            self._remark("cmd", "cannot run a model without a command; the model is left out")
            return []
        return [self._program(words[0]), *words[1:]]

    def _program(self, word: str) -> str:
        """A name for PATH as it is; "~" is expanded where presets are read."""
        return word if "/" not in word or word.startswith("~") else str(self._base / word)

    def _by_llama_server(self, arguments: list[str], written: Written) -> Written | None:
        """Keys for backend llama-server; None where only its command line says it all, or it is another program."""
        program = arguments[0]
        if PurePath(program).name not in LLAMA_SERVER:
            return None
        line, place = self._values.line((*self._path, "cmd")), ".".join((field(self._path) or "", "cmd"))
        parsed = server_settings.parse(arguments[1:], line, place)
        if why := self._why_by_command(program, parsed, written):
            self._remark("cmd", why)
            return None
        for argument, reason in parsed.strays:
            self._remark("cmd", f"cannot carry over {shown(argument)}: {reason}")
        alias = parsed.settings.pop("alias", None)
        if alias is not None and alias.value != self._path[-1]:
            self._remark("cmd", f"cannot carry over {alias.written}: answers name the model as clients know it")
        self._values.remark_on(parsed.settings)
        keys = {
            key: value for key, value in server_settings.keys(parsed.settings, self._base).items() if value is not None
        }
        self._fixed_port()
        if self._text("checkEndpoint") not in ("", "/health"):
            self._remark("checkEndpoint", "cannot carry over: llama-server is asked for /health")
        binary = {} if program in LLAMA_SERVER else {"binary": program}
        slots = {} if "parallel" in keys else {"max_concurrency": SLOTS}
        return {"backend": "llama-server", **binary, **slots, **keys}

    @staticmethod
    def _why_by_command(program: str, parsed: server_settings.Parsed, written: Written) -> str | None:
        rest = "so it became a command"
        downloads = server_settings.downloads(parsed.settings)
        if downloads:
            return (
                f"llama-server downloads this model by itself ({downloads[0].written}), {rest}; for estimates of "
                "memory download the file, and write backend: llama-server and model: PATH"
            )
        if "model" not in parsed.settings:
            return f"the command line names no model's file, {rest}"
        if parsed.pairs:
            return f"{parsed.pairs[0]} takes two values, {rest}"
        used = [each for name, each in parsed.settings.items() if name != "port" and PORT in str(each.value)]
        if used or any(PORT in text for text in (program, *written["env"].values())):
            return f"${{PORT}} is used for more than --port, {rest}"
        return None

    def _by_command(self, arguments: list[str], written: Written) -> Written | None:
        port = self._fixed_port()
        if port is not None and any(PORT in text for text in (*arguments, *written["env"].values())):
            self._remark("proxy", f"cannot forward to port {port}: requests go to the port that ${{PORT}} stands for")
        elif port is not None:
            pattern = re.compile(rf"(?<![0-9]){port}(?![0-9])")
            arguments[1:] = [pattern.sub(PORT, argument) for argument in arguments[1:]]
            written["env"] = {name: pattern.sub(PORT, text) for name, text in written["env"].items()}
        if not any(PORT in text for text in (*arguments, *written["env"].values())):
            why = "cannot tell this program where to listen: write ${PORT} where its port is; the model is left out"
            self._remark("cmd", why)
            return None
        check = self._text("checkEndpoint") or "/health"
        return {
            "backend": "command",
            "command": arguments,
            "ready": "tcp" if check == "none" else {"http": check},
            "max_concurrency": CONCURRENCY,
        }

    def _fixed_port(self) -> int | None:
        """The port in `proxy`, if it is no macro; remarks on what else `proxy` says that can't be so."""
        proxy = self._text("proxy")
        try:
            url = urlsplit(proxy.replace(PORT, "1"))
            port = url.port
        except ValueError:
            self._remark("proxy", f"cannot read {shown(proxy)} as an address")
            return None
        if proxy and (url.hostname not in _LOCAL or url.scheme != "http"):
            self._remark(
                "proxy", f"cannot forward to {shown(proxy)}: a model answers on http://127.0.0.1 of this machine"
            )
        if url.path not in ("", "/"):
            self._remark(
                "proxy", f"cannot add {shown(url.path)} to paths: a model answers to the paths that clients use"
            )
        return None if PORT in proxy else port

    def _env(self) -> dict[str, str]:
        variables = {}
        for index, text in self._values.texts((*self._path, "env"), self._keys.get("env")):
            name, equals, value = text.partition("=")
            if not equals or not name:
                self._values.remark(
                    (*self._path, "env", index), f"cannot read {shown(text)} as a variable: write NAME=VALUE"
                )
                continue
            variables[name] = value
        return variables

    def _times(self) -> Written:
        times: Written = {}
        ttl = self._whole("ttl")
        if ttl is not None:
            times["idle_timeout"] = self._values.seconds(ttl) if ttl else "never"
        if unload := self._whole("unloadTimeout"):
            times["stop_timeout"] = self._values.seconds(unload)
        return times

    def _request(self, aliases: list[str]) -> Written:
        """Changes to request bodies; names that only filters know are added to `aliases`."""
        path = (*self._path, "filters")
        filters = self._values.mapping(path, self._keys.get("filters"))
        request: Written = {}
        given: Written = {}
        for key in self._values.known_keys(path, filters, _FILTERS):
            inner = (*path, key)
            if key in ("stripParams", "strip_params"):
                names = [name.strip() for name in self._values.text(inner, filters[key]).split(",")]
                removed = [name for name in dict.fromkeys(names) if name and name != "model"]
                given.setdefault("remove", removed)
            elif key == "setParams":
                given["set"] = dict(self._values.mapping(inner, filters[key]))
            else:
                by_name = self._values.mapping(inner, filters[key])
                aliases += [self._known.expand_key(name) for name in by_name]
                why = "one request: fits all names of a model; these became aliases alone"
                self._values.lose(inner, by_name, why)
        given.get("set", {}).pop("model", None)
        if renamed := self._text("useModelName"):
            given["set"] = {**given.get("set", {}), "model": renamed}
        for key in ("set", "remove"):
            if given.get(key):
                request[key] = given[key]
        return request

    def _text(self, key: str) -> str:
        return self._values.text((*self._path, key), self._keys.get(key)).strip()

    def _texts(self, key: str) -> list[str]:
        return [text for _, text in self._values.texts((*self._path, key), self._keys.get(key))]

    def _whole(self, key: str) -> int | None:
        return self._values.whole((*self._path, key), self._keys.get(key))

    def _remark(self, key: str, message: str) -> None:
        self._values.remark((*self._path, key), message)
