"""Gain retained: counted from stored answers, on the cases that the adapter won, with an exact interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tunesmith.agent.commands.comparison_view import evidence_view
from tunesmith.agent.commands.layout import Prose
from tunesmith.tools.core.stats import clopper_pearson
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.findings import findings
from tunesmith.tools.evaluation.retained import gain_retained


def test_what_each_hop_kept_of_the_cases_won_is_counted_with_its_interval(tmp_path: Path) -> None:
    """The base fails 58 of 60 target cases and the adapter one of these; the quantized model fails two more."""
    store, run = stored_runs.finished_run(tmp_path)
    merged, quantized = gain_retained(store, run)
    assert (merged.arm, merged.won, merged.passed, merged.share) == ("merged", 57, 57, 1.0)
    assert (quantized.arm, quantized.won, quantized.passed) == ("quantized", 57, 55)
    assert quantized.interval == pytest.approx(clopper_pearson(55, 57))
    assert quantized.interval[0] < 55 / 57 < quantized.interval[1] and merged.interval[0] < 1
    assert quantized.sentence.startswith(
        "quantized keeps 55 of the 57 target cases that the adapter won over the base (96%"
    )


@pytest.mark.heavy
def test_compare_and_explain_tell_it_and_only_of_arms_that_were_asked_about(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    told = compare_with_hops(store, run, "base", "quantized").to_json()["gain_retained"]
    assert isinstance(told, list) and [(one["arm"], one["kept"]) for one in told if isinstance(one, dict)] == [
        ("merged", 57), ("quantized", 55),
    ]  # fmt: skip
    shown = [
        part.text.plain
        for part in evidence_view(compare_with_hops(store, run, "base", "quantized"))
        if isinstance(part, Prose)
    ]
    assert [line for line in shown if line.startswith("gain retained: quantized keeps 55 of the 57")]
    assert compare_with_hops(store, run, "base", "adapter").to_json()["gain_retained"] == []
    [found] = [one for one in findings(store, run) if "quantization" in one.kind]
    assert "Gain retained: quantized keeps 55 of the 57" in found.says
    assert found.evidence["gain_retained"]


def test_there_is_none_where_nothing_was_won_or_evaluated(tmp_path: Path) -> None:
    store, run = stored_runs.baseline_run(tmp_path)
    assert gain_retained(store, run) == ()
