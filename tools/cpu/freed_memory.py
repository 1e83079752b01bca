"""Freed memory goes back to the kernel, so that what a layer of a model needs does not depend on the layers before."""

from __future__ import annotations

import ctypes
import mmap

_LARGE_BYTES = 32 << 20
"""The most that glibc takes for its M_MMAP_THRESHOLD at run time, on machines of 64 bits."""
_M_MMAP_THRESHOLD, _MADV_PAGEOUT = -3, 21
"""As malloc.h and the kernel's mman.h number them; Python's mmap has no name for either."""


def return_freed_memory() -> None:
    """Give the heap's free pages back; the allocator's own thresholds are set to keep them (see `settings`).

    glibc's `malloc_trim`; where there is none, nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def return_large_blocks() -> None:
    """From now on, give a block of 32 MiB or more back as soon as it is freed.

    Kept in the heap (see `settings`), freed Hessians and work copies lie between others where the next ones do not fit:
    of a 1.5B's layers some peaked at 2.0 GiB and others, by how their blocks happened to lie, at 2.4. glibc's
    `mallopt`; where there is none, nothing is done.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def leave_pages(address: int, size_bytes: int) -> None:
    """Let go of the pages of a mapped file that was read there; whoever reads there again gets them from the file.

    Memory that is no file's keeps what it holds. Linux's MADV_PAGEOUT, from 5.4 on; elsewhere nothing is done.
    """
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if advise is not None and length > 0:
        # By type: ctypes hands a plain int on as a C int, and would cut an address.
        advise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_PAGEOUT)
