"""The sentences of a report: its verdict and its known limits, composed from measured numbers, by rule.

No language model writes here. A word such as "learned" stands for a stated test, not for an impression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunesmith.memory.records import DONE, FAILED, RUNNING, STOPPED, Run, Step
from tunesmith.tools.core.format import clip, count, listed, p_value, percent
from tunesmith.tools.core.stats import minimum_detectable_effect
from tunesmith.tools.evaluation.comparison import WORSE
from tunesmith.tools.evaluation.verdict import FORM_ONLY, LEARNED, NOT_LEARNED, PARTLY, UNDECIDED, Word
from tunesmith.tools.report.evaluation import Evaluation, Hop, Score
from tunesmith.tools.report.process import Served

CANNOT_DO_RATE = 0.1
"""Pass rate of the base up to which a block says nothing about forgetting: there was nothing to forget."""
_CHAIN = ("adapter", "merged", "quantized")
_ERROR_CHARACTERS = 240
"""Two lines of a page; the step's log has all of it."""
_NAMES = {
    "base": "the base", "prompted": "the prompted base", "adapter": "the adapter",
    "merged": "the merged model", "quantized": "the quantized model",
}  # fmt: skip
_WORDS: dict[Word, str] = {
    LEARNED: "learned", PARTLY: "partly learned", FORM_ONLY: "learned in its form only", NOT_LEARNED: "not learned",
    UNDECIDED: "trained, with no decision whether it was learned",
}  # fmt: skip
# From the worst verdict to the best: of several arms the worst speaks.
_GENERAL = {
    "worse": "the general block got worse",
    "no decision": "whether the general block held cannot be decided with so few cases",
    "not worse": "the general block held",
    "better": "the general block got better",
}


def arm_name(arm: str) -> str:
    """An arm as a sentence names it."""
    return _NAMES.get(arm, arm)


def verdict(run: Run, steps: Sequence[Step], evaluation: Evaluation, served: Served | None) -> str:
    """The headline: what was taught, the target's pass rates along the chain, the general block, what is served."""
    if not steps:
        return f"“{clip(run.name, 80)}” has not begun: no step of it was planned yet."
    clauses = [outcome(run, steps, evaluation), _served(served)]
    return "; ".join(clause for clause in clauses if clause) + "."


def outcome(run: Run, steps: Sequence[Step], evaluation: Evaluation) -> str:
    """What was taught, and what became of the target and of the general block; a sentence without its end."""
    clauses = [_outcome(f"“{clip(run.name, 80)}”", steps, evaluation), _general(evaluation)]
    return "; ".join(clause for clause in clauses if clause)


def _outcome(name: str, steps: Sequence[Step], evaluation: Evaluation) -> str:
    chain = _target_chain(evaluation)
    if not any(score.arm in _CHAIN for score in chain):
        return f"{name} {_not_taught(steps)}{_baseline_clause(chain)}"
    passes = [_passes(score, chain[0], evaluation) for score in chain]
    return f"{name} {_learned(evaluation)}: of {count(chain[0].cases, 'target case')} {listed(passes)}"


def _target_chain(evaluation: Evaluation) -> list[Score]:
    arms = [arm for arm in ("base", *_CHAIN) if evaluation.score("target", arm)]
    if {"adapter", "quantized"} <= set(arms):
        arms = [arm for arm in arms if arm != "merged"]
    return [score for arm in arms if (score := evaluation.score("target", arm))]


def _passes(score: Score, first: Score, evaluation: Evaluation) -> str:
    tested = evaluation.against_base(score.arm, "target")
    notes = [percent(score.rate), *([p_value(tested.p_value)] if tested else [])]
    notes += [count(score.errors, "error")] if score.errors else []
    of = f" of {score.cases}" if score.cases != first.cases else ""
    verb = " passes" if score is first else ""
    return f"{arm_name(score.arm)}{verb} {score.passed}{of} ({', '.join(notes)})"


def _learned(evaluation: Evaluation) -> str:
    """The last arm's verdict; that of the adapter first, where more was learned than what was made from it shows."""
    last = evaluation.last_arm
    verdict = _verdict_of(evaluation, last)
    words = {arm: one.verdict.word for arm, one in evaluation.evidence.items()}
    adapter, ranks = words.get("adapter", UNDECIDED), (PARTLY, LEARNED)
    if adapter not in ranks or words.get(last) in ranks[ranks.index(adapter) :]:
        return f"was {verdict}"
    return f"was {_WORDS[adapter]} by the adapter, and {arm_name(last)} was {verdict}"


def _verdict_of(evaluation: Evaluation, arm: str) -> str:
    evidence = evaluation.evidence.get(arm)
    if evidence is None:
        return _WORDS[UNDECIDED]
    why = f" ({clip(evidence.verdict.reasons[0], 160)})" if evidence.verdict.word == UNDECIDED else ""
    return f"{_WORDS[evidence.verdict.word]}{why}"


