"""One step with all that is recorded of it, and one number by the name under which a step recorded it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Context, clip, find
from tunesmith.agent.queries.arguments import AnyArm, Query, Recorded, RunName, StageName, StepName
from tunesmith.agent.queries.facts import Fact, Proposed, Result
from tunesmith.agent.queries.prices import cost_of
from tunesmith.agent.queries.table import line, shown
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import ASIDE_RUNS, DONE, FAILED, RUNNING, STOPPED, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.models.shape import ModelShape
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
    """One step, by its id or the newest of a stage: what it came to, time, memory, dates, error, how it goes on."""

    kind: Literal["step"] = "step"
    step: StepName = ""
    stage: StageName = ""
    run: RunName = ""
    arm: AnyArm = ""
    log: Annotated[bool, Field(description="Also show the end of its log on the screen")] = False


def answer(query: StepQuery, context: Context) -> Result:
    """All that is recorded of a step. Raises NotFound with the steps that there are."""
    store = context.store
    step = store.step(query.step) if query.step else _newest(query, context)
    broken = step.status in BROKEN
    fact = {
        **timed(step),
        "run_time_share": _run_time_share(store, step),
        **picked(step, "started_at", "finished_at"),
        "free_ram_when_priced_bytes": step.plan.get("free_ram_bytes"),
        **(progress(store, step) if step.status == RUNNING else broken_off(context.ws, step) if broken else {}),
        "tested": is_tested(store, step),
        "passed": _passed(store, step),
        "recorded": recorded(step),
        "asked_for": _asked_for(step),
        "failed_before": _failed_before(store, step),
        "newer": {} if query.run or query.step else _newer(store, step),
    }
    file = store.home / "runs" / step.run / step.id / "worker.log"
    log = [{"log": one} for one in log_end(file)] if query.log or broken else []
    of = {**picked(step, "run", "stage"), "step": step.id, "arm": step.arm, "log_file": str(file) if log else ""}
    return Result((fact,), of, said_by(step), tuple(log), proposals=_to_follow(store, step))


def timed(step: Step) -> dict[str, object]:
    """What a step took of time and memory against what it was priced at."""
    measured = picked(step, "seconds", "estimated_seconds", "peak_rss_bytes")
    card = {"peak_vram_bytes": step.peak_vram_bytes or None}  # 0 where nothing ran on one
    return {"status": step.status, **measured, **card, "estimated_peak_bytes": step.estimated_peak_bytes}


def listed(step: Step) -> dict[str, object]:
    """A step as a line of a list."""
    return {"step": step.id, "run": step.run, "stage": step.stage, "arm": step.arm, **timed(step)}


def progress(store: Store, step: Step) -> Fact:
    """How far a step is that runs, its losses so far, and what would be left of it if it ended now."""
    elapsed = time.time() - (step.started_at or time.time())
    loss, validation = (store.metrics(step.id, name) for name in ("loss", "validation_loss"))
    best = min(((value, at) for at, value in validation if at), default=None)  # at 0 stands the base
    return {
        "done_share": step.done / step.total if step.total else None,
        "note": clip(step.note, 80),
        "so_far_seconds": elapsed,
        "left_seconds": render.eta_seconds(elapsed, step.total, step.estimated_seconds),
        "training_loss": loss[-1][1] if loss else None,
        "validation_loss": validation[-1][1] if validation else None,
        "best_checkpoint_step": int(best[1]) if best else None,
        "would_go_on_from": goes_on_from(store, step),
    }


def broken_off(ws: Workspace, step: Step) -> Fact:
    """Why a step broke off, how far it was, and, where its run has not left it behind, how it goes on and its price."""
    fact: dict[str, object] = {
        "error": step.error or "not recorded",
        "signal_sent_by": "not recorded" if "(signal 9)" in (step.error or "") else "",
        "done_share": min(1.0, step.done / step.total) if step.total else None,
        "note": clip(step.note, 80),
    }
    if ws.store.broken_off(step.run) != step:
        return fact
    again = cost_of(ws, step.stage, step.run, same_arm(step))
    return {**fact, "goes_on_from": goes_on_from(ws.store, step), "going_on_takes": again}


def goes_on_from(store: Store, step: Step) -> str:
    """What a step's next attempt begins with; of a training by the checkpoints that lie on this disk."""
    if step.stage != "train":
        return _KEPT.get(step.stage, "the beginning")
    kept = kept_steps(store.home / "runs" / step.run / step.id / "checkpoints")
    return f"optimiser step {kept[-1]}" if kept else "the beginning"


