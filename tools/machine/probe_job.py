"""Measure a device: matrix products in bf16 and fp32, its memory, and the disk; about a second.

A processor is measured by one thread's own time, times its threads: so other programs that are at work do not make it
slow for good. A card is measured by the clock: nobody else of ours is on it while a step holds it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tunesmith.tools.core.rates import Rates

_CPU_WIDTH, _CARD_WIDTH = 1024, 8192
_COPIED_BYTES, _CARD_COPIED_BYTES = 96 << 20, 1 << 30
_READ_BYTES = 32 << 20
_LEAST_S, _MOST_TIMES = 0.1, 1000
"""Of one measurement, its warm-up apart."""


def measure_rates(folder: Path) -> Rates:
    """Of the device that torch computes on here, and of the disk that `folder` is on."""
    import torch

    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _rates(folder, "cpu", _CPU_WIDTH, _COPIED_BYTES, threads=threads)
        finally:
            torch.set_num_threads(threads)
    return _rates(folder, "cuda", _CARD_WIDTH, _CARD_COPIED_BYTES, wait=torch.cuda.synchronize)


def _rates(
    folder: Path, device: str, width: int, copied: int, *, threads: int = 1, wait: Callable[[], object] | None = None
) -> Rates:
    import torch

    def products(dtype: torch.dtype) -> float:
        a = torch.ones((width, width), dtype=dtype, device=device)
        out = torch.empty_like(a)
        return threads * 2 * width**3 / _seconds_each(lambda: torch.mm(a, a, out=out), wait)

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


def _seconds_each(work: Callable[[], object], wait: Callable[[], object] | None) -> float:
    """The quickest of at least three times, after one that warms up: others disturb, and nobody speeds up.

    By the clock where there is something to `wait` for, else by this thread's own time.
    """
    clock = time.perf_counter if wait else time.thread_time
    finish = wait or _nothing
    work()
    finish()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < _LEAST_S and len(times) < _MOST_TIMES):
        began = clock()
        work()
        finish()
        times.append(clock() - began)
    return max(min(times), 1e-9)


def _nothing() -> None:
    pass
