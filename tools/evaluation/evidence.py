"""What a verdict rests on, read from the store: people's cases, the controls, the guarded blocks, earlier openings.

Everything here is made from stored answers, the suite's own assertions and what people rated; no model is asked. Where
the target has blind cases they alone are counted; the others have served to choose by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import get_args

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.comparison import Comparison, Json
from tunesmith.tools.evaluation.controls import (
    AnswerControls,
    Control,
    Repeat,
    Triggers,
    answer_controls,
    repeat,
    shared_form,
    triggers,
)
from tunesmith.tools.evaluation.judge_agreement import JudgeAgreement, judge_agreement
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.evaluation.pairing import Evaluations, cases_of, compare_run
from tunesmith.tools.evaluation.peoples_cases import Pair, Paired
from tunesmith.tools.evaluation.protocol import BLIND_OPENED, CASE_DIGITS, Keys, differences, measured
from tunesmith.tools.evaluation.ratings import Rated, ratings_of
from tunesmith.tools.evaluation.statistics import case_outcomes
from tunesmith.tools.evaluation.values import Answered, asserted_values
from tunesmith.tools.evaluation.verdict import RULE, Facts, Guarded, Verdict, Word, decide
from tunesmith.tools.suites.case import (
    GUARDED_BLOCKS,
    NEAR_MISS_BLOCK,
    PRIMARY_BLOCK,
    Case,
    canonical_json,
    claimed_cases,
)
from tunesmith.tools.suites.grading import Response

_ORDINARY_BLOCKS = (NEAR_MISS_BLOCK, "general")
_ANSWER_CHARACTERS = 400
"""Of the constant answer, for people to see what it is; it is graded whole."""
_OF_A_BLIND_CASE = "that of a blind case"
_ROOM_FOR_ADAPTERS = ("lora",)
"""What makes room for adapters answers no request that names none."""
_NO_JUDGE = JudgeAgreement()
"""Cases that a judge grades decide nothing then."""
_CACHED_CONTROLS = 16
"""Answers of arms whose controls stay in memory, the oldest dropped first."""
_KNOWN: dict[str, AnswerControls] = {}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The verdict on an arm against the base, and all that it was held against."""

    verdict: Verdict
    arm: str
    compared: Comparison | None = None
    """On the claimed cases; None where the arm was not compared with the base."""
    controls: AnswerControls = field(default_factory=AnswerControls)
    triggers: Triggers | None = None
    repeat: Repeat | None = None
    prompted: tuple[int, int] | None = None
    """Claimed cases that the prompted base passed, and how many it answered."""

    def to_json(self) -> Json:
        """The parts of `tunesmith compare --json` that are about the verdict."""
        controls = self.controls
        return {
            **self.verdict.to_json(),
            "claim_of": self.arm,
            "controls": {
                "shuffle": _control_json(controls.shuffle, ranged=True),
                "constant": _control_json(controls.constant),
                "echo": _control_json(controls.echo),
                "prompted": {"passed": self.prompted[0], "cases": self.prompted[1]} if self.prompted else None,
                "repeat": {"flips": self.repeat.flips, "cases": self.repeat.cases} if self.repeat else None,
                "triggers": _triggers_json(self.triggers),
            },
        }


def _control_json(control: Control | None, *, ranged: bool = False) -> Json | None:
    if control is None:
        return None
    alone = control.on_target
    return {
        **picked(control, "passed", "cases", "own", "p_value", "state"),
        "open": control.waiting,
        **({"range": [control.lowest, control.highest]} if ranged else {"answer": control.answer[:_ANSWER_CHARACTERS]}),
        **({"on_target": picked(alone, "passed", "cases", "p_value")} if alone else {}),
    }


def _triggers_json(triggers: Triggers | None) -> Json | None:
    if triggers is None:
        return None
    return {"triggered": len(triggers.triggered), "cases": triggers.cases, "case_ids": list(triggers.triggered)}


def evidence_of(
    store: Store, run: str, arm: str, *, at_work: tuple[str, Keys] | None = None, lineage: Lineage | None = None
) -> Evidence:
    """The verdict on an arm of a run against the base. Never raises for a run that is incomplete."""
    rated = ratings_of(store, run, arm)
    try:
        compared = compare_run(store, run, "base", arm, at_work=at_work, lineage=lineage, claimed=True)
        evaluations = Evaluations.of(store, run, at_work=at_work)
        suite = evaluations.keys[compared.steps[arm]][arm].get("suite")
        cases = cases_of(store, run, suite)
    except (NotFound, BadInput) as error:  # nothing evaluated yet, or its suite is gone
        opening = _opening_of_ratings(rated)
        facts = Facts(rated=_rated(rated), opening=opening, unusable=str(error), rate=_rate(run, arm))
        return Evidence(decide(facts), arm)
    evidence = weigh(
        arm,
        list(cases.values()),
        {name: store.results(step, name) for name, step in compared.steps.items()},
        compared,
        rated=rated,
        opening=opening_of(store, run, arm, cases.values(), at_work=at_work, lineage=lineage),
        prompted=_prompted(store, run, arm, lineage, at_work),
        agreement=judge_agreement(store, run),
        rate=_rate(run, arm),
    )
    verdict = evidence.verdict if rated else _earlier_verdict(store, compared.steps[arm], evidence.verdict)
    return replace(evidence, verdict=verdict, repeat=_repeat(store, evaluations, compared, cases) if cases else None)