def is_tested(store: Store, step: Step) -> bool | None:
    """Whether a merged or quantized model that a step made was tested as it is; None for anything else."""
    arm = catalog.ENTRIES[step.stage].makes
    if step.status != DONE or arm not in ("merged", "quantized"):
        return None
    tests = [one for one in store.steps(step.run, status=DONE) if one.stage == "evaluate" and one.arm == arm]
    return any(is_current(store, test) for test in tests)


def recorded(step: Step) -> dict[str, object]:
    """What a step reported: numbers and what its stage names first, no texts that it worked on."""
    headline = catalog.ENTRIES[step.stage].load().headline if step.stage in catalog.ENTRIES else ()
    told = {name: value for name, value in step.report.items() if name in headline or _is_number(value)}
    if isinstance(checks := step.report.get("checks"), list):
        told["checks_passed"] = f"{sum(bool(check.get('passed')) for check in checks)} of {len(checks)}"
    return told


def _passed(store: Store, step: Step) -> Fact:
    """What passed of each block, of a step that asked cases."""
    answered = store.results(step.id, step.arm) if step.stage in ("baseline", "evaluate") else []
    blocks: dict[str, list[bool]] = {}
    for one in answered:
        blocks.setdefault(one.block, []).extend([] if one.passed is None else [one.passed])
    return {block: f"{sum(passed)} of {len(passed)}" for block, passed in blocks.items()}


def said_by(step: Step) -> tuple[str, ...]:
    """The sentences that a step recorded: alarms, notes on rows, its advice, its claim."""
    found = [step.report.get(name) for name in _SAID]
    return tuple(str(one) for said in found if said for one in (said if isinstance(said, list) else [said]))


def log_end(file: Path) -> list[str]:
    """The last lines that a step's worker wrote; none where its log is gone."""
    try:
        with file.open(errors="replace") as lines:  # a log may hold any program's bytes
            return [clip(one, 140) for one in deque((one for one in lines if one.strip()), maxlen=_LOG_LINES)]
    except OSError:  # none was written, or the folder is gone
        return []


def at_work(step: Step) -> str:
    """A step that runs in a line."""
    left = render.eta_seconds(time.time() - (step.started_at or time.time()), step.total, step.estimated_seconds)
    share = step.done / step.total if step.total else None
    return line(
        {**picked(step, "stage", "run", "status"), "done_share": share, "note": step.note, "left_seconds": left}
    )


plain = shown


def known_stage(name: str) -> str:
    """A stage by its name, or none. Raises BadInput with those that there are."""
    if name and name not in catalog.ENTRIES:
        raise BadInput(f"There is no stage {clip(name, 30)}; they are {', '.join(catalog.BY_NAME)}.")
    return name


def _newest(query: StepQuery, context: Context) -> Step:
    """The newest step of a stage in the run that is meant; one that is done before one that was only begun."""
    store, stage, arm = context.store, known_stage(query.stage), query.arm
    aside = [run for run in store.runs() if run.name in ASIDE_RUNS]
    runs = [find(store, query.run)] if query.run else [*context.runs(), *aside]
    steps = [step for run in runs for step in reversed(store.priced_steps(run.id))]
    meant = [s for s in steps if stage in ("", s.stage) and (arm in ("", s.arm) or (stage and not s.arm))]
    for statuses in ((DONE,), BEGUN) if stage else (BEGUN,):
        if found := next((step for step in meant if step.status in statuses), None):
            return found
    if not meant:
        sought = " ".join(word for word in (stage, "step", f"of the {arm} arm" if arm else "") if word)
        there = ", ".join(dict.fromkeys(step.stage for step in reversed(steps))) or "none"
        raise NotFound(f"There is no {sought} in {', '.join(run.id for run in runs) or 'any run'}; there is: {there}.")
    return meant[0]


def _newer(store: Store, step: Step) -> Fact:
    """The newest finished step of the same kind, where another run did it after this one."""
    same = [one for one in store.steps(status=DONE) if (one.stage, one.arm) == (step.stage, step.arm)]
    newest = max(same, key=lambda one: one.finished_at or 0.0, default=step)
    if newest.run == step.run or (newest.finished_at or 0.0) <= (step.finished_at or 0.0):
        return {}
    return {"step": newest.id, **picked(newest, "run", "seconds", "started_at", "finished_at")}


