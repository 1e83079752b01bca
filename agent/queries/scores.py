"""What passed: every arm's score on every block by its newest finished evaluation, and the whole chain of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tunesmith.agent.queries.answer import Answer, Context, clip, find, named, shortened
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, RunName, TabledQuery
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound, TunesmithError
from tunesmith.memory.records import DONE, EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed, size
from tunesmith.tools.evaluation.comparison import BlockComparison
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.retained import gain_retained
from tunesmith.tools.evaluation.verdict import LEARNED, LEARNED_RATE, Verdict, least_right
from tunesmith.tools.suites.case import BLOCKS, PRIMARY_BLOCK

TUNED = ("adapter", "merged", "quantized")


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one arm on one block; an error is no failure and outside the rate."""

    run: str
    arm: str
    block: str
    step: str
    passed: int
    judged: int
    errors: int

    @property
    def rate(self) -> float:
        """The share that passed of those that were judged."""
        return self.passed / self.judged if self.judged else 0.0

    def __str__(self) -> str:
        share = f" ({self.rate:.0%})" if self.judged else ""
        erred = f", {self.errors} error{'s' if self.errors > 1 else ''}" if self.errors else ""
        return f"{self.passed} of {self.judged}{share}{erred}"


def evaluated_run(context: Context, name: str, *, arm: str = "") -> Run:
    """The run that is meant: where none is named, the newest with measured answers. Raises NotFound."""
    if name:
        return find(context.store, name)
    tuned = "arm IN ('adapter', 'merged', 'quantized')"
    for wanted in ["1"] if arm == "base" else [tuned, "1"]:
        for run in context.runs():
            if context.store.read(f"SELECT 1 FROM eval_results WHERE run = ? AND {wanted} LIMIT 1", run.id):
                return run
    raise NotFound("Nothing was measured yet: no run has a baseline or an evaluation.")


def arms_measured(store: Store, run: str) -> list[str]:
    """The arms with answers, in the order of the pipeline."""
    return [arm for arm in ARMS if step_of(store, run, arm)]


def unmeasured(store: Store, run: Run, arm: str, block: str = "") -> NotFound:
    """The error of an arm without answers, with the arms that have some."""
    arms, of = listed(arms_measured(store, run.id), 8) or "none", f" on the {block} block" if block else ""
    return NotFound(f"{run.id} has no answers of the {arm} arm{of}; measured arms: {arms}.")


def last_arm(store: Store, run: str) -> str:
    """The last tuned arm that was measured, else the last measured one, else the adapter."""
    arms = arms_measured(store, run)
    return ([arm for arm in arms if arm in TUNED] or arms or ["adapter"])[-1]


def step_of(store: Store, run: str, arm: str, suite: str = "") -> str:
    """The newest finished step that holds answers of an arm, to the cases of `suite` where one is named; else empty.

    The base's own are those that stand beside the tuned arm, as `compare` takes them.
    """
    return next((step for step in _steps(store, run, arm) if not suite or suite_of(store, step) in ("", suite)), "")


def _steps(store: Store, run: str, arm: str = "") -> list[str]:
    """The finished steps with answers of an arm, or of any tuned one, the newest first."""
    arms = "e.arm = ?" if arm else "e.arm IN ('adapter', 'merged', 'quantized') AND ? = ''"
    rows = store.read(
        "SELECT DISTINCT e.step FROM eval_results e JOIN steps s ON s.step = e.step AND s.status = ?"
        f" WHERE e.run = ? AND {arms} ORDER BY CAST(substr(e.step, 2) AS INTEGER) DESC",
        DONE,
        run,
        arm,
    )
    return [str(row["step"]) for row in rows]


def suite_of(store: Store, step: str) -> str:
    """The suite whose cases a step asked: the one that it was given, or made; empty for no step."""
    if not step:
        return ""
    one = store.step(step)
    own = (artifact.id for artifact in store.artifacts(one.run, "suite") if artifact.step == step)
    return one.inputs.get("suite") or next(own, "")