def weigh(
    arm: str,
    cases: Sequence[Case],
    results: Mapping[str, Sequence[EvalResult]],
    compared: Comparison,
    *,
    rated: Sequence[Rated] = (),
    opening: int = 1,
    prompted: tuple[int, int] | None = None,
    agreement: JudgeAgreement = _NO_JUDGE,
    rate: str = "tunesmith rate",
) -> Evidence:
    """The evidence from cases, both arms' answers to them, and people's ratings; `agreement` is their judge's, `rate`
    the command that adds ratings."""
    claimed = [case for case in claimed_cases(case for case in cases if case.block == PRIMARY_BLOCK) if case.of_people]
    counted = [case for case in claimed if agreement.decides(case)]
    near = claimed_cases(case for case in cases if case.block == NEAR_MISS_BLOCK)
    suite = _pairs(counted or claimed, results, arm)
    public = asserted_values(case for case in cases if not case.is_blind)
    controls = _controls_of_answers(answers_to(counted, results[arm]), answers_to(near, results[arm]), public)
    if any(case.is_blind for case in counted):
        controls = replace(controls, constant=_unquoted(controls.constant))
    triggers = _triggers(cases, results["base"], results[arm])
    guarded = {
        name: Guarded(
            block.judged, block.passed["base"], block.passed[arm], block.verdict, block.lower_bound, block.p_value
        )
        for name, block in compared.blocks.items()
        if name in GUARDED_BLOCKS
    }
    written = [case for case in cases if case.block == PRIMARY_BLOCK and not case.of_people]
    facts = Facts(
        suite=suite,
        rated=_rated(rated),
        controls=controls,
        guarded=guarded,
        triggers=triggers,
        refused=compared.refused,
        unusable=_unusable(compared, claimed, counted, agreement, bool(cases)),
        writers=Paired.of(pairs) if (pairs := _pairs(written, results, arm)) else None,
        prompted=prompted,
        opening=max(opening if suite else 1, _opening_of_ratings(rated)),
        rate=rate,
    )
    return Evidence(decide(facts), arm, compared, controls, triggers, prompted=prompted)


def _rate(run: str, arm: str) -> str:
    return f"tunesmith rate {run} --arms base,{arm}"


def _unusable(
    compared: Comparison, claimed: Sequence[Case], counted: Sequence[Case], agreement: JudgeAgreement, recorded: bool
) -> str:
    """Why the suite's own cases say nothing, whatever came out; empty where they may."""
    if not recorded:
        return "the run did not record its suite"
    target = compared.blocks.get(PRIMARY_BLOCK)
    if claimed and not counted:
        judged = any(case.tests_meaning for case in claimed)
        return agreement.sentence if judged else "their assertions hold the form alone"
    if claimed and target and not target.tested:
        return target.reason
    return ""


def _pairs(cases: Sequence[Case], results: Mapping[str, Sequence[EvalResult]], arm: str) -> list[Pair]:
    """The messages that both arms answered: one is right where every case that asks it passes."""
    ids = {case.case_id for case in cases}
    base, own = (case_outcomes(r for r in results[name] if r.case_id in ids) for name in ("base", arm))
    asked: dict[str, Pair] = {}
    for case in cases:
        was, now = (of[case.case_id].passed if case.case_id in of else None for of in (base, own))
        if was is None or now is None:
            continue
        earlier = asked.setdefault(case.request_sha256, Pair(case.cluster, was, now))
        asked[case.request_sha256] = Pair(earlier.cluster, earlier.base and was, earlier.arm and now)
    return list(asked.values())


def _rated(rated: Sequence[Rated]) -> list[Pair]:
    """Ratings of messages that a person wrote; the others are shown apart."""
    return [Pair(one.case_id, one.base_right, one.arm_right) for one in rated if one.written_by_a_person]


def _opening_of_ratings(rated: Sequence[Rated]) -> int:
    return max((one.opening for one in rated if one.written_by_a_person), default=1)


def _earlier_verdict(store: Store, step: str, verdict: Verdict) -> Verdict:
    """The word that an earlier rule said when this evaluation ended, with that rule's version; else the verdict."""
    report = store.step(step).report
    rule = report.get("claim_rule", 1)
    word: Word | None = next((one for one in get_args(Word) if one == report.get("claim")), None)
    if word is None or not isinstance(rule, int) or rule >= RULE:
        return verdict
    sentence = str(report.get("claim_sentence") or word).removeprefix(f"{word}: ")
    again = f"`tunesmith evaluate` decides by rule {RULE}"
    return replace(verdict, word=word, reasons=(sentence,), advice=again, needs=0, untested=(), rule=rule)


