"""Arms and runs against each other; and one figure of every run, ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tunesmith.agent.commands.explain import estimated_seconds
from tunesmith.agent.queries import scores, settings
from tunesmith.agent.queries.answer import Context, find, ordinary
from tunesmith.agent.queries.facts import AnyArm, AnyBlock, Fact, Proposed, Query, Recorded, Result, RunName, StageName
from tunesmith.agent.queries.settings import value_in
from tunesmith.agent.queries.texts import asked_by, cases_of
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.stats import ALPHA, mcnemar_exact
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.evaluation.comparison import LOST, Comparison
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.findings import Proposal
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.retained import gain_retained
from tunesmith.tools.suites.case import BLOCKS


class CompareQuery(Query):
    """Two arms of a run by block: gains and losses, exact tests, lost cases."""

    kind: Literal["compare"] = "compare"
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="The arm it is set against; empty: base")] = ""
    run: RunName = ""
    block: AnyBlock = ""


class CompareRunsQuery(Query):
    """Two runs: which is better, forgot more; time, settings and cases that differ."""

    kind: Literal["compare_runs"] = "compare_runs"
    run: RunName = ""
    other_run: Annotated[Recorded, Field(description="The other run; empty: the one before")] = ""
    block: AnyBlock = ""


# Two arms


def compare(query: CompareQuery, context: Context) -> Result:
    """Two arms of a run. Raises NotFound where one was not measured, nor is there to be measured."""
    store, run = context.store, scores.evaluated_run(context, query.run)
    later = query.arm or scores.last_arm(store, run.id)
    a, b = sorted((query.other_arm or ("base" if later != "base" else "adapter"), later), key=ARMS.index)
    of: Fact = {"run": run.id, "name": run.name, "arm": b, "other_arm": a, "block": query.block}
    measured = scores.arms_measured(store, run.id)
    if lacking := [arm for arm in (a, b) if arm not in measured]:
        return _untested(context, run, lacking, of)
    compared = compare_run(store, run.id, a, b)
    of_arm = evidence_of(store, run.id, b).verdict if a == "base" and b in scores.TUNED else None
    by_block = scores.block_facts(compared, of_arm.worse if of_arm else ())
    if compared.comparable and query.block not in ("", *by_block):
        raise scores.unmeasured(store, run, "", query.block)
    retained = [f"{one.sentence}." for one in gain_retained(store, run.id) if one.arm == b]
    speeds = [one for one in scores.of_run(store, run.id) if one.arm in (a, b)]
    facts = [
        {"block": name, "judged": compared.blocks[name].judged, f"{a}_passed": compared.blocks[name].passed[a],
         f"{b}_passed": compared.blocks[name].passed[b], **fact, "lost_cases": _lost(compared, name),
         **{f"{one.arm}_answer_seconds": one.answer_seconds for one in speeds if one.block == name}}
        for name, fact in by_block.items() if query.block in ("", name)
    ]  # fmt: skip
    lost = sum(compared.blocks[name].pass_to_fail - len(_lost(compared, name))
               for name in by_block if query.block in ("", name))  # fmt: skip
    of = {**of, "comparable": compared.comparable, "margin_share": compared.margin,
          **{f"{arm}_bytes": made.bytes for arm in (a, b) for made in store.artifacts(run.id, arm)[-1:]}}  # fmt: skip
    says = ([f"{of_arm.sentence}."] if of_arm else []) + retained + [compared.refused] * bool(compared.refused)
    return Result(tuple(facts), of, tuple(says), left_out={"lost blind cases": lost} if lost else {})


def _lost(compared: Comparison, block: str) -> list[str]:
    return [flip.case_id for flip in compared.flips_of(LOST) if flip.block == block]


def _untested(context: Context, run: Run, lacking: Sequence[str], of: Fact) -> Result:
    """That a model which is there was not tested, and what its test takes. Raises NotFound where there is none."""
    made = [arm for arm in lacking if arm == "base" or context.store.artifacts(run.id, arm)]
    if not made:
        raise scores.unmeasured(context.store, run, lacking[0])
    step = Proposal("baseline", {}, "") if made[0] == "base" else Proposal("evaluate", {"arm": made[0]}, "")
    seconds = estimated_seconds(context.ws, run.id, step)
    fact = {"not_measured": made[0], "test": step.stage, "estimated_seconds": seconds}
    return Result((fact,), of, proposals=(Proposed(run.id, step.stage, step.fields),))


# Two runs


def compare_runs(query: CompareRunsQuery, context: Context) -> Result:
    """Two runs. Raises NotFound where there is but one."""
    store, (one, two) = context.store, _pair(query, context)
    if one.id == two.id:
        raise NotFound(f"{one.id} and {two.id} are the same run; name two.")
    blocks: Sequence[str] = (query.block,) if query.block else BLOCKS
    paired = [fact for block in blocks if (fact := _paired(store, one, two, block))]
    differing = settings.differing(store, one, two)
    own_settings = [{"setting": name, one.id: a, two.id: b} for name, (a, b) in differing.items()]
    (total, *by_stage), (flips, blind) = _times(store, one, two), _flips(store, one, two, blocks)
    read = all(cases_of(store, run.id) for run in (one, two))
    of = {"run": one.id, "other_run": two.id, "block": query.block, **total, "same_settings": not differing,
          "matched_by": "id and words" if read else "id"}  # fmt: skip
    return Result(
        (
            *paired,
            *_forgot_more(store, one, two, query.block),
            *own_settings,
            *(() if query.block else by_stage),
            *flips,
        ),
        of,
        left_out={"blind cases": blind} if blind else {},
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


def _paired(store: Store, one: Run, two: Run, block: str) -> Fact:
    """What the newest models of two runs pass of a block, and which is better on the cases that both were asked."""
    first, second = (_passed(store, run, (block,)) for run in (one, two))
    both = [(first[case], second[case]) for case in first if case in second]
    if not first and not second:
        return {}
    return {
        "block": block,
        "in_common": len(both),
        **{f"{run.id}_{scores.last_arm(store, run.id)}": f"{sum(passed.values())} of {len(passed)}"
           for run, passed in ((one, first), (two, second))},
        **_told_apart(both, one, two, "better"),
    }  # fmt: skip


def _told_apart(both: Sequence[tuple[bool, bool]], one: Run, two: Run, what: str) -> Fact:
    """Which of two runs has more of what is true of a case, by an exact paired test, and its p."""
    only_one, only_two = both.count((True, False)), both.count((False, True))
    p = mcnemar_exact(only_two, only_one) if both else None
    more = "no case in common" if p is None else (two if only_two > only_one else one).id if p < ALPHA else "not shown"
    return {f"{one.id}_alone": only_one, f"{two.id}_alone": only_two, "p_value": p, what: more}


KEPT = tuple(block for block in BLOCKS if block in ("general", "tools"))
"""Blocks of what a model could do before."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Of the cases of some blocks that a run's base passes: how many its newest model fails."""

    run: str
    arm: str
    passed_by_base: int
    lost: int


