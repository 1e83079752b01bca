"""The harness alone, against a stub server that answers after 50 ms: its overhead, promptfoo's, and its memory.

1,000 cases at 64 at a time take 0.8 s at best; ours takes at most 1.3 times that, and at most a fifth of promptfoo's
time for the evaluation where TUNESMITH_PROMPTFOO names a folder with promptfoo's node_modules, the best of three each;
the whole processes are told beside it. 10,000 cases stay within 150 MB.
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
MANY_CASES, MANY_CASES_CONCURRENCY, MANY_MB = 10_000, 128, 150
TRIES = 3


def main() -> int:
    """Print the figures; 1 where one misses its bound."""
    good = True
    with stub(DELAY_S) as port, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        suite = write_suite(folder / "suite.json", CASES)
        runs = [ours(folder / str(n), suite, port, CONCURRENCY) for n in range(TRIES)]
        bare = [bare_client(port, CASES, CONCURRENCY) for _ in range(TRIES)]
        best, whole = (min(run[which] for run in runs) for which in ("seconds", "whole_s"))
        each = ", ".join(f"{run['seconds']:.2f}" for run in runs)
        line = f"{CASES} cases, {CONCURRENCY} at a time: {best:.2f} s, {best / IDEAL_S:.2f} × the ideal ({each})"
        good &= told(line, best <= 1.3 * IDEAL_S)
        print(f"     a bare client that keeps nothing: {min(bare):.2f} s")
        if rival := _promptfoo.installed():
            document, url = json.loads(suite.read_text()), f"http://127.0.0.1:{port}"
            theirs = [
                _promptfoo.wall_seconds(rival, folder / f"promptfoo-{n}", document, url, KEY, "stub", CONCURRENCY)
                for n in range(TRIES)
            ]
            asking, process = (min(times) for times in zip(*theirs, strict=True))
            line = f"evaluation against evaluation: promptfoo {asking:.2f} s; ours is {best / asking:.2f} of it"
            good &= told(line, best <= 0.2 * asking)
            line = f"whole process against whole process: promptfoo {process:.2f} s, ours {whole:.2f} s"
            print(f"     {line}; {whole / process:.2f} of it")
        else:
            print(_promptfoo.SKIPPED)
    with stub(0.0) as port, tempfile.TemporaryDirectory() as folder:
        suite = write_suite(Path(folder) / "suite.json", MANY_CASES)
        many = ours(Path(folder) / "many", suite, port, MANY_CASES_CONCURRENCY)
        assert many["cases"] == many["passed"] == MANY_CASES
        good &= told(f"{MANY_CASES} cases: peak {many['peak_mb']:.0f} MB, {many['seconds']:.1f} s without any delay",
                     many["peak_mb"] <= MANY_MB)  # fmt: skip
    return 0 if good else 1


def told(line: str, good: bool) -> bool:
    """Print a figure, and whether it is within its bound."""
    print(f"{'ok  ' if good else 'MISS'} {line}")
    return good


if __name__ == "__main__":
    raise SystemExit(main())
