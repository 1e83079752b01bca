"""Ours and promptfoo on the same vLLM server: 200 cases of 48 tokens, each side cold, both in one run.

TUNESMITH_BENCH_MODEL names a model folder (such as the bundled one in HOME/models), TUNESMITH_PROMPTFOO a folder with
promptfoo's node_modules; skipped without either. Ours must be 3 times as fast as promptfoo's default (4 at a time) and
1.1 times as fast as promptfoo at 64. Every side gets prompts of its own, so that none finds the cache warm.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench import _promptfoo
from tests.bench._harness import ask_suite

CASES, TOKENS = 200, 48
TOWNS = ("Bergen", "Cusco", "Dakar", "Hobart", "Kyoto", "Lviv", "Nairobi", "Porto", "Quito", "Tampere")


def main() -> int:
    """Print the three walls and two ratios; 1 where one misses."""
    from tunesmith.tools import serving
    from tunesmith.tools.serving_spec import ServerSpec, find_vllm

    model, rival, vllm = os.environ.get("TUNESMITH_BENCH_MODEL"), _promptfoo.installed(), find_vllm(None)
    if not (model and rival and vllm):
        print("skipped: needs TUNESMITH_BENCH_MODEL, TUNESMITH_PROMPTFOO and a vLLM")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        spec = ServerSpec(model_dir=model, served_name="bench")
        server = serving.start(home, spec, vllm=vllm, log_path=home / "vllm.log", owner="bench")
        try:
            ask_suite(_made(home / "warm"), server, _suite("warm")["tests"][:8], TOKENS, 8)
            started = time.perf_counter()
            ask_suite(_made(home / "ours"), server, _suite("ours")["tests"], TOKENS, 128)
            ours = time.perf_counter() - started
            theirs = {}
            for concurrency in (64, 4):
                work, suite = home / f"promptfoo-{concurrency}", _suite(f"promptfoo {concurrency}")
                theirs[concurrency] = _promptfoo.wall_seconds(
                    rival, work, suite, server.url, server.key, server.model, concurrency
                )[1]
                serving.renew(server)
        finally:
            serving.stop(server)
    tuned, default = theirs[64] / ours, theirs[4] / ours
    print(f"{CASES} cases of {TOKENS} tokens: ours {ours:.1f} s, promptfoo at 64 {theirs[64]:.1f} s ({tuned:.2f} ×), "
          f"promptfoo's default {theirs[4]:.1f} s ({default:.2f} ×)")  # fmt: skip
    good = tuned >= 1.1 and default >= 3
    print("ok" if good else "MISS: at least 1.1 × and 3 × are wanted")
    return 0 if good else 1


def _suite(side: str) -> dict[str, Any]:
    """The same questions for every side, told apart by a word at their beginning."""
    tests = [
        {"vars": {"q": f"({side} {n}) Tell me a long story about a walk through {TOWNS[n % 10]} on day {n}."}}
        for n in range(CASES)
    ]
    return {
        "prompts": ["{{q}}"],
        "defaultTest": {"assert": [{"type": "regex", "value": "."}]},
        "tests": json.loads(json.dumps(tests)),
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
