"""Curves of a training: its losses, and what else it measured at every so many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.agent.queries.answer import Answer, Context, cite, clip
from tunesmith.agent.queries.arguments import Query, RunName
from tunesmith.agent.queries.steps import at_work
from tunesmith.memory.errors import NotFound
from tunesmith.memory.json_values import as_float
from tunesmith.memory.records import DONE, RUNNING, Step
from tunesmith.memory.store import Store

_SPARKS = "▁▂▃▄▅▆▇█"
_LEADS = {"train_loss": "The training loss", "tokens_per_second": "In ", "validation_loss": "The validation"}
Metric = Literal[
    "validation_loss", "train_loss", "tokens_per_second", "learning_rate", "grad_norm", "mean_token_accuracy",
    "rehearsal_kl", "validation_kl",
]  # fmt: skip


class CurveQuery(Query):
    """A curve of a training: losses first and last, whether they fell, tokens a second, gradient norms."""

    kind: Literal["curve"] = "curve"
    metric: Metric = "validation_loss"
    run: RunName = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve in figures: the value at a number of optimiser steps."""

    metric: str
    step: str
    run: str
    first: float
    last: float
    lowest: float
    highest: float
    points: int

    @classmethod
    def of(cls, metric: str, step: Step, points: Sequence[tuple[float, float]]) -> Curve:
        """Of what a step stored."""
        values = [value for _, value in points]
        return cls(metric, step.id, step.run, values[0], values[-1], min(values), max(values), len(values))


def curve(query: CurveQuery, context: Context) -> Answer:
    """The losses of a training: first, last, lowest, before and after; or another curve of it. Raises NotFound."""
    store, run = context.store, context.run(query.run, with_stage="train")
    steps = [step for step in store.steps(run.id) if step.stage == "train" and store.metrics(step.id, "loss")]
    if not steps:
        raise NotFound(f"{run.id} has no training whose losses were kept.")
    step = ([step for step in steps if step.status == DONE] or steps)[-1]
    if query.metric in _LEADS:
        named = (("train_loss", "loss"), ("validation_loss", "validation_loss"))
        stored = [(name, store.metrics(step.id, key)) for name, key in named]
        # what was asked for first
        lines = sorted(lines_of(store, step), key=lambda line: not line.startswith(_LEADS[query.metric]))
        lines += [at_work(step)] if step.status == RUNNING else []
        return Answer(tuple(lines), tuple(Curve.of(name, step, points) for name, points in stored if points))
    words, points = query.metric.replace("_", " "), store.metrics(step.id, query.metric)
    if not points:
        raise NotFound(f"train ({cite(step)}) kept no {words}.")
    curve = Curve.of(query.metric, step, points)
    first = f"The {words} of train ({cite(step)}) went from {curve.first:.4g} to {curve.last:.4g} over "
    first += f"{curve.points} points, lowest {curve.lowest:.4g}, highest {curve.highest:.4g} at step "
    first += f"{max(points, key=lambda point: point[1])[0]:.0f}: {_spark(points)}"
    return Answer((first,), (curve,))


def lines_of(store: Store, step: Step) -> list[str]:
    """What the losses of one training were."""
    losses, validation = store.metrics(step.id, "loss"), store.metrics(step.id, "validation_loss")
    result = step.report
    first = result.get("validation_loss_before", validation[0][1] if validation else None)
    last = result.get("validation_loss", validation[-1][1] if validation else None)
    lines = []
    if first is not None and last is not None:
        before, after = as_float(first), as_float(last)
        lowest = min([after, *(value for _, value in validation)])
        fell = f"from {before:.3f} to {after:.3f}, the lowest was {lowest:.3f}"
        lines.append(f"The validation loss of train ({cite(step)}) went {fell}.")
    if choice := result.get("choice"):
        lines.append(f"The adapter of train ({cite(step)}): {clip(choice, 200)}.")
    mean = f", {result['train_loss']:.3f} on average" if isinstance(result.get("train_loss"), float) else ""
    fell = f"from {losses[0][1]:.3f} to {losses[-1][1]:.3f} over {len(losses)} points{mean}"
    lines.append(f"The training loss of train ({cite(step)}) went {fell}: {_spark(losses)}")
    if len(validation) > 1:
        # the end tells whether it still falls
        each = ", ".join(f"{x:.0f}: {value:.3f}" for x, value in validation[-8:])
        lines.append(f"Validation by optimiser step: {each}.")
    amounts = [f"{name.replace('_', ' ')} {result[name]:,}" for name in ("steps", "trained_tokens") if name in result]
    if isinstance(result.get("tokens_per_second"), float):
        amounts.append(f"{result['tokens_per_second']:.0f} tokens a second")
    return [*lines, *([f"In {', '.join(amounts)} ({cite(step)})."] if amounts else [])]


def loss_so_far(store: Store, step: Step) -> str:
    """How the losses of a training went that is not over, in a line; empty for another stage."""
    if step.stage != "train":
        return ""
    points, validation = store.metrics(step.id, "loss"), store.metrics(step.id, "validation_loss")
    if not points:
        return "No loss of it is recorded yet."
    last = f"The last recorded training loss is {points[-1][1]:.3f} (optimiser step {points[-1][0]:.0f}"
    last += f", from {points[0][1]:.3f} at {points[0][0]:.0f})" if len(points) > 1 else ")"
    held_out = ", ".join(f"{value:.3f} at {x:.0f}" for x, value in validation[-2:])
    best = min(((value, x) for x, value in validation if x), default=None)  # at 0 stands the base
    kept = f"that of step {best[1]:.0f} is the best so far ({best[0]:.3f})" if best else "none is validated yet"
    return f"{last}{f'; the validation loss {held_out}' if held_out else ''}. Of its checkpoints {kept}."


def _spark(points: Sequence[tuple[float, float]], width: int = 40) -> str:
    """A curve in a line: 40, as the words beside it take the other half of a terminal's 80."""
    values = [value for _, value in points]
    step = max(len(values) / width, 1.0)
    chosen = [values[int(i * step)] for i in range(min(width, len(values)))]
    low, high = min(chosen), max(chosen)
    return "".join(_SPARKS[int((value - low) / (high - low or 1) * (len(_SPARKS) - 1))] for value in chosen)