def _not_taught(steps: Sequence[Step]) -> str:
    last = steps[-1]
    if last.status in (FAILED, STOPPED):
        return f"was not taught; {last.stage} ({last.id}) {last.status}: {clip(last.error or 'no reason', 160)}"
    if last.status == RUNNING:
        return f"is not taught yet, {last.stage} ({last.id}) is running"
    trained = any(step.stage == "train" and step.status == DONE for step in steps)
    return "was trained, but the adapter was not evaluated" if trained else "has not been taught yet"


def _baseline_clause(chain: Sequence[Score]) -> str:
    if not chain:
        return "; no baseline was measured"
    base = chain[0]
    return f"; the untouched base passes {base.passed} of {count(base.cases, 'target case')} ({percent(base.rate)})"


def _general(evaluation: Evaluation) -> str:
    arms = [arm for arm in ("base", "adapter", "quantized") if evaluation.score("general", arm)]
    blocks = [block for arm in reversed(arms[1:]) if (block := evaluation.against_base(arm, "general"))]
    worst = next((block for word in _GENERAL for block in blocks if block.verdict == word), None)
    if worst is None:
        return ""
    sentence = _GENERAL[worst.verdict]
    if not worst.tested:
        sentence = f"whether the general block held cannot be decided, since {worst.reason}"
    scores = [score for arm in arms if (score := evaluation.score("general", arm))]
    numbers = " → ".join(str(score.passed) for score in scores)
    return f"{sentence} ({numbers} of {scores[0].cases})"


def _served(served: Served | None) -> str:
    if served is None:
        return "nothing was deployed"
    what = arm_name(clip(served.arm, 40)) + ("" if served.this_run else f" of run {served.artifact.run}")
    return f"served now is {what}" if served.now else f"deployed last was {what}, which is not served any more"


def limits(steps: Sequence[Step], evaluation: Evaluation) -> list[str]:
    """What this run does not show, or shows badly; the gravest first."""
    return [
        *_failures(steps),
        *_missing(steps, evaluation),
        *_broken(evaluation.hops),
        *tool_note(evaluation),
        *_claims(evaluation),
        *_errors(evaluation),
        *_remaining(evaluation),
        *_cut(evaluation),
        *_power(evaluation),
        *_design(evaluation),
    ]


def _failures(steps: Sequence[Step]) -> list[str]:
    lines = []
    for step in steps:
        if step.status in (FAILED, STOPPED):
            again = any(s.stage == step.stage and s.arm == step.arm and s.status == DONE for s in steps)
            error = clip(step.error or "no reason was recorded", _ERROR_CHARACTERS).rstrip(".")
            ending = "; a later attempt finished." if again else "."
            lines.append(f"{step.stage} ({step.id}) {step.status}: {error}{ending}")
    return lines


def _missing(steps: Sequence[Step], evaluation: Evaluation) -> list[str]:
    makers = {"adapter": "train", "merged": "merge", "quantized": "quantize"}
    arms = [arm for arm, stage in makers.items() if any(s.stage == stage and s.status == DONE for s in steps)]
    unseen = [arm for arm in arms if arm not in evaluation.arms]
    lines = [f"Made but never evaluated: {listed(unseen)}."] if unseen else []
    if evaluation.arms and "target" not in evaluation.blocks:
        lines.append("No target block was run: nothing here shows whether the behaviour was learned.")
    if evaluation.arms and "general" not in evaluation.blocks:
        lines.append("No general block was run: what was forgotten is unknown.")
    return lines


def _broken(hops: Sequence[Hop]) -> list[str]:
    lines = []
    for hop in hops:
        pair = f"{hop.a} → {hop.b}"
        if hop.problem:
            lines.append(f"{pair} could not be compared: {clip(hop.problem, _ERROR_CHARACTERS)}")
        elif hop.comparison and not hop.comparison.comparable:
            differs = listed(hop.comparison.differs_in)
            lines.append(
                f"{pair} differ in more than the hop itself ({differs}): their difference has other causes too."
            )
        elif hop.comparison and hop.comparison.precision_changes:
            lines.append(
                f"{pair} changes the precision too ({hop.comparison.precision_changes}): a part of what differs may be "
                "that."
            )
        worse = [block for block, counts in hop.blocks.items() if counts.verdict == WORSE]
        if worse:
            lines.append(f"{pair} is significantly worse on: {listed(worse)}.")
    return lines


