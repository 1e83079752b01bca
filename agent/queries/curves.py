"""Curves of a training: its losses, and what else it measured at every so many steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from tunesmith.agent.queries.answer import Context, cite
from tunesmith.agent.queries.arguments import Query, RunName
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE
from tunesmith.tools.core.format import listed

Metric = Literal[
    "", "validation_loss", "train_loss", "tokens_per_second", "learning_rate", "grad_norm", "mean_token_accuracy",
    "rehearsal_kl", "validation_kl",
]  # fmt: skip
_LOSSES = ("validation_loss", "train_loss")
_STORED_AS = {"train_loss": "loss"}
_MOST_POINTS = 12
_REPORTED = {
    "optimiser_steps": "steps", "mean_train_loss": "train_loss", "validation_loss_of_adapter": "validation_loss",
    "trained_tokens": "trained_tokens", "mean_tokens_per_second": "tokens_per_second",
}  # fmt: skip
"""What a training says of itself when it ends, by what it is."""


class CurveQuery(Query):
    """Curves of a training: first, last, lowest and at which step."""

    kind: Literal["curve"] = "curve"
    metric: Annotated[Metric, Field(description="empty: both losses")] = ""
    run: RunName = ""


def curve(query: CurveQuery, context: Context) -> Result:
    """The curves of the newest training that kept any. Raises NotFound, naming those that it kept."""
    store, run = context.store, context.run(query.run, with_stage="train")
    steps = [step for step in store.steps(run.id) if step.stage == "train" and store.metrics(step.id, "loss")]
    if not steps:
        raise NotFound(f"{run.id} has no training whose losses were kept.")
    step = ([step for step in steps if step.status == DONE] or steps)[-1]
    stored = {name: store.metrics(step.id, _STORED_AS.get(name, name)) for name in get_args(Metric) if name}
    kept = {name: points for name, points in stored.items() if points}
    if query.metric and query.metric not in kept and query.metric not in step.report:
        raise NotFound(f"train ({cite(step)}) kept no {query.metric}; it kept {listed([*kept])}.")
    wanted = (query.metric,) if query.metric else _LOSSES
    shown = {name: points for name, points in kept.items() if name in wanted}
    of: dict[str, object] = {"run": run.id, "step": step.id, "status": step.status, "at": step.note}
    of |= {name: step.report.get(key) for name, key in _REPORTED.items()}
    more = sum(max(0, len(points) - _MOST_POINTS) for points in shown.values())
    return Result(
        tuple(_fact(name, points) for name, points in shown.items()),
        {**of, "other_curves": [name for name in kept if name not in shown]},
        says=tuple(str(step.report[name]) for name in ("choice",) if step.report.get(name)),
        left_out={"points": more} if more else {},
    )


def _fact(name: str, points: Sequence[tuple[float, float]]) -> Fact:
    lowest, highest = (pick(points, key=lambda point: point[1]) for pick in (min, max))
    return {
        "curve": name, "first": points[0][1], "last": points[-1][1],
        "lowest": lowest[1], "lowest_at_step": int(lowest[0]),
        "highest": highest[1], "highest_at_step": int(highest[0]),
        "points": len(points), "by_optimiser_step": _thinned(points),
    }  # fmt: skip


def _thinned(points: Sequence[tuple[float, float]]) -> Mapping[str, float]:
    """So many of a curve's points, the first and the last among them."""
    apart = max(1.0, (len(points) - 1) / (_MOST_POINTS - 1))
    places = dict.fromkeys(round(n * apart) for n in range(min(_MOST_POINTS, len(points))))
    return {f"{points[place][0]:.0f}": points[place][1] for place in places}
