"""What is told of many times: medians and other quantiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    """The middle one, or what is between the two in the middle. Raises StatisticsError if there is none."""
    return statistics.median(values)


def nth(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed (nearest rank). `share`: above 0, up to 1."""
    if not values:
        raise statistics.StatisticsError("no values")
    return sorted(values)[math.ceil(share * len(values)) - 1]
