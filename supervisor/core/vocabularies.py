"""Which of the vocabularies that are kept must go."""

from __future__ import annotations

from collections.abc import Mapping


def surplus(sizes: Mapping[str, int], limit: int) -> list[str]:
    """The fewest names, from the first on, without which the rest takes at most `limit`. `sizes` has the one that was
    used last at the end. One that alone takes more than `limit` goes, and no other for it."""
    gone = [name for name, size in sizes.items() if size > limit]
    rest = {name: size for name, size in sizes.items() if size <= limit}
    total = sum(rest.values())
    for name, size in rest.items():
        if total <= limit:
            break
        total -= size
        gone.append(name)
    return gone
