"""Geometry of a report's charts: numbers only, in shares of the drawing area. The template draws and labels them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.tools.report.process import Curve

_MOST_POINTS = 400
"""More than a page has pixels across for it: a training of 10,000 steps would only make the file larger."""
_UNITS = 1000
"""Side of the square that polylines are drawn in; it is stretched to the width of the page."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in per cent of it."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point in per cent of the drawing area, with what it says."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class LossChart:
    """Training loss as a line, validation loss as dots joined by a line."""

    train: str
    """Points of a polyline in a square of 1000 units."""
    validation: str
    dots: list[Dot]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def loss_chart(train: Curve, validation: Curve) -> LossChart | None:
    """Both curves on one pair of axes from zero; None where there are fewer than two points to draw."""
    points = [*train.points, *validation.points]
    if len(points) < 2:
        return None
    x_ticks, x_high = _axis(max(x for x, _ in points), whole=True)
    y_ticks, y_high = _axis(max(y for _, y in points))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return max(0.0, point[0]) / x_high, 1 - max(0.0, point[1]) / y_high

    thin = _thinned(train.points)
    return LossChart(
        train=_polyline([place(p) for p in thin]),
        validation=_polyline([place(p) for p in validation.points]),
        dots=[
            Dot(round(100 * x, 2), round(100 * y, 2), f"validation loss {p[1]:.3f} at step {p[0]:g}")
            for p in validation.points
            for x, y in [place(p)]
        ],
        x_ticks=[Tick(100 * value / x_high, f"{value:g}") for value in x_ticks],
        y_ticks=[Tick(100 - 100 * value / y_high, f"{value:g}") for value in y_ticks],
    )


def share(value: float | None, most: float) -> float:
    """A bar's length in per cent of the longest; something is never drawn as nothing."""
    # 0.6 %: a hair, that can be seen
    return 0.0 if not value or most <= 0 else max(0.6, min(100.0, 100 * value / most))


def _axis(high: float, *, whole: bool = False) -> tuple[list[float], float]:
    """Round ticks from 0 and the end of the axis that holds `high` (steps of 1, 2 or 5 times a power of ten)."""
    high = high if high > 0 else 1.0
    rough = high / 4
    power = 10.0 ** math.floor(math.log10(rough))
    # Four ticks or so; .999: a high end that is a step itself, but for its last digit.
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    # 1e-9: the same, of a quotient.
    ticks = [round(step * i, 10) for i in range(math.floor(high / step + 1e-9) + 1)]
    return ticks, max(high, ticks[-1]) * (1.0 if whole else 1.03)  # 3 % above, so that the topmost dot is whole


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most some hundred points: the highest and lowest of each stretch, so that a spike is never smoothed away."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    width = math.ceil(2 * len(points) / _MOST_POINTS)
    spread: list[tuple[float, float]] = []
    for start in range(0, len(points), width):
        stretch = points[start : start + width]
        # lowest and highest: a peak is not thinned away
        spread += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return spread


def _polyline(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x * _UNITS:.1f},{y * _UNITS:.1f}" for x, y in places)
