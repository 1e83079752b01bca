"""Gain retained in likelihood: from what served models said of held-out rows, with intervals by the rows."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tunesmith.agent.commands.comparison_view import evidence_view
from tunesmith.agent.commands.layout import Prose
from tunesmith.agent.queries.scores import kept_of_the_gain
from tunesmith.memory.store import Store
from tunesmith.tools.core.ratio_interval import ratio_interval
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.findings import findings
from tunesmith.tools.evaluation.gate import broken_hops
from tunesmith.tools.evaluation.likelihood import ArmLikelihood, row_tokens
from tunesmith.tools.evaluation.likelihood_job import least_divergence
from tunesmith.tools.evaluation.likelihood_retained import likelihood_retained, retained
from tunesmith.tools.report.page import gather

ROWS = 20


def likelihood(per_token: float, seed: int, kl: Mapping[str, float] | None = None, rows: str = "r") -> ArmLikelihood:
    """Of 20 rows of 30 to 60 tokens, a little noise in each."""
    draw = random.Random(seed)
    tokens = tuple(30 + 3 * (row % 11) for row in range(ROWS))
    return ArmLikelihood(
        rows_sha256=rows,
        behaviour_tokens=tokens,
        behaviour_nll=tuple(n * per_token * draw.uniform(0.9, 1.1) for n in tokens),
        ordinary_tokens=tokens,
        divergence={arm: tuple(n * k * draw.uniform(0.5, 1.5) for n in tokens) for arm, k in (kl or {}).items()},
    )


BASE, ADAPTER = likelihood(2.0, 1), likelihood(0.2, 2, {"base": 0.02})


def with_likelihood(tmp_path: Path, quantized: ArmLikelihood) -> tuple[Store, str]:
    """A finished run whose evaluations measured likelihood too."""
    store, run = stored_runs.finished_run(tmp_path)
    said = {"adapter": {"base": BASE, "adapter": ADAPTER},
            "merged": {"merged": likelihood(0.2, 3, {"base": 0.02, "adapter": 1e-4})},
            "quantized": {"quantized": quantized}}  # fmt: skip
    for step in store.steps(run):
        if step.stage == "evaluate":
            measured = {arm: one.model_dump(mode="json") for arm, one in said[step.arm].items()}
            with store.write() as conn:
                result = json.dumps({**step.report, "likelihood": measured})
                conn.execute("UPDATE steps SET result = ? WHERE step = ?", (result, step.id))
    return store, run


def test_what_a_model_kept_is_the_ratio_of_sums_with_an_interval_around_it() -> None:
    made = likelihood(0.38, 4, {"base": 0.03, "adapter": 0.011})
    found = retained("quantized", BASE, ADAPTER, made)
    won = math.fsum(BASE.behaviour_nll) - math.fsum(ADAPTER.behaviour_nll)
    kept = math.fsum(BASE.behaviour_nll) - math.fsum(made.behaviour_nll)
    assert found.share == pytest.approx(kept / won) and 0.85 < kept / won < 0.95
    assert found.interval and found.interval[0] < kept / won < found.interval[1] < 1
    assert found.gain.mean == pytest.approx(1.8, rel=0.03) and found.gain.interval[0] > 1.5
    assert list(found.divergence) == ["base", "adapter"]
    assert found.divergence["adapter"].mean == pytest.approx(0.011, rel=0.2)
    says = "quantized keeps 90% of what the adapter won in likelihood (95 % interval 90% to 91%"
    assert found.sentence.startswith(says)


def test_nothing_is_said_of_a_share_where_nothing_was_won_for_certain() -> None:
    found = retained("merged", BASE, likelihood(1.99, 9), likelihood(1.9, 8))
    assert found.share is None and found.interval is None and not found.lost_most
    assert "too little was won in likelihood" in found.sentence and found.brief == ""


@pytest.mark.parametrize("items", [8, 24])
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(items: int) -> None:
    draw, covered = random.Random(items), 0
    for _ in range(60):
        below = [draw.gauss(10, 2) for _ in range(items)]
        low, high = ratio_interval([0.9 * b + draw.gauss(0, 1) for b in below], below)
        covered += low <= 0.9 <= high
    assert covered >= 53, f"{covered} of 60 at 95 %"


def test_the_divergence_of_likeliest_tokens_is_never_more_than_the_true_one() -> None:
    draw = random.Random(5)
    for apart in (0.0, 0.1, 1.0, 4.0):
        scores = [draw.gauss(0, 3) for _ in range(400)]
        p, q = (_softmax(s) for s in (scores, [one + draw.gauss(0, apart) for one in scores]))
        true = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        least = least_divergence(_top(p, 20), _top(q, 20))
        assert 0 <= least <= true + 1e-9
        assert apart > 1 or least >= 0.5 * true, f"{least} of {true}"


def _softmax(scores: list[float]) -> list[float]:
    whole = math.fsum(math.exp(s) for s in scores)
    return [math.exp(s) / whole for s in scores]


def _top(p: list[float], count: int) -> dict[int, float]:
    return {token: math.log(p[token]) for token in sorted(range(len(p)), key=lambda t: -p[t])[:count]}


def test_a_vocabulary_decides_how_much_of_a_row_is_read() -> None:
    assert row_tokens({"vocab_size": 49_152}) == 512
    assert row_tokens({"text_config": {"vocab_size": 262_144}}) == 160
    assert 200 < row_tokens({}) < 300


def test_compare_explain_the_report_and_the_answer_tell_it(tmp_path: Path) -> None:
    store, run = with_likelihood(tmp_path, likelihood(0.38, 4, {"base": 0.03, "adapter": 0.011}))
    assert [one.arm for one in likelihood_retained(store, run)] == ["adapter", "merged", "quantized"]
    compared = compare_with_hops(store, run, "base", "quantized")
    told = compared.to_json()["likelihood_retained"]
    assert isinstance(told, list) and isinstance(told[2], dict) and told[2]["share"] == pytest.approx(0.9, abs=0.02)
    lines = [part.text.plain for part in evidence_view(compared) if isinstance(part, Prose)]
    [line] = [line for line in lines if line.startswith("likelihood: quantized keeps 90%")]
    assert line.endswith("; base and adapter at bfloat16, quantized at W4A16 (compressed-tensors)")
    assert not any("merged at" in line for line in lines), "the same precision everywhere needs no words"
    [found] = [one for one in findings(store, run) if "quantization" in one.kind]
    assert "Likelihood: quantized keeps 90%" in found.says and found.evidence["likelihood_retained"]
    summary = gather(store, run).summary()
    assert isinstance(summary["likelihood_retained"], list) and len(summary["likelihood_retained"]) == 3
    answer = kept_of_the_gain(store, run, "quantized")
    assert answer.startswith("quantized keeps 55 of the 57 target cases that the adapter won, 90% of its gain in")
    assert not broken_hops(store, run, "quantized")


def test_the_gate_refuses_what_lost_most_of_the_gain_for_certain(tmp_path: Path) -> None:
    store, run = with_likelihood(tmp_path, likelihood(1.4, 4, {"base": 0.3, "adapter": 0.2}))
    [refused] = broken_hops(store, run, "quantized")
    assert "quantized keeps 3" in refused and "for certain less than 50%" in refused
    [found] = [one for one in findings(store, run) if "quantization" in one.kind]
    assert found.kind == "lost in quantization"
    assert not broken_hops(store, run, "merged")


def test_other_rows_are_never_held_against_each_other(tmp_path: Path) -> None:
    store, run = with_likelihood(tmp_path, likelihood(0.38, 4, rows="others"))
    assert [one.arm for one in likelihood_retained(store, run)] == ["adapter", "merged"]


def test_a_run_of_before_has_none(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    assert likelihood_retained(store, run) == () and not broken_hops(store, run, "quantized")
