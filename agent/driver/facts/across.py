"""One figure of every run beside those of the others: a setting, memory, time, rows, size, or what passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunesmith.agent.driver.facts import scores
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, ordinary
from tunesmith.agent.driver.facts.settings import value_in
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.tools.core.format import duration, size

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a run, and how it is said."""

    value: float
    told: str


def answer(question: Question) -> Answer:
    """The run that has most of it, or least, and the others behind it. Raises NotFound where no run has the figure."""
    query, runs = question.query, ordinary(question.store)
    what, measure = _measure(question)
    figures = {run.id: figure for run in runs if (figure := measure(run)) is not None}
    if not figures:
        raise NotFound(f"No run has {what} that could be told.")
    ranked = sorted(figures, key=lambda run: figures[run].value, reverse=query.text != "least")
    names = {run.id: f"{run.id} ({clip(run.name, 30)})" for run in runs}
    values = {figure.told.partition(" (")[0] for figure in figures.values()}
    if len(figures) == 1:
        first = f"Only {names[ranked[0]]} has {what}: {figures[ranked[0]].told}."
    elif len(values) == 1:
        first = f"The {len(figures)} runs are alike in {what}: {figures[ranked[0]].told}."
    else:
        word = "least" if query.text == "least" else "most"
        first = f"{names[ranked[0]]} has the {word}, {what}: {figures[ranked[0]].told}."
    lines = [first] if len(figures) == 1 else [first, *(f"  {names[run]}: {figures[run].told}" for run in ranked)]
    more = [f"  {len(ranked) - _SHOWN} runs more."] if len(ranked) > _SHOWN else []
    note = ["  Runs of other behaviours have other cases, so their rates are not comparable."] if query.block else []
    return Answer((*lines[: _SHOWN + 1], *more, *note))


_Measure = Callable[[Run], Figure | None]


def _measure(question: Question) -> tuple[str, _Measure]:
    """What is told of each run, and how it is got."""
    query, stage = question.query, question.query.stage
    of_stage = f" of {stage}" if stage else ""
    if query.field:
        return query.field, lambda run: _setting(question, run)
    measures: Mapping[str, tuple[str, _Measure]] = {
        "loss": ("the validation loss", lambda run: _loss(question, run)),
        "peak": (f"the highest memory{of_stage}", lambda run: _peak(question, run)),
        "duration": (f"the time{of_stage}", lambda run: _took(question, run)),
        "count": ("rows that were kept to train on", lambda run: _rows(question, run)),
        "size": (f"files{f' of the {query.arm} model' if query.arm else ''}", lambda run: _bytes(question, run)),
    }
    block = query.block or "target"
    passes = f"what passes of the {block} block{f' with {query.arm}' if query.arm else ''}"
    return measures.get(query.aspect, (passes, lambda run: _rate(question, run, block)))


def _setting(question: Question, run: Run) -> Figure | None:
    value = value_in(question.store, run, question.query.field, question.query.stage)
    if value is None or value == "":
        return None
    return Figure(float(value) if isinstance(value, int | float) else float(hash(str(value))), clip(value, 80))


def _loss(question: Question, run: Run) -> Figure | None:
    trained = [step for step in question.store.steps(run.id, status=DONE) if step.stage == "train"]
    after = trained[-1].report.get("validation_loss") if trained else None
    return Figure(after, f"{after:.3f} ({trained[-1].id})") if isinstance(after, float) else None


def _peak(question: Question, run: Run) -> Figure | None:
    steps = [s for s in question.store.steps(run.id) if s.peak_rss_bytes and question.query.stage in ("", s.stage)]
    if not steps:
        return None
    top = max(steps, key=lambda step: step.peak_rss_bytes or 0)
    return Figure(float(top.peak_rss_bytes or 0), f"{size(top.peak_rss_bytes)} ({top.stage}, {top.id})")


def _took(question: Question, run: Run) -> Figure | None:
    steps = [s for s in question.store.steps(run.id, status=DONE) if question.query.stage in ("", s.stage)]
    seconds = sum(step.seconds or 0.0 for step in steps)
    return Figure(seconds, f"{duration(seconds)} ({', '.join(s.id for s in steps[-3:])})") if steps else None


def _rows(question: Question, run: Run) -> Figure | None:
    made = [step for step in question.store.steps(run.id, status=DONE) if step.stage == "generate"]
    kept = [row for row in question.store.rows(made[-1].id) if row.kept] if made else []
    trained = sum(row.split == "train" for row in kept)
    return Figure(float(trained), f"{trained:,} to train on of {len(kept):,} kept") if made else None


def _bytes(question: Question, run: Run) -> Figure | None:
    made = question.store.artifacts(run.id, question.query.arm or None)
    total = made[-1].bytes if made and question.query.arm else sum(artifact.bytes for artifact in made)
    return Figure(float(total), size(total)) if made else None


def _rate(question: Question, run: Run, block: str) -> Figure | None:
    measured = [s for s in scores.of_run(question.store, run.id) if s.block == block and s.judged]
    chosen = [s for s in measured if s.arm == question.query.arm] if question.query.arm else measured
    tuned = [s for s in chosen if s.arm not in ("base", "prompted")] or chosen
    return Figure(tuned[-1].passed / tuned[-1].judged, f"{tuned[-1].arm} {tuned[-1].told}") if tuned else None
