"""What is set against each other: two arms, and two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field
from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.queries import scores, settings
from tunesmith.agent.queries.answer import Answer, Context, clip, find, named, ordinary
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Recorded, RunName, StageName, TabledQuery
from tunesmith.agent.queries.cases import asked_of_both, passed_and_failed
from tunesmith.agent.queries.curves import lines_of
from tunesmith.agent.queries.described import asked_by, cases_of
from tunesmith.agent.queries.facts import Proposed
from tunesmith.agent.queries.prices import not_tested
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, listed, p_value, size
from tunesmith.tools.core.stats import ALPHA, mcnemar_exact
from tunesmith.tools.evaluation.comparison import BlockComparison, Comparison
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.suites.case import BLOCKS, PRIMARY_BLOCK


class CompareQuery(TabledQuery):
    """Two arms of one run against each other, case by case: counts, exact tests, what was gained and lost."""

    kind: Literal["compare"] = "compare"
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="The arm it is set against; empty: base")] = ""
    run: RunName = ""
    block: AnyBlock = ""
    about: Annotated[Literal["all", "where"], Field(description="where: first in which blocks they differ")] = "all"


class CompareRunsQuery(TabledQuery):
    """Two runs against each other: results, which of them forgot more, settings that differ, time, the test cases that
    they were asked, or those that the first passes and the other fails."""

    kind: Literal["compare_runs"] = "compare_runs"
    about: Literal["results", "forgotten", "settings", "time", "suites", "cases", "choice", "why"] = "results"
    run: RunName = ""
    other_run: Annotated[Recorded, Field(description="The other run; empty: the one before")] = ""
    stage: Annotated[StageName, Field(description="For time: one stage alone")] = ""
    arm: Annotated[AnyArm, Field(description="For cases")] = ""
    block: Annotated[AnyBlock, Field(description="For results and cases: one block alone")] = ""


@dataclass(frozen=True, slots=True)
class RunTime:
    """How long the finished steps of a run took, of one stage or of all."""

    run: str
    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Of the cases of other blocks than the target that a run's base passes: how many its newest model fails."""

    run: str
    arm: str
    passed_by_base: int
    lost: int

    def __str__(self) -> str:
        return f"{self.arm} lost {self.lost} of the {self.passed_by_base} that its base passes"


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting in which two runs differ."""

    setting: str
    value: str
    other_value: str


# Two arms


def compare(query: CompareQuery, context: Context) -> Answer:
    """Two arms of a run. Raises NotFound where one was not measured."""
    store = context.store
    run = scores.evaluated_run(context, query.run)
    later = query.arm or scores.last_arm(store, run.id)
    a, b = sorted((query.other_arm or ("base" if later != "base" else "adapter"), later), key=ARMS.index)
    a, unmeasured = _nearest_measured(store, run, a, b)
    try:
        compared = compare_run(store, run.id, a, b)
    except NotFound:
        if untested := _untested(context, run, (a, b)):
            return untested
        arms = listed(scores.arms_measured(store, run.id), 8) or "none"  # a line; all arms are fewer
        raise NotFound(f"{run.id} cannot compare {a} with {b}: measured arms are {arms}.") from None
    lines = [f"{named(run)}, {a} → {b}{unmeasured}:"]
    if not compared.comparable:
        lines.append(f"not comparable: {clip(compared.refused or ', '.join(compared.differs_in), 200)}")
    of_block = {name: counts for name, counts in compared.blocks.items() if query.block in ("", name)}
    if compared.comparable and not of_block:
        return scores.not_measured(run, scores.of_run(store, run.id), "", query.block)
    for block, counts in of_block.items():
        n, passed = counts.judged, counts.passed
        lines.append(f"  {block}: {a} {passed[a]} of {n}, {b} {passed[b]} of {n}: {scores.verdict_of(counts)}")
    if query.about == "where":
        lines.insert(0, _where(of_block, a, b))
    lines += [_lost_cases(compared, query.block)] if any(c.pass_to_fail for c in compared.blocks.values()) else []
    lines += [] if query.block else [scores.retained_sentence(store, run.id, b), _on_disk(store, run, (a, b))]
    facts = tuple(
        {"block": name, "arm": b, "other_arm": a, "passed": one.passed[b], "passed_by_other": one.passed[a],
         "gained": one.fail_to_pass, "lost": one.pass_to_fail, **picked(one, "judged", "p_value", "verdict")}
        for name, one in of_block.items()
    )  # fmt: skip
    return Answer(tuple(line for line in lines if line), facts, lambda: render.comparison_table(compared))


def _on_disk(store: Store, run: Run, arms: Sequence[str]) -> str:
    """How large two whole models are; empty where one of them is none, as an adapter is, or is not there."""
    made = {arm: store.artifacts(run.id, arm)[-1:] for arm in arms if arm in ("base", "merged", "quantized")}
    each = [f"{arm} {size(one[0].bytes)}" for arm, one in made.items() if one]
    return f"On disk: {', '.join(each)}." if len(each) == len(arms) else ""


def _where(of_block: Mapping[str, BlockComparison], a: str, b: str) -> str:
    """In which blocks the later arm passes fewer cases, in which more, and by how many."""
    by = {name: counts.passed[b] - counts.passed[a] for name, counts in of_block.items()}
    less, more = ([f"{name} (by {abs(n)})" for name, n in by.items() if n * sign > 0] for sign in (-1, 1))
    return (f"{b} passes fewer than {a} in {listed(less, 9) or 'no block'}, more in {listed(more, 9) or 'none'}; "
            f"what the tests say to that:")  # fmt: skip


def _untested(context: Context, run: Run, arms: Sequence[str]) -> Answer | None:
    """That a model which is there was not tested, and what that takes; None where every one was, or is not there."""
    measured = scores.arms_measured(context.store, run.id)
    arm = next((arm for arm in arms if arm not in measured and context.store.artifacts(run.id, arm)), "")
    if not arm:
        return None
    line = not_tested(context.ws, run.id, arm)
    return Answer((line,), proposals=(Proposed(run.id, "evaluate", {"arm": arm}),))


def _nearest_measured(store: Store, run: Run, a: str, b: str) -> tuple[str, str]:
    """The earlier arm, or where it was not measured the last one before it that was, and what to say of that."""
    measured = scores.arms_measured(store, run.id)
    before = [arm for arm in ARMS[: ARMS.index(a)] if arm in measured and arm != "prompted"]
    if a in measured or b not in measured or not before:
        return a, ""
    return before[-1], f" (the {a} model was not measured)"


def _lost_cases(compared: Comparison, block: str) -> str:
    lost = [flip.case_id for flip in compared.flips_of("pass_to_fail") if block in ("", flip.block)]
    of_block = [counts for name, counts in compared.blocks.items() if block in ("", name)]
    gained = sum(counts.fail_to_pass for counts in of_block)
    if blind := sum(counts.pass_to_fail for counts in of_block) - len(lost):
        lost = [*lost[:6], count(blind, "blind case")]
    # seven names are a line or two
    return f"Lost: {listed([clip(one, 40) for one in lost], 7)}; {count(gained, 'case')} gained." if lost else ""


# Two runs


_MAKE_A_SUITE = ("suites", "cases_per_block", "behaviour", "held_out")
"""Settings that decide which cases a run is asked."""


def compare_runs(query: CompareRunsQuery, context: Context) -> Answer:
    """Two runs. Raises NotFound where there is but one."""
    store, (one, two) = context.store, _pair(query, context)
    if one.id == two.id:
        raise NotFound(f"{one.id} and {two.id} are the same run; name two.")
    if query.about == "cases":
        return passed_and_failed(context, one, two, arm=query.arm, block=query.block)
    if query.about == "suites":
        of_both = settings.differing(store, one, two)
        own = {name: pair for name, pair in of_both.items() if name.rpartition(".")[2] in _MAKE_A_SUITE}
        each = "; ".join(f"{name} {a} / {b}" for name, (a, b) in own.items())
        suites, of_block = asked_of_both(store, one, two), _results(store, one, two, query.block) if query.block else []
        decides = [f"What decides it differs: {clip(each, 300)}."] if own else []
        return replace(suites, lines=(*suites.lines, *of_block, *decides))
    if query.about == "forgotten":
        return forgot_more(store, one, two, query.block)
    if query.about == "choice":
        return _choice(store, one, two)
    if query.about == "time":
        return _times(store, (one, two), query.stage)
    differing = [Difference(name, a, b) for name, (a, b) in settings.differing(store, one, two).items()]
    each = clip("; ".join(f"{one.setting} {one.value} / {one.other_value}" for one in differing), 300)
    lines = [f"  they differ in {len(differing)} settings: {each}"] if differing else []
    if query.about == "why":
        trained = [step for run in (one, two) for step in store.steps(run.id, status=DONE) if step.stage == "train"]
        losses = [line for step in trained for line in lines_of(store, step)[:1]]
        first = f"{one.id} and {two.id}: {lines[0].strip() if lines else 'their settings are the same'}."
        lines = [first, *losses, "Which of that made a difference is a guess until one thing alone is changed."]
    elif query.about == "settings":
        first = lines[0].strip() if lines else "Their settings are the same."
        lines = [f"{one.id} and {two.id}: {first}", *_results(store, one, two)]
    else:
        seconds = {run.id: sum(step.seconds or 0 for step in store.steps(run.id)) for run in (one, two)}
        took = ", ".join(f"{run} {duration(seconds)}" for run, seconds in seconds.items())
        rest = [] if query.block else [f"  worked on in all, failed steps too: {took}", *lines]
        _, better = better_run(store, one, two, query.block or PRIMARY_BLOCK)
        lines = [f"{named(one, 30)} and {named(two, 30)}: {better}", *_results(store, one, two, query.block), *rest]
    data = (*differing, *scores.of_run(store, one.id), *scores.of_run(store, two.id))
    return Answer(tuple(lines), data, lambda: _page(store, one, two, query, differing))


def _choice(store: Store, one: Run, two: Run) -> Answer:
    """Which of two runs to take: by the target cases that both were asked, where a test tells them apart; else what is
    left to choose by."""
    winner, better = better_run(store, one, two, PRIMARY_BLOCK)
    forgot = forgot_more(store, one, two).lines[0]
    if winner:
        return Answer((f"Rather {winner}: {better}", forgot), run=winner)
    sizes = {run.id: {a.kind: a.bytes for a in store.artifacts(run.id)} for run in (one, two)}
    each = []
    for run in (one, two):
        newest = scores.last_arm(store, run.id)
        of = f", {size(sizes[run.id][newest])}" if newest in sizes[run.id] else ""
        each.append(
            f"{run.id} {newest}{of}, {duration(sum(step.seconds or 0 for step in store.steps(run.id)))} of work"
        )
    return Answer((f"The tests do not choose between them: {better}", forgot, f"What is left: {'; '.join(each)}."))


def _page(store: Store, one: Run, two: Run, query: CompareRunsQuery, differing: Sequence[Difference]) -> RenderableType:
    """What passes block by block, and every setting that differs; of the settings alone, these alone."""
    rows = [[each.setting, each.value, each.other_value] for each in differing]
    settings_table = render.rows_table(["setting", one.id, two.id], rows, exact=True)
    if query.about == "settings":
        return settings_table
    scored = {run.id: {(s.block, s.arm): str(s) for s in scores.of_run(store, run.id)} for run in (one, two)}
    measured = [(block, arm) for block in BLOCKS for arm in ARMS if query.block in ("", block)]
    results = [[*key, *(scored[run.id].get(key, "–") for run in (one, two))] for key in measured
               if any(key in of_run for of_run in scored.values())]  # fmt: skip
    return Group(render.rows_table(["block", "arm", one.id, two.id], results, exact=True), settings_table)


def better_run(store: Store, one: Run, two: Run, block: str) -> tuple[str, str]:
    """The run whose newest model passes more of the cases of a block that both were asked in the same words, by an
    exact paired test, and that in words; no run where the test tells none apart."""
    first, second = (_passed(store, run, (block,)) for run in (one, two))
    both = [(first[case], second[case]) for case in first if case in second]
    if not both:
        return "", f"{one.id} and {two.id} were asked no {block} case in common, so no test tells which is better."
    verdict, p = _told_apart(both, one, two, "is better")
    winner = next((run.id for run in (one, two) if verdict.startswith(f"{run.id} ")), "")
    return winner, (
        f"of {count(len(both), f'{block} case')} that both were asked {one.id}'s newest model passes "
        f"{sum(a for a, _ in both)} and {two.id}'s {sum(b for _, b in both)}: {verdict} ({p_value(p)})."
    )


Verdicts = Mapping[tuple[str, str], bool]
"""Case, by its id and its words → whether it passes."""


def _passed(store: Store, run: Run, blocks: Sequence[str], arm: str = "") -> Verdicts:
    """What the newest model of a run passes, or another arm of the same cases; without those in an error."""
    last = scores.last_arm(store, run.id)
    suite = scores.suite_of(store, scores.step_of(store, run.id, last))
    cases, given = cases_of(store, run.id, suite), scores.results(store, run.id, arm or last, suite)
    return {
        (r.case_id, asked_by(cases.get(r.case_id))): r.passed
        for r in given if r.block in blocks and r.passed is not None
    }  # fmt: skip


def _told_apart(both: Sequence[tuple[bool, bool]], one: Run, two: Run, does: str) -> tuple[str, float]:
    """Which of two runs has more of what is true of a case, by an exact paired test; and its p."""
    only_one, only_two = both.count((True, False)), both.count((False, True))
    p = mcnemar_exact(only_two, only_one)
    return (f"{(two if only_two > only_one else one).id} {does}" if p < ALPHA else "no difference is shown"), p


KEPT = tuple(block for block in BLOCKS if block in ("general", "tools"))
"""Blocks of what a model could do before."""


def lost_of(store: Store, run: Run, blocks: Sequence[str]) -> tuple[Forgotten, Verdicts]:
    """How many cases a run forgot, and of each that its base and its newest model were asked whether it did."""
    base, newest = _passed(store, run, blocks, "base"), _passed(store, run, blocks)
    lost = {case: base[case] and not passed for case, passed in newest.items() if case in base}
    passed_by_base = sum(base[case] for case in lost)
    return Forgotten(run.id, scores.last_arm(store, run.id), passed_by_base, sum(lost.values())), lost


def forgot_more(store: Store, one: Run, two: Run, block: str = "") -> Answer:
    """Which run forgot more, by the cases that both runs and their bases were asked in the same words."""
    blocks = (block,) if block else KEPT
    what = f"{' and '.join(blocks)} cases"
    (first, lost_by_first), (second, lost_by_second) = (lost_of(store, run, blocks) for run in (one, two))
    facts = (first, second)
    both = [(lost_by_first[case], lost_by_second[case]) for case in lost_by_first if case in lost_by_second]
    if not both:
        why = f"{one.id} and {two.id} were asked no {what} in common, with their bases, so no test tells it."
        return Answer((why, *(f"  {of.run}: {of}" for of in facts if of.passed_by_base)), facts)
    verdict, p = _told_apart(both, one, two, "forgot more")
    line = (
        f"{named(one, 30)} and {named(two, 30)}: of {len(both)} {what} that both were asked {one.id} lost "
        f"{sum(a for a, _ in both)} that its base passes and {two.id} {sum(b for _, b in both)}: {verdict} "
        f"({p_value(p)})."
    )
    of_blocks = {name: [lost_of(store, run, (name,))[0] for run in (one, two)] for name in blocks}
    lines = [
        f"  {name}: {'; '.join(f'{of_run.run} {of_run}' for of_run in of_block)}"
        for name, of_block in of_blocks.items() if any(of_run.passed_by_base for of_run in of_block)
    ]  # fmt: skip
    table = [[name, *map(str, of_block)] for name, of_block in of_blocks.items()]
    return Answer((line, *lines), facts, lambda: render.rows_table(["block", one.id, two.id], table, exact=True))


def _pair(query: CompareRunsQuery, context: Context) -> tuple[Run, Run]:
    """The two runs that are meant; of one that is named alone the other is the run talked about, or one before it."""
    if query.run and query.other_run:
        return find(context.store, query.run), find(context.store, query.other_run)
    named_one = query.run or query.other_run
    if named_one and context.current and context.current.id != find(context.store, named_one).id:
        return context.current, find(context.store, named_one)
    one = context.run(named_one)
    others = [run for run in ordinary(context.store) if run.id != one.id]
    if not others:
        raise NotFound(f"There is no run beside {one.id} to compare with; its arms can be: “compare base and adapter”.")
    return others[0], one


def _times(store: Store, runs: Sequence[Run], stage: str) -> Answer:
    took = [
        RunTime(run.id, stage, sum(s.seconds or 0 for s in store.steps(run.id, status=DONE) if stage in ("", s.stage)))
        for run in runs
    ]
    each = ", ".join(f"{one.run} {duration(one.seconds)}" for one in took)
    shorter, longer = sorted(took, key=lambda one: one.seconds)
    apart, both = longer.seconds - shorter.seconds, longer.seconds + shorter.seconds
    of = f"of {stage}" if stage else "in all finished steps"
    line = f"{longer.run} took {duration(apart)} longer: {each} {of}; {duration(both)} together."
    return Answer((line,), tuple(took))


def _results(store: Store, one: Run, two: Run, only: str = "") -> list[str]:
    """A line for each block that either run measured, or for one block alone."""
    measured = {run.id: scores.of_run(store, run.id) for run in (one, two)}
    lines = []
    for block in (only,) if only else BLOCKS:
        sides = {
            run: ", ".join(f"{s.arm} {s.passed} of {s.judged}" for s in of_run if s.block == block)
            for run, of_run in measured.items()
        }
        if any(sides.values()) or only:
            lines.append(f"  {block}: " + "; ".join(f"{run} {side or 'not measured'}" for run, side in sides.items()))
    return lines
