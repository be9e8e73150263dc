"""Which settings of config.yaml differ from others, and when such a change counts.

`listen` is where the listening socket is, which nothing but a restart makes anew. Those of `web` the web tier is
started with: `llama-router reexec` starts one that has them. `web.edit_commands` is none of these: it counts as soon as
it is read, as all others do.
"""

from __future__ import annotations

from supervisor.core.config import Config, Web

RESTART = frozenset({"listen"})
REEXEC = frozenset(f"web.{key}" for key in Web.model_fields) - {"web.edit_commands"}


def differing(old: Config, new: Config) -> set[str]:
    """The keys of those that differ; of `web`, such as "web.tls"."""
    keys = {key for key in Config.model_fields if key != "web" and getattr(old, key) != getattr(new, key)}
    return keys | {f"web.{key}" for key in Web.model_fields if getattr(old.web, key) != getattr(new.web, key)}
