"""Break one guard at a time in a copy of the tree, and run the tests that must notice: `make mutants`.

`python -m tests.mutants.run [WORD …]` takes the mutations whose guard or file holds a word; no word: all of them. A
word that none holds is refused. Each copy has an environment of its own, which finds the copy's modules and the
packages of the present one: children that are started as `sys.executable -P -m tunesmith…` run the copy too, whatever
environment variables they are given.
Exit code 1, with the names: a mutation that no test notices, one whose text is not found exactly once, one that does
not end, and a test that fails on the tree as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "memory", "prompts", "tools")
COPIED = (
    *PACKAGES,
    "tests",
    "docs",
    "examples",
    ".ci",
    "pyproject.toml",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
)
LIMIT_S = 300.0
FAILED, PASSED = 1, 0
"""Exit codes of pytest; any other one is no verdict."""


class Copy:
    """The tree in a folder of its own, and a Python that imports it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.writes = folder, 0
        self.child: subprocess.Popen[str] | None = None
        hidden = shutil.ignore_patterns("__pycache__", ".*")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=hidden)
            elif source.is_file():
                shutil.copy(source, folder / name)
        (folder / "path" / "tunesmith").mkdir(parents=True)
        for name in PACKAGES:
            (folder / "path" / "tunesmith" / name).symlink_to(folder / name)
        venv.EnvBuilder(symlinks=True).create(folder / ".venv")
        self.python = folder / ".venv" / "bin" / "python"
        # A line of a .pth is a folder, and the .pth files in that folder are not read: so the present environment's
        # editable install of tunesmith is not found.
        [site] = (folder / ".venv" / "lib").glob("python*/site-packages")
        (site / "copy.pth").write_text(f"{folder / 'path'}\n{sysconfig.get_path('purelib')}\n")
        self._check()

    def _check(self) -> None:
        """Raises RuntimeError where a child would import another tree than this one."""
        command = [str(self.python), "-P", "-c", "import tunesmith.memory.files as f; print(f.__file__)"]
        found = subprocess.run(command, capture_output=True, text=True, cwd="/", env={}).stdout.strip()
        if not Path(found).is_relative_to(self.folder):
            raise RuntimeError(f"a child imports {found or 'nothing'}, not the copy in {self.folder}")

    def write(self, name: str, text: str) -> None:
        """Write a file; its time tells it from every earlier text, as Python's caches go by whole seconds and size."""
        self.writes += 1
        (self.folder / name).write_text(text, encoding="utf-8")
        at = time.time() + 10 * self.writes
        os.utime(self.folder / name, (at, at))

    def test(self, tests: Sequence[str], *, workers: int = 0) -> tuple[int | None, str]:
        """The exit code of these tests and the end of what they print; None where they did not end."""
        command = [str(self.python), "-m", "pytest", "-q", "--tb=line", f"-n{workers}", "-p", "no:cacheprovider"]
        command += [*([] if workers else ["-x"]), *tests]
        hidden = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with subprocess.Popen(
            command, cwd=self.folder, env=hidden, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as child:  # fmt: skip
            self.child = child
            try:
                output, _ = child.communicate(timeout=LIMIT_S * (4 if workers else 1))
            except subprocess.TimeoutExpired:
                self.stop()
                return None, ""
        return child.returncode, output[-2000:]

    def stop(self) -> None:
        """End the tests that run here, and what they started."""
        if self.child and self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)


def tried(copy: Copy, mutant: Mutant) -> str:
    """What is wrong with a mutation; empty where its tests notice it."""
    before = (copy.folder / mutant.file).read_text(encoding="utf-8")
    if (count := before.count(mutant.old)) != 1:
        return f"its text is found {count} times"
    copy.write(mutant.file, before.replace(mutant.old, mutant.new))
    try:
        code, output = copy.test(mutant.tests)
    finally:
        copy.write(mutant.file, before)
    if code == PASSED:
        return f"SURVIVES {', '.join(mutant.tests)}"
    if code is None:
        return f"did not end within {LIMIT_S:.0f} s"
    return "" if code == FAILED else f"no verdict (pytest ended with {code}): {output.strip()[-300:]}"


def chosen(words: Sequence[str]) -> list[Mutant]:
    """The mutations whose guard or file holds one of these words; without words all of them."""
    return [m for m in MUTANTS if not words or any(word in m.guard or word in m.file for word in words)]


def main() -> int:
    """Try every mutation that was asked for, and print what is wrong."""
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only mutations whose guard or file holds one of these")
    parser.add_argument("--jobs", type=int, default=2, help="mutations at a time")
    asked = parser.parse_args()
    if unknown := [word for word in asked.words if not chosen([word])]:
        some = ", ".join(sorted({m.file for m in MUTANTS})[:3])
        parser.error(f"{unknown[0]!r} is in none of {len(MUTANTS)} mutations; try a guard, or a file such as {some}")
    mutants = chosen(asked.words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing behind
    began, wrong = time.monotonic(), list[str]()
    with tempfile.TemporaryDirectory(prefix="tunesmith-mutants-") as folder, contextlib.ExitStack() as ending:
        copies = queue.SimpleQueue[Copy]()
        for number in range(asked.jobs):
            copies.put(first := Copy(Path(folder).resolve() / str(number)))
            ending.callback(first.stop)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        print(f"{len(tests)} tests on the tree as it is", flush=True)
        code, output = first.test(tests, workers=asked.jobs)
        if code != PASSED:
            print(output)
            print(f"the tests fail without any mutation (pytest: {code}); mend that first")
            return 1

        def carried_out(mutant: Mutant) -> str:
            copy = copies.get()
            try:
                why = tried(copy, mutant)
            finally:
                copies.put(copy)
            print(f"{why or 'found'}: {mutant.name}", flush=True)
            return why and f"{mutant.name}: {why}"

        pool = ThreadPoolExecutor(asked.jobs)
        ending.callback(pool.shutdown, wait=False, cancel_futures=True)
        wrong = [why for why in pool.map(carried_out, mutants) if why]
    print(f"{len(mutants) - len(wrong)} of {len(mutants)} mutations were found, in {time.monotonic() - began:.0f} s")
    for line in wrong:
        print(f"  {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
