"""Ours and promptfoo on the same vLLM server: 200 cases of 48 tokens, each side cold, both in one run.

TUNESMITH_BENCH_MODEL names a model folder (such as the bundled one in HOME/models), TUNESMITH_PROMPTFOO a folder with
promptfoo's node_modules; skipped without either. Ours must be 3 times as fast as promptfoo's default (4 at a time) and
1.1 times as fast as promptfoo at our own concurrency, both by the time of the evaluation alone and by that of the
whole process, each in a process of its own: the stricter of the two decides. Three runs each, taken in turn, the middle
one counts. Every run gets prompts of its own, so that none finds the cache warm.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench import _promptfoo
from tests.bench._harness import ours

CASES, TOKENS, CONCURRENCY, RUNS = 200, 48, 64, 3
OURS, TUNED, DEFAULT = "ours", f"promptfoo at {CONCURRENCY}", "promptfoo's default"
BOUNDS = {TUNED: 1.1, DEFAULT: 3.0}
TOWNS = ("Bergen", "Cusco", "Dakar", "Hobart", "Kyoto", "Lviv", "Nairobi", "Porto", "Quito", "Tampere")


@dataclass(frozen=True)
class Timed:
    """Seconds of one run: of the evaluation alone, and of its whole process."""

    evaluation: float
    process: float


def main() -> int:
    """Print every run, the medians and the four ratios; 1 where one misses."""
    from tunesmith.tools.machine.vllm_program import find_vllm
    from tunesmith.tools.serving import servers
    from tunesmith.tools.serving.spec import ServerSpec

    model, rival, vllm = os.environ.get("TUNESMITH_BENCH_MODEL"), _promptfoo.installed(), find_vllm(None)
    if not (model and rival and vllm):
        print("skipped: needs TUNESMITH_BENCH_MODEL, TUNESMITH_PROMPTFOO and a vLLM")
        return 0
    runs: dict[str, list[Timed]] = {OURS: [], TUNED: [], DEFAULT: []}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        spec = ServerSpec(model_dir=model, served_name="bench")
        server = servers.start(home, spec, vllm=vllm, log_path=home / "vllm.log", owner="bench")
        try:
            _ours(home, server, "warm", 8)  # the server's first requests compile; no side should pay for that
            for turn in range(RUNS):
                runs[OURS].append(_ours(home, server, f"ours-{turn}"))
                runs[TUNED].append(_theirs(rival, home, server, f"promptfoo-{turn}", CONCURRENCY))
                runs[DEFAULT].append(_theirs(rival, home, server, f"default-{turn}", 4))
        finally:
            servers.stop(server)
    return 0 if _told(runs) else 1


def _ours(home: Path, server: Any, side: str, cases: int = CASES) -> Timed:
    from tunesmith.tools.serving import servers

    servers.renew(server)
    file = home / f"{side}.json"
    file.write_text(json.dumps(_suite(side, cases)))
    figures = ours(home / side, file, server.port, CONCURRENCY, server.record)
    return Timed(figures["seconds"], figures["whole_s"])


def _theirs(rival: Path, home: Path, server: Any, side: str, concurrency: int) -> Timed:
    from tunesmith.tools.serving import servers

    servers.renew(server)
    work = home / side
    return Timed(*_promptfoo.wall_seconds(rival, work, _suite(side), server.url, server.key, server.model, concurrency))


def _told(runs: dict[str, list[Timed]]) -> bool:
    """Print what was measured; whether the stricter reading keeps every bound."""
    print(f"{CASES} cases of {TOKENS} tokens, {RUNS} runs each, ours at {CONCURRENCY}")
    good = True
    for reading in ("evaluation", "process"):
        seconds = {name: [getattr(run, reading) for run in of] for name, of in runs.items()}
        for name, of in seconds.items():
            print(f"  {reading:10} {name:22} {median(of):6.2f} s  ({', '.join(f'{one:.2f}' for one in of)})")
        for name, bound in BOUNDS.items():
            ratio = median(seconds[name]) / median(seconds[OURS])
            good &= ratio >= bound
            print(
                f"{'ok  ' if ratio >= bound else 'MISS'} {reading}: {ratio:.2f} × as fast as {name} (at least {bound})"
            )
    return good


def _suite(side: str, cases: int = CASES) -> dict[str, Any]:
    """The same questions for every side, told apart by a word at their beginning."""
    tests = [
        {"vars": {"q": f"({side} {n}) Tell me a long story about a walk through {TOWNS[n % 10]} on day {n}."}}
        for n in range(cases)
    ]
    return {"prompts": ["{{q}}"], "defaultTest": {"assert": [{"type": "regex", "value": "."}]}, "tests": tests}


if __name__ == "__main__":
    raise SystemExit(main())
