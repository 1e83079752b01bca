"""One environment, from nothing or from whatever stands there to a whole one; several are made side by side.

Standard library only: the set-up loads it by its path, before anything is installed. A stamp, written last, holds the
hash of everything that went into an environment, so an interrupted one is made again and a whole one costs a few
milliseconds.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
STAMP, UNFINISHED = ".tunesmith-setup.json", ".tunesmith-unfinished"
GIB = 1 << 30


class SetupError(Exception):
    """The set-up cannot go on; the message is the one line that the user sees."""


@dataclass(frozen=True)
class Environment:
    """One virtual environment: what goes in, what comes out again, and how much disk it takes."""

    folder: Path
    requirements: tuple[str, ...]
    cpu_builds: tuple[str, ...] = ()
    """Requirements whose `+cpu` build must come in place of the default one."""
    unwanted: tuple[str, ...] = ()
    vllm_alias: str = ""
    """Version under which the package is also known as `vllm`; "" where it has that name already."""
    needs_bytes: int = 0
    fingerprint: str = ""
    lock: str = ""
    """All packages but `cpu_builds`, by version and hash, as pip reads them; "": by ranges."""
    is_ours: bool = True
    """Whether the folder is ours to make and to remove; False for one of the user's, which packages are added to."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def recipe_hash(self) -> str:
        """Hash of everything that decides what this environment holds; machine-wide pip settings excepted."""
        recipe = [str(self.folder), sys.version, self.fingerprint, self.lock]
        recipe += [*self.requirements, *self.cpu_builds, *self.unwanted, self.vllm_alias]
        return hashlib.sha256("\n".join(recipe).encode()).hexdigest()

    def ready(self) -> bool:
        """Whether a whole set-up of exactly this recipe stands on disk."""
        try:
            stamp = json.loads((self.folder / STAMP).read_bytes())
        except (OSError, ValueError):  # none, or one that was cut off: it is made again
            return False
        return bool(stamp.get("recipe") == self.recipe_hash()) and self.python.exists()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's own lock, so that two makes never fill one environment at once."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            # Once without waiting, so that a person is told why nothing happens; the kernel drops the lock with its
            # process.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this folder is running; waiting for it", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_disk(root: Path, missing: list[Environment]) -> None:
    """Raise SetupError where the project's disk or pip's temporary folder is too full for what is missing."""
    needed = sum(max(0, env.needs_bytes - folder_bytes(env.folder)) for env in missing)
    free = shutil.disk_usage(root).free
    if free < needed:
        raise SetupError(
            f"needs {needed / GIB:.1f} GiB on the disk of {root}, {free / GIB:.1f} GiB free; "
            "free some space or clone onto another disk"
        )
    temp = Path(tempfile.gettempdir())
    if temp.stat().st_dev != root.stat().st_dev and (free := shutil.disk_usage(temp).free) < GIB:
        raise SetupError(f"needs 1.0 GiB in {temp}, {free / GIB:.1f} GiB free; free some space or set TMPDIR")


