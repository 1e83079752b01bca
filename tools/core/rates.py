"""How fast a device computes, reads and writes: what every time is priced by.

Measured once per device and software version by `machine/probe`; before that what is known of such devices, with the
factor by which the truth may differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_CORES = 2
_NO_UNITS = 0.2
_SPREAD = 2.0
_CARD_SPREAD = 3.0


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


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long work takes: what it takes however much there is to do, and what grows with it and with the device."""

    fixed: float
    """Programs that start, libraries that are imported, files that are written."""
    variable: float = 0.0

    @property
    def total(self) -> float:
        return self.fixed + self.variable

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.fixed + other.fixed, self.variable + other.variable)
