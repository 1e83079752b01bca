"""The harness alone, against a stub server that answers after 50 ms: its overhead, promptfoo's, and its memory.

1,000 cases at 64 at a time take 0.8 s at best; ours takes at most 1.3 times that, and at most a fifth of promptfoo's
wall where TUNESMITH_PROMPTFOO names a folder with promptfoo's node_modules. 10,000 cases stay within 150 MB.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench import _promptfoo
from tests.bench._harness import KEY, bare_client, ours, stub, write_suite

CASES, CONCURRENCY, DELAY_S, IDEAL_S = 1000, 64, 0.05, 0.8
MANY_CASES, MANY_MB = 10_000, 150
TRIES = 3


def main() -> int:
    """Print the figures; 1 where one misses its bound."""
    good = True
    with stub(DELAY_S) as port, tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder) / str(n) for n in range(TRIES)]
        walls = [ours(_made(home), port, CASES, CONCURRENCY)["seconds"] for home in homes]
        bare = [bare_client(port, CASES, CONCURRENCY) for _ in range(TRIES)]
        best = min(walls)
        each = ", ".join(f"{wall:.2f}" for wall in walls)
        line = f"{CASES} cases, {CONCURRENCY} at a time: {best:.2f} s, {best / IDEAL_S:.2f} × the ideal ({each})"
        good &= told(line, best <= 1.3 * IDEAL_S)
        print(f"     a bare client that keeps nothing: {min(bare):.2f} s")
        if rival := _promptfoo.installed():
            suite = json.loads(write_suite(Path(folder) / "suite.json", CASES).read_text())
            url, work = f"http://127.0.0.1:{port}", Path(folder) / "promptfoo"
            theirs, whole = _promptfoo.wall_seconds(rival, work, suite, url, KEY, "stub", CONCURRENCY)
            line = (
                f"promptfoo: {theirs:.2f} s ({whole:.1f} s with its start and end); ours is {best / theirs:.2f} of it"
            )
            good &= told(line, best <= 0.2 * theirs)
        else:
            print(_promptfoo.SKIPPED)
    with stub(0.0) as port, tempfile.TemporaryDirectory() as folder:
        many = ours(Path(folder), port, MANY_CASES, 128)
        assert many["cases"] == many["passed"] == MANY_CASES
        good &= told(f"{MANY_CASES} cases: peak {many['peak_mb']:.0f} MB, {many['seconds']:.1f} s without any delay",
                     many["peak_mb"] <= MANY_MB)  # fmt: skip
    return 0 if good else 1


def told(line: str, good: bool) -> bool:
    """Print a figure, and whether it is within its bound."""
    print(f"{'ok  ' if good else 'MISS'} {line}")
    return good


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
