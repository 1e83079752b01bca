"""One step with all that is recorded of it; and the curves of a training: its losses, and what else it measured."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Context, cite, clip, find
from tunesmith.agent.queries.facts import AnyArm, Fact, Proposed, Query, Recorded, Result, RunName, StageName, StepName
from tunesmith.agent.queries.prices import cost_of
from tunesmith.agent.queries.table import line
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import ASIDE_RUNS, DONE, FAILED, RUNNING, STOPPED, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.progress import is_current
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.training.checkpoints import kept_steps

_LOG_LINES = 6
"""The end tells why; the file, which is named, has the rest."""
BEGUN = (DONE, RUNNING, FAILED, STOPPED)
BROKEN = (FAILED, STOPPED)
_SAID = ("alarms", "notes", "advice", "choice", "fallback", "claim_sentence")
"""Fields of reports that hold sentences of the tools."""
_KEPT = {
    "generate": "the rows that are written", "baseline": "the cases that are answered",
    "evaluate": "the cases that are answered", "quantize": "the layers that are done",
}  # fmt: skip
"""Stage → what a step that broke off leaves for its next attempt."""


class StepQuery(Query):
    """One step, by id, or the newest of a stage: result, time, memory, dates, error."""

    kind: Literal["step"] = "step"
    step: StepName = ""
    stage: StageName = ""
    run: RunName = ""
    arm: AnyArm = ""
    figure: Annotated[Recorded, Field(description="A recorded number, such as trained_tokens")] = ""
    log: bool = False


def answer(query: StepQuery, context: Context) -> Result:
    """All that is recorded of a step. Raises NotFound with the steps, or the numbers, that there are."""
    store = context.store
    step = store.step(query.step) if query.step else _newest(query, context)
    file = store.home / "runs" / step.run / step.id / "worker.log"
    log = [{"log": one} for one in _log_end(file)] if query.log or step.status in BROKEN else []
    same = [one for one in store.steps(status=DONE) if (one.stage, one.arm) == (step.stage, step.arm)]
    newest = max(same, key=lambda one: one.finished_at or 0.0, default=step)
    later = newest.run != step.run and (newest.finished_at or 0.0) > (step.finished_at or 0.0)
    fact = {
        **timed(step),
        "run_time_share": run_time_share(store, [step]),
        "free_ram_when_priced_bytes": step.plan.get("free_ram_bytes"),
        **(progress(store, step) if step.status == RUNNING else {}),
        **(broken_off(context.ws, step) if step.status in BROKEN else {}),
        "tested": is_tested(store, step),
        "passed": _passed(store, step),
        "recorded": recorded(step),
        "asked_for": _asked_for(step),
        "failed_before": _failed_before(store, step),
        "newer": {} if query.run or query.step or not later else timed(newest),
        "log_file": str(file) if log else "",
    }
    said = [step.report.get(name) for name in _SAID]
    says = (str(one) for text in said if text for one in (text if isinstance(text, list) else [text]))
    return Result((fact,), texts=tuple(log), says=tuple(says), proposals=tuple(_to_follow(store, step)))


def timed(step: Step) -> dict[str, object]:
    """A step, and what it took of time and memory against what it was priced at."""
    measured = picked(step, "status", "seconds", "estimated_seconds", "peak_rss_bytes")
    card = {"peak_vram_bytes": step.peak_vram_bytes or None}  # 0 where nothing ran on one
    priced = picked(step, "estimated_peak_bytes", "started_at", "finished_at")
    return {"step": step.id, **picked(step, "run", "stage", "arm"), **measured, **card, **priced}


def progress(store: Store, step: Step) -> Fact:
    """How far a step is that runs, its losses so far, and what would be left of it if it ended now."""
    elapsed = time.time() - (step.started_at or time.time())
    loss, validation = (store.metrics(step.id, name) for name in ("loss", "validation_loss"))
    best = min(((value, at) for at, value in validation if at), default=None)  # at 0 stands the base
    return {
        **_reached(step),
        "so_far_seconds": elapsed,
        "left_seconds": render.eta_seconds(elapsed, step.total, step.estimated_seconds),
        "training_loss": loss[-1][1] if loss else None,
        "validation_loss": validation[-1][1] if validation else None,
        "best_checkpoint_step": int(best[1]) if best else None,
        "would_go_on_from": goes_on_from(store, step),
    }


def broken_off(ws: Workspace, step: Step) -> Fact:
    """Why a step broke off, how far it was, and, where its run has not left it behind, how it goes on and its price."""
    error = step.error or "not recorded"
    by = {"signal_sent_by": "not recorded"} if "(signal 9)" in error else {}
    if ws.store.broken_off(step.run) != step:
        return {"error": error, **by, **_reached(step)}
    again = cost_of(ws, step.stage, step.run, _same_arm(step))
    goes_on = {"goes_on_from": goes_on_from(ws.store, step), "going_on_takes": again}
    return {"error": error, **by, **_reached(step), **goes_on}


def _reached(step: Step) -> Fact:
    share = min(1.0, step.done / step.total) if step.total else None
    return {"done_share": share, "note": clip(step.note, 80)}


def goes_on_from(store: Store, step: Step) -> str:
    """What a step's next attempt begins with; of a training by the checkpoints that lie on this disk."""
    if step.stage != "train":
        return _KEPT.get(step.stage, "the beginning")
    kept = kept_steps(store.home / "runs" / step.run / step.id / "checkpoints")
    return f"optimiser step {kept[-1]}" if kept else "the beginning"


