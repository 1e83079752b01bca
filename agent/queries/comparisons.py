"""What is set against each other: two arms, two runs, and one figure of all runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries import scores, settings
from tunesmith.agent.queries.answer import Answer, Context, clip, find, named, ordinary
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Query, RunName, StageName
from tunesmith.agent.queries.cases import asked_of_both, passed_and_failed
from tunesmith.agent.queries.described import asked_by, cases_of
from tunesmith.agent.queries.settings import value_in
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, listed, p_value, size
from tunesmith.tools.core.stats import ALPHA, mcnemar_exact
from tunesmith.tools.evaluation.comparison import Comparison
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.suites.case import BLOCKS, PRIMARY_BLOCK


class CompareQuery(Query):
    """Two arms of one run against each other, case by case: counts, exact tests, what was gained and lost."""

    kind: Literal["compare"] = "compare"
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="The arm it is set against; empty: base")] = ""
    run: RunName = ""
    block: AnyBlock = ""


class CompareRunsQuery(Query):
    """Two runs against each other: results, settings that differ, time, the test cases that they were asked, or those
    that the first passes and the other fails."""

    kind: Literal["compare_runs"] = "compare_runs"
    about: Literal["results", "settings", "time", "suites", "cases"] = "results"
    run: RunName = ""
    other_run: Annotated[str, Field(description="The other run; empty: the one before")] = ""
    stage: Annotated[StageName, Field(description="For time: one stage alone")] = ""
    arm: Annotated[AnyArm, Field(description="For cases")] = ""
    block: Annotated[AnyBlock, Field(description="For results and cases: one block alone")] = ""


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """Two arms on one block of cases."""

    block: str
    arm: str
    other_arm: str
    judged: int
    passed: int
    passed_by_other: int
    gained: int
    lost: int
    p_value: float
    verdict: str


@dataclass(frozen=True, slots=True)
class RunTime:
    """How long the finished steps of a run took, of one stage or of all."""

    run: str
    stage: str
    seconds: float


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
        arms = listed(scores.arms_measured(store, run.id), 8) or "none"
        raise NotFound(f"{run.id} cannot compare {a} with {b}: measured arms are {arms}.") from None
    lines = [f"{named(run)}, {a} → {b}{unmeasured}:"]
    if not compared.comparable:
        lines.append(f"not comparable: {clip(compared.refused or ', '.join(compared.differs_in), 200)}")
    of_block = {name: counts for name, counts in compared.blocks.items() if query.block in ("", name)}
    for block, counts in of_block.items():
        n, passed = counts.judged, counts.passed
        lines.append(f"  {block}: {a} {passed[a]} of {n}, {b} {passed[b]} of {n}: {scores.verdict_of(counts)}")
    lines += [_lost_cases(compared, query.block)] if any(c.pass_to_fail for c in compared.blocks.values()) else []
    lines += [] if query.block else [scores.retained_sentence(store, run.id, b)]
    facts = tuple(
        BlockFacts(
            name, b, a, one.judged, one.passed[b], one.passed[a], one.fail_to_pass, one.pass_to_fail, one.p_value,
            one.verdict,
        )
        for name, one in of_block.items()
    )  # fmt: skip
    return Answer(tuple(line for line in lines if line), facts, lambda: render.comparison_table(compared))


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
        suites = asked_of_both(store, one, two)
        return replace(
            suites, lines=(*suites.lines, *([f"What decides it differs: {clip(each, 300)}."] if own else []))
        )
    if query.about == "time":
        return _times(store, (one, two), query.stage)
    differing = [Difference(name, a, b) for name, (a, b) in settings.differing(store, one, two).items()]
    each = clip("; ".join(f"{one.setting} {one.value} / {one.other_value}" for one in differing), 300)
    rows = [[one.setting, one.value, one.other_value] for one in differing]
    lines = [f"  they differ in {len(differing)} settings: {each}"] if differing else []
    if query.about == "settings":
        first = lines[0].strip() if lines else "Their settings are the same."
        lines = [f"{one.id} and {two.id}: {first}", *_results(store, one, two)]
    else:
        seconds = {run.id: sum(step.seconds or 0 for step in store.steps(run.id)) for run in (one, two)}
        took = ", ".join(f"{run} {duration(seconds)}" for run, seconds in seconds.items())
        rest = [] if query.block else [f"  worked on in all, failed steps too: {took}", *lines]
        better = _which_is_better(store, one, two, query.block or PRIMARY_BLOCK)
        lines = [f"{named(one, 30)} and {named(two, 30)}: {better}", *_results(store, one, two, query.block), *rest]
    data = (*differing, *scores.of_run(store, one.id), *scores.of_run(store, two.id))
    return Answer(tuple(lines), data, lambda: render.rows_table(["setting", one.id, two.id], rows, exact=True))


def _which_is_better(store: Store, one: Run, two: Run, block: str) -> str:
    """Whether the newest model of one run passes more than the other's, by the cases of a block that both were asked in
    the same words."""
    passed: list[dict[tuple[str, str], bool]] = []
    for run in (one, two):
        arm = scores.last_arm(store, run.id)
        suite = scores.suite_of(store, scores.step_of(store, run.id, arm)) if arm else ""
        cases, given = cases_of(store, run.id, suite), scores.results(store, run.id, arm, suite) if arm else []
        passed.append({
            (r.case_id, asked_by(cases.get(r.case_id))): r.passed
            for r in given if r.block == block and r.passed is not None
        })  # fmt: skip
    first, second = passed
    both = [(first[case], second[case]) for case in first if case in second]
    if not both:
        return f"they were asked no {block} case in common, so no test tells which is better."
    lost, gained = both.count((True, False)), both.count((False, True))
    p = mcnemar_exact(gained, lost)
    verdict = f"{(two if gained > lost else one).id} is better" if p < ALPHA else "no difference is shown"
    return (
        f"of {count(len(both), f'{block} case')} that both were asked {one.id}'s newest model passes "
        f"{sum(a for a, _ in both)} and {two.id}'s {sum(b for _, b in both)}: {verdict} ({p_value(p)})."
    )


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
    longer = max(took, key=lambda one: one.seconds)
    return Answer((f"{longer.run} took longer: {each} {f'of {stage}' if stage else 'in all finished steps'}.",),
                  tuple(took))  # fmt: skip


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


_MOST_RUNS = 4


class AcrossQuery(Query):
    """One figure of every run, ranked: which run passes most, took longest, used most memory, had most rows."""

    kind: Literal["across"] = "across"
    figure: Literal["pass_rate", "loss", "memory", "time", "rows", "size", "setting"] = "pass_rate"
    field: Annotated[str, Field(description="For setting: its name")] = ""
    order: Literal["most", "least"] = "most"
    stage: StageName = ""
    arm: AnyArm = ""
    block: Annotated[AnyBlock, Field(description="For pass_rate; empty: target")] = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a run: a number, or a text that has no order."""

    run: str
    value: float | str
    words: str
    source: str = ""
    """The step that it comes from."""

    def __str__(self) -> str:
        return f"{self.words} ({self.source})" if self.source else self.words