def results(store: Store, run: str, arm: str, suite: str = "") -> list[EvalResult]:
    """The newest answers of an arm, to a suite where one is named, one a case: of repeats the one with the verdict."""
    step = step_of(store, run, arm, suite)
    by_case: dict[str, list[EvalResult]] = {}
    for result in store.results(step, arm) if step else []:
        by_case.setdefault(result.case_id, []).append(result)
    return [_reduced(given) for given in by_case.values()]


def _reduced(given: list[EvalResult]) -> EvalResult:
    answered = [one for one in given if one.passed is not None]
    passed = sum(bool(one.passed) for one in answered) * 2 > len(answered)
    return next((one for one in answered if one.passed == passed), given[0])


def of_run(store: Store, run: str) -> list[Score]:
    """Every score of a run, block by block in the order of the arms.

    All to the cases of one suite: that of the newest evaluation of a tuned arm, with which counts can be compared. An
    arm that was never asked these has its own.
    """
    newest = next((suite_of(store, step) for step in _steps(store, run)), "")
    suites = {arm: newest if step_of(store, run, arm, newest) else "" for arm in ARMS}
    answered = {arm: results(store, run, arm, suites[arm]) for arm in ARMS}
    scores = []
    for block in BLOCKS:
        for arm, given in answered.items():
            of_block = [one for one in given if one.block == block]
            judged = [one for one in of_block if one.passed is not None]
            passed, errors = sum(bool(one.passed) for one in judged), len(of_block) - len(judged)
            step = step_of(store, run, arm, suites[arm]) if of_block else ""
            scores += [Score(run, arm, block, step, passed, len(judged), errors)] if of_block else []
    return scores


def retained_sentence(store: Store, run: str, arm: str) -> str:
    """What a merged or quantized model kept of what the adapter won, in passed cases; else empty."""
    if arm not in ("merged", "quantized"):
        return ""
    retained = next((one for one in gain_retained(store, run) if one.arm == arm), None)
    return f"{arm} keeps {retained.passed} of the {retained.won} target cases that the adapter won." if retained else ""


def verdict_of(counts: BlockComparison) -> str:
    """The verdict on a block, with what was gained and lost, and how likely chance does that."""
    p = counts.p_value
    chance = "" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.2g}"
    return f"{counts.verdict} ({counts.fail_to_pass} gained, {counts.pass_to_fail} lost{chance})"


# What is asked of them


class ResultQuery(TabledQuery):
    """What a run's models pass of the test cases, whether it got better, how sure that is; how fast they answer."""

    kind: Literal["result"] = "result"
    about: Literal["passed", "speed", "enough"] = "passed"
    run: RunName = ""
    arm: AnyArm = ""
    block: AnyBlock = ""


@dataclass(frozen=True, slots=True)
class Speed:
    """The median answer of an arm in its newest evaluation, where many are asked for at once."""

    arm: str
    seconds: float
    tokens: float


def answer(query: ResultQuery, context: Context) -> Answer:
    """What passed, as far as arm and block were named. Raises NotFound where nothing was measured."""
    from tunesmith.agent.commands.summary import summarise, summary_view

    store = context.store
    run = evaluated_run(context, query.run, arm=query.arm)
    if query.about == "speed":
        return _speeds(store, run)
    if query.about == "enough":
        return _enough(store, run, query.arm)
    measured = of_run(store, run.id)
    chosen = [s for s in measured if query.arm in ("", s.arm) and query.block in ("", s.block)]
    if not chosen:
        return not_measured(run, measured, query.arm, query.block)
    if query.arm:
        each = "; ".join(f"{s} {s.block} cases" for s in chosen)
        others = "; ".join(f"{s.arm} {s}" for s in measured if s.block == query.block and s.arm != query.arm)
        lines = [f"{query.arm} passes {each} in {named(run)} ({chosen[0].step})."]
        lines += [f"The other arms: {others}."] if others else []
        lines += [_against_base(store, run.id, query.arm, query.block)] if query.arm != "base" else []
    else:
        lines = [] if query.block else verdict_lines(store, run)[:2]
        for block in dict.fromkeys(s.block for s in chosen if not lines or s.block != "target"):  # the verdict has it
            lines.append(f"{block} in {run.id}: " + "; ".join(f"{s.arm} {s}" for s in chosen if s.block == block))
        tuned = [s.arm for s in chosen if s.arm != "base"]
        lines += [_against_base(store, run.id, tuned[-1], query.block)] if query.block and tuned else []
        lines += verdict_lines(store, run)[1:2] if query.block == PRIMARY_BLOCK else []  # what *learned* takes of it
    return Answer(tuple(line for line in lines if line), tuple(chosen), lambda: summary_view(summarise(store, run.id)))


