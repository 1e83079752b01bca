"""vLLM's engine as a fork of its API server: 8 of 21 seconds of a server's start on two cores.

It runs inside vLLM. vLLM starts its engine as a second process, by a fork on a GPU and anew on a CPU, where it imports
again all that the first process has. Two things forbid a fork there, and both are looked after: the engine must be
loaded with PyTorch's OpenMP first (our servers start with it), and no pool of OpenMP's threads may exist, since a
fork has none of them and waits for them for ever (it is given back). Where either is not so, vLLM's own way is taken.
"""

import ctypes
import multiprocessing
import os
from typing import Any

_HARD = 2
"""omp_pause_hard of OpenMP 5.0: the pool's threads end."""
_loaded_with = os.environ.get("LD_PRELOAD", "")


def register() -> None:
    """Have this process fork the engine that it starts; vLLM calls it before it starts one."""
    if multiprocessing.parent_process() is not None:
        return
    from vllm.v1.engine import utils  # type: ignore[import-not-found,unused-ignore]

    usual = utils.get_mp_context

    def get_mp_context() -> Any:
        chosen = usual()
        return multiprocessing.get_context("fork") if can_fork() else chosen

    utils.get_mp_context = get_mp_context


def can_fork() -> bool:
    """Whether a fork computes as a process that is started anew would; ends the pool of OpenMP's threads."""
    wanted = os.environ.get("LD_PRELOAD", "")  # by now what vLLM would start its engine with
    if "libgomp" not in wanted or wanted != _loaded_with:
        return False
    try:
        openmp = ctypes.CDLL(next(path for path in wanted.split(":") if "libgomp" in path))
        return bool(openmp.omp_pause_resource_all(_HARD) == 0)
    except (OSError, AttributeError):
        return False
