"""Freed memory goes back to the kernel between the layers of a model, so that each layer starts from the same size."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Give the heap's free pages back; the allocator's own thresholds are set to keep them (see `settings`).

    glibc's `malloc_trim`; where there is none, nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