def _enough(store: Store, run: Run, arm: str) -> Answer:
    """The verdict on an arm, what *learned* takes, and how many cases are lacking."""
    of_base = "That is the base, as it is before any training; what counts is what the tuned model has right beside it."
    if not (lines := how_far(store, run, arm)):
        return Answer((f"{named(run)}: nothing tuned was measured on cases of people yet, so that cannot be told.",))
    return Answer((*[of_base] * (arm == "base"), *lines))


def how_far(store: Store, run: Run, arm: str = "", *, learned: bool = True) -> list[str]:
    """How far an arm, else the last, is from *learned*; empty: unknown, or it is and `learned` is not asked."""
    arm = arm if arm in TUNED else next((s.arm for s in reversed(of_run(store, run.id)) if s.arm in TUNED), "")
    verdict = evidence_of(store, run.id, arm).verdict if arm else None
    if verdict is None or not (verdict.people and verdict.people.cases and (learned or verdict.word != LEARNED)):
        return []
    people, least = verdict.people, least_right(verdict.people.cases, verdict.opening)
    takes = f"learned takes {least} of {people.cases}" if least is not None else f"{people.cases} cases are too few"
    lacks = max(0, (least or 0) - people.arm)
    enough = "more cases of people would be needed" if least is None else "that is enough of them"
    short = f"{count(lacks, 'case')} more would be needed" if lacks else enough
    return [
        f"{named(run)}, {arm}: {verdict.word}. It has {people.arm} of {people.cases} target cases right, the base "
        f"{people.base}; {takes} ({LEARNED_RATE:.0%} of them), so {short}.",
        *[f"{clip(verdict.sentence, 400)}."] * (verdict.word != LEARNED),
    ]


def _speeds(store: Store, run: Run) -> Answer:
    speeds = []
    for arm in ARMS:
        answers = [one for one in results(store, run.id, arm) if one.completion_tokens]
        if answers:
            seconds = median(one.latency_ms for one in answers) / 1000
            speeds.append(Speed(arm, seconds, median(one.completion_tokens for one in answers)))
    if not speeds:
        return Answer((f"{run.id} has no measured answers whose time is known.",))
    each = "; ".join(f"{one.arm} {one.seconds:.1f} s for {one.tokens:.0f} tokens" for one in speeds)
    note = "Measured with many questions at once, so one alone is answered sooner."
    return Answer((f"An answer took in the middle, in {run.id}: {each}.", note), tuple(speeds))


def verdict_lines(store: Store, run: Run) -> list[str]:
    """The verdict on the last arm, what passed of the target arm by arm, and what became of the general block."""
    measured = of_run(store, run.id)
    target = [s for s in measured if s.block == "target"]
    tuned = [s for s in target if s.arm in TUNED]
    base = next((s for s in target if s.arm == "base"), None)
    if not target:
        return []
    if not tuned:
        return [f"{named(run)}: nothing tuned was measured yet; the base passes {target[0]} target cases."]
    arm = tuned[-1].arm
    verdict = evidence_of(store, run.id, arm).verdict
    passed = ", ".join(f"{s.arm} {s}" for s in tuned)
    general = [f"{s.arm} {s.passed} of {s.judged}" for s in measured if s.block == "general"]
    return [
        f"{named(run)}, {arm}: {verdict.word}; of all target cases pass: base {base or '–'}, {passed}.",
        f"The claim for its {arm} model: {shortened(verdict.sentence, 500)}.{_takes(verdict)}",
        *([f"General block: {', '.join(general)}."] if general else []),
    ]