def lost_of(store: Store, run: Run, blocks: Sequence[str]) -> tuple[Forgotten, Verdicts]:
    """How many cases a run forgot, and of each that its base and its newest model were asked whether it did."""
    base, newest = _passed(store, run, blocks, "base"), _passed(store, run, blocks)
    lost = {case: base[case] and not passed for case, passed in newest.items() if case in base}
    passed_by_base = sum(base[case] for case in lost)
    return Forgotten(run.id, scores.last_arm(store, run.id), passed_by_base, sum(lost.values())), lost


def _forgot_more(store: Store, one: Run, two: Run, block: str) -> Iterator[Fact]:
    """Which run forgot more, by the cases that both runs and their bases were asked in the same words."""
    blocks = (block,) if block else KEPT
    (first, by_first), (second, by_second) = (lost_of(store, run, blocks) for run in (one, two))
    both = [(by_first[case], by_second[case]) for case in by_first if case in by_second]
    if first.passed_by_base or second.passed_by_base:
        yield {
            "forgotten_of": " and ".join(blocks),
            "in_common": len(both),
            **{f"{of.run}_lost": f"{of.lost} of {of.passed_by_base} that its base passes" for of in (first, second)},
            **_told_apart(both, one, two, "forgot_more"),
        }


def _times(store: Store, one: Run, two: Run) -> Iterator[Fact]:
    """How long the finished steps of two runs took, in all and by stage."""
    of_run = {run.id: store.steps(run.id, status=DONE) for run in (one, two)}
    stages = dict.fromkeys(step.stage for steps in of_run.values() for step in steps)
    for stage in ("", *stages):
        took = {f"{run}_took_seconds": sum(step.seconds or 0 for step in steps if stage in ("", step.stage)) or None
                for run, steps in of_run.items()}  # fmt: skip
        yield {"stage": stage, **took} if stage else took


def _flips(store: Store, one: Run, two: Run, blocks: Sequence[str]) -> tuple[list[Fact], int]:
    """The open cases that the newest model of one run passes and the other's fails, and how many blind ones."""
    first, second = (_passed(store, run, blocks) for run in (one, two))
    hidden = hidden_cases(store, one.id) | hidden_cases(store, two.id)
    flips = {case: first[case] for case in first if case in second and first[case] != second[case]}
    seen: list[Fact] = [
        {"case": name, "passed_by": (one if passed else two).id, "failed_by": (two if passed else one).id}
        for (name, _), passed in flips.items() if name not in hidden
    ]  # fmt: skip
    return seen, len(flips) - len(seen)


# One figure of every run


class AcrossQuery(Query):
    """One figure of every run, ranked. Rates of other behaviours are not comparable."""

    kind: Literal["across"] = "across"
    figure: Literal["pass_rate", "forgotten", "loss", "memory", "time", "rows", "size", "setting"] = "pass_rate"
    field: Annotated[Recorded, Field(description="For setting: its name")] = ""
    order: Literal["most", "least"] = "most"
    stage: Annotated[StageName, Field(description="For memory, time and setting; empty: all")] = ""
    arm: Annotated[AnyArm, Field(description="For pass_rate and size; empty: the last one, or all")] = ""
    block: Annotated[AnyBlock, Field(description="For pass_rate and forgotten; empty: target")] = ""


