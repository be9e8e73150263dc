"""Of which models a vocabulary can be kept, and which of those that are kept must go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Each takes a process and three descriptors.
MOST = 16

# A projector (mtmd) takes the vocabulary from the model. The others change what is read, or where from.
UNSUITABLE = (
    *("clip_model_path", "kv_overrides", "vocab_only", "lora_path", "lora_base"),
    *("hf_model_repo_id", "hf_tokenizer_config_path", "hf_pretrained_model_name_or_path"),
)


def suits(settings: Mapping[str, Any]) -> bool:
    """Whether a server with these fields of llama_cpp's ModelSettings can be given a vocabulary that was kept."""
    return not any(settings.get(name) for name in UNSUITABLE)


def surplus(sizes: Mapping[str, int], limit: int) -> list[str]:
    """The fewest names, from the first on, without which the rest takes at most `limit` and is no more than MOST.

    `sizes` has the one that was used last at the end. One that alone takes more than `limit` goes, and no other for it.
    """
    gone = [name for name, size in sizes.items() if size > limit]
    rest = {name: size for name, size in sizes.items() if size <= limit}
    total = sum(rest.values())
    for name, size in rest.items():
        if total <= limit and len(sizes) - len(gone) <= MOST:
            break
        total -= size
        gone.append(name)
    return gone