def _takes(verdict: Verdict) -> str:
    """What *learned* takes, with a space before it, where the verdict does not say so itself."""
    threshold = verdict.threshold
    return "" if not threshold or threshold in verdict.sentence else f" {threshold[0].upper()}{threshold[1:]}."


def passed_by(store: Store, run: str, arm: str) -> str:
    """What an arm passes of every block, in a clause; empty where it was not tested."""
    return "; ".join(f"{s.block} {s}" for s in of_run(store, run) if s.arm == arm)


def in_short(store: Store, run: Run, arm: str = "") -> str:
    """What came of a run in a clause, by an arm, else its last that was tested: the verdict, what passes, and how large
    that model is; empty where no tuned arm was tested."""
    measured = [s for s in of_run(store, run.id) if arm in ("", s.arm) or s.arm == "base"]
    arms = [s.arm for s in measured if s.arm in TUNED and s.block == PRIMARY_BLOCK]
    if not arms:
        return ""
    verdict = evidence_of(store, run.id, arms[-1]).verdict
    base = {s.block: s.passed for s in measured if s.arm == "base"}
    each = ", ".join(
        f"{s.block} {s.passed} of {s.judged}{f' (base {base[s.block]})' if s.block in base else ''}"
        for s in measured if s.arm == arms[-1] and s.block in (PRIMARY_BLOCK, "general")
    )  # fmt: skip
    model = store.artifacts(run.id, arms[-1])[-1:]
    weighs = f", {size(model[0].bytes)}" if model else ""
    takes = f"; {verdict.threshold}" if verdict.word != LEARNED and verdict.threshold else ""
    return f"{arms[-1]}{weighs}, {verdict.word}: {each}{takes}"


def failing(store: Store, run: Run, few: float = 0.0) -> str:
    """What the last tuned arm fails of each block; empty where it fails nothing, or few of the target cases: at most
    such a share."""
    measured = of_run(store, run.id)
    tuned = [s for s in measured if s.arm in TUNED and s.block == PRIMARY_BLOCK][-1:]
    of_arm = [s for s in measured if tuned and s.arm == tuned[0].arm and s.passed < s.judged]
    each = "; ".join(f"{s.judged - s.passed} of {s.judged} {s.block} cases" for s in of_arm)
    told = each and tuned[0].rate < 1 - few
    return f"Its {tuned[0].arm} model fails {each}; “which cases fail?” shows the open ones." if told else ""


def not_measured(run: Run, measured: Sequence[Score], arm: str, block: str) -> Answer:
    """That a run has no results of an arm on a block, and those that it has."""
    arms = listed(list(dict.fromkeys(s.arm for s in measured)), 8) or "none"  # a line; all there are
    blocks = listed(list(dict.fromkeys(s.block for s in measured)), 8) or "none"
    of, on = f" of the {arm} arm" if arm else "", f" on the {block} block" if block else ""
    return Answer((f"{run.id} has no results{of}{on}; measured are: arms {arms}; blocks {blocks}.",))


def _against_base(store: Store, run: str, arm: str, block: str = "") -> str:
    """An arm against the base in a line: what was gained and lost, whether chance explains it; empty where one of them
    was not measured."""
    try:
        compared = compare_run(store, run, "base", arm)
    except TunesmithError:
        return ""
    if not compared.comparable:
        return f"base → {arm} are not comparable: {clip(compared.refused or ', '.join(compared.differs_in), 160)}"
    verdicts = [f"{name} {verdict_of(counts)}" for name, counts in compared.blocks.items() if block in ("", name)]
    return f"base → {arm}: {'; '.join(verdicts)}." if verdicts else ""