Measure = Callable[[AcrossQuery, Store, Run], Figure | None]


def answer(query: AcrossQuery, context: Context) -> Answer:
    """The run that has most of it, or least, and the others behind it. Raises NotFound where no run has the figure."""
    runs = {run.id: run for run in ordinary(context.store)}
    what, measure = _what(query), _MEASURES[query.figure]
    figures = [one for run in runs.values() if (one := measure(query, context.store, run)) is not None]
    if not figures:
        raise NotFound(f"No run has {what} that could be told.")
    names = {one.run: named(runs[one.run], 30) for one in figures}
    numbers = [one for one in figures if isinstance(one.value, int | float)]
    ranked = sorted(figures, key=lambda one: one.value, reverse=query.order == "most") if len(numbers) == len(figures) \
        else figures  # fmt: skip
    if len(figures) == 1:
        return Answer((f"Only {names[figures[0].run]} has {what}: {figures[0]}.",), tuple(figures))
    if len({one.words for one in figures}) == 1:
        first = f"The {len(figures)} runs are alike in {what}: {figures[0]}."
    elif ranked is figures:  # texts, which nothing ranks
        first = f"The {len(figures)} runs differ in {what}:"
    else:
        first = f"{names[ranked[0].run]} has the {query.order}, {what}: {ranked[0]}."
    lines = [first, *(f"  {names[one.run]}: {one}" for one in ranked[:_MOST_RUNS])]
    lines += [f"  {count(len(ranked) - _MOST_RUNS, 'run')} more."] if len(ranked) > _MOST_RUNS else []
    if query.figure == "pass_rate":
        lines.append("  Runs of other behaviours have other cases, so their rates are not comparable.")
    return Answer(tuple(lines), tuple(ranked))


