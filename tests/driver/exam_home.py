"""A small home with two finished runs, for the examination of answers: made by the store's own calls in a second."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import MIB, Builder


def make_exam_home(home: Path) -> Path:
    """`ticket-triage` and, newer, `release-notes`: other settings, another time taken, the same suite."""
    shutil.copytree(stored_runs.kept_home(_make), home, dirs_exist_ok=True)
    return home


def _make(home: Path) -> None:
    store, _ = stored_runs.finished_run(home)
    build = Builder(store, store.new_run("release-notes", goal="one line of release notes"), now=stored_runs.BEGAN_AT)
    build.now += 90_000
    base, suite = stored_runs.add_baseline(build)
    dataset = stored_runs.add_rows(build, base)
    preflight = build.step("preflight", estimated=(75.0, 3900 * MIB))
    build.end(preflight, 61.0, 3600 * MIB, {"artifact": build.artifact(preflight, "preflight", "", base, dataset)})
    train = stored_runs.start_training(build)
    adapter = build.artifact(train, "adapter", "", base, dataset, bytes_=19 * MIB)
    outcome = {"artifact": adapter, "steps": 75, "trainable_parameters": 4_884_480, "trained_tokens": 58_113,
               "tokens_per_second": 391.2}  # fmt: skip
    build.end(train, 148.0, 2310 * MIB, outcome)
    stored_runs.add_evaluation(build, "adapter", base, suite, adapter)
    merge = build.step("merge", arm="merged", estimated=(16.0, 1300 * MIB))
    merged = build.artifact(merge, "merged", "", base, adapter, bytes_=269 * MIB)
    build.end(merge, 15.2, 1190 * MIB, {"artifact": merged})
    stored_runs.add_evaluation(build, "merged", base, suite, merged)
    quantize = build.step("quantize", arm="quantized", estimated=(31.0, 1500 * MIB))
    quantized = build.artifact(quantize, "quantized", "", merged, dataset, bytes_=112 * MIB)
    build.end(quantize, 41.3, 1120 * MIB, {"artifact": quantized})
    stored_runs.add_evaluation(build, "quantized", base, suite, quantized)
    with store.write() as conn:
        conn.execute("UPDATE runs SET created_at = ? WHERE run = ?", (stored_runs.BEGAN_AT + 90_000, build.run))
    store.set_run_status(build.run, "done")
    store.announce([step.id for step in store.steps()])
    store.close()
