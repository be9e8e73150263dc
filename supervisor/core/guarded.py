"""What of a preset decides which programs run and which files they open: whoever writes it may do what the supervisor's
user may. A browser changes it only where config.yaml says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from supervisor.core.preset import Preset

CONFIG_KEY = "web.edit_commands"

# The options that a browser may set: those of speed, memory, sampling and form. Any other may name a file, a program or
# another machine, in some build and by some short name (of the 350 in llama.cpp's common/arg.cpp, "-ag" lets a model
# use a shell). Names of llama-server, long and short, and of llama-cpp-python, with "-" for "_".
_NAMES = (
    "ctx-size c n-ctx batch-size b n-batch ubatch-size ub n-ubatch parallel np cont-batching cb "
    "no-cont-batching nocb threads t n-threads threads-batch tb n-threads-batch threads-http prio prio-batch "
    "poll poll-batch numa flash-attn fa gpu-layers ngl n-gpu-layers split-mode sm tensor-split ts main-gpu mg "
    "mlock use-mlock mmap no-mmap use-mmap direct-io no-direct-io dio ndio repack no-repack nr no-host "
    "kv-offload no-kv-offload kvo nkvo offload-kqv cache-type-k ctk cache-type-v ctv type-k type-v kv-unified "
    "no-kv-unified kvu swa-full op-offload no-op-offload cpu-moe cmoe n-cpu-moe ncmoe override-tensor ot "
    "check-tensors fit fit-target fitt fit-ctx fitc context-shift no-context-shift keep cache-prompt "
    "no-cache-prompt cache-reuse cache-ram cram ctx-checkpoints ctxcp swa-checkpoints slot-prompt-similarity "
    "sps cache cache-type cache-size warmup no-warmup n-predict predict n seed s temp temperature top-k top-p "
    "min-p top-nsigma top-n-sigma xtc-probability xtc-threshold typical typical-p repeat-last-n "
    "repeat-penalty presence-penalty frequency-penalty dry-multiplier dry-base dry-allowed-length "
    "dry-penalty-last-n dry-sequence-breaker dynatemp-range dynatemp-exp mirostat mirostat-lr mirostat-ent "
    "samplers sampling-seq sampler-seq ignore-eos logit-bias l last-n-tokens-size backend-sampling bs pooling "
    "attention embd-normalize embedding embeddings rerank reranking logits-all vocab-only no-perf perf "
    "rope-scaling rope-scaling-type rope-scale rope-freq-base rope-freq-scale yarn-orig-ctx yarn-ext-factor "
    "yarn-attn-factor yarn-beta-slow yarn-beta-fast jinja no-jinja reasoning-format reasoning rea "
    "reasoning-budget chat-template chat-format prefill-assistant no-prefill-assistant special sp spm-infill "
    "grammar json-schema j metrics slots no-slots props timeout to sleep-idle-seconds spec-draft-n-max "
    "draft-max draft-n draft spec-draft-n-min draft-min draft-n-min spec-draft-p-min draft-p-min spec-type "
    "draft-model-num-pred-tokens verbose v verbosity lv log-verbosity verbose-prompt log-colors log-prefix "
    "log-timestamps"
)
_HARMLESS = frozenset(_NAMES.split())
_ON_DISK = "disk"  # llama-cpp-python's cache_type
# A path, or what a program would take for another of its options, given to one that takes no value.
_NOT_PLAIN = re.compile(r"~|\.{0,2}/|-[^0-9.]|" + _ON_DISK)

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
    if name.lstrip("-").replace("_", "-") not in _HARMLESS:
        return True
    values = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and _NOT_PLAIN.match(each) is not None for each in values)


def _why(keys: Keys) -> str:
    what = (
        "may name a file, a program or another machine"
        if keys[0] == "options"
        else "decides which program runs, and how"
    )
    return (
        f"cannot be added or changed in the browser: it {what}; "
        f"edit the file on the machine, or write web: {{edit_commands: true}} into config.yaml"
    )