def opening_of(
    store: Store,
    run: str,
    arm: str,
    cases: Iterable[Case],
    *,
    at_work: tuple[str, Keys] | None = None,
    lineage: Lineage | None = None,
) -> int:
    """Which training this arm's is of those that were asked its blind cases, in any run of the home: 1 the first.

    Merged and quantized models belong to the training of their adapter.
    """
    blind = (case for case in cases if case.is_blind and case.of_people and case.block == PRIMARY_BLOCK)
    own = {case.request_sha256[:CASE_DIGITS] for case in blind}
    rows = store.read(
        "SELECT data FROM events WHERE event = ? AND json_extract(data, '$.arm') NOT IN ('base', 'prompted')"
        " ORDER BY id",
        BLIND_OPENED,
    )
    opened = [json.loads(row["data"]) for row in rows]
    same = [one for one in opened if own & set(one.get("blind", ()))]
    trainings = list(dict.fromkeys(_training(store, str(one.get("model"))) for one in same))
    evaluations = Evaluations.of(store, run, at_work=at_work)
    steps = evaluations.of_arm(arm, lineage)
    mine = _training(store, measured(arm, evaluations.keys[steps[-1]][arm])) if steps else ""
    return trainings.index(mine) + 1 if mine in trainings else len(trainings) + 1


def _training(store: Store, sha256: str) -> str:
    """The adapter that a model was made from, by its digest; the model itself where the store knows of none."""
    rows = store.read("SELECT artifact FROM artifacts WHERE sha256 = ? ORDER BY created_at LIMIT 1", sha256)
    if not rows:
        return sha256
    model = store.artifact(rows[0]["artifact"])
    adapter = model if model.kind == "adapter" else store.ancestor(model, "adapter")
    return adapter.sha256 if adapter else sha256


def answers_to(cases: Sequence[Case], results: Iterable[EvalResult]) -> list[Answered]:
    """An arm's answers to these cases, each by the repeat that shows its verdict; cases without a verdict left out."""
    by_id = {case.case_id: case for case in cases}
    asked = [result for result in results if result.case_id in by_id]
    answers = []
    for case_id, outcome in case_outcomes(asked).items():
        if outcome.passed is None:
            continue
        repeats = [result for result in asked if result.case_id == case_id]
        sample = next((result for result in repeats if result.passed is outcome.passed), repeats[0])
        answers.append(Answered(by_id[case_id], Response.stored(sample), outcome.passed))
    return answers


def _unquoted(constant: Control | None) -> Control | None:
    """The control without its answer, which is one to a case that nobody may see."""
    return constant and replace(constant, answer=_OF_A_BLIND_CASE, on_target=_unquoted(constant.on_target))


def _controls_of_answers(
    answered: Sequence[Answered], near: Sequence[Answered], public: frozenset[str]
) -> AnswerControls:
    """`answer_controls`, kept by what they are made from: report, summary and gate ask for the same ones."""
    digest = sha256(canonical_json(sorted(public)).encode())
    for one in (*answered, *near):
        answer = [one.case.dump(), one.response.output_text, list(one.response.tool_calls), one.passed]
        digest.update(canonical_json(answer).encode())
    if (key := digest.hexdigest()) not in _KNOWN:
        while len(_KNOWN) >= _CACHED_CONTROLS:
            del _KNOWN[next(iter(_KNOWN))]  # the oldest: a dict keeps its order
        _KNOWN[key] = answer_controls(answered, near, public=public)
    return _KNOWN[key]


def _prompted(
    store: Store, run: str, arm: str, lineage: Lineage | None, at_work: tuple[str, Keys] | None
) -> tuple[int, int] | None:
    """What the prompted base passes of the claim's cases; None where it was not asked, or not alike, or is the arm."""
    if arm == "prompted":
        return None
    try:
        rival = compare_run(store, run, "prompted", arm, at_work=at_work, lineage=lineage, claimed=True)
    except (NotFound, BadInput):  # never asked, or its suite is gone: a claim stands without the rival
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
                if name in cases and outcome.passed is not None
            }
            for step in (own, other)
        ]
        return repeat(*verdicts)
    return None


def _triggers(cases: Sequence[Case], base: Iterable[EvalResult], arm: Iterable[EvalResult]) -> Triggers | None:
    """Ordinary messages of the guarded blocks that are answered in the form that all target cases share."""
    form = shared_form([case for case in cases if case.block == PRIMARY_BLOCK])
    if form is None:
        return None
    ordinary = {case.case_id for case in cases if case.block in _ORDINARY_BLOCKS}
    answers = [{r.case_id: Response.stored(r) for r in results if r.case_id in ordinary} for results in (arm, base)]
    counted = triggers(form, *answers)
    return counted if counted.cases else None