def retried(store: Store, steps: Sequence[Step]) -> list[Proposed]:
    """The next attempts at those of some steps that broke off and are still what goes on."""
    broken = [step for step in steps if store.broken_off(step.run) == step]
    return [Proposed(step.run, step.stage, _same_arm(step)) for step in broken]


def is_tested(store: Store, step: Step) -> bool | None:
    """Whether a merged or quantized model that a step made was tested as it is; None for anything else."""
    arm = catalog.ENTRIES[step.stage].makes
    if step.status != DONE or arm not in ("merged", "quantized"):
        return None
    tests = [one for one in store.steps(step.run, status=DONE) if one.stage == "evaluate" and one.arm == arm]
    return any(is_current(store, test) for test in tests)


def recorded(step: Step) -> dict[str, object]:
    """What a step reported: what its stage names first, and numbers; no texts that it worked on."""
    headline = catalog.ENTRIES[step.stage].load().headline
    told = {name: value for name, value in step.report.items() if name in headline or _is_number(value)}
    if isinstance(checks := step.report.get("checks"), list):
        told["checks_passed"] = f"{sum(bool(check.get('passed')) for check in checks)} of {len(checks)}"
    return told


def _passed(store: Store, step: Step) -> Fact:
    """What passed of each block, of a step that asked cases."""
    blocks: dict[str, list[bool]] = {}
    for one in store.results(step.id, step.arm) if step.stage in ("baseline", "evaluate") else ():
        blocks.setdefault(one.block, []).extend([] if one.passed is None else [one.passed])
    return {block: f"{sum(passed)} of {len(passed)}" for block, passed in blocks.items()}


def _is_number(value: object) -> bool:
    numbers = [*value.values()] if isinstance(value, Mapping) else [value]
    return bool(numbers) and all(isinstance(one, bool | int | float) for one in numbers)


def _log_end(file: Path) -> list[str]:
    """The last lines that a step's worker wrote; none where its log is gone."""
    try:
        with file.open(errors="replace") as lines:  # a log may hold any program's bytes
            return [clip(one, 140) for one in deque((one for one in lines if one.strip()), maxlen=_LOG_LINES)]
    except OSError:  # none was written, or the folder is gone
        return []


