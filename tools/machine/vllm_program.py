"""The vllm program: where it is, which kernels came with it, and what to say where there is none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tunesmith.memory.errors import StepFailed

_KERNELS = ("torch", "zentorch")


def kernels_of(vllm: str) -> str:
    """Packages beside a vllm program that change how it computes, such as `torch 2.13.0+cpu, zentorch 2.13.0.1`.

    Read from the package folders' names, since asking vLLM itself takes seconds; "" where there are none.
    """
    return ", ".join(f"{name} {version}" for name, version in packages_beside(vllm).items() if name in _KERNELS)


def engine_beside(vllm: str) -> str:
    """vLLM's own version and its kernels, such as `vllm 0.32.0, torch 2.13.0+cpu`, read in the same way."""
    version = packages_beside(vllm).get("vllm")
    return ", ".join(filter(None, [f"vllm {version}" if version else "", kernels_of(vllm)]))


def packages_beside(vllm: str) -> dict[str, str]:
    """Name → version of each, sorted."""
    folders = (Path(vllm).resolve().parent.parent / "lib").glob("python3*/site-packages/*.dist-info")
    return dict(sorted(folder.name.removesuffix(".dist-info").partition("-")[::2] for folder in folders))


def find_vllm(named: str | None) -> str | None:
    """The vllm program: the one named (by the environment or the settings), else what the set-up made, else PATH's."""
    if named:
        return shutil.which(named) or (named if Path(named).is_file() else None)
    folders = (Path(sys.prefix).parent / ".venv-serve", Path(sys.prefix) / "serve")  # of a project, of a wheel
    programs = (folder / "bin" / "vllm" for folder in folders)
    return next((str(program) for program in programs if program.is_file()), None) or shutil.which("vllm")


def vllm_of_worker(program: str | None) -> str:
    """The vllm program that a worker was started with. Raises StepFailed where that was none."""
    if program is None:
        raise StepFailed(no_vllm(""))
    return program


def no_vllm(why: str) -> str:
    """What to tell where there is no vllm program; `why` is what the settings say about it."""
    reason = f"no vLLM: {why}" if " " in why else "no vLLM found"
    return f"{reason}; run `tunesmith setup`, or name the program in TUNESMITH_VLLM or in settings.toml"
