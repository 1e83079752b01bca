"""What the records of a run say about it: what was learned, what it cost, what stands in the way, what to try next.

Every finding is derived by code from stored results, losses and rows, with its evidence and one proposed step. Nothing
is asked of a model. A finding that the records do not bear out is not made; what was never measured is said.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.memory.json_values import as_float
from tunesmith.memory.records import DONE, FAILED, RUNNING, STOPPED
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import is_folder
from tunesmith.tools.evaluation.advice import FLIPS_TO_SHOW
from tunesmith.tools.evaluation.baseline import BaselineResult
from tunesmith.tools.evaluation.comparison import WORSE, BlockComparison, Comparison
from tunesmith.tools.evaluation.judge_agreement import judge_agreement
from tunesmith.tools.evaluation.peoples_cases import LEARNED_RATE
from tunesmith.tools.evaluation.recovery import next_setting
from tunesmith.tools.evaluation.retained import gain_retained
from tunesmith.tools.evaluation.run_records import RunRecords
from tunesmith.tools.evaluation.verdict import FORM_ONLY, NOT_LEARNED, PARTLY, Verdict
from tunesmith.tools.models.base import BaseResult
from tunesmith.tools.models.known_bases import known_bases
from tunesmith.tools.suites.case import GUARDED_BLOCKS, PRIMARY_BLOCK

_TUNED = ("adapter", "merged", "quantized")
_RISEN, _FALLING = 1.03, 0.97
"""A validation loss has risen above its lowest, or still falls at its end, from these ratios on: less is the noise of a
few dozen rows."""
_FEW_CASES = 40
"""Fewer show nothing but large gains: on 20 none under 30 points, on 60 none under 10 (exact McNemar)."""
_NARROW_SHARE, _LABEL_SHARE = 0.25, 0.15  # critique drops about a tenth as a rule
_NO_FAULT = ("duplicate", "copy", "leak", "held out", "balance")
"""Why rows are left out that are right in themselves."""
_SMALL_BASE = 500_000_000
"""Parameters: a 0.5B learned what was tried here; below it a base may be what is too weak."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A step to try next: its stage, the fields that differ, and why."""

    stage: str
    fields: Mapping[str, object]
    why: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the records say."""

    kind: str
    says: str
    """In one or two sentences."""
    evidence: Mapping[str, object]
    next: Proposal | None = None
    cases: tuple[str, ...] = ()
    """The cases that it is about."""


def findings(store: Store, run: str) -> list[Finding]:
    """What a run's records say, the most important first. Raises NotFound for an unknown run."""
    steps = {step.stage: step for step in store.steps(store.run(run).id, status=DONE)}
    records = RunRecords(store, run, steps)
    return [finding for find in _FINDERS for finding in find(records)]


def _last_tuned(records: RunRecords) -> str:
    return next((arm for arm in reversed(_TUNED) if arm in records.arms()), "")


def _unmeasured(records: RunRecords) -> list[Finding]:
    if _last_tuned(records):
        return []
    newest = records.store.steps(records.run)[-1:]
    if newest and newest[0].status == RUNNING:
        says = f"{newest[0].stage} ({newest[0].id}) is running; no trained model was measured yet."
        return [Finding("not measured", says, {"running": newest[0].id})]
    if "train" in records.steps:
        says = "It was trained, but no arm was evaluated: nothing is known of what it learned."
        return [
            Finding(
                "not measured",
                says,
                {"arms": records.arms()},
                Proposal("evaluate", {"arm": "adapter"}, "to know what it learned"),
            )
        ]
    following = next(
        (stage for stage in ("base", "baseline", "generate", "critique", "train") if stage not in records.steps),
        "train",
    )
    broke = "".join(f"; {one.stage} ({one.id}) {one.status}" for one in newest if one.status in (FAILED, STOPPED))
    says = f"Nothing was trained yet; {following} comes next{broke}."
    return [
        Finding(
            "not trained", says, {"done": sorted(records.steps)}, Proposal(following, {}, "it is what the run lacks")
        )
    ]


def _learned(records: RunRecords) -> list[Finding]:
    """The verdict on the last trained arm, and the step that it asks for."""
    arm = _last_tuned(records)
    if not arm:
        return []
    verdict = records.verdict(arm)
    people = verdict.people
    evidence: dict[str, object] = {"arm": arm, "claim": verdict.word, "needed": verdict.needs}
    if people and people.cases:
        evidence |= {"passed": people.arm, "judged": people.cases, "base": people.base, "p_value": people.p_value}
    finding = Finding(verdict.word, f"The {arm} model: {verdict.sentence}.", evidence, _next_step(records, verdict))
    return [finding, *(_too_weak(records) if verdict.word == NOT_LEARNED else [])]