Measured = list[tuple[float | str, Fact]]
"""A run's figure to rank it by, and its fact; empty where it has none."""


def across(query: AcrossQuery, context: Context) -> Result:
    """Every run that has the figure, with its value, the one that has most or least first. Raises NotFound."""
    measure = _MEASURES[query.figure]
    known = [
        (value, {"run": run.id, "name": run.name, **fact})
        for run in ordinary(context.store)
        for value, fact in measure.of(query, context.store, run)
    ]
    if not known:
        raise NotFound(f"No run has recorded {query.field or query.figure.replace('_', ' ')}.")
    if all(isinstance(value, int | float) for value, _ in known):
        known.sort(key=lambda one: one[0], reverse=query.order == "most")
    of = {"ranked_by": query.order, "figure": query.figure, **{name: getattr(query, name) for name in measure.takes}}
    return Result(tuple(fact for _, fact in known), of)


def _setting(query: AcrossQuery, store: Store, run: Run) -> Measured:
    value = value_in(store, run, query.field, query.stage)
    if value is None or value == "":
        return []
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # a number was told apart on the line above
    return [(value if number else str(value), {query.field: value})]  # type: ignore[list-item]


def _loss(query: AcrossQuery, store: Store, run: Run) -> Measured:
    trained = [step for step in store.steps(run.id, status=DONE) if step.stage == "train"]
    after = trained[-1].report.get("validation_loss") if trained else None
    if trained and after is None and (logged := store.metrics(trained[-1].id, "validation_loss")):
        after = logged[-1][1]
    return [(after, {"validation_loss": after, "step": trained[-1].id})] if isinstance(after, float) else []


def _memory(query: AcrossQuery, store: Store, run: Run) -> Measured:
    steps = [s for s in store.steps(run.id) if s.peak_rss_bytes and query.stage in ("", s.stage)]
    top = sorted(steps, key=lambda step: step.peak_rss_bytes or 0)[-1:]
    return [(s.peak_rss_bytes or 0, {"peak_rss_bytes": s.peak_rss_bytes, "stage": s.stage, "step": s.id}) for s in top]


def _time(query: AcrossQuery, store: Store, run: Run) -> Measured:
    steps = [s for s in store.steps(run.id, status=DONE) if query.stage in ("", s.stage)]
    seconds = sum(step.seconds or 0.0 for step in steps)
    return [(seconds, {"seconds": seconds, "steps": len(steps)})] if steps else []


def _rows(query: AcrossQuery, store: Store, run: Run) -> Measured:
    generated = [step for step in store.steps(run.id, status=DONE) if step.stage == "generate"]
    usable = [row for row in store.rows(generated[-1].id) if row.usable] if generated else []
    trained = sum(row.split == "train" for row in usable)
    return [(trained, {"rows_to_train_on": trained, "rows_kept": len(usable)})] if generated else []


def _size(query: AcrossQuery, store: Store, run: Run) -> Measured:
    artifacts = store.artifacts(run.id, query.arm or None)
    total = artifacts[-1].bytes if artifacts and query.arm else sum(artifact.bytes for artifact in artifacts)
    return [(total, {"bytes": total})] if artifacts else []


def _rate(query: AcrossQuery, store: Store, run: Run) -> Measured:
    block = query.block or "target"
    measured = [s for s in scores.of_run(store, run.id) if s.block == block and s.judged]
    chosen = [s for s in measured if query.arm in ("", s.arm)]
    last = ([s for s in chosen if s.arm in scores.TUNED] or chosen)[-1:]
    return [(s.rate, {"arm": s.arm, "passed": s.passed, "judged": s.judged, "share": s.rate}) for s in last]


def _forgotten(query: AcrossQuery, store: Store, run: Run) -> Measured:
    of_run, lost = lost_of(store, run, (query.block,) if query.block else KEPT)
    share = of_run.lost / (of_run.passed_by_base or 1)
    fact = {"arm": of_run.arm, "passed_by_base": of_run.passed_by_base, "lost": of_run.lost, "share": share}
    return [(share, fact)] if lost else []


class _Measure(NamedTuple):
    """How a figure is taken of a run, and by which further arguments."""

    of: Callable[[AcrossQuery, Store, Run], Measured]
    takes: tuple[str, ...] = ()


_MEASURES: Mapping[str, _Measure] = {
    "setting": _Measure(_setting, ("field", "stage")), "loss": _Measure(_loss), "memory": _Measure(_memory, ("stage",)),
    "time": _Measure(_time, ("stage",)), "rows": _Measure(_rows), "size": _Measure(_size, ("arm",)),
    "pass_rate": _Measure(_rate, ("arm", "block")), "forgotten": _Measure(_forgotten, ("block",)),
}  # fmt: skip