def folder_bytes(folder: Path) -> int:
    """Bytes below `folder`; an environment that is only brought up to date needs little room."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def run_side_by_side(environments: list[Environment]) -> None:
    """Make every environment in a thread of its own, telling the terminal how each gets on."""
    began = time.monotonic()
    notes = {env.folder.name: "starting" for env in environments}
    first = not all(env.folder.exists() for env in environments)
    how_long = "some minutes the first time" if first else "seconds, unless something large has changed"
    print(f"setting up {' and '.join(notes)}: {how_long}", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor(len(environments)) as pool:
        futures = [pool.submit(Builder(env, notes).build) for env in environments]
        while not all(future.done() for future in futures):
            time.sleep(0.2)  # as often as a line that counts seconds is read
            show_progress(notes, time.monotonic() - began)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
        for future in futures:
            future.result()
    print(f"set-up done in {time.monotonic() - began:.0f} s", file=sys.stderr)


def show_progress(notes: dict[str, str], seconds: float) -> None:
    """Rewrite the one progress line of a terminal; say nothing into a file or pipe."""
    if not sys.stderr.isatty():
        return
    # 10: the seconds before it; 3: the bar between two notes.
    share = (shutil.get_terminal_size().columns - 10) // len(notes)
    line = " | ".join(f"{name} {note}"[: share - 3] for name, note in notes.items())
    print(f"\r\x1b[K{seconds:4.0f} s  {line}", end="", file=sys.stderr, flush=True)


class Builder:
    """Makes one environment; every command's output goes to one log inside it."""

    def __init__(self, env: Environment, notes: dict[str, str]) -> None:
        self.env, self.notes = env, notes
        self.log = env.folder / "setup.log"

    def build(self) -> None:
        """From whatever stands there to a whole environment; the stamp comes last."""
        began = time.monotonic()
        self.make_venv()
        index = self.cpu_index_arguments()
        if self.env.lock and sum("==" in word for word in index) == len(self.env.cpu_builds):
            self.install_locked(self.env.lock, index)
        else:
            self.pip("install", "--prefer-binary", *index, *self.env.requirements)
        if self.env.unwanted:
            self.pip("uninstall", "--yes", *self.env.unwanted)
        if self.env.vllm_alias:
            self.name_vllm()
        temporary, seconds = self.env.folder / f"{STAMP}.partial", round(time.monotonic() - began, 1)
        temporary.write_text(json.dumps({"recipe": self.env.recipe_hash(), "seconds": seconds}))
        (self.env.folder / UNFINISHED).unlink()
        temporary.replace(self.env.folder / STAMP)

    def install_locked(self, lock: str, torch: tuple[str, ...]) -> None:
        """What the lock names and nothing else, each file by its hash; then torch by its version, and the project."""
        chosen = self.env.folder / "setup-lock.txt"
        chosen.write_text(lock)
        self.pip("install", "--require-hashes", "--no-deps", "--prefer-binary", "--requirement", str(chosen))
        if torch:
            self.pip("install", "--no-deps", "--prefer-binary", *torch)
        if self.env.fingerprint:
            self.pip("install", "--no-deps", "--no-build-isolation", *self.env.requirements)

    def make_venv(self) -> None:
        """An empty or known environment with a mark in it that says: not whole yet.

        One that carries the mark was interrupted, and pip cannot tell its half-installed packages from whole
        ones, so it goes; one without mark or stamp is somebody's own and is filled up instead.
        """
        folder = self.env.folder
        if not self.env.is_ours:
            self.log.write_text("")
            (folder / UNFINISHED).touch()
            return
        works = self.env.python.exists() and not subprocess.call([str(self.env.python), "-c", ""])
        # One that was interrupted, or whose Python is gone, is not mended: nobody knows what is in it.
        if folder.exists() and ((folder / UNFINISHED).exists() or not works):
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        (folder / UNFINISHED).touch()
        (folder / STAMP).unlink(missing_ok=True)
        self.log.write_text("")
        if not self.env.python.exists():
            self.new_venv()
        if not self.env.lock:
            self.pip("install", "--upgrade", "pip")

    def new_venv(self) -> None:
        """Make the environment; without ensurepip (Debian splits it off) this Python's own pip fills it in."""
        from importlib.util import find_spec

        bare = find_spec("ensurepip") is None
        self.run(sys.executable, "-P", "-m", "venv", "--without-pip", str(self.env.folder))
        if bare:
            self.run(sys.executable, "-P", "-m", "pip", "--python", str(self.env.python), "install", "pip")
        else:  # venv would start it in the folder, whose modules it and its own child would import
            self.run(str(self.env.python), "-I", "-m", "ensurepip", "--upgrade", "--default-pip")

    def cpu_index_arguments(self) -> tuple[str, ...]:
        """pip arguments that make torch a CPU build: exact pins, and PyTorch's index only where it is needed."""
        pins: list[str] = []
        index: tuple[str, ...] = ()
        for requirement in self.env.cpu_builds:
            version = self.resolved(requirement)
            if not version.endswith("+cpu"):
                index = ("--extra-index-url", CPU_INDEX)
                version = self.resolved(requirement, *index)
            if version.endswith("+cpu"):
                pins.append(f"{requirement.partition('=')[0].partition('>')[0]}=={version}")
        return (*index, *pins)

    def resolved(self, requirement: str, *index: str) -> str:
        """The version that pip would install for `requirement`, or "" where it finds none; downloads nothing."""
        self.notes[self.env.folder.name] = f"looking for {requirement}"
        options = "--dry-run --ignore-installed --no-deps --prefer-binary --quiet --report -"
        command = [str(self.env.python), "-P", "-m", "pip", "install", *options.split(), *index, requirement]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.env.folder)
        try:
            return str(json.loads(done.stdout)["install"][0]["metadata"]["version"])
        except (ValueError, LookupError):  # pip found nothing, or wrote no report
            return ""

    def name_vllm(self) -> None:
        """Give the CPU build the package name `vllm`, without which `vllm serve` dies at its version look-up.

        The `+cpu` in the version is what vLLM recognises its own platform by.
        """
        version = self.env.vllm_alias
        [site] = (self.env.folder / "lib").glob("python3*/site-packages")
        for stale in site.glob("vllm-*.dist-info"):
            shutil.rmtree(stale)  # with two of them the version would be either's
        info = site / f"vllm-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        (info / "INSTALLER").write_text("tunesmith\n")
        (info / "RECORD").write_text("".join(f"{info.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))

    def pip(self, *arguments: str) -> None:
        self.run(str(self.env.python), "-P", "-m", "pip", arguments[0], "--disable-pip-version-check", *arguments[1:])

    def run(self, *command: str) -> None:
        """Run to the end, keeping the output; raises SetupError with the last telling line."""
        lines, folder = list[str](), self.env.folder
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
        with self.log.open("a") as log, process:
            for line in typing.cast("typing.IO[str]", process.stdout):
                log.write(line)
                if line.strip():
                    lines.append(line.strip())
                    self.notes[self.env.folder.name] = line.strip()
        if process.returncode:
            raise SetupError(self.failure(lines))

    def failure(self, lines: list[str]) -> str:
        """One line: a full disk by name, else pip's own first error."""
        free = shutil.disk_usage(self.env.folder.parent).free
        # pip does not always name the disk: with less than this left, that is what it was.
        if any("No space left on device" in line for line in lines) or free < GIB // 8:
            return (
                f"the disk is full while making {self.env.folder.name}: {free / GIB:.1f} GiB free, "
                f"{self.env.needs_bytes / GIB:.1f} GiB needed in all; free some space and run it again"
            )
        errors = [line for line in lines if line.lower().startswith("error:") and "subprocess-exited" not in line]
        telling = errors or lines[-1:] or ["no output"]
        return f"{self.env.folder.name} failed: {telling[0]} (the whole log: {self.log})"