def _next_step(records: RunRecords, verdict: Verdict) -> Proposal | None:
    if verdict.word == FORM_ONLY:
        return _more_rows(records, "rows whose answers depend on the message")
    if verdict.word != PARTLY and (verdict.word != NOT_LEARNED or verdict.worse):
        return None
    if verdict.word == NOT_LEARNED and verdict.people and verdict.people.leaves_nothing:
        return None  # no rows make a gain show on cases that the base passes
    if _still_falling(records):
        return _longer(records)
    return _more_rows(records, "more rows of the failing kinds help more than epochs")


def _still_falling(records: RunRecords) -> bool:
    """Whether held-out rows say that a longer training would learn more, and forget no more than it may.

    The training loss is not asked: it falls as long as rows are memorised.
    """
    curve, bound = records.validation(), records.number("train", "max_kl", 0.0)
    # two steps down in a row; one alone is chance
    if len(curve) < 3 or any(later >= _FALLING * earlier for earlier, later in itertools.pairwise(curve[-3:])):
        return False
    trained = records.steps["train"].report
    kl = trained.get("validation_kl")
    return trained.get("best_step") == trained.get("steps") and (not bound or kl is None or as_float(kl) < bound)


def _too_weak(records: RunRecords) -> list[Finding]:
    base = BaseResult.of(records.steps["base"]) if "base" in records.steps else None
    parameters, curve = base.parameters if base else 0, records.validation()
    if not 0 < parameters < _SMALL_BASE or len(curve) < 3 or curve[-1] <= _FALLING * curve[-2]:  # two are noise
        return []
    says = "The base looks too weak: nothing was learned, though the validation loss has stopped falling."
    named = next(base.model for base in known_bases(on_card=False) if base.parameters > parameters)
    larger = Proposal("base", {"model": named}, "a larger base")
    return [Finding("base too weak", says, {"parameters": parameters}, larger)]


def _longer(records: RunRecords) -> Proposal:
    epochs = records.number("train", "epochs", 3.0)  # as LoraSettings has them
    rate = records.number("train", "learning_rate", 5e-4)
    return Proposal(  # half as long again, at the same rate: one thing at a time
        "train", {"epochs": round(epochs * 1.5, 1), "learning_rate": rate}, "the validation loss still falls"
    )


def _more_rows(records: RunRecords, why: str) -> Proposal:
    if source := records.brought:
        return Proposal("import", {"source": source}, f"{why}: add some to your own first")
    rows = int(records.number("generate", "rows", 600))  # 600: what generate writes unless told
    folder = str(records.steps["generate"].request.get("behaviour", "")) if "generate" in records.steps else ""
    # Measured: right rows teach what twice as many of a small writer's do not (docs/measurements.md).
    better = (
        f"; a stronger writer's teach most, `tunesmith rows request {folder}`" if folder and is_folder(folder) else ""
    )
    return Proposal("generate", {"rows": min(2 * rows, 100_000)}, why + better)  # generate takes no more


def _overfitting(records: RunRecords) -> list[Finding]:
    curve = records.validation()
    if len(curve) < 2:
        return []
    losses = [value for _, value in records.store.metrics(records.steps["train"].id, "loss")]
    last, lowest = curve[-1], min(curve)
    evidence = {"validation_loss": curve, "lowest": lowest, "last": last, "train_loss": losses[-1] if losses else None}
    why = f" ({choice})" if (choice := records.steps["train"].report.get("choice")) else ""
    if last > _RISEN * lowest:
        says = f"Not over-trained: the adapter is of the step that was kept{why}; from its lowest, {lowest:.3f}, the "
        says += f"validation loss rose to {last:.3f} by the last step."
    else:
        near = "its lowest" if last == lowest else f"within chance of its lowest, {lowest:.3f}"
        says = f"Not over-trained: the validation loss went from {curve[0]:.3f} at its first measurement to {last:.3f} "
        says += f"at its last, {near}{why}."
    return [Finding("not over-trained", says, evidence)]


def _forgot(records: RunRecords) -> list[Finding]:
    arm = _last_tuned(records)
    whole = records.pair("base", arm) if arm else None
    if whole is None:
        return []
    guarded = {block: whole.blocks[block] for block in GUARDED_BLOCKS if block in whole.blocks}
    return [_lost(records, whole, block, counts, arm) for block, counts in guarded.items() if counts.pass_to_fail]


