"""The short demo's way through a real Ray head: rows, training and measuring there, lineage and report here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.ray_head import Head, ray_head
from tunesmith.memory.files import sha256_file, verify
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import bundled_behaviour

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
PLAN = """
name: there
steps:
  - {stage: base, model: bundled}
  - {stage: baseline, suites: [demo], cases_per_block: 3, max_tokens: 52}
  - {stage: import, source: ROWS, behaviour: demo, limit: 24}
  - {stage: generate, behaviour: demo, rows: 0, near_miss_rows: 4, rehearsal_rows: 8, ordinary_tokens: 24}
  - {stage: critique, on_leak: drop}
  - {stage: train, epochs: 1, batch_size: 3, learning_rate: 0.0015}
  - {stage: evaluate, arm: adapter, max_tokens: 52}
"""
THERE, HERE = ("baseline", "generate", "critique", "train", "evaluate"), ("base", "import")


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    with ray_head(tmp_path) as head:
        head.write_settings()
        yield head


def test_the_short_demo_goes_there_and_back(head: Head) -> None:
    """Where each step was done, what came back of it, and what it was made from."""
    plan = head.folder / "plan.yaml"
    plan.write_text(PLAN.replace("ROWS", str(bundled_behaviour() / "rows.jsonl")))
    done = head.tunesmith("run", str(plan), "--on", "ray", "--yes")
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(head.tunesmith("runs", "show", "r1", "--json").stdout)
    where = {step["stage"]: step["on"].partition(", ")[0] for step in shown["steps"]}
    assert where == {**dict.fromkeys(THERE, head.settings.address), **dict.fromkeys(HERE, "")}
    for step in shown["steps"]:
        for made in step["artifacts"]:
            path = Path(made["path"])
            if path.is_dir():
                verify(path, made["sha256"])
            else:
                assert sha256_file(path) == made["sha256"]
    store = Store(head.home)
    [adapter], [dataset], [base] = (store.artifacts("r1", kind) for kind in ("adapter", "dataset", "base"))
    assert {base.id, dataset.id} <= set(adapter.parents), "what was made there is known here by its ids here"
    assert store.ancestor(adapter, "rows") is not None
    [results] = [made for made in store.artifacts("r1", "results") if made.step == shown["steps"][-1]["step"]]
    assert adapter.id in results.parents
    compared = json.loads(head.tunesmith("compare", "r1", "--arms", "base,adapter", "--json").stdout)
    assert compared["comparable"], compared["differs_in"]
    report = (head.home / "runs" / "r1" / "report.html").read_text()
    assert report.count(f"on {head.settings.address}") == len(THERE)
    assert not head.at_work(), "nothing of the run is left at work there"
