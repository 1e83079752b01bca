"""How a base is trained: decided here alone, by arithmetic, for every plan, price and refusal.

A setting that a user typed stands, and is only checked. Of what is left open the first way that fits is taken, in the
order of what it costs the result, then the time: 16 bits before 4; of either, all activations kept, then fewer rows at
once as long as they keep the device busy, then activations computed again. The same ways, with less of it typed, are
what a refusal names.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.stage import GIB, Facts, Fitting
from tunesmith.tools.models.fitting import Training, largest_that_fits
from tunesmith.tools.models.measuring import FOUR, choose, is_measured_at_four
from tunesmith.tools.models.model_names import NamedModel
from tunesmith.tools.models.shape import ModelShape

BUSY_TOKENS = 1024
"""Fewer at once leave a device waiting; then computing activations again costs less."""
Config = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Decision:
    """One setting that was left open: its value, and why, in a sentence with the number."""

    setting: str
    value: object
    why: str
    needed_bytes: int
    """Of the way that it is part of."""
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Work:
    """What of a training is computed in any way: the rows of a step, and the adapter."""

    batch_size: int
    """Rows of a step, on each card."""
    usual_row_tokens: int
    """That one of several rows counts at."""
    longest_row_tokens: int
    rank: Callable[[Config, bool], int]
    """Of the adapter of a base of this config; a mixture's at 4 bits has attention alone."""
    fused: bool
    on_cpu: bool

    def row_tokens(self, rows: int) -> int:
        """Tokens that a row counts at where so many are in memory at once."""
        return max(self.usual_row_tokens, math.ceil(self.longest_row_tokens / rows))

    def way(self, config: Config, rows: int, precision: str, *, four: bool, checkpointing: bool) -> Training:
        """So many rows at once, computed so."""
        tokens, rank = self.row_tokens(rows), self.rank(config, four)
        return Training(rows, tokens, rank, precision, four, checkpointing, self.fused, self.on_cpu)