def tool_note(evaluation: Evaluation) -> list[str]:
    """What must be said beside a tool block that the base cannot do; empty where it can."""
    base = evaluation.score("tools", "base")
    if base is None:
        return []
    if not evaluation.takes_tools:
        return [
            "The base's chat template ignores tools: no request of the tool block ever showed the model a tool, so the "
            f"block measures nothing but answers without one ({base.passed} of {base.judged} passed). Use a base whose "
            "template takes tools."
        ]
    if base.rate is None:
        return [f"Tool calling could not be measured: all {base.cases} answers of the base were errors."]
    if base.rate > CANNOT_DO_RATE:
        return []
    return [
        f"The base cannot call tools ({base.passed} of {base.judged} passed), so the tool block cannot show a loss: "
        "there was nothing to forget. It is reported as it is, and proves nothing either way."
    ]


def _claims(evaluation: Evaluation) -> list[str]:
    """What the last arm's verdict leaves open: why it is none, what the suite lacks, what was never tried beside it."""
    evidence = evaluation.evidence.get(evaluation.last_arm)
    if evidence is None or evidence.compared is None:
        return []
    lines = []
    if evidence.verdict.word != LEARNED:
        lines.append(f"Claim for {arm_name(evaluation.last_arm)}: {evidence.verdict.sentence}.")
    if evidence.verdict.opening > 1:
        lines.append(
            f"This is opening number {evidence.verdict.opening} of the blind cases: what was chosen between the "
            f"trainings is fitted to them too, so the bound is at {evidence.verdict.confidence:.3g}."
        )
    if "over-trigger" not in evaluation.blocks:
        lines.append("No over-trigger block was run: whether messages that only look alike are left alone is unknown.")
    return lines


def _errors(evaluation: Evaluation) -> list[str]:
    bad = [f"{s.arm} {s.errors} of {s.cases} ({s.block})" for s in evaluation.scores.values() if s.errors]
    return [f"Requests that ended in an error, counted apart from failures: {listed(bad)}."] if bad else []


def _remaining(evaluation: Evaluation) -> list[str]:
    answers = evaluation.answers.get(evaluation.last_arm, {})
    if evaluation.last_arm == "base":
        return []
    lines = []
    for block in ("target", "adversarial"):
        failing = [case for case, a in answers.items() if a.passed is False and a.block == block]
        named = sorted(case for case in failing if case not in evaluation.hidden)
        blind = len(failing) - len(named)
        cases = ([count(blind, "blind case")] if blind else []) + [clip(case_id, 60) for case_id in named]
        if failing:
            lines.append(
                f"{count(len(failing), f'{block} case')} still "
                f"{'fails' if len(failing) == 1 else 'fail'} with {arm_name(evaluation.last_arm)}: "
                f"{listed(cases, 8)}."  # a line or two
            )
    return lines


def _cut(evaluation: Evaluation) -> list[str]:
    cut = {
        arm: sum(a.sample.finish_reason == "length" for a in answers.values())
        for arm, answers in evaluation.answers.items()
    }
    named = [f"{arm} {number} of {len(evaluation.answers[arm])}" for arm, number in cut.items() if number]
    return [f"Answers cut off at the token limit: {listed(named)}."] if named else []


def _power(evaluation: Evaluation) -> list[str]:
    gains = [line for block in evaluation.blocks if (line := _detectable(evaluation, block))]
    return [f"The smallest gain that so few cases can show, in points of pass rate: {listed(gains)}."] if gains else []


def _detectable(evaluation: Evaluation, block: str) -> str:
    """By the comparison of the last arm with the base; where there is none, by the cases that the base answered."""
    compared, base = evaluation.against_base(evaluation.last_arm, block), evaluation.score(block, "base")
    gain: float | None
    if compared and compared.judged:
        cases, rows, gain = compared.judged, compared.clusters, compared.detectable
    elif base and base.judged:
        cases, rows, gain = base.judged, base.rows, minimum_detectable_effect(base.judged, rows=base.rows)
    else:
        return ""
    # 1e-9: as in `stats`, 5 points may be a hair more as a float.
    points = "none at all" if gain is None or math.isinf(gain) else math.ceil(gain * 100 - 1e-9)
    of = f", {rows} independent" if rows < cases else ""
    return f"{block} {points} ({count(cases, 'case')}{of})"


def _design(evaluation: Evaluation) -> list[str]:
    if not evaluation.arms:
        return []
    lines = []
    if evaluation.repeats == 1:
        lines.append("Each case was asked once; how much an answer varies from one time to the next was not measured.")
    if evaluation.advice:
        lines.append(f"A prompt as the rival of training: {evaluation.advice}.")
    if "prompted" not in evaluation.arms:
        lines.append("The base with a good system prompt (the arm “prompted”) was not measured as a rival.")
    if "adversarial" not in evaluation.blocks:
        lines.append("No adversarial block was run (paraphrase, other languages, injected instructions, long context).")
    return lines
