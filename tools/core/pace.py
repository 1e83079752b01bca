"""What finished steps say of the next one's time: a Kalman filter on the logarithm of taken ÷ priced.

The logarithm of what a step takes, over what arithmetic prices it at, is taken to be a sum: how much slower the device
is now than it was measured to be, how much slower each kind of work is on it, how far the arithmetic of this stage is
off, and noise. All start at nothing, with the variances below, so that few observations are shrunk towards the
arithmetic; each observation moves them by the filter's gain (Kalman 1960, "A New Approach to Linear Filtering and
Prediction Problems"), and what remains uncertain is the price's interval. How busy the device is passes: between steps,
and more between runs, that part falls back towards nothing. An observation that is far out moves it no further than one
that is just believable (Huber 1964, "Robust Estimation of a Location Parameter"); where they were further out than they
should be, as beside a neighbour who comes and goes, the interval is wider by as much (Mehra 1970, "On the
Identification of Variances and Adaptive Kalman Filtering").

Pure, and without a clock: the same steps give the same price. Not covered: two devices in one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache

from tunesmith.tools.core.rates import ANSWER, READ, START

_DEVICE_SD, _KIND_SD, _STAGE_SD = 0.6, 0.35, 0.2
"""Of the logarithms before anything ran; by three demos, one of them on a machine with six neighbours."""
_NOISE_SD, _SHORT_S = 0.10, 1.0
"""Of a step that is repeated; and what the time of any is off by, so that short ones say little."""
_NEXT_STEP, _NEXT_RUN = 0.97, 0.5
"""What remains of how busy the device was, by the next step and by the next run."""
_FEELS = {START: 0.5, READ: 0.4}
"""How much of a device's slowness, in logarithms, work feels that keeps one thread or the disk busy."""
_BELIEVED_SD = 2.25
"""What surprises more counts as if it surprised so much: one step beside a busy neighbour must not move every price
after it."""
_EXPECTED = 4
"""Observations as far out as they should be that those which were made are averaged with."""
_AMONG = 0.25
"""Of a price, what may have been measured among other kinds of work; of a time, what may have had no price."""
_INTERVAL_SD = 1.2816
"""Four of five lie within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class Past:
    """One step: what arithmetic priced it at, by kind of work, and what it took."""

    stage: str
    like: str
    run: str
    priced: tuple[tuple[str, float], ...]
    """Kind of work → seconds."""
    seconds: float = 0.0
    """0: it has not run yet."""
    took: tuple[tuple[str, float], ...] = ()
    """The same by kind, where the step's own worker measured that."""
    spread: float = 1.0
    """The factor by which the rates that arithmetic used may have been off; 1: as measured as today's."""
    device: str = ""
    """What computed, beside the processor: the kind of device, empty for the processor itself."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A price as this machine's past corrects it."""

    seconds_by_kind: dict[str, float]
    """Kind of work → seconds."""
    least: float
    most: float
    """Four of five such steps end between these."""

    @property
    def seconds(self) -> float:
        return sum(self.seconds_by_kind.values())


