"""A run's stored results for other tools: promptfoo's results JSON, or JUnit XML; each evaluated arm is a column."""

from __future__ import annotations

import json

from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.evaluation.pairing import Evaluations
from tunesmith.tools.suites.export import junit_xml, promptfoo_document
from tunesmith.tools.suites.loading import read_suite


def export_run(store: Store, run: str, format_: str) -> str:
    """The newest finished answers of every arm of a run, on the suite that its newest baseline fixed. Raises NotFound.

    An arm that was asked another suite since is left out: its cases are not these. So are blind cases that nobody
    opened.
    """
    suites = store.artifacts(run, "suite")
    if not suites:
        raise NotFound(f"run {run} has no baseline; `tunesmith baseline` makes one")
    suite = read_suite(suites[-1].path)
    evaluations = Evaluations.of(store, run).keys
    asked = evaluations[suites[-1].step]["base"].get("suite")
    newest = {arm: step for step, keys in evaluations.items() for arm, key in keys.items() if key.get("suite") == asked}
    hidden = hidden_cases(store, run)
    suite = suite.with_cases(case for case in suite.cases if case.case_id not in hidden)
    results = [result for arm in ARMS if arm in newest for result in store.results(newest[arm], arm)]
    steps = [store.step(step) for step in set(newest.values())]
    at_s = max((step.finished_at or step.created_at for step in steps), default=0.0)
    if format_ == "junit":
        return junit_xml(suite.cases, results, name=run, at_s=at_s)
    document = promptfoo_document(suite.cases, results, name=run, at_s=at_s, derived=suite.derived_metrics)
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
