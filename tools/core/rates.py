"""How fast a device computes, reads and writes: what every time is priced by.

Measured once per device and software version by `machine/probe`; before that what is known of such devices, with the
factor by which the truth may differ.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace

_CORES = 2  # of the machine that the rates of `usual_cpu` were measured on
_NO_UNITS = 0.2
"""Measured: what bf16 reaches of fp32's rate on a processor without units for it."""
_SPREAD = 2.0
"""Times by which a server's processor may be off: clock, generation and neighbours are not known before it is
measured."""
_CARD_SPREAD = 3.0
"""Wider, for cards' makers' figures are 9 times apart: a third of this, or three times it, takes all of them in."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one device; what it reaches at its best, not what a stage reaches."""

    bf16_flops: float
    """Floating point operations a second in large bf16 matrix products."""
    fp32_flops: float
    memory_bytes_s: float
    """Bytes read and written a second in its memory."""
    disk_bytes_s: float
    """Bytes read a second from the disk that models are on."""
    spread: float = 1.0
    """1.0 where this was measured; else the truth may be this factor faster or slower."""

    @property
    def served_flops(self) -> float:
        """Of a server, which has its own kernels: where bf16 has no units, they are at least as fast as fp32."""
        return max(self.bf16_flops, self.fp32_flops)

    def shared(self, share: float) -> Rates:
        """Of a processor of whose time only a share may be used: its threads sleep for the rest."""
        return replace(
            self,
            bf16_flops=share * self.bf16_flops,
            fp32_flops=share * self.fp32_flops,
            memory_bytes_s=share * self.memory_bytes_s,
        )

    @property
    def measured(self) -> bool:
        """Whether it was measured on this very device."""
        return self.spread == 1.0


def usual_cpu(cores: int, *, bf16_units: bool = True) -> Rates:
    """Of a server's processor with so many cores: two of them, an EPYC with AVX512-BF16, reach this (measured).

    Without such units bf16 is computed as fp32, and converted around it: at a fifth of its rate (measured).
    """
    share = max(cores, 1) / _CORES
    memory = 3.7e10 * math.sqrt(share)  # cores share the memory's channels
    return Rates((9.8e11 if bf16_units else _NO_UNITS * 2.2e11) * share, 2.2e11 * share, memory, 8.0e8, _SPREAD)


def usual_card() -> Rates:
    """Between a consumer card of the lower end and a data centre's: their makers' figures are 9 times apart."""
    return Rates(1.5e14, 3.0e13, 9.0e11, 1.0e9, _CARD_SPREAD)


START, READ, ANSWER, TRAIN, COMPUTE = "start", "read", "answer", "train", "compute"
"""Kinds of work, in the order in which a step usually does them: each has a speed of its own on a machine."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long work takes by arithmetic, by kind: the terms of a price that are learned apart."""

    fixed: float = 0.0
    """START: programs that start and libraries that are imported, however much there is to do."""
    read: float = 0.0
    """Bytes that are read, written, copied, downloaded or hashed."""
    answer: float = 0.0
    """Prompts that a server reads and tokens that it decodes."""
    train: float = 0.0
    """Steps of an optimiser, and rows that training reads."""
    compute: float = 0.0
    """Everything else that is computed: rounding, logits, comparisons."""
    answers: float = 0.0
    """How many answers `answer` is for, so that those that arrived say how far it is."""

    @property
    def variable(self) -> float:
        """What grows with the work."""
        return self.read + self.answer + self.train + self.compute

    @property
    def total(self) -> float:
        return self.fixed + self.variable

    @property
    def by_kind(self) -> dict[str, float]:
        """Kind → seconds, without those that do not occur."""
        kinds = {START: self.fixed, READ: self.read, ANSWER: self.answer, TRAIN: self.train, COMPUTE: self.compute}
        return {kind: seconds for kind, seconds in kinds.items() if seconds > 0}

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))
