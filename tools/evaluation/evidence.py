"""What a claim rests on, read from the store: the comparison on its blind part, and the controls beside it.

Everything here is made from stored answers and the suite's own assertions; no model is asked. Where the target has
blind cases the claim is theirs alone; the others have served to choose by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.evaluation.claim import NO_CLAIM, Claim, Controls, Counts, claim_of
from tunesmith.tools.evaluation.comparison import BlockComparison, Comparison, Json
from tunesmith.tools.evaluation.controls import (
    AnswerControls,
    Answered,
    Constant,
    Repeat,
    Shuffle,
    Triggers,
    answer_controls,
    repeat,
    shared_form,
    triggers,
)
from tunesmith.tools.evaluation.judge_worth import judge_worth
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.pairing import Evaluations, cases_of, compare_run
from tunesmith.tools.evaluation.protocol import BLIND_OPENED, Keys, differences
from tunesmith.tools.evaluation.statistics import case_outcomes
from tunesmith.tools.suites.case import (
    GUARDED_BLOCKS,
    MODELS_WORK,
    NEAR_MISS_BLOCK,
    PRIMARY_BLOCK,
    Case,
    canonical_json,
    claimed_cases,
)
from tunesmith.tools.suites.grading import Response

_ORDINARY_BLOCKS = (NEAR_MISS_BLOCK, "general")
_ANSWER_CHARACTERS = 400
_ROOM_FOR_ADAPTERS = ("lora",)
"""What makes room for adapters answers no request that names none."""
_OF_A_BLIND_CASE = "that of a blind case"
_KEPT = 16
_KNOWN: dict[str, AnswerControls] = {}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The claim of an arm against the base, and all that it was held against."""

    claim: Claim
    controls: Controls
    arm: str
    compared: Comparison | None = None
    """On the claim's own cases; None where the arm was not compared with the base."""
    blind: bool = False
    """Whether the claim rests on blind cases."""
    openings: int = 0
    """Models that were asked the blind cases in this run; from the second on they are no longer quite blind."""

    def to_json(self) -> Json:
        """The parts of `tunesmith compare --json` that are about the claim."""
        target = self.compared.blocks.get(PRIMARY_BLOCK) if self.compared else None
        return {
            "controls": _controls_json(self.controls),
            "claim": self.claim.word,
            "claim_of": self.arm,
            "claim_reasons": list(self.claim.reasons),
            "claim_sentence": self.claim.sentence,
            "beats": dict(self.claim.beats),
            "add": self.claim.add,
            "claim_cases": {
                "blind": self.blind,
                "openings": self.openings,
                "cases": target.cases if target else 0,
                "passed": dict(target.passed) if target else {},
                "p_value": target.p_value if target else None,
            },
        }


def _controls_json(controls: Controls) -> Json:
    return {
        "shuffle": _shuffle_json(controls.shuffle),
        "constant": _constant_json(controls.constant),
        "prompted": {"passed": controls.prompted[0], "cases": controls.prompted[1]} if controls.prompted else None,
        "repeat": {"flips": controls.repeat.flips, "cases": controls.repeat.cases} if controls.repeat else None,
        "triggers": _triggers_json(controls.triggers),
    }


def _shuffle_json(shuffle: Shuffle | None) -> Json | None:
    if shuffle is None:
        return None
    return {
        "passed": shuffle.passed,
        "cases": shuffle.cases,
        "own": shuffle.own,
        "range": [shuffle.lowest, shuffle.highest],
        "orders": shuffle.orders,
        "p_value": shuffle.p_value,
        "open": shuffle.open,
        "indifferent": list(shuffle.indifferent),
    }


def _constant_json(constant: Constant | None) -> Json | None:
    if constant is None:
        return None
    return {
        "passed": constant.passed,
        "cases": constant.cases,
        "answer": constant.answer[:_ANSWER_CHARACTERS],
        "own": constant.own,
        "p_value": constant.p_value,
        "most_frequent": {
            "answer": constant.most_frequent[:_ANSWER_CHARACTERS],
            "passed": constant.most_frequent_passed,
        },
    }


def _triggers_json(triggers: Triggers | None) -> Json | None:
    if triggers is None:
        return None
    return {"triggered": len(triggers.triggered), "cases": triggers.cases, "case_ids": list(triggers.triggered)}


def evidence_of(
    store: Store, run: str, arm: str, *, at_work: tuple[str, Keys] | None = None, lineage: Lineage | None = None
) -> Evidence:
    """What may be claimed of an arm of a run against the base. Never raises for a run that is incomplete."""
    try:
        compared = compare_run(store, run, "base", arm, at_work=at_work, lineage=lineage, claimed=True)
        evaluations = Evaluations.of(store, run, at_work=at_work)
        step = compared.steps[arm]
        cases = cases_of(store, run, evaluations.keys[step][arm].get("suite"))
    except (NotFound, BadInput) as error:
        return Evidence(Claim(NO_CLAIM, (str(error),)), Controls(), arm)
    if not cases:
        return Evidence(Claim(NO_CLAIM, ("the run did not record its suite",)), Controls(), arm, compared)
    results = {name: store.results(step, name) for name, step in compared.steps.items()}
    target = claimed_cases(case for case in cases.values() if case.block == PRIMARY_BLOCK)
    own = _controls_of_answers(answers_to(target, results[arm]))
    controls = Controls(
        shuffle=own.shuffle,
        constant=_unquoted(own.constant, hidden_cases(store, run), target),
        prompted=_prompted(store, run, arm, lineage, at_work),
        repeat=_repeat(store, evaluations, compared, cases),
        triggers=_triggers(cases, results["base"], results[arm]),
    )
    guarded = {name: _counts(block, arm) for name, block in compared.blocks.items() if name in GUARDED_BLOCKS}
    on_target = compared.blocks.get(PRIMARY_BLOCK)
    counts = _counts(on_target, arm) if on_target else None
    if counts and any(_by_a_model(case) for case in target):
        decided = [case for case in target if judge_worth(store, run).decides(case)]
        counts = replace(counts, by_people=_by_people(decided, results[arm]))
    blind = any(case.is_blind for case in target)
    return Evidence(
        claim=claim_of(counts, guarded, controls, compared.refused),
        controls=controls,
        arm=arm,
        compared=compared,
        blind=blind,
        openings=blind_openings(store, run) if blind else 0,
    )