def _failed_before(store: Store, step: Step) -> Fact:
    """Earlier attempts at the same work that broke off: step → error."""
    steps = store.steps(step.run)
    before = steps[: [one.id for one in steps].index(step.id)] if step in steps else []
    same = (one for one in before if (one.stage, one.arm) == (step.stage, step.arm) and one.status in BROKEN)
    return {one.id: one.error or "not recorded" for one in same}


def _run_time_share(store: Store, step: Step) -> float | None:
    """What all steps of a stage took of their run's work."""
    done = store.steps(step.run, status=DONE)
    whole, same = (sum(s.seconds or 0.0 for s in done if stage in ("", s.stage)) for stage in ("", step.stage))
    return same / whole if whole and same else None


def _asked_for(step: Step) -> Fact:
    settable = catalog.ENTRIES[step.stage].load().settable
    return {name: step.request[name] for name in settable if step.request.get(name) not in (None, "", False, "auto")}


def same_arm(step: Step) -> Fact:
    """What the next attempt at a step has to name."""
    return {"arm": step.request["arm"]} if step.request.get("arm") else {}


def _to_follow(store: Store, step: Step) -> tuple[Proposed, ...]:
    """The next attempt at what broke off; a test of a model that was not tested."""
    if store.broken_off(step.run) == step:
        return (Proposed(step.run, step.stage, same_arm(step)),)
    arm = catalog.ENTRIES[step.stage].makes
    return (Proposed(step.run, "evaluate", {"arm": arm}),) if is_tested(store, step) is False else ()


def _is_number(value: object) -> bool:
    numbers = [*value.values()] if isinstance(value, Mapping) else [value]
    return bool(numbers) and all(isinstance(one, bool | int | float) for one in numbers)


# Numbers by their name


class FigureQuery(Query):
    """One number that a step recorded by its name, such as trained_tokens, trainable_parameters, quantized_layers,
    argmax_agreement, generated_tokens, balance (rows by label)."""

    kind: Literal["figure"] = "figure"
    figure: Annotated[Recorded, Field(description="Name of the number")]
    run: RunName = ""


def figure(query: FigureQuery, context: Context) -> Result:
    """The number of the newest step that recorded it, or the step at work that may. Raises NotFound with the names."""
    store, name = context.store, query.figure
    runs = [find(store, query.run)] if query.run else context.runs()
    for run in runs:
        for step in reversed(store.steps(run.id, status=DONE)):
            if name in step.report and _is_number(step.report[name]):
                of = {**picked(step, "run", "stage"), "step": step.id}
                return Result(({name: step.report[name], **picked(step, "seconds", "finished_at")},), of)
        for step in store.steps(run.id, status=RUNNING):
            fact = {name: "not recorded before the step ends", **progress(store, step)}
            return Result((fact,), {**picked(step, "run", "stage"), "step": step.id})
    computed = [fact for run in runs if name == "trainable_parameters" for fact in _by_arithmetic(store, run)]
    if computed:
        return Result(tuple(computed[:1]))
    reports = (step.report for run in runs for step in store.steps(run.id, status=DONE))
    known = sorted({name for report in reports for name, value in report.items() if _is_number(value)})
    where = query.run or "any run"
    raise NotFound(f"No step of {where} recorded {clip(name, 40)}; recorded are: {', '.join(known) or 'none'}.")


def _by_arithmetic(store: Store, run: Run) -> list[Fact]:
    """How many parameters a training moves, by its base's shape and its rank, where nothing recorded it."""
    base = [one for one in store.artifacts(run.id, "base") if one.known_config]
    trained = [step for step in store.priced_steps(run.id) if step.stage == "train"]
    rank = trained[-1].request.get("lora_rank") if trained else None
    if not (base and isinstance(rank, int) and rank > 0):  # `auto` is no number
        return []
    try:
        shape = ModelShape.of(base[-1].config)
    except (KeyError, TypeError, ValueError):  # a config may leave anything out
        return []
    moved = shape.lora_parameters(rank, experts=not trained[-1].request.get("load_in_4bit"))
    return [{"run": run.id, "step": trained[-1].id, "trainable_parameters": moved, "lora_rank": rank,
             "by": "arithmetic"}]  # fmt: skip
