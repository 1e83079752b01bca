"""What passed: an arm's score on a block, or the whole chain of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from rich.console import Group, RenderableType

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, AnyArm, AnyBlock, Context, Query, RunName, clip, named
from tunesmith.agent.queries.comparisons import in_a_sentence
from tunesmith.agent.queries.scores import Score
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.pairing import compare_run


class ResultQuery(Query):
    """What a run's models pass of the test cases, whether it got better, how sure that is; how fast they answer."""

    kind: Literal["result"] = "result"
    about: Literal["passed", "speed"] = "passed"
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
    run = scores.evaluated_run(context, query.run, arm=query.arm)
    if query.about == "speed":
        return _speeds(store, run)
    measured = scores.of_run(store, run.id)
    chosen = [s for s in measured if query.arm in ("", s.arm) and query.block in ("", s.block)]
    if not chosen:
        return _not_measured(run, measured, query.arm, query.block)

    def page() -> RenderableType:
        return Group(summary_view(summarise(store, run.id)))

    if query.arm and query.block:
        lines = _one_score(store, chosen[0], measured)
    elif query.arm:
        of_blocks = "; ".join(f"{s.block} {s}" for s in chosen)
        lines = [f"{named(run)}, {query.arm}: {of_blocks} ({chosen[0].step})."]
        lines += [_against_base(store, run.id, query.arm)] if query.arm != "base" else []
    else:
        lines = [] if query.block else verdict_lines(store, run)[:2]
        for block in dict.fromkeys(s.block for s in chosen if not lines or s.block != "target"):  # the verdict has it
            lines.append(f"{block} in {run.id}: " + "; ".join(f"{s.arm} {s}" for s in chosen if s.block == block))
        tuned = [s.arm for s in chosen if s.arm != "base"]
        lines += [_against_base(store, run.id, tuned[-1], query.block)] if query.block and tuned else []
    return Answer(tuple(line for line in lines if line), tuple(chosen), page)


def _speeds(store: Store, run: Run) -> Answer:
    found = []
    for arm in ARMS:
        answers = [one for one in scores.results(store, run.id, arm) if one.completion_tokens]
        if answers:
            seconds = median(one.latency_ms for one in answers) / 1000
            found.append(Speed(arm, seconds, median(one.completion_tokens for one in answers)))
    if not found:
        return Answer((f"{run.id} has no measured answers whose time is known.",))
    each = "; ".join(f"{one.arm} {one.seconds:.1f} s for {one.tokens:.0f} tokens" for one in found)
    note = "Measured with many questions at once, so one alone is answered sooner."
    return Answer((f"An answer took in the middle, in {run.id}: {each}.", note), tuple(found))


def verdict_lines(store: Store, run: Run) -> list[str]:
    """The verdict on the last arm, what passed of the target arm by arm, and what became of the general block."""
    measured = scores.of_run(store, run.id)
    target = [s for s in measured if s.block == "target"]
    tuned = [s for s in target if s.arm in scores.TUNED]
    base = next((s for s in target if s.arm == "base"), None)
    if not target:
        return []
    if not tuned:
        return [f"{named(run)}: nothing tuned was measured yet; the base passes {target[0]} target cases."]
    arm = tuned[-1].arm
    found = evidence_of(store, run.id, arm).verdict
    passed = ", ".join(f"{s.arm} {s}" for s in tuned)
    general = [f"{s.arm} {s.passed} of {s.judged}" for s in measured if s.block == "general"]
    return [
        f"{named(run)}, {arm}: {found.word}; of all target cases pass: base {base or '–'}, {passed}.",
        f"The claim for its {arm} model: {clip(found.sentence, 500)}.",
        *([f"General block: {', '.join(general)}."] if general else []),
    ]


def _not_measured(run: Run, measured: Sequence[Score], arm: str, block: str) -> Answer:
    arms = listed(list(dict.fromkeys(s.arm for s in measured)), 8) or "none"
    blocks = listed(list(dict.fromkeys(s.block for s in measured)), 8) or "none"
    what = " ".join(part for part in (arm and f"the {arm} arm", block and f"on the {block} block") if part)
    return Answer((f"{run.id} has no results of {what or 'any arm'}; measured are: arms {arms}; blocks {blocks}.",))


def _one_score(store: Store, score: Score, measured: Sequence[Score]) -> list[str]:
    others = "; ".join(f"{s.arm} {s}" for s in measured if s.block == score.block and s.arm != score.arm)
    return [
        f"{score.arm} passes {score} {score.block} cases in {score.run} ({score.step}).",
        f"The other arms: {others}." if others else "",
        _against_base(store, score.run, score.arm, score.block) if score.arm != "base" else "",
    ]


def _against_base(store: Store, run: str, arm: str, block: str = "") -> str:
    """An arm against the base in a line; empty where they cannot be compared."""
    try:
        return in_a_sentence(compare_run(store, run, "base", arm), block)
    except TunesmithError:
        return ""