def at_work(step: Step) -> str:
    """A step that runs in a line."""
    elapsed = time.time() - (step.started_at or time.time())
    left = render.eta_seconds(elapsed, step.total, step.estimated_seconds)
    return line({"step": step.id, **picked(step, "stage", "run", "status"), **_reached(step), "left_seconds": left})


def known_stage(name: str) -> str:
    """A stage by its name, or none. Raises BadInput with those that there are."""
    if name and name not in catalog.ENTRIES:
        raise BadInput(f"There is no stage {clip(name, 30)}; they are {', '.join(catalog.BY_NAME)}.")
    return name


def _newest(query: StepQuery, context: Context) -> Step:
    """The newest step of a stage, or with a number, in the run that is meant; a done one before one only begun."""
    store, stage, arm, figure = context.store, known_stage(query.stage), query.arm, query.figure
    aside = [run for run in store.runs() if run.name in ASIDE_RUNS]
    runs = [find(store, query.run)] if query.run else [*context.runs(), *aside]
    steps = [step for run in runs for step in reversed(store.priced_steps(run.id))]
    meant = [s for s in steps if stage in ("", s.stage) and (arm in ("", s.arm) or (stage and not s.arm))]
    if figure:
        known = {step.id: recorded(step) for step in meant}
        working = [step for step in meant if step.status == RUNNING]
        meant = [step for step in meant if figure in known[step.id]] or working
        if not meant:
            names = ", ".join(sorted({name for told in known.values() for name in told})) or "none"
            where = query.run or "any run"
            raise NotFound(f"No step of {where} recorded {clip(figure, 40)}; recorded are: {names}.")
    for statuses in ((DONE,), BEGUN) if stage else (BEGUN,):
        if found := next((step for step in meant if step.status in statuses), None):
            return found
    if not meant:
        sought = " ".join(word for word in (stage, "step", f"of the {arm} arm" if arm else "") if word)
        there = ", ".join(dict.fromkeys(step.stage for step in reversed(steps))) or "none"
        raise NotFound(f"There is no {sought} in {', '.join(run.id for run in runs) or 'any run'}; there is: {there}.")
    return meant[0]


def _failed_before(store: Store, step: Step) -> Fact:
    """Earlier attempts at the same work that broke off: step → error."""
    before = takewhile(lambda one: one.id != step.id, store.steps(step.run))
    same = (one for one in before if (one.stage, one.arm) == (step.stage, step.arm) and one.status in BROKEN)
    return {one.id: one.error or "not recorded" for one in same}


def run_time_share(store: Store, steps: Sequence[Step]) -> float | None:
    """What some steps of a run took of the time of all its steps, those that broke off included."""
    whole = sum(one.seconds or 0.0 for one in store.steps(steps[0].run)) if steps else 0.0
    return sum(one.seconds or 0.0 for one in steps) / whole if whole else None


def _asked_for(step: Step) -> Fact:
    settable = catalog.ENTRIES[step.stage].load().settable
    return {name: step.request[name] for name in settable if step.request.get(name) not in (None, "", False, "auto")}


def _same_arm(step: Step) -> Fact:
    return {"arm": step.request["arm"]} if step.request.get("arm") else {}


def _to_follow(store: Store, step: Step) -> list[Proposed]:
    """The next attempt at what broke off; a test of a model that was not tested."""
    test = Proposed(step.run, "evaluate", {"arm": catalog.ENTRIES[step.stage].makes})
    return [*retried(store, [step]), *[test] * (is_tested(store, step) is False)]


# Curves


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
        tuple(_points(name, points) for name, points in shown.items()),
        {**of, "other_curves": [name for name in kept if name not in shown]},
        says=tuple(str(step.report[name]) for name in ("choice",) if step.report.get(name)),
        left_out={"points": more} if more else {},
    )


def _points(name: str, points: Sequence[tuple[float, float]]) -> Fact:
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
