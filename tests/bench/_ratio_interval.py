"""The interval of a ratio of two sums over the same items: what was kept of what was won, nats a token.

Not covered: a denominator that may be 0 or of either sign among the resamples; ask first whether it is certain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from tunesmith.tools.core.stats import RESAMPLES

_BATCH_CELLS = 2_000_000


def ratio_interval(
    above: Sequence[float], below: Sequence[float], confidence: float = 0.95, *, seed: int = 0
) -> tuple[float, float]:
    """Interval of Σ above ÷ Σ below where whole items are drawn, one of either a draw; at least two of them.

    Bootstrap percentiles at tails that make up for few draws (Hesterberg 2015, The American Statistician 69, "expanded
    percentile"), never inside Student's interval with the ratio's own standard error (Cochran 1977, "Sampling
    Techniques", 2.11). Seeded: the same items give the same interval.
    """
    import numpy as np
    from scipy.special import stdtrit

    upper, lower = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    items = len(upper)
    ratio = float(upper.sum() / lower.sum())
    student = float(stdtrit(items - 1, 0.5 + confidence / 2))
    apart = upper - ratio * lower
    error = math.sqrt(float(np.square(apart).sum()) * items / (items - 1)) / abs(float(lower.sum()))
    tail = NormalDist().cdf(-math.sqrt(items / (items - 1)) * student)
    random, drawn = np.random.default_rng(seed), []
    for _ in range(-(-RESAMPLES * items // _BATCH_CELLS)):
        places = random.integers(0, items, (min(RESAMPLES, max(1, _BATCH_CELLS // items)), items))
        drawn.append(upper[places].sum(1) / lower[places].sum(1))
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return min(float(low), ratio - student * error), max(float(high), ratio + student * error)