@dataclass(frozen=True, slots=True)
class Typed:
    """What a user said of how to train, as requests have it."""

    micro_batch: int = 0
    activation_checkpointing: str = "auto"
    precision: str = "auto"
    load_in_4bit: bool | None = None

    @property
    def said(self) -> dict[str, Any]:
        """What of it is not left open."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}


@dataclass(frozen=True, slots=True)
class Decided:
    """The way to train, and each open setting of it."""

    way: Training
    needed_bytes: int
    """What is reserved for it."""
    decisions: tuple[Decision, ...]
    least_bytes: int
    """Of one row at once, with its activations computed again, at the same bits."""
    fitting: tuple[Fitting, ...]
    """Where it does not fit: what to type instead, best first, or another base."""
    refusals: tuple[str, ...]
    """Why it would be of no use though it fits."""
    bytes_of: Callable[[NamedModel], int]
    """What training another base would need, decided by the same rules."""


def decide(base: Artifact, facts: Facts, work: Work, typed: Typed) -> Decided:
    """How to train a base here. Raises BadInput for settings that exclude each other."""
    return _Ways(base.config, facts, work, is_measured_at_four(base, facts)).decided(typed)


def faster_precision(facts: Facts) -> tuple[str, str]:
    """bf16, or fp32 where a processor multiplies that faster, having no instructions for bf16; and the reason."""
    rates = facts.training_rates
    if facts.trains_on_gpu or rates.bf16_flops >= rates.fp32_flops:
        return "bf16", ""
    known = "was measured to multiply" if rates.measured else "has no instructions for bf16: it multiplies about"
    fp32, bf16 = (f"{flops / 1e9:,.0f} GFLOP/s" for flops in (rates.fp32_flops, rates.bf16_flops))
    return "fp32", f"this processor {known} {fp32} in fp32 and {bf16} in bf16"


@dataclass(frozen=True, slots=True)
class _Ways:
    """The ways to train one base with the memory that there is."""

    config: Config
    facts: Facts
    work: Work
    measured_at_four: bool

    @property
    def _is_mixture(self) -> bool:
        return ModelShape.of(self.config).experts > 0

    @property
    def _attention_alone(self) -> bool:
        """A server of quantized experts takes adapters of attention alone, as are trained at 4 bits."""
        return self._is_mixture and self.measured_at_four

    def needs(self, way: Training) -> int:
        """What is reserved for it: its peak, with the margin of a device that was not measured yet."""
        return math.ceil(way.peak_bytes(self.config) * self.facts.margin)

    def fits(self, way: Training) -> bool:
        return self.needs(way) <= self.facts.training_room_bytes

    def is_not_served(self, way: Training) -> bool:
        """Whether the server that the run is measured on would not take the adapter."""
        return self._attention_alone and not way.load_in_4bit

    def all(self, typed: Typed) -> Iterator[Training]:
        """Every way that agrees with what was typed, best first."""
        size = self.work.batch_size
        sizes = [typed.micro_batch] if typed.micro_batch else [n for n in range(size, 0, -1) if size % n == 0]
        busy = [rows for rows in sizes if rows == sizes[0] or rows * self.work.row_tokens(1) >= BUSY_TOKENS]
        kept, again = [(rows, False) for rows in busy], [(rows, True) for rows in sizes]
        idle = [(rows, False) for rows in sizes if rows not in busy]
        bits = (True,) if self._attention_alone else (False, True)
        precisions = tuple(dict.fromkeys((faster_precision(self.facts)[0], "bf16")))
        for four in bits if typed.load_in_4bit is None else (typed.load_in_4bit,):
            for precision in precisions if typed.precision == "auto" else (typed.precision,):
                one = self.work.way(self.config, 1, precision, four=four, checkpointing=True)
                # Kept activations would keep every layer's unpacked experts.
                for rows, checkpointing in again if four and self._is_mixture else [*kept, *again, *idle]:
                    tokens = self.work.row_tokens(rows)
                    way = replace(one, rows_at_once=rows, longest_row_tokens=tokens, checkpointing=checkpointing)
                    if typed.said.items() <= _settings(way).items():
                        yield way

    def chosen(self, typed: Typed) -> Training | None:
        """The first way that fits, else the thriftiest; None where what was typed leaves none."""
        fitting = next(filter(self.fits, self.all(typed)), None)
        return fitting or min(self.all(typed), key=self.needs, default=None)

    def decided(self, typed: Typed) -> Decided:
        """The way that is chosen, why, and what else would do where it does not fit."""
        way = self.chosen(typed)
        if way is None:
            raise BadInput(
                "train: a mixture at 4 bits needs activation_checkpointing: every layer's experts would else be kept "
                "at 16 bits for the backward pass; leave it at auto"
            )
        least = self.work.way(self.config, 1, way.precision, four=way.load_in_4bit, checkpointing=True)
        unserved = self.is_not_served(way)
        instead = self._instead(typed) if unserved or not self.fits(way) else ()
        refusal = (
            "trains the experts of a mixture that is measured at 4 bits, where a server takes adapters of attention "
            f"alone; try {', or '.join(one.settings for one in instead)}, or fetch the base with measuring=16"
        )
        decisions = tuple(self._decisions(way, typed))
        others = partial(self._bytes_of, typed=typed)
        return Decided(way, self.needs(way), decisions, self.needs(least), instead, (refusal,) * unserved, others)

    def _instead(self, typed: Typed) -> tuple[Fitting, ...]:
        """What to type where nothing goes as it was typed: the least of it that has to change, at the same bits and at
        4, and then the first way that fits; else the largest base that would."""
        named = []
        for bits in (False, True)[self._attention_alone :] if typed.load_in_4bit is False else (typed.load_in_4bit,):
            ways = map(_settings, filter(self.fits, self.all(Typed(load_in_4bit=bits))))
            changes = [{name: said[name] for name, value in typed.said.items() if said[name] != value} for said in ways]
            least = min(changes, key=len, default={})
            if way := self.chosen(replace(typed, **least)) if least else None:
                settings = ", ".join(f"{name}={str(value).lower()}" for name, value in least.items())
                named.append(Fitting(settings=settings, peak_bytes=self.needs(way)))
        free = self.facts.training_room_bytes
        return tuple(named) or largest_that_fits(partial(self._bytes_of, typed=typed), free)

    def _bytes_of(self, model: NamedModel, typed: Typed) -> int:
        """Of another base; without end where it does not fit either."""
        measuring = choose("auto", model.config, self.facts)
        ways = replace(self, config=model.config, measured_at_four=measuring.bits == FOUR)
        way = next(filter(ways.fits, ways.all(typed)), None)
        return sys.maxsize if way is None or ways.is_not_served(way) else ways.needs(way)

    def _decisions(self, way: Training, typed: Typed) -> Iterator[Decision]:
        needed, free = self.needs(way), self.facts.training_room_bytes
        parts = "1 row at once needs" if way.rows_at_once == 1 else f"{way.rows_at_once} rows at once need"
        whys = {
            "load_in_4bit": "" if "load_in_4bit" in typed.said else self._why_bits(way, typed),
            "micro_batch": f"{self._why_kept(way)}; {parts} {needed / GIB:.1f} GiB",
            "activation_checkpointing": self._why_kept(way),
            "precision": self._why_precision(way),
        }
        for setting, value in _settings(way).items():
            if setting not in typed.said:
                yield Decision(setting, value, whys[setting], needed, free)

    def _why_bits(self, way: Training, typed: Typed) -> str:
        needed, free = self.needs(way) / GIB, self.facts.training_room_bytes / GIB
        if not way.load_in_4bit:
            return f"training at 16 bits needs {needed:.1f} GiB, there is room for {free:.1f}"
        sixteen = min(map(self.needs, self.all(replace(typed, load_in_4bit=False)))) / GIB
        least = f"training at 16 bits needs {sixteen:.1f} GiB at the least, there is room for {free:.1f}"
        why = f"{least}; at 4 bits {needed:.1f}"
        if self._attention_alone:
            return f"{why}; measured at 4 bits, a mixture's server takes adapters of attention alone, as 4 bits train"
        return why

    def _why_kept(self, way: Training) -> str:
        if way.load_in_4bit and self._is_mixture:
            return "experts at 4 bits are unpacked a layer at a time, and kept activations would keep them all"
        rows, at = self.work.batch_size, "at 4 bits " if way.load_in_4bit else ""
        whole = self.needs(self.work.way(self.config, rows, way.precision, four=way.load_in_4bit, checkpointing=False))
        free = self.facts.training_room_bytes / GIB
        return f"training {at}needs {whole / GIB:.1f} GiB with all activations kept, there is room for {free:.1f}"

    def _why_precision(self, way: Training) -> str:
        faster, why = faster_precision(self.facts)
        free = self.facts.training_room_bytes / GIB
        return why if way.precision == faster else f"{why}, and {faster} does not fit into {free:.1f} GiB"


def _settings(way: Training) -> dict[str, Any]:
    """As they would be typed."""
    return Typed(way.rows_at_once, "on" if way.checkpointing else "off", way.precision, way.load_in_4bit).said