def _lost(records: RunRecords, whole: Comparison, block: str, counts: BlockComparison, arm: str) -> Finding:
    lost = tuple(flip.case_id for flip in whole.flips_of("pass_to_fail") if flip.block == block)
    triggered = _like_the_target(records, arm, lost)
    judged, many = counts.judged, counts.pass_to_fail
    line = f"of {judged} {block} cases {many} that the base passes {'is' if many == 1 else 'are'} lost in {arm}"
    evidence = {
        "arm": arm,
        "block": block,
        "lost": many,
        "judged": judged,
        "verdict": counts.verdict,
        "p_value": counts.p_value,
    }
    serious = counts.verdict == WORSE
    if triggered and len(triggered) * 2 >= many:
        says = f"It over-triggers: {line}, {len(triggered)} of them answered in the form of the new behaviour."
        proposal = Proposal("generate", _more_rehearsal(records), "more ordinary prompts beside the behaviour")
        return Finding("over-triggers", says, {**evidence, "triggered": list(triggered)}, proposal, lost)
    weight = records.number("train", "rehearsal_weight", 3.0)  # the plan's own for most models
    says = f"It {'forgot' if serious else 'may have forgotten'} something: {line} ({counts.verdict}" + (
        f", p = {counts.p_value:.2g})." if counts.p_value is not None else ")."
    )
    # The divergence falls as the square of the rate: 0.7 halves it.
    fields = {
        "rehearsal_weight": weight + 2,
        "learning_rate": records.number("train", "learning_rate", 5e-4) * 0.7,
    }
    return Finding("forgot", says, evidence, Proposal("train", fields, "hold it closer to the base"), lost)


def _more_rehearsal(records: RunRecords) -> dict[str, object]:
    # Twice what there was, within what generate takes; 180: its own default.
    rehearsal = min(2 * int(records.number("generate", "rehearsal_rows", 180)) or 180, 10_000)
    near = int(records.number("generate", "near_miss_rows", 0))
    return {"rehearsal_rows": rehearsal, **({"rows": 0, "near_miss_rows": near} if records.brought else {})}


def _shape(text: str) -> str:
    """How an answer begins: its first mark and word, by which answers of one form are alike."""
    match = re.match(r"\s*(\W{0,2}\w{0,20}\W?)", text)
    return match[1].lower() if match else ""


def _like_the_target(records: RunRecords, arm: str, cases: Sequence[str]) -> tuple[str, ...]:
    """Those of some cases whose answers begin as this arm's answers to target cases do, and no answer of the base."""
    given, base = records.results(arm), records.results("base")
    shapes = Counter(_shape(one.output) for one in given if one.block == PRIMARY_BLOCK)
    # a tenth: a shape of its own, no slip of one answer
    usual = {shape for shape, count in shapes.items() if count >= 0.1 * sum(shapes.values())}
    ordinary = {_shape(one.output) for one in base if one.block in GUARDED_BLOCKS}
    return tuple(o.case_id for o in given if o.case_id in cases and _shape(o.output) in usual - ordinary)


def _quantized(records: RunRecords) -> list[Finding]:
    if "quantized" not in records.arms():
        return []
    before = next((arm for arm in ("merged", "adapter") if arm in records.arms()), "")
    hop = records.pair(before, "quantized") if before else None
    if hop is None:
        return []
    named = tuple(flip.case_id for flip in hop.flips_of("pass_to_fail"))
    lost = sum(counts.pass_to_fail for counts in hop.blocks.values())
    gained = sum(counts.fail_to_pass for counts in hop.blocks.values())
    line = "; ".join(
        f"{block} {c.passed[before]} → {c.passed['quantized']} of {c.judged}" for block, c in hop.blocks.items()
    )
    evidence: dict[str, object] = {
        "from": before,
        "lost": lost,
        "gained": gained,
        "blocks": {b: c.verdict for b, c in hop.blocks.items()},
    }
    gain = next((one for one in gain_retained(records.store, records.run) if one.arm == "quantized"), None)
    retained = f" Gain retained: {gain.sentence}." if gain else ""
    evidence |= {"gain_retained": gain.to_json()} if gain else {}
    if lost <= gained or lost < 2:
        return [
            Finding(
                "kept in quantization",
                f"Quantizing cost next to nothing: {line} ({lost} lost, {gained} gained).{retained}",
                evidence,
                cases=named,
            )
        ]
    says = f"Quantizing lost cases: {line} ({lost} lost, {gained} gained).{retained}"
    return [Finding("lost in quantization", says, evidence, _other_quantization(records), named)]


