"""The made-up records that a driver is examined on: three runs in a home of their own, gone with it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store

TRAINED_S = {"r1": 611.0, "r2": 1322.0, "r3": 480.0}
PASSED = {"r1": 60, "r2": 71, "r3": 52}
CASES = 90
LEARNING_RATE = {"r1": 0.0002, "r2": 0.0003, "r3": 0.0007}


def exam_store(home: Path) -> Store:
    """Three runs that trained and evaluated an adapter, the second the best and the slowest."""
    store = Store(home)
    for run in TRAINED_S:
        made = store.new_run(f"exam-{run}", goal="answer questions about a shop")
        rate = LEARNING_RATE[run]
        _step(store, made, "train", "adapter", TRAINED_S[run], {"learning_rate": rate, "lora_rank": 16, "epochs": 2.0})
        step = _step(store, made, "evaluate", "adapter", 45.0, {"arm": "adapter"})
        for number in range(CASES):
            passed = number < PASSED[run]
            case = f"target-{number:03}"
            store.add_result(made, step, EvalResult("adapter", "target", case, "key", "{}", passed, float(passed)))
    return store


def _step(store: Store, run: str, stage: str, arm: str, seconds: float, request: dict[str, object]) -> str:
    step = store.propose(
        run, stage, arm=arm, request={**request, "run": run}, plan={}, plan_hash=sha256(run.encode()).hexdigest()
    )
    with store.write() as conn:
        conn.execute(
            "UPDATE steps SET status = 'done', result = '{}', seconds = ?, estimated_seconds = ?, started_at = ?, "
            "finished_at = ? WHERE step = ?",
            (seconds, seconds * 0.9, 1.8e9, 1.8e9 + seconds, step),
        )
    return step
