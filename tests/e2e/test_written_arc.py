"""The whole arc from Python, as `examples/arc.py` shows it, on the bundled model, in a home that has its base already.

Asserted is what holds whatever was learned: each stage was priced, agreed to and recorded, and the end is a model that
answers, or the gate's reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.demo_run import HANG_S
from tests.fixtures.open_gate import Served
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.xdist_group("served"), pytest.mark.timeout(HANG_S + 600)]

ROOT = Path(__file__).resolve().parents[2]
STAGES = [
    "base", "baseline", "import", "generate", "critique", "preflight", "train", "evaluate", "merge", "quantize",
    "evaluate",
]  # fmt: skip


def test_the_script_takes_every_stage_by_the_one_way(served: Served) -> None:
    store, rows = Store(served.home), ROOT / "examples" / "schadenmeldung.jsonl"
    before = {run.id for run in store.runs()}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "arc.py", "--short", "--yes", "--rows", rows],
        env={**os.environ, "TUNESMITH_HOME": str(served.home)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    print(done.stdout[-4000:])
    [run] = {run.id for run in store.runs()} - before
    steps = store.steps(run)
    assert done.returncode in (0, 4), done.stderr[-3000:]
    deployed = ["deploy"] if done.returncode == 0 else []
    assert [step.stage for step in steps] == STAGES + deployed
    for step in steps:
        assert step.status == "done" and step.seconds is not None, step
        assert step.approval or not catalog.BY_NAME[step.stage].expensive
        assert not catalog.BY_NAME[step.stage].expensive or f"\n{step.stage}: " in done.stdout, "its price was shown"
    assert {"base", "rows", "dataset", "adapter", "merged", "quantized"} <= {one.kind for one in store.artifacts(run)}
    assert done.stdout.count("  target: base ") == 2 and done.stdout.count("  claim: ") == 2
    assert ("answers at http://127.0.0.1:" in done.stdout) == bool(deployed)
    assert ("the gate refused" in done.stderr) != bool(deployed)
