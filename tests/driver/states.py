"""What the store holds when a scenario begins: a finished run, cut off behind one of its steps."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.commands.run_steps import demo_plan
from tunesmith.memory.store import Store
from tunesmith.tools.models.bundled import SMOLLM2
from tunesmith.tools.pipeline.plan_file import PipelinePlan

SETS = {
    "seen": Path(__file__).with_name("scenarios.yaml"),
    "development": Path(__file__).with_name("development.yaml"),
    "held-out": Path(__file__).with_name("heldout.yaml"),
}
"""The examination: two sets that the authors of the driver's examples had before their eyes, and one they had not."""

_LAST: dict[str, tuple[str, str]] = {
    "base": ("base", ""),
    "suite": ("baseline", ""),
    "rows": ("generate", ""),
    "dataset": ("critique", ""),
    "adapter": ("train", ""),
    "evaluated": ("evaluate", "adapter"),
    "merged": ("merge", ""),
    "merged and tested": ("evaluate", "merged"),
    "done": ("deploy", ""),
}
"""State → the stage and arm of the last step that is done in it."""
_WEEK_S = 7 * 86400.0


def make_state(home: Path, state: str) -> tuple[Store, PipelinePlan | None]:
    """A store in one of the states, and the plan that is proposed in it: empty, draft, two, or a key of `_LAST`."""
    if state in ("empty", "draft"):
        return Store(home), demo_plan(fast=True) if state == "draft" else None
    store, run = finished_run(home)
    if state == "two":
        finished_run(home)
        last_week = time.time() - _WEEK_S
        with store.write() as conn:
            conn.execute("UPDATE runs SET created_at = ? WHERE run = 'r1'", (last_week,))
            conn.execute("UPDATE runs SET created_at = ? WHERE run = 'r2'", (time.time() - 60,))
            conn.execute(
                "UPDATE steps SET request = json_set(request, '$.lora_rank', 8) WHERE run = 'r2' AND stage = 'train'"
            )
    else:
        _cut(store, run, *_LAST[state])
    priceable(store)
    return store, None


def _cut(store: Store, run: str, stage: str, arm: str) -> None:
    steps = store.steps(run, status="done")
    last = next(i for i, step in enumerate(steps) if step.stage == stage and arm in ("", step.arm))
    kept = {step.id for step in steps[: last + 1]}
    marks = ", ".join("?" * len(kept))
    with store.write() as conn:
        for table in ("eval_results", "metrics", "artifacts", "rows", "steps"):
            conn.execute(f"DELETE FROM {table} WHERE step NOT IN ({marks})", [*kept])
        conn.execute("UPDATE runs SET status = ? WHERE run = ?", ("done" if stage == "deploy" else "waiting", run))


def priceable(store: Store) -> None:
    """Give the artifacts what a price is made of."""
    model = {"name": SMOLLM2.title, "parameters": SMOLLM2.parameters, "config": dict(SMOLLM2.config)}
    known = {
        "base": model,
        "merged": model,
        "quantized": model,
        "rows": {"rows": 700, "behaviour": "", "behaviour_sha256": ""},
        "dataset": {"train_rows": 600, "tokens_per_row": 90},
        "adapter": {"lora_rank": 16},
        "suite": {"cases": 105},
    }
    with store.write() as conn:
        for kind, meta in known.items():
            conn.execute("UPDATE artifacts SET meta = json_patch(meta, ?) WHERE kind = ?", (json.dumps(meta), kind))
