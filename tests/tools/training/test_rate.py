"""The learning rate from step to step."""

from __future__ import annotations

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.training.trainer import rate_factor


@table(("steps", "warmup"), [(1, 0), (1, 1), (12, 1), (81, 5), (200, 0), (10, 10)])
def test_every_step_learns_and_none_at_more_than_the_rate(steps: int, warmup: int) -> None:
    """The first too: where rows are grouped by length it holds the longest ones."""
    factors = [rate_factor(step, steps=steps, warmup=warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors), factors
    assert factors[:warmup] == sorted(factors[:warmup]) and factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert warmup >= steps or factors[warmup] == 1


def test_it_ends_where_transformers_cosine_does() -> None:
    """From the end of the warm-up on the two are the same."""
    from math import cos, pi

    assert rate_factor(5, steps=81, warmup=5) == 1 and rate_factor(81, steps=81, warmup=5) == pytest.approx(0)
    assert rate_factor(43, steps=81, warmup=5) == pytest.approx(0.5 * (1 + cos(pi * 38 / 76)))
