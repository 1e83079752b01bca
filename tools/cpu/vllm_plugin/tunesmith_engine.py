"""vLLM's engine as a fork of its API server, and one process to look at a model: a quicker start on two cores.

It runs inside vLLM.

1. vLLM starts its engine as a second process, by a fork on a GPU and anew on a CPU, where it imports again all that the
   first process has: 8 of 21 seconds. Two things forbid a fork there, and both are looked after: the engine must be
   loaded with PyTorch's OpenMP first (our servers start with it), and no pool of OpenMP's threads may exist, since a
   fork has none of them and waits for them for ever (it is given back). Where either is not so, vLLM's way is taken.
2. The first server of a kind of model on a machine looks its class up in a process of its own, so that CUDA is not
   begun in this one, and imports everything for it once more: 10 of 26 seconds. There is no CUDA here.
"""

import ctypes
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import TypeVar

T = TypeVar("T")

_HARD = 2
"""omp_pause_hard of OpenMP 5.0: the pool's threads end."""
_loaded_with = os.environ.get("LD_PRELOAD", "")


def register() -> None:
    """Have this process fork the engine that it starts and look at models itself; vLLM calls it before either."""
    if multiprocessing.parent_process() is not None:
        return
    # Ignored as vLLM has an environment of its own, which mypy does not see.
    from vllm.model_executor.models import registry  # type: ignore[import-not-found,unused-ignore]
    from vllm.v1.engine import utils  # type: ignore[import-not-found,unused-ignore]

    # Private, so a release may be without it: then vLLM looks in a process of its own, as 2. above says.
    if hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = _run_here

    usual = utils.get_mp_context

    def get_mp_context() -> BaseContext:
        chosen: BaseContext = usual()
        return multiprocessing.get_context("fork") if can_fork() else chosen

    utils.get_mp_context = get_mp_context


def _run_here(look: Callable[[], T]) -> T:
    """What vLLM would have another process find out."""
    return look()


def can_fork() -> bool:
    """Whether a fork computes as a process that is started anew would; ends the pool of OpenMP's threads."""
    wanted = os.environ.get("LD_PRELOAD", "")  # by now what vLLM would start its engine with
    if "libgomp" not in wanted or wanted != _loaded_with:
        return False
    try:
        openmp = ctypes.CDLL(next(path for path in wanted.split(":") if "libgomp" in path))
        return bool(openmp.omp_pause_resource_all(_HARD) == 0)
    except (OSError, AttributeError):  # no such library, or an OpenMP before 5.0 without that call
        return False
