"""The lock files of both environments: every package by its version and by the sha256 of its files.

They hold for one kind of machine: Linux on x86-64, CPython 3.11, without CUDA and with it. Those without were proven by
whole set-ups; those with CUDA resolve, and were not yet installed on a GPU. Any other machine is set up by the version
ranges of pyproject.toml. Both devices have one release of torch, vLLM and transformers. torch's CPU builds are not in
the locks: PyPI has none, so they come by their exact version.
`make locks` makes them anew with uv, after a change of what is required.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
import typing
from collections.abc import Collection, Sequence
from pathlib import Path

FOLDER = Path(__file__).with_name("locks")
TORCH = ("torch==2.13.0+cpu", "torchvision==0.28.0+cpu")
_NOT_LOCKED = ("torch", "torchvision", "torchaudio", "torchcodec")
_HEAD, _DEV = "# for ", "# for development alone\n"
_NAME = re.compile(r"^[\w.-]+", re.MULTILINE)


def lab_required(declared: typing.Mapping[str, typing.Any]) -> list[str]:
    """All that `.venv` needs from outside: what pyproject.toml declares, and what builds the project itself."""
    dev = declared["project"]["optional-dependencies"]["dev"]
    return [*lab_released(declared), *dev, *declared["build"]["requires"], "pip"]


def lab_released(declared: typing.Mapping[str, typing.Any]) -> list[str]:
    """What a wheel's lab needs."""
    return [*declared["project"]["dependencies"], *declared["project"]["optional-dependencies"]["lab"]]


def lab_torch(declared: typing.Mapping[str, typing.Any]) -> str:
    """The lab's own requirement on torch, as pyproject.toml states it."""
    return next(str(item) for item in declared["project"]["optional-dependencies"]["lab"] if item.startswith("torch"))


def digest(required: Sequence[str]) -> str:
    """Of what an environment requires: a lock that was made for something else is not used."""
    return hashlib.sha256(json.dumps(list(required)).encode()).hexdigest()[:16]


def lock_for(name: str, required: Sequence[str], *, left_out: Collection[str] = ()) -> str:
    """The lock of an environment, as pip reads it; "" where none is for this machine and for these requirements."""
    path = _of_this_machine(name)
    if path is None or not path.read_text().startswith(_HEAD + digest(required) + "\n"):
        return ""
    return _without(path.read_text(), left_out)


def lock_of_release(name: str) -> str:
    """The same for a wheel, whose locks were made for what that very wheel requires: nothing for development alone."""
    path = _of_this_machine(name)
    return path.read_text().partition(_DEV)[0] if path else ""


def _of_this_machine(name: str) -> Path | None:
    here = (sys.platform, platform.machine(), platform.python_implementation(), sys.version_info[:2])
    path = FOLDER / f"{name}.txt"
    # A lock names wheels, and wheels are of one platform and one Python.
    return path if here == ("linux", "x86_64", "CPython", (3, 11)) and path.is_file() else None


def _without(lock: str, left_out: Collection[str]) -> str:
    """A lock without some packages."""
    lines, keeps = [], True
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            keeps = line.partition("==")[0].partition("[")[0].lower() not in left_out
        lines += [line] if keeps else []
    return "\n".join(lines) + "\n"


def make(name: str, required: Sequence[str], *options: str, cpu: bool, released: Sequence[str] = ()) -> None:
    """Write a lock, `cpu`: but for torch's own builds; what a release does not need stands last in it.

    Raises CalledProcessError where uv finds no solution.
    """
    lock, dev = _compiled(required, *options, cpu=cpu), ""
    if released:
        needed = set(_NAME.findall(_compiled(released, *options, cpu=cpu)))
        alone = set(_NAME.findall(lock)) - needed
        lock, dev = _without(lock, alone), _DEV + _without(lock, needed)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text(f"{_HEAD}{digest(required)}\n{lock}{dev}")


def _compiled(required: Sequence[str], *options: str, cpu: bool) -> str:
    """All packages of some requirements, by version and hash."""
    fixed = (
        "--python-platform x86_64-manylinux_2_28 --python-version 3.11 --generate-hashes --no-annotate --no-header -q"
    )
    left_out = [f"--no-emit-package={package}" for package in _NOT_LOCKED if cpu]
    command = ["uv", "pip", "compile", "-", *fixed.split(), *left_out, *options]
    asked = "\n".join([*required, *(TORCH if cpu else ())])
    return subprocess.run(command, input=asked, text=True, check=True, cwd=FOLDER, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Make all four; what stands on the command line goes to uv, such as where it finds torch's CPU builds."""
    from tunesmith.tools.machine import bootstrap

    declared = bootstrap.declaration(bootstrap.ROOT / "pyproject.toml")
    lab, released = lab_required(declared), [*lab_released(declared), *declared["build"]["requires"], "pip"]
    make("lab-cuda", lab, cpu=False, released=released)
    make("serve-cuda", bootstrap.SERVE_CUDA, cpu=False)
    make("lab-cpu", lab, *sys.argv[1:], cpu=True, released=released)
    make("serve-cpu", bootstrap.SERVE_CPU, *sys.argv[1:], cpu=True)


if __name__ == "__main__":
    main()
