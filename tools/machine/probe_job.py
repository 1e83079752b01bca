"""Measure a device: matrix products in bf16 and fp32, its memory, and the disk; a second on a CPU, less on a card."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tunesmith.tools.core.rates import Rates

_CPU_WIDTH, _CARD_WIDTH = 1024, 8192
_COPIED_BYTES, _CARD_COPIED_BYTES = 96 << 20, 1 << 30
_READ_BYTES = 32 << 20
_LEAST_S, _MOST_S = 0.1, 1.0
"""Of one measurement, its warm-up apart."""


def measure_rates(folder: Path) -> Rates:
    """Of the device that torch computes on here, and of the disk that `folder` is on."""
    import torch

    on_card = torch.cuda.is_available()
    device = "cuda" if on_card else "cpu"
    width = _CARD_WIDTH if on_card else _CPU_WIDTH
    wait = torch.cuda.synchronize if on_card else _nothing

    def products(dtype: torch.dtype) -> float:
        a = torch.ones((width, width), dtype=dtype, device=device)
        out = torch.empty_like(a)
        return 2 * width**3 / _seconds_each(lambda: torch.mm(a, a, out=out), wait)

    copied = _CARD_COPIED_BYTES if on_card else _COPIED_BYTES
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    memory = 2 * copied / _seconds_each(lambda: target.copy_(source), wait)
    return Rates(products(torch.bfloat16), products(torch.float32), memory, read_rate(folder))


def read_rate(folder: Path) -> float:
    """Bytes a second that the disk under a folder gives, its cache put aside where the system lets us."""
    path = folder / f"probe-{os.getpid()}.tmp"
    try:
        with path.open("wb") as file:
            file.write(os.urandom(_READ_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            while file.read(1 << 20):
                pass
            return _READ_BYTES / max(time.perf_counter() - began, 1e-6)
    finally:
        path.unlink(missing_ok=True)


def _seconds_each(work: Callable[[], object], wait: Callable[[], object]) -> float:
    """The quickest of at least three times, after one that warms up; others disturb, nobody speeds up."""
    work()
    wait()
    spent, quickest, times = 0.0, float("inf"), 0
    while times < 3 or (spent < _LEAST_S and times < 1000):
        began = time.perf_counter()
        work()
        wait()
        took = time.perf_counter() - began
        spent, quickest, times = spent + took, min(quickest, took), times + 1
        if spent > _MOST_S:
            break
    return quickest


def _nothing() -> None:
    pass
