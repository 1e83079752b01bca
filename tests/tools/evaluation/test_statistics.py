"""Comparing two arms: the counts, the words, and when no word may be given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.tables import table
from tunesmith.memory.arms import under_test
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import AssertionResult, EvalResult
from tunesmith.tools.evaluation.advice import prompt_advice
from tunesmith.tools.evaluation.compare import ComparedWithHops, compare_with_hops
from tunesmith.tools.evaluation.comparison import BlockComparison, CaseOutcome, Comparison
from tunesmith.tools.evaluation.gate import gate_of
from tunesmith.tools.evaluation.pairing import compare_run, each_pair_once
from tunesmith.tools.evaluation.protocol import Key, differences
from tunesmith.tools.evaluation.statistics import case_outcomes, compare_arms
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Assertion

KEY = {"engine": "vllm 0.32", "weights": "abc", "adapter": None, "template": "t", "suite": "s"}
KEYS = {"base": KEY, "adapter": {**KEY, "adapter": "def"}}


def outcomes(words: str, block: str = "target") -> list[CaseOutcome]:
    """One case a letter: p pass, f fail, e error."""
    results = {"p": (True, 1.0, None), "f": (False, 0.0, None), "e": (None, 0.0, "timed out")}
    return [CaseOutcome(f"{block}-{i}", block, *results[w], f"{block}-{i}") for i, w in enumerate(words)]


def held(a: Sequence[CaseOutcome], b: Sequence[CaseOutcome]) -> Comparison:
    """An adapter against its base, nothing else changed."""
    return compare_arms(a, b, ("base", "adapter"), KEYS)


def block(a: str, b: str, name: str = "target") -> BlockComparison:
    return held(outcomes(a, name), outcomes(b, name)).blocks[name]


def test_the_shape_is_the_contracts() -> None:
    found = held(outcomes("ffp"), outcomes("pfe")).to_json()
    assert found["arms"] == ["base", "adapter"]
    assert found["comparable"] is True
    assert found["differs_in"] == []
    counts: Any = found["blocks"]
    told = {name: counts["target"][name] for name in ("cases", "passed", "errors", "fail_to_pass", "pass_to_fail")}
    assert told == {
        "cases": 3,
        "passed": {"base": 0, "adapter": 1},
        "errors": {"base": 0, "adapter": 1},
        "fail_to_pass": 1,
        "pass_to_fail": 0,
    }
    assert found["flips"] == [
        {"case_id": "target-0", "block": "target", "flip": "fail_to_pass", "base": "fail", "adapter": "pass"},
        {"case_id": "target-2", "block": "target", "flip": "error", "base": "pass", "adapter": "error"},
    ]


def test_a_comparison_that_a_step_reports_reads_back_as_it_was(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    whole = compare_run(store, run, "base", "quantized")
    with each_pair_once():
        once = compare_run(store, run, "base", "quantized")
        assert once == whole and once is compare_run(store, run, "base", "quantized")
    assert compare_run(store, run, "base", "quantized") is not once, "the next command looks again"
    kinder = {"kind": 0.5}
    graded = [replace(outcome, score=0.3, metrics=kinder) for outcome in outcomes("fpe")]
    for compared in (whole, held(graded, outcomes("pp")), held(graded, graded)):
        assert Comparison.from_json(json.loads(json.dumps(compared.to_json()))) == compared
    with pytest.raises(ValueError, match="verdict"):
        Comparison.from_json({**whole.to_json(), "blocks": {"target": {"cases": 1}}})


VERDICTS = [
    ("target", "f" * 6, "p" * 6, "better"),
    ("target", "f" * 5, "p" * 5, "no decision"),
    ("target", "p" * 20, "f" * 6 + "p" * 14, "worse"),
    ("target", "p" * 60, "p" * 60, "no decision"),
    ("adversarial", "f" * 20, "p" * 8 + "f" * 12, "better"),
    ("general", "p" * 40, "p" * 40, "not worse"),
    ("general", "p" * 38 + "f" * 2, "p" * 40, "not worse"),
    ("general", "p" * 40, "f" + "p" * 39, "no decision"),
    ("general", "p" * 400, "f" * 2 + "p" * 398, "not worse"),
    ("general", "p" * 40, "f" * 6 + "p" * 34, "worse"),
    ("tools", "f" * 20, "p" * 9 + "f" * 11, "better"),
]


@table(("name", "a", "b", "verdict"), VERDICTS)
def test_verdicts(name: str, a: str, b: str, verdict: str) -> None:
    found = block(a, b, name)
    assert found.verdict == verdict, found.reason


def test_the_margin_is_stated() -> None:
    assert held([], []).margin == 0.05


def test_errors_are_no_failures_and_too_many_forbid_a_verdict() -> None:
    few = block("f" * 40, "p" * 38 + "ee")
    assert (few.verdict, few.judged, few.pass_to_fail) == ("better", 38, 0)
    many = block("f" * 40, "p" * 37 + "eee")
    assert many.verdict == "no decision"
    assert "3 of 40" in many.reason


def test_a_case_that_one_arm_was_never_asked_counts_as_its_error() -> None:
    found = block("f" * 10, "p" * 9)
    assert found.cases == 10
    assert found.errors == {"base": 0, "adapter": 1}
    assert found.verdict == "no decision"


def test_arms_that_differ_in_more_than_the_hop_get_no_verdict() -> None:
    keys = {"base": KEY, "adapter": {**KEY, "adapter": "def", "template": "u", "precision": "int4"}}
    found = compare_arms(outcomes("f" * 20), outcomes("p" * 20), ("base", "adapter"), keys)
    assert found.comparable is False
    assert found.differs_in == ("precision", "template")
    assert found.blocks["target"].verdict == "no decision"
    allowed = {"adapter", "precision", "template"}
    assert compare_arms(outcomes("f"), outcomes("p"), ("base", "adapter"), keys, allowed=allowed).comparable
    assert differences({"a": 1}, {"a": None}) == ["a"]
    assert differences({}, {"a": None}) == ["a"]


def test_a_merge_that_leaves_4_bits_behind_is_compared_and_says_so() -> None:
    four, sixteen = {**KEY, "precision": "4 bits"}, {**KEY, "precision": "bfloat16"}

    def compared(last: str, key: Key) -> Comparison:
        allowed = under_test("base", last)
        return compare_arms(outcomes("f"), outcomes("p"), ("base", last), {"base": four, last: key}, allowed=allowed)

    merged = compared("merged", sixteen)
    assert merged.comparable and merged.precision_changes == "4 bits → bfloat16"
    assert not compared("merged", four).precision_changes, "nothing to say where the base is measured at 16 bits"
    assert not compared("quantized", sixteen).precision_changes, "that hop is about precision"
    assert compared("adapter", sixteen).differs_in == ("precision",), "an adapter's is not"
    assert Comparison.from_json(merged.to_json()).precision_changes == merged.precision_changes


def answers(*results: bool | None, case_id: str = "x") -> list[EvalResult]:
    """A case asked several times; None for an answer that could not be had."""
    return [
        EvalResult("base", "target", case_id, "k", "", passed, None, n, "late" if passed is None else None)
        for n, passed in enumerate(results)
    ]


@table(
    ("results", "passed", "score"),
    [
        ((True, True, False), True, 2 / 3),
        ((True, False), False, 0.5),
        ((True, None, None), True, 1.0),
        ((None, None), None, 0.0),
    ],
)
def test_repeats_are_reduced_per_case_first(results: Sequence[bool | None], passed: bool | None, score: float) -> None:
    (reduced,) = case_outcomes(answers(*results)).values()
    assert reduced.passed is passed
    assert reduced.score == pytest.approx(score)
    assert (reduced.error is None) == (passed is not None)


def test_repeats_do_not_multiply_the_evidence() -> None:
    asked = {word: [r for n in range(5) for r in answers(*[word] * 10, case_id=f"c{n}")] for word in (False, True)}
    a, b = (list(case_outcomes(asked[word]).values()) for word in (False, True))
    found = held(a, b).blocks["target"]
    assert found.cases == 5
    assert found.verdict == "no decision"


def test_the_flip_table_names_every_case_that_changed_losses_first() -> None:
    flips = held(outcomes("fppe"), outcomes("pfpp")).flips
    assert [(row.case_id, row.kind, row.before, row.after) for row in flips] == [
        ("target-1", "pass_to_fail", "pass", "fail"),
        ("target-0", "fail_to_pass", "fail", "pass"),
        ("target-3", "error", "error", "pass"),
    ]


def test_graded_scores_get_a_seeded_interval() -> None:
    a = [CaseOutcome(str(i), "target", False, 0.2, None, str(i)) for i in range(30)]
    b = [replace(outcome, score=0.2 + 0.01 * i) for i, outcome in enumerate(a)]
    first = held(a, b).blocks["target"].scores
    assert first == held(a, b).blocks["target"].scores
    assert first and first.difference == pytest.approx(0.145)
    assert first.interval[0] < 0.145 < first.interval[1]
    assert block("fp", "pp").scores is None


def test_blocks_are_judged_apart_and_in_a_fixed_order() -> None:
    a = outcomes("p" * 40, "general") + outcomes("f" * 10)
    b = outcomes("p" * 40, "general") + outcomes("p" * 10)
    blocks = held(a, b).blocks
    assert list(blocks) == ["target", "general"]
    assert [found.verdict for found in blocks.values()] == ["better", "not worse"]


def clustered(words: str, size: int, block_name: str = "target") -> list[CaseOutcome]:
    """Cases that come in clusters of `size`, each cluster from one seed row."""
    return [replace(r, cluster=f"row-{i // size}") for i, r in enumerate(outcomes(words, block_name))]


def test_cases_made_from_one_seed_row_are_not_counted_as_independent() -> None:
    a, b = "f" * 20, "p" * 10 + "f" * 10
    alone = held(outcomes(a), outcomes(b)).blocks["target"]
    together = held(clustered(a, 5), clustered(b, 5)).blocks["target"]
    assert (alone.verdict, alone.clusters) == ("better", 20)
    assert (together.verdict, together.clusters, together.p_value) == ("no decision", 4, 0.5)
    assert together.interval and alone.interval and together.interval[0] <= 0 < alone.interval[0]
    assert together.detectable is None, "four seed rows can show nothing"
    six = "f" * 12, "pf" * 6
    pairs = held(*(clustered(words, 2) for words in six)).blocks["target"]
    assert (pairs.verdict, pairs.difference, pairs.detectable) == ("better", 0.5, 0.5)


def test_a_known_seed_row_never_makes_a_verdict_more_certain() -> None:
    def general(a: str, b: str, size: int) -> BlockComparison:
        left, right = clustered(a, size, "general"), clustered(b, size, "general")
        return held(left, right).blocks["general"]

    for words in (("p" * 10, "p" * 10), ("p" * 64, "f" + "p" * 63)):
        alone, together = general(*words, 1), general(*words, 2)
        assert together.lower_bound and alone.lower_bound and together.lower_bound < alone.lower_bound
        assert together.interval and alone.interval
        assert together.interval[0] < alone.interval[0] and together.interval[1] > alone.interval[1]
        assert together.verdict == alone.verdict
        rates = [block.pass_rate_intervals["adapter"] for block in (alone, together)]
        assert rates[1][0] < rates[0][0]
    assert "bound the loss only at" in general("p" * 10, "p" * 10, 2).reason

    # Seven gained and one lost: a loss that shares its row with a gain does not go away.
    a, b = "ff" * 3 + "f" + "f" + "p" + "p" * 11, "pp" * 3 + "f" + "p" + "f" + "p" * 11
    rows = [n if n > 8 else 7 if n >= 7 else n for n in range(20)]
    left, right = ([replace(r, cluster=f"row-{row}") for r, row in zip(outcomes(w), rows, strict=True)] for w in (a, b))
    found = held(left, right).blocks["target"]
    assert (found.fail_to_pass, found.pass_to_fail, found.verdict) == (7, 1, "no decision")


def test_a_gain_beside_the_target_must_survive_holm_and_a_loss_need_not() -> None:
    flips = {"target": ("f" * 6, "p" * 6), "general": ("f" * 6 + "p" * 40, "p" * 46), "tools": ("p" * 9, "p" * 9)}
    a = [r for name, (words, _) in flips.items() for r in outcomes(words, name)]
    b = [r for name, (_, words) in flips.items() for r in outcomes(words, name)]
    found = held(a, b).blocks
    assert found["target"].p_value == found["general"].p_value == 0.03125
    assert (found["target"].verdict, found["target"].p_adjusted) == ("better", 0.03125)
    assert (found["general"].verdict, found["general"].p_adjusted) == ("not worse", 0.0625)
    assert held(b, a).blocks["general"].verdict == "worse"


def test_named_metrics_are_compared_by_their_scores_and_corrected_together() -> None:
    def graded(form: float, tone: float) -> list[CaseOutcome]:
        tones = [tone + i % 2 * 0.1 for i in range(12)]
        return [replace(r, metrics={"form": form, "tone": t}) for r, t in zip(outcomes("p" * 12), tones, strict=True)]

    metrics = held(graded(0.2, 0.5), graded(0.8, 0.5)).metrics
    assert metrics["form"].difference == pytest.approx(0.6) and metrics["form"].interval[0] > 0.3
    assert metrics["form"].p_value == 2 / 2**12 and metrics["form"].p_adjusted == 4 / 2**12
    assert metrics["tone"].p_value == 1.0


def test_a_refusal_names_each_difference_with_both_values() -> None:
    keys = {"base": KEY, "adapter": {**KEY, "adapter": "def", "template": "u" * 90}}
    found = compare_arms(outcomes("f"), outcomes("p"), ("base", "adapter"), keys)
    assert "template: t against uuu" in found.refused and "evaluate both again" in found.refused
    assert len(found.refused) < 240
    assert held(outcomes("f"), outcomes("p")).refused == ""


def test_the_chain_shows_every_hop_between_two_arms_and_its_flips_add_up(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    found = compare_with_hops(store, run, "base", "quantized")
    assert [hop.arms for hop in found.chain] == [("base", "adapter"), ("adapter", "merged"), ("merged", "quantized")]
    for name, block in found.whole.blocks.items():
        way = sum(hop.blocks[name].fail_to_pass - hop.blocks[name].pass_to_fail for hop in found.chain)
        assert way == block.fail_to_pass - block.pass_to_fail
    assert [flip.case_id for flip in found.chain[2].flips] == ["target-030", "target-044"]
    assert [case.case_id for case in found.known_limits] == ["target-017", "target-030", "target-044"]
    assert all("JSON" in case.reason for case in found.known_limits)
    assert compare_with_hops(store, run, "base", "adapter").chain == ()


def broken_gates(whole: Comparison) -> list[str]:
    return ComparedWithHops(whole, (), (), "").broken_gates


def test_a_gate_breaks_on_a_loss_or_a_refusal_and_never_on_the_adversarial_block(tmp_path: Path) -> None:
    assert broken_gates(held(outcomes("f" * 6), outcomes("p" * 6))) == []
    lost = held(outcomes("p" * 40, "general"), outcomes("f" * 40, "general"))
    assert len(broken_gates(lost)) == 1 and "general got worse" in broken_gates(lost)[0]
    odd = compare_arms(outcomes("f"), outcomes("p"), ("base", "adapter"), {**KEYS, "adapter": {**KEY, "engine": "x"}})
    assert "engine: vllm 0.32 against x" in broken_gates(odd)[0]
    listed = held(outcomes("p" * 12, "adversarial"), outcomes("f" * 12, "adversarial"))
    assert listed.blocks["adversarial"].verdict == "worse" and broken_gates(listed) == []
    build = stored_runs.new_builder(tmp_path)
    for step, arm in (build.step("baseline", arm="base"), "base"), (build.step("evaluate", arm="merged"), "merged"):
        build.answer(step, arm, KEY)
        for n in range(12):
            row = EvalResult(arm, "adversarial", f"adv-{n}", "k", "", arm == "base", float(arm == "base"))
            build.store.add_results(build.run, step, [row])
        result = {"key": KEY} if arm == "base" else {"keys": {arm: {**KEY, "weights": "w"}}}
        build.end(step, 1.0, 1, result)
    assert compare_run(build.store, build.run, "base", "merged").blocks["adversarial"].verdict == "worse"
    assert not gate_of(build.store, build.run, "merged").broken


def test_an_arm_is_held_against_the_newest_base_that_it_may_be_compared_with(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path)
    other = {**KEY, "engine": "transformers"}
    made = [
        ("baseline", "base", {"key": KEY}),
        ("evaluate", "adapter", {"keys": {"base": other, "adapter": {**other, "adapter": "d"}}}),
        ("evaluate", "merged", {"keys": {"merged": {**KEY, "weights": "w"}}}),
    ]
    steps = []
    for stage, arm, result in made:
        steps.append(build.step(stage, arm=arm))
        for name in ("base", "adapter") if arm == "adapter" else (arm,):
            build.answer(steps[-1], name, KEY)
        build.end(steps[-1], 1.0, 1, result)
    assert compare_run(build.store, build.run, "base", "merged").steps == {"base": steps[0], "merged": steps[2]}
    beside = compare_run(build.store, build.run, "base", "adapter")
    assert beside.comparable and beside.steps == {"base": steps[1], "adapter": steps[1]}
    refused = compare_run(build.store, build.run, "adapter", "merged")
    assert not refused.comparable and "engine: transformers against vllm 0.32" in refused.refused


def graded_case(n: int, *assertions: Assertion) -> Case:
    message = {"role": "user", "content": f"{n}"}
    return Case(case_id=f"c{n}", suite="s", messages=(message,), assertions=assertions, metadata={"seed_row": n // 4})


def stored(arm: str, case: Case, *scores: float) -> EvalResult:
    """An answer that was graded when it came; the words of it are gone."""
    assertions = [
        AssertionResult(a.type, score >= 0.5, score, "") for a, score in zip(case.assertions, scores, strict=True)
    ]
    passed = all(score >= 0.5 for score in scores)
    return EvalResult(arm, "target", case.case_id, "k", "", passed, sum(scores) / len(scores), assertions=assertions)


def suite_run(home: Path, kept: Suite) -> tuple[stored_runs.Builder, str, dict[str, Any]]:
    build = stored_runs.new_builder(home)
    atomic_write(home / "suite.json", kept.to_json())
    step = build.step("evaluate", arm="adapter")
    build.artifact(step, "suite", str(home / "suite.json"), suite_sha256=kept.sha256)
    return build, step, {**KEY, "suite": kept.sha256}


def test_seed_rows_and_named_metrics_come_from_the_suite_that_was_run(tmp_path: Path) -> None:
    asserted = [Assertion(type="contains", value=value, metric=name) for value, name in (("y", "truth"), ("!", "tone"))]
    kept = Suite(cases=tuple(graded_case(n, *asserted) for n in range(16)))
    build, step, key = suite_run(tmp_path, kept)
    for case in kept.cases:
        build.store.add_results(build.run, step, [stored("base", case, 0.0, 0.0), stored("adapter", case, 1.0, 0.0)])
    build.end(step, 1.0, 1, {"keys": {"base": key, "adapter": {**key, "adapter": "d"}}})
    found = compare_run(build.store, build.run, "base", "adapter")
    assert (found.blocks["target"].clusters, found.metrics["truth"].cases) == (4, 16)
    assert found.metrics["truth"].mean == {"base": 0.0, "adapter": 1.0}
    assert found.metrics["tone"].difference == 0.0
    assert found.metrics["truth"].p_adjusted == 2 * found.metrics["truth"].p_value == 0.25


def test_a_named_metric_is_what_was_graded_when_the_answer_came(tmp_path: Path) -> None:
    kept = Suite(cases=(graded_case(0, Assertion(type="llm-rubric", value="fluent", metric="fluency")),))
    build, step, key = suite_run(tmp_path, kept)
    build.store.add_results(
        build.run, step, [stored("base", kept.cases[0], 0.475), stored("adapter", kept.cases[0], 0.5)]
    )
    build.end(step, 1.0, 1, {"keys": {"base": key, "adapter": {**key, "adapter": "d"}}})
    found = compare_run(build.store, build.run, "base", "adapter")
    assert found.metrics["fluency"].mean == {"base": 0.475, "adapter": 0.5}


@table("harm", [Path.unlink, lambda path: path.write_text("{}"), lambda path: path.write_text("[")])
def test_without_its_suite_nothing_is_compared_as_if_all_cases_stood_alone(tmp_path: Path, harm: Any) -> None:
    kept = Suite(cases=tuple(graded_case(n, Assertion(type="contains", value="y")) for n in range(16)))
    build, step, key = suite_run(tmp_path, kept)
    for case in kept.cases:
        build.store.add_results(build.run, step, [stored("base", case, 0.0), stored("adapter", case, 1.0)])
    build.end(step, 1.0, 1, {"keys": {"base": key, "adapter": {**key, "adapter": "d"}}})
    harm(tmp_path / "suite.json")
    with pytest.raises(BadInput, match=r"suite .*suite\.json cannot be read .*tunesmith baseline"):
        compare_run(build.store, build.run, "base", "adapter")
    assert "cannot be read" in gate_of(build.store, build.run, "adapter").broken[0]


@pytest.mark.parametrize(("arms", "comparable"), [(("base", "adapter"), True), ((), False)])
def test_a_judge_of_cases_that_one_arm_was_not_asked_keeps_no_pair_apart(
    tmp_path: Path, arms: tuple[str, ...], comparable: bool
) -> None:
    kept = Suite(
        cases=(
            graded_case(0, Assertion(type="llm-rubric", value="kind")).model_copy(update={"arms": arms}),
            graded_case(1, Assertion(type="contains", value="y")),
        )
    )
    build, step, key = suite_run(tmp_path, kept)
    beside = {**key, "judge": "small, weights ab", "judge_prompts": "p", "judge_engine": "vllm"}
    for case in kept.cases:
        build.store.add_results(build.run, step, [stored(arm, case, 1.0) for arm in ("base", "adapter")])
    build.end(step, 1.0, 1, {"keys": {"base": beside, "adapter": {**beside, "adapter": "d"}}})
    later = build.step("evaluate", arm="merged")
    build.store.add_results(build.run, later, [stored("merged", kept.cases[1], 1.0)])
    build.end(later, 1.0, 1, {"keys": {"merged": {**key, "weights": "w"}}})
    found = compare_run(build.store, build.run, "adapter", "merged")
    assert found.comparable is comparable
    assert set(found.differs_in) == (set() if comparable else {"judge", "judge_prompts", "judge_engine"})
    assert found.blocks["target"].cases == (1 if comparable else 2)
    assert found.left_out == ({"target": 1} if comparable else {})


@table(
    ("passes", "general", "told"),
    [(19, "p" * 40, "advised against training"), (17, "p" * 40, "has to beat"), (19, "f" * 40, "makes general worse")],
)
def test_a_prompt_that_reaches_the_goal_is_advised_instead_of_training(passes: int, general: str, told: str) -> None:
    keys = {"base": KEY, "prompted": {**KEY, "system_prompt": "p"}}
    a = outcomes("f" * 20) + outcomes("p" * 40, "general")
    b = outcomes("p" * passes + "f" * (20 - passes)) + outcomes(general, "general")
    found = compare_arms(a, b, ("base", "prompted"), keys, allowed={"system_prompt"})
    assert told in prompt_advice(found, 0.9)
    assert f"{passes} of 20 target cases" in prompt_advice(found, 0.9)
    assert prompt_advice(held(a, b), 0.9) == ""