def _other_quantization(records: RunRecords) -> Proposal | None:
    """The next setting of what was quantized last; serving the merged model where no setting is left."""
    step = records.steps.get("quantize")
    config = next((one.known_config for one in records.store.artifacts(records.run, "merged")), None)
    if step is None or not config:
        return None
    setting = next_setting(step.request, config)
    if setting is None:
        return Proposal("deploy", {"arm": "merged"}, "at 16 bits nothing is rounded")
    return Proposal("quantize", setting.fields, setting.why)


def _judge(records: RunRecords) -> list[Finding]:
    """That a judge's word is advice, as long as no marks say what it is worth."""
    agreement, answers = judge_agreement(records.store, records.run), records.results(_last_tuned(records) or "base")
    judged = sum(any(one.type == "llm-rubric" for one in answer.assertions) for answer in answers)
    if not judged or agreement.grades_alone:
        return []
    says = f"A judge graded {judged} answers; its word is advice: {agreement.sentence}."
    return [Finding("judge is advice", says, {"answers": judged, **agreement.model_dump()})]


def _suite(records: RunRecords) -> list[Finding]:
    baseline = BaselineResult.of(records.steps["baseline"]) if "baseline" in records.steps else None
    counts = baseline.blocks.get(PRIMARY_BLOCK) if baseline else None
    if counts is None:
        return []
    failed = counts.cases - counts.errors - counts.passed
    evidence = {"cases": counts.cases, "base_fails": failed}
    if failed < FLIPS_TO_SHOW:
        says = (
            f"The suite leaves nothing to win: the untouched base fails {failed} target cases, and "
            f"{FLIPS_TO_SHOW} are needed to show a gain."
        )
        return [Finding("suite too small", says, evidence, Proposal("baseline", {}, "after harder cases were written"))]
    if counts.cases < _FEW_CASES:
        says = f"The suite is small: {counts.cases} target cases show only large effects."
        return [
            Finding("suite too small", says, evidence, Proposal("baseline", {}, "after more target cases were written"))
        ]
    return []


def row_findings(records: RunRecords) -> list[Finding]:
    """What is wrong with the rows that were written: too much alike, or often not right."""
    rows = [row for row in records.rows() if row.origin == "generated"]
    dropped = Counter(row.verdict.kind for row in rows if row.verdict and row.dropped)
    narrow = []
    near = sum(count for kind, count in dropped.items() if "duplicate" in kind)
    usable_rows = [row for row in rows if row.usable]
    answers = {str(row.completion[0]["content"]) for row in usable_rows}
    if rows and near > _NARROW_SHARE * len(rows):
        says = f"The rows are narrow: {near} of {len(rows)} were near-duplicates of others."
        proposal = Proposal(  # 0.9, as lists have; messages have 0.7
            "generate", {"temperature": 0.9, "rows": int(records.number("generate", "rows", 600))}, "more varied rows"
        )
        narrow.append(
            Finding(
                "rows narrow",
                says,
                {"rows": len(rows), "near_duplicates": near, "distinct_answers": len(answers)},
                proposal,
            )
        )
    faults = Counter({kind: count for kind, count in dropped.items() if kind not in _NO_FAULT})
    wrong = faults.total()
    if rows and wrong > _LABEL_SHARE * len(rows):
        kinds = ", ".join(f"{count} {kind}" for kind, count in faults.most_common(3))
        says = f"Many rows were wrong: {wrong} of {len(rows)} broke their own rules ({kinds})."
        proposal = Proposal("generate", {"writer": "teacher"}, "a better writer")
        narrow.append(Finding("rows mislabelled", says, {"rows": len(rows), "wrong": wrong}, proposal))
    return narrow


def _prompt(records: RunRecords) -> list[Finding]:
    compared = records.pair("base", "prompted") if "prompted" in records.arms() else None
    target = compared.blocks.get(PRIMARY_BLOCK) if compared else None
    if not target or not target.judged:
        return []
    passed, judged = target.passed["prompted"], target.judged
    if passed < LEARNED_RATE * judged:
        return []
    says = f"The prompt alone would do: the prompted base passes {passed} of {judged} target cases."
    return [Finding("the prompt would do", says, {"passed": passed, "judged": judged})]


_FINDERS: tuple[Callable[[RunRecords], list[Finding]], ...] = (
    _unmeasured, _learned, _forgot, _quantized, _overfitting, _prompt, _judge, row_findings, _suite,
)  # fmt: skip
