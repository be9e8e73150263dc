"""llama-swap's config.yaml as presets: its models, and what of the rest has a meaning for llama-router.

Source: internal/config/ and config.example.yaml of llama-swap, August 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from supervisor.core.quantities import shown
from supervisor.errors import CannotImport, Problem
from supervisor.importing import macros
from supervisor.importing.draft import Imported, Written
from supervisor.importing.macros import Macros
from supervisor.importing.swap_groups import read_groups
from supervisor.importing.swap_model import read_model
from supervisor.importing.swap_values import Values
from supervisor.yaml_positions import Document

_LOGS = "see `llama-router logs` and `llama-router events`, or the journal"
_NO_HISTORY = "llama-router keeps no requests"
_MODELS_ONLY = "llama-router knows models by their names and aliases only; write aliases:"
_INSTEAD = {
    "logLevel": _LOGS,
    "logTimeFormat": _LOGS,
    "logToStdout": _LOGS,
    "logRequests": _LOGS,
    "metricsMaxInMemory": _NO_HISTORY,
    "captureBuffer": _NO_HISTORY,
    "store": _NO_HISTORY,
    "ui": "llama-router's page has nothing to set",
    "performance": "llama-router measures its models by itself",
    "upstream": "llama-router has no /upstream; clients name the model in each request",
    "profiles": _MODELS_ONLY,
    "selectors": _MODELS_ONLY,
    "startPort": "llama-router takes free ports by itself; there is nothing to do",
    "sendLoadingState": "clients wait until the model is loaded; `llama-router status` shows how far it is",
    "includeAliasesInList": "each model of GET /v1/models has its aliases in `aliases`",
    "apiKeys": "keys are never written into presets; README.md says who may use the API",
    "peers": "llama-router forwards to programs that it runs itself; let clients ask the peer",
}
_HANDLED = frozenset(
    {"models", "macros", "healthCheckTimeout", "globalTTL", "unloadTimeout", "hooks", "groups", "matrix", "routing"}
)
# llama-swap's own least; it raises what is lower.
_LEAST_HEALTH_CHECK = 15


def read(document: Document, path: PurePath, environment: Mapping[str, str]) -> Imported:
    """The presets of a config.yaml at `path`. Raises CannotImport if it has no models."""
    root = document.value
    if not isinstance(root, dict) or not isinstance(root.get("models"), dict):
        why = "cannot find any models: llama-swap's configuration has 'models:' with their names below it"
        raise CannotImport([Problem(str(path), None, None, why)])
    found = Imported("llama-swap", str(path))
    values = Values(found, document)
    shared = Macros(values.macros(()), environment)
    _remark_on_variables(values, root, environment)
    settings = {key: values.expand((key,), shared) for key in root if key not in ("models", "macros")}
    found.defaults = _defaults(values, settings)
    for name, written in root["models"].items():
        draft = read_model(values, name, written, shared, path.parent)
        if draft is not None:
            found.drafts.append(draft)
    real = _real_names(found)
    read_groups(values, settings, found, real)
    _preload(values, settings.get("hooks"), found, real)
    for key, value in settings.items():
        if key in _INSTEAD:
            values.lose((key,), value, _INSTEAD[key])
        elif key not in _HANDLED:
            values.remark((key,), f"cannot carry over {shown(key)}: llama-swap has no such key either")
    found.finish()
    return found


def _defaults(values: Values, settings: Mapping[str, Any]) -> Written:
    check = values.whole(("healthCheckTimeout",), settings.get("healthCheckTimeout"))
    ttl = values.whole(("globalTTL",), settings.get("globalTTL"))
    unload = values.whole(("unloadTimeout",), settings.get("unloadTimeout"))
    defaults: Written = {}
    if check is not None:
        defaults["start_timeout"] = values.seconds(max(check, _LEAST_HEALTH_CHECK))
    if unload:
        defaults["stop_timeout"] = values.seconds(unload)
    if ttl:
        defaults["idle_timeout"] = values.seconds(ttl)
    return defaults


def _real_names(found: Imported) -> dict[str, str]:
    """The model that each name and alias means."""
    names = {alias: draft.name for draft in found.drafts for alias in draft.keys.get("aliases", [])}
    return names | {draft.name: draft.name for draft in found.drafts}


def _preload(values: Values, hooks: Any, found: Imported, real: Mapping[str, str]) -> None:
    for key in values.known_keys(("hooks",), hooks, ("on_startup",)):
        for inner in values.known_keys(("hooks", key), hooks[key], ("preload",)):
            wanted = values.texts(("hooks", key, inner), hooks[key][inner])
            for index, name in wanted:
                if name.strip() not in real:
                    why = f"cannot load {shown(name)} at start: no imported model has that name"
                    values.remark(("hooks", key, inner, index), why)
            names = {real[name.strip()] for _, name in wanted if name.strip() in real}
            for draft in found.drafts:
                if draft.name in names:
                    draft.keys["autostart"] = True


def _remark_on_variables(values: Values, root: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """llama-swap reads variables at each start; here their values of today are written out."""
    carried = {key: value for key, value in root.items() if key in _HANDLED}
    for name in sorted(macros.variables(carried)):
        if name in environment:
            why = f"${{env.{name}}} became the value it has here and now; write another one where that is wrong"
        else:
            why = f"cannot replace ${{env.{name}}}: it is not set here; set it and import again, or write its value"
        values.remark(values.first_use(f"${{env.{name}}}", carried), why)
