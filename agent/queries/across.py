"""One figure of every run, ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, ordinary
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Query, Recorded, StageName
from tunesmith.agent.queries.comparisons import KEPT, lost_of
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.agent.queries.settings import value_in
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store


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


def answer(query: AcrossQuery, context: Context) -> Result:
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