def _unquoted(constant: Constant | None, hidden: Collection[str], target: Sequence[Case]) -> Constant | None:
    """The control without its answer where that answers a case that nobody may see."""
    if constant is None or not any(case.case_id in hidden for case in target):
        return constant
    return replace(constant, answer=_OF_A_BLIND_CASE, most_frequent=_OF_A_BLIND_CASE)


def answers_to(cases: Sequence[Case], results: Iterable[EvalResult]) -> list[Answered]:
    """An arm's answers to these cases, each by the repeat that shows its verdict; cases without a verdict left out."""
    by_id = {case.case_id: case for case in cases}
    asked = [result for result in results if result.case_id in by_id]
    answers = []
    for case_id, outcome in case_outcomes(asked).items():
        if outcome.passed is None:
            continue
        repeats = [result for result in asked if result.case_id == case_id]
        shown = next((result for result in repeats if result.passed is outcome.passed), repeats[0])
        answers.append(Answered(by_id[case_id], Response.stored(shown), outcome.passed))
    return answers


def blind_openings(store: Store, run: str) -> int:
    """How many different models of a run, the base and its prompts apart, were asked the blind cases."""
    rows = store.read(
        "SELECT DISTINCT json_extract(data, '$.model') AS model FROM events WHERE run = ? AND event = ?"
        " AND json_extract(data, '$.arm') NOT IN ('base', 'prompted')",
        run,
        BLIND_OPENED,
    )
    return len(rows)


def _by_a_model(case: Case) -> bool:
    return case.metadata.get("source") in MODELS_WORK


def _by_people(target: Sequence[Case], results: Iterable[EvalResult]) -> tuple[int, int]:
    """Of the claim's cases those that a person wrote or marked: passed, and judged."""
    answered = answers_to([case for case in target if not _by_a_model(case)], results)
    return sum(one.passed for one in answered), len(answered)


def _counts(block: BlockComparison, arm: str) -> Counts:
    return Counts(
        judged=block.judged,
        base_passed=block.passed["base"],
        passed=block.passed[arm],
        verdict=block.verdict,
        reason=block.reason,
        tested=block.tested,
    )


def _controls_of_answers(answered: Sequence[Answered]) -> AnswerControls:
    """`answer_controls`, kept by what they are made from: report, summary and gate ask for the same ones."""
    digest = sha256()
    for one in answered:
        answer = [one.case.dump(), one.response.output_text, list(one.response.tool_calls), one.passed]
        digest.update(canonical_json(answer).encode())
    if (key := digest.hexdigest()) not in _KNOWN:
        while len(_KNOWN) >= _KEPT:
            del _KNOWN[next(iter(_KNOWN))]
        _KNOWN[key] = answer_controls(answered)
    return _KNOWN[key]


def _prompted(
    store: Store, run: str, arm: str, lineage: Lineage | None, at_work: tuple[str, Keys] | None
) -> tuple[int, int] | None:
    """What the prompted base passes of the claim's cases; None where it was not asked, or not alike, or is the arm."""
    if arm == "prompted":
        return None
    try:
        rival = compare_run(store, run, "prompted", arm, at_work=at_work, lineage=lineage, claimed=True)
    except (NotFound, BadInput):
        return None
    target = rival.blocks.get(PRIMARY_BLOCK)
    return (target.passed["prompted"], target.judged) if target and rival.comparable and target.judged else None


def _repeat(store: Store, evaluations: Evaluations, compared: Comparison, cases: Mapping[str, Case]) -> Repeat | None:
    """The base of the comparison against the same base asked by another kind of step; None where it was asked once.

    Steps of one kind take over each other's answers, and would show no noise where there is some.
    """
    own = compared.steps["base"]
    kinds = {step: (store.step(step).stage, store.step(step).arm) for step in evaluations.of_arm("base")}
    for other in reversed(list(kinds)):
        keys = evaluations.keys[own]["base"], evaluations.keys[other]["base"]
        if kinds[other] == kinds.get(own) or differences(*keys, _ROOM_FOR_ADAPTERS):
            continue
        verdicts = [
            {
                name: outcome.passed
                for name, outcome in case_outcomes(store.results(step, "base")).items()
                if name in cases
            }
            for step in (own, other)
        ]
        known = [{name: bool(v) for name, v in one.items() if v is not None} for one in verdicts]
        return repeat(*known)
    return None


def _triggers(cases: Mapping[str, Case], base: Iterable[EvalResult], arm: Iterable[EvalResult]) -> Triggers | None:
    """Ordinary messages of the guarded blocks that are answered in the form that all target cases share."""
    form = shared_form([case for case in cases.values() if case.block == PRIMARY_BLOCK])
    if form is None:
        return None
    ordinary = {case.case_id for case in cases.values() if case.block in _ORDINARY_BLOCKS}
    answers = [{r.case_id: Response.stored(r) for r in results if r.case_id in ordinary} for results in (arm, base)]
    counted = triggers(form, *answers)
    return counted if counted.cases else None