class Pace:
    """How a machine keeps to its prices, by the steps that it finished, the oldest first."""

    def __init__(self, past: Sequence[Past]) -> None:
        self._mean: dict[str, float] = {}
        self._variance: dict[str, dict[str, float]] = {}
        self._run = ""
        self._surprises = [1.0] * _EXPECTED
        """Squares of what was observed, in standard deviations from what was expected."""
        for step in past:
            self._go_on_to(step.run)
            for priced, seconds in _observations(step):
                self._observe(step, priced, seconds)

    def price(self, work: Past, *, spread: float = 1.0) -> Learned:
        """What work that arithmetic prices so will take; `spread` is the factor by which the device's rates may be off
        where they were not measured."""
        if not work.priced:
            return Learned({}, 0.0, 0.0)
        now = deepcopy(self)  # a price moves no estimate
        now._go_on_to(work.run)
        return now._price(work, spread)

    def _price(self, work: Past, spread: float) -> Learned:
        weights = self._weights(work, work.priced)
        seconds_by_kind = {kind: seconds * self._factor(work, kind) for kind, seconds in work.priced}
        unknown = math.log(spread) / _INTERVAL_SD
        total = sum(seconds_by_kind.values())
        # Mehra's factor (see above) widens the interval, and never narrows it.
        unsteady = max(1.0, sum(self._surprises) / len(self._surprises))
        variance = unsteady * (self._variance_of(weights) + _noise(total)) + unknown**2
        spread_ = math.exp(_INTERVAL_SD * math.sqrt(variance))
        return Learned(seconds_by_kind, total / spread_, total * spread_)

    def _go_on_to(self, run: str) -> None:
        """Time has passed: how busy each device is falls back towards what it usually is."""
        remains, self._run = _NEXT_STEP if run == self._run else _NEXT_RUN, run
        for name in [name for name in self._mean if name.startswith(_DEVICE)]:
            self._mean[name] *= remains
            for other in self._variance[name]:
                self._variance[name][other] *= remains
                self._variance[other][name] *= remains
            self._variance[name][name] += (1 - remains**2) * _DEVICE_SD**2

    def _observe(self, step: Past, priced: Sequence[tuple[str, float]], seconds: float) -> None:
        weights = self._weights(step, priced)
        expected = sum(of_kind * self._factor(step, kind) for kind, of_kind in priced)
        moved = {
            name: sum(row[other] * weight for other, weight in weights.items()) for name, row in self._rows(weights)
        }
        # What was priced by rates that were only assumed says little of a price by those that were measured since.
        computed = sum(of_kind for kind, of_kind in priced if kind not in _FEELS)
        assumed = computed / sum(dict(priced).values()) * math.log(step.spread) / _INTERVAL_SD
        variance = sum(weights[name] * moved[name] for name in weights) + _noise(seconds) + assumed**2
        surprise = math.log(seconds / expected)
        self._surprises.append(surprise**2 / variance)
        believed = _BELIEVED_SD * math.sqrt(variance)
        surprise = max(-believed, min(surprise, believed))
        for name, along in moved.items():
            self._mean[name] += along / variance * surprise
            for other, across in moved.items():
                self._variance[name][other] -= along * across / variance

    def _rows(self, weights: Mapping[str, float]) -> list[tuple[str, Mapping[str, float]]]:
        """Of every quantity, what it varies together with, those of `weights` among them."""
        for name in weights:
            if name not in self._mean:
                self._mean[name] = 0.0
                for row in self._variance.values():
                    row[name] = 0.0
                self._variance[name] = {**dict.fromkeys(self._mean, 0.0), name: _usual_variance(name)}
        return list(self._variance.items())

    def _variance_of(self, weights: Mapping[str, float]) -> float:
        """Of the sum that weighs these quantities so; those that nothing was seen of have their own."""
        known = [(name, weight) for name, weight in weights.items() if name in self._mean]
        together = sum(a * b * self._variance[one][other] for one, a in known for other, b in known)
        apart = sum(w**2 * _usual_variance(name) for name, w in weights.items() if name not in self._mean)
        return together + apart

    def _factor(self, work: Past, kind: str) -> float:
        return math.exp(sum(feels * self._mean.get(name, 0.0) for name, feels in _names(work, kind)))

    def _weights(self, work: Past, priced: Sequence[tuple[str, float]]) -> dict[str, float]:
        """How much the logarithm of the whole moves with each quantity: by the share of the kinds that it bears on."""
        times = {kind: seconds * self._factor(work, kind) for kind, seconds in priced}
        total, weights = sum(times.values()), dict[str, float]()
        for kind, seconds in times.items():
            for name, feels in _names(work, kind):
                weights[name] = weights.get(name, 0.0) + feels * seconds / total
        return weights


@lru_cache(maxsize=8)  # of a few runs or homes in one process: their steps are the key
def pace_of(past: tuple[Past, ...]) -> Pace:
    """The pace by these steps, reckoned once for all prices of a plan."""
    return Pace(past)


_DEVICE = "device "


def _device(device: str) -> str:
    return f"{_DEVICE}{device}"


def _names(work: Past, kind: str) -> tuple[tuple[str, float], ...]:
    """What the time of one kind of work in a step depends on, and how much."""
    device = (_device(work.device), _FEELS.get(kind, 1.0))
    return device, (f"kind {kind} {work.device}", 1.0), (f"stage {work.stage} {work.like}", 1.0)


def _usual_variance(name: str) -> float:
    return {"device": _DEVICE_SD, "kind": _KIND_SD, "stage": _STAGE_SD}[name.partition(" ")[0]] ** 2


def _noise(seconds: float) -> float:
    return _NOISE_SD**2 + (_SHORT_S / max(seconds, _SHORT_S / 2)) ** 2


def _observations(step: Past) -> list[tuple[Sequence[tuple[str, float]], float]]:
    """What a step says: of each kind by itself where that was measured, else of all of it together.

    What was priced and not measured apart is part of another kind's time: a server reads its weights as it starts, and
    whoever trains as that begins. Where it is much, or much was measured that has no price, only the whole counts.
    """
    if not step.priced or step.seconds <= 0:
        return []
    priced, took = dict(step.priced), dict(step.took)
    apart = {kind: [(kind, priced[kind])] for kind in priced if took.get(kind, 0.0) > 0}
    among = [entry for entry in step.priced if entry[0] not in apart]
    unpriced = sum(seconds for kind, seconds in took.items() if kind not in priced)
    known = sum(seconds for _, seconds in among) <= _AMONG * sum(priced.values()) and unpriced <= _AMONG * step.seconds
    if not apart or not known:
        return [(step.priced, step.seconds)]
    apart[START if ANSWER in apart and START in apart else max(apart, key=priced.__getitem__)] += among
    return [(of_kind, took[kind]) for kind, of_kind in apart.items()]
