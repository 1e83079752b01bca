"""Measure a device: matrix products in bf16 and fp32, its memory, and the disk; about two seconds.

A processor is measured with all its threads at work, which may share what multiplies, and each by its own time: so
other programs do not make it slow for good. The pace that it keeps up counts, not its best: on a cloud machine a
thread reached 1.1 TFLOP/s in bf16 in one tenth of a second and 0.3 in the next, and training went on as before. A card
is measured by the clock: nobody else of ours is on it while a step holds it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tunesmith.tools.core.rates import Rates

_CPU_WIDTH, _CARD_WIDTH = 1024, 8192
"""Wide enough to reach the full rate, and done in milliseconds."""
_COPIED_BYTES, _CARD_COPIED_BYTES = 96 << 20, 1 << 30
# More than a processor's caches hold, and a small part of a card.
_READ_BYTES = 32 << 20
_LEAST_S, _CPU_BF16_S, _CPU_FP32_S, _MOST_TIMES = 0.1, 1.0, 0.2, 10_000
"""Of one measurement, its warm-up apart: a second for bf16, whose pace was another one each tenth of a second; and no
endless row of tiny ones."""


def measure_rates(folder: Path) -> Rates:
    """Of the device that torch computes on here, and of the disk that `folder` is on."""
    import torch

    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for one product: below, each thread has its own
        try:
            return _rates(folder, "cpu", _CPU_WIDTH, _COPIED_BYTES, _products_of_threads(threads))
        finally:
            torch.set_num_threads(threads)
    wait = torch.cuda.synchronize

    def flops(multiply: Callable[[], object], _least_s: float) -> float:
        return 2 * _CARD_WIDTH**3 / min(_seconds_each(multiply, wait))

    return _rates(folder, "cuda", _CARD_WIDTH, _CARD_COPIED_BYTES, flops, wait)


Flops = Callable[[Callable[[], object], float], float]
"""Operations a second, of something that multiplies and is watched for so long at least."""


def _products_of_threads(threads: int) -> Flops:
    """What so many threads reach together, each with a product of its own."""

    def flops(multiply: Callable[[], object], least_s: float) -> float:
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(_seconds_each, multiply, None, least_s) for _ in range(threads)]
        return sum(2 * _CPU_WIDTH**3 / statistics.mean(one.result()) for one in futures)

    return flops


def _rates(
    folder: Path,
    device: str,
    width: int,
    copied: int,
    flops: Flops,
    wait: Callable[[], object] | None = None,
) -> Rates:
    import torch

    def products(dtype: torch.dtype, least_s: float) -> float:
        a = torch.ones((width, width), dtype=dtype, device=device)
        return flops(lambda: torch.nn.functional.linear(a, a), least_s)  # as models multiply: one is transposed

    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    memory = 2 * copied / min(_seconds_each(lambda: target.copy_(source), wait))
    return Rates(products(torch.bfloat16, _CPU_BF16_S), products(torch.float32, _CPU_FP32_S), memory, read_rate(folder))


def read_rate(folder: Path) -> float:
    """Bytes a second that the disk under a folder gives, its cache put aside where the system lets us."""
    path = folder / f"probe-{os.getpid()}.tmp"
    try:
        with path.open("wb") as file:
            file.write(os.urandom(_READ_BYTES))
            file.flush()
            # The kernel drops clean pages alone: what is not on the disk yet would be read from memory.
            os.fsync(file.fileno())
        with path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            # Unbuffered, in pieces: what is measured is the disk, and not Python's copying.
            while file.read(1 << 20):
                pass
            return _READ_BYTES / max(time.perf_counter() - began, 1e-6)  # a clock may stand still
    finally:
        path.unlink(missing_ok=True)


def _seconds_each(
    work: Callable[[], object], wait: Callable[[], object] | None, least_s: float = _LEAST_S
) -> list[float]:
    """At least three times, after one that warms up: by the clock where there is something to `wait` for, else by this
    thread's own time."""
    clock = time.perf_counter if wait else time.thread_time
    finish = wait or _nothing
    work()
    finish()
    times: list[float] = []
    # one alone may be a hiccup
    while len(times) < 3 or (sum(times) < least_s and len(times) < _MOST_TIMES):
        began = clock()
        work()
        finish()
        times.append(max(clock() - began, 1e-9))  # a clock may stand still, and seconds divide
    return times


def _nothing() -> None:
    pass
