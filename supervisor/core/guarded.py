"""What of a preset decides which programs run and which files they open: whoever writes it may do what the supervisor's
user may. A browser changes it only where config.yaml says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from supervisor.core.preset import Preset

CONFIG_KEY = "web.edit_commands"

# Words of the names of options that name files, folders, other machines or programs, be it to read, write or run them:
# log-file, slot-save-path, rpc, lookup-cache-dynamic, lora, tools; hf_tokenizer_config_path, rpc_servers.
_WORDS = frozenset(
    {"file", "files", "path", "paths", "dir", "directory", "fname", "lookup", "save", "lora", "control", "vocoder"}
    | {"repo", "hf", "url", "docker", "rpc", "servers", "proxy", "mcp", "tool", "tools", "agent", "exec", "plugin"}
)
# The same for llama-server's short names that say less (common/arg.cpp).
_SHORT = frozenset({"lcs", "lcd", "md", "mv", "mu", "mm", "mmu", "dr", "hff", "hfr", "hfd", "hft", "jf", "bf", "fn"})
_ON_DISK = ("disk",)  # llama-cpp-python's cache_type
_PATH = re.compile(r"(~|\.{0,2}/)")

Keys = tuple[str, ...]


def refused(old: Preset | None, new: Preset) -> list[tuple[Keys, str]]:
    """What `new` adds to `old`, or changes, that a browser may not: its keys, and why. What it takes away is nothing.

    `old` is None for a model that is not there yet.
    """
    return [(keys, _why(keys)) for keys in _added(old, new)]


def _added(old: Preset | None, new: Preset) -> Iterator[Keys]:
    if new.command and (old is None or new.command != old.command):
        yield ("command",)
    if new.binary is not None and (old is None or new.binary != old.binary):
        yield ("binary",)
    known = old.env if old is not None else {}
    for name, value in new.env.items():
        if known.get(name) != value:
            yield ("env", name)
    # The same name may mean something else to another backend.
    options = old.options if old is not None and old.backend == new.backend else {}
    for name, option in new.options.items():
        if _opens(name, option) and (name not in options or options[name] != option):
            yield ("options", name)


def _opens(name: str, value: Any) -> bool:
    plain = name.lstrip("-").lower().replace("_", "-")
    if plain in _SHORT or not _WORDS.isdisjoint(re.findall("[a-z]+", plain)):
        return True
    values = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and (_PATH.match(each) or each in _ON_DISK) for each in values)


def _why(keys: Keys) -> str:
    what = (
        "names a file, a program or another machine" if keys[0] == "options" else "decides which program runs, and how"
    )
    return (
        f"cannot be added or changed in the browser: it {what}; "
        f"edit the file on the machine, or write web: {{edit_commands: true}} into config.yaml"
    )