def _what(query: AcrossQuery) -> str:
    of_stage = f" of {query.stage}" if query.stage else ""
    return {
        "setting": query.field,
        "loss": "the validation loss",
        "memory": f"the highest memory{of_stage}",
        "time": f"the time{of_stage}",
        "rows": "rows that were kept to train on",
        "size": f"files{f' of the {query.arm} model' if query.arm else ''}",
        "pass_rate": f"what passes of the {query.block or 'target'} block{f' with {query.arm}' if query.arm else ''}",
    }[query.figure]


def _setting(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    value = value_in(store, run, query.field, query.stage)
    if value is None or value == "":
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Figure(run.id, value if number else str(value), clip(value, 80))  # type: ignore[arg-type]


def _loss(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    trained = [step for step in store.steps(run.id, status=DONE) if step.stage == "train"]
    after = trained[-1].report.get("validation_loss") if trained else None
    if trained and after is None and (logged := store.metrics(trained[-1].id, "validation_loss")):
        after = logged[-1][1]
    return Figure(run.id, after, f"{after:.3f}", trained[-1].id) if isinstance(after, float) else None


def _memory(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    steps = [s for s in store.steps(run.id) if s.peak_rss_bytes and query.stage in ("", s.stage)]
    if not steps:
        return None
    top = max(steps, key=lambda step: step.peak_rss_bytes or 0)
    peak = top.peak_rss_bytes or 0
    return Figure(run.id, peak, size(peak), f"{top.stage}, {top.id}")


def _time(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    steps = [s for s in store.steps(run.id, status=DONE) if query.stage in ("", s.stage)]
    seconds = sum(step.seconds or 0.0 for step in steps)
    return Figure(run.id, seconds, duration(seconds), ", ".join(s.id for s in steps[-3:])) if steps else None


def _rows(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    generated = [step for step in store.steps(run.id, status=DONE) if step.stage == "generate"]
    usable = [row for row in store.rows(generated[-1].id) if row.kept] if generated else []
    trained = sum(row.split == "train" for row in usable)
    return Figure(run.id, trained, f"{trained:,} to train on of {len(usable):,} kept") if generated else None


def _size(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    artifacts = store.artifacts(run.id, query.arm or None)
    total = artifacts[-1].bytes if artifacts and query.arm else sum(artifact.bytes for artifact in artifacts)
    return Figure(run.id, total, size(total)) if artifacts else None


def _rate(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    block = query.block or "target"
    measured = [s for s in scores.of_run(store, run.id) if s.block == block and s.judged]
    chosen = [s for s in measured if query.arm in ("", s.arm)]
    tuned = [s for s in chosen if s.arm in scores.TUNED] or chosen
    return Figure(run.id, tuned[-1].rate, f"{tuned[-1].arm} {tuned[-1]}") if tuned else None


_MEASURES: Mapping[str, Measure] = {
    "setting": _setting, "loss": _loss, "memory": _memory, "time": _time, "rows": _rows, "size": _size,
    "pass_rate": _rate,
}  # fmt: skip
