"""Runs and their steps: which there are, how they went, what is left, and what their steps took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, find, ordinary, spanned, within
from tunesmith.agent.queries.facts import Fact, Proposed, Query, Result, RunName, Since, StageName, Until
from tunesmith.agent.queries.prices import cost
from tunesmith.agent.queries.steps import BEGUN, BROKEN, broken_off, known_stage, progress, retried, run_time_share
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import ASIDE_RUNS, DONE, RUNNING, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.pipeline.following import as_before, chain_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.progress import done_positions
from tunesmith.tools.suites.case import PRIMARY_BLOCK

if TYPE_CHECKING:
    from tunesmith.tools.pipeline.forecast import Forecast


class RunsQuery(Query):
    """All runs: status, dates, time, verdict, target cases passed."""

    kind: Literal["runs"] = "runs"
    outcome: Literal["", "failed"] = ""
    """`failed`: or stopped."""


class RunQuery(Query):
    """One run: verdict, goal, dates, steps, why one broke off, what is ahead at which price."""

    kind: Literal["run"] = "run"
    run: RunName = ""
    stage: StageName = ""
    """Its steps of this stage alone."""


class StepsQuery(Query):
    """Steps of a run or a span of time: time against estimate, memory, failures and why."""

    kind: Literal["steps"] = "steps"
    outcome: Literal["", "failed"] = ""
    """`failed`: or stopped; of every run where none is named."""
    order: Literal["newest", "time", "memory", "late"] = "newest"
    run: RunName = ""
    stage: StageName = ""
    since: Since = None
    until: Until = None


def all_runs(query: RunsQuery, context: Context) -> Result:
    """Every run that is meant; none is no error."""
    store = context.store
    runs = [run for run in ordinary(store) if not query.outcome or run.status in BROKEN]
    aside = sum(run.name in ASIDE_RUNS for run in store.runs())
    facts = []
    for run in runs:
        came_to, _ = _came_to(store, run)
        passed = came_to["target_passed"].get(came_to["verdict_on"])
        own = {"verdict": came_to["verdict"], "arm": came_to["verdict_on"], "target_passed": passed}
        facts.append({"run": run.id, "name": run.name, **_whole(store, run), **own})
    of = {"runs": len(runs), "outcome": query.outcome}
    return Result(tuple(facts), of, left_out={"runs of the driver and of checks": aside} if aside else {})


def one_run(query: RunQuery, context: Context) -> Result:
    """What is known of a run as a whole, its verdict, its steps in their order, and those that it has ahead."""
    store, run, stage = context.store, context.run(query.run), known_stage(query.stage)
    (whole, ahead), (came_to, says), steps = _ahead_of(context, run), _came_to(store, run), store.steps(run.id)
    every = [*map(_listed, steps), *ahead]
    running, broken = [s for s in steps if s.status == RUNNING], store.broken_off(run.id)
    of = {
        **{"run": run.id, "name": run.name, "goal": run.goal, **_whole(store, run), "running": len(running), **came_to},
        "at_work": {step.id: {"stage": step.stage, **progress(store, step)} for step in running},
        "broke_off": {broken.id: {"stage": broken.stage, **broken_off(context.ws, broken)}} if broken else {},
        **whole,
    }
    begun = any(step.stage == stage and step.status in BEGUN for step in steps)
    first = [Proposed(run.id, str(one["stage"]), {"arm": one["arm"]} if one["arm"] else {}) for one in ahead[:1]]
    follow = [Proposed(run.id, stage, {})] * (not begun) if stage else retried(store, steps[-1:]) or first
    facts = tuple(fact for fact in every if stage in ("", fact["stage"])) or ({"stage": stage, "status": "not done"},)
    return Result(facts, of, says, proposals=() if running else tuple(follow))


def _whole(store: Store, run: Run) -> Fact:
    """Where a run stands, when it was at work and for how long."""
    steps = store.steps(run.id)
    return {
        "status": store.status_words(run),
        "begun_at": run.created_at,
        "ended_at": max((step.finished_at or 0.0 for step in steps), default=0.0) or None,
        "seconds": sum(step.seconds or 0.0 for step in steps),
        "steps_done": str(store.step_counts(run.id)),
    }


def _ahead_of(context: Context, run: Run) -> tuple[Fact, list[Fact]]:
    """What a run has ahead, in all and step by step: its plan's steps, else the usual ones until it is served.

    Each is forecast as a plan is: on what is there and on what those before leave.
    """
    from tunesmith.tools.pipeline import forecast, planning_facts
    from tunesmith.tools.serving.eviction import machine_for_a_step

    ws, store = context.ws, context.store
    running = {(step.stage, step.arm) for step in store.steps(run.id, status=RUNNING)}
    held = done_positions(store, run.id)
    left = [spec for at, spec in enumerate(run.planned) if at not in held or held[at].status not in (DONE, RUNNING)]
    planned = [StepSpec.model_validate(spec) for spec in left]
    specs = planned or [
        StepSpec(stage=stage, fields=as_before(ws, run.id, stage, {"arm": arm} if arm else {}))
        for stage, arm in chain_ahead(store, run) if (stage, arm) not in running and (stage, "") not in running
    ]  # fmt: skip
    if not specs:
        return {"steps_ahead": 0}, []
    machine = machine_for_a_step(store.home)
    facts = planning_facts.gather(store, run.id, vllm=ws.vllm, vllm_from=ws.vllm_from, machine=machine)
    prices = forecast.forecast(ws, PipelinePlan(name=run.id, steps=tuple(specs)), facts=facts)
    status, known = "planned" if planned else "could follow", [price.estimate for price in prices if price.estimate]
    each = [{"stage": spec.stage, "arm": _arm_of(spec), "status": status, **_priced(price)}
            for spec, price in zip(specs, prices, strict=True)]  # fmt: skip
    return {
        "steps_ahead": len(specs),
        "without_a_time_yet": len(specs) - len(known) or None,
        "all_ahead_seconds": sum(one.seconds for one in known) or None,
        "disk_ahead_bytes": sum(one.disk_bytes for one in known) or None,
        "free_ram_bytes": machine.ram_free_bytes,
        "free_vram_bytes": machine.vram_free_bytes or None,
        "free_disk_bytes": machine.disk_free_bytes,
    }, [*each]


def _priced(price: Forecast) -> Fact:
    lacks = [*price.lacks, *[price.refused] * bool(price.refused)]
    return {**cost(price.estimate), "fits": not lacks if lacks or price.estimate else None, "lacks": lacks}


def _arm_of(spec: StepSpec) -> str:
    return str(spec.fields.get("arm", "adapter")) if spec.stage == "evaluate" else ""


def _came_to(store: Store, run: Run) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The verdict on the last tuned arm, what every arm passes of two blocks, and the verdict's sentence."""
    measured = scores.of_run(store, run.id)
    blocks = {block: [s for s in measured if s.block == block] for block in (PRIMARY_BLOCK, "general")}
    arm = next((s.arm for s in reversed(blocks[PRIMARY_BLOCK]) if s.arm in scores.TUNED), "")
    verdict = evidence_of(store, run.id, arm).verdict if arm else None
    passed = {f"{name}_passed": {s.arm: f"{s.passed} of {s.judged}" for s in own} for name, own in blocks.items()}
    word = {"verdict": verdict.word if verdict else "", "verdict_on": arm}
    return {**word, **passed}, (verdict.sentence,) if verdict else ()


def _listed(step: Step) -> dict[str, object]:
    """A step among others."""
    own = picked(step, "run", "stage", "arm", "status", "seconds", "estimated_seconds", "peak_rss_bytes", "finished_at")
    return {"step": step.id, **own}


def answer(query: StepsQuery, context: Context) -> Result:
    """The steps that are meant, and what they took in all. A question to which none answers has none, and no error.

    Where none of a stage broke off, its steps are told.
    """
    store, stage, since, until = context.store, known_stage(query.stage), query.since, query.until
    every = query.outcome or since or until
    runs = [find(store, query.run)] if query.run else store.runs() if every else [context.run("")]
    begun = [step for run in runs for step in store.steps(run.id) if stage in ("", step.stage)]
    meant = [step for step in begun if within(step.finished_at or step.created_at, since, until)]
    broken = [step for step in meant if step.status in BROKEN]
    chosen = meant if not query.outcome or (stage and not broken) else broken
    chosen = sorted(chosen, key=_MOST[query.order], reverse=True)
    of = {
        "runs": [run.id for run in runs],
        "stage": stage,
        **spanned(since, until),
        "failed_or_stopped": len(broken),
        "of_steps": len(meant),
        "seconds": sum(step.seconds or 0.0 for step in chosen) or None,
        "run_time_share": run_time_share(store, chosen) if stage and len(runs) == 1 else None,
        "estimated_seconds": sum(step.estimated_seconds for step in chosen) or None,
    }
    why = query.outcome and broken
    facts = tuple({**_listed(step), **(_after(context, step, begun) if why else {})} for step in chosen)
    return Result(facts, of, proposals=tuple(retried(store, chosen)[:1]) if query.outcome else ())


_MOST: Mapping[str, Callable[[Step], float]] = {
    "newest": lambda s: s.started_at or 0.0, "time": lambda s: s.seconds or 0.0,
    "memory": lambda s: s.peak_rss_bytes or 0, "late": lambda s: (s.seconds or 0.0) - s.estimated_seconds,
}  # fmt: skip


def _after(context: Context, step: Step, begun: Sequence[Step]) -> Fact:
    """Why a step broke off, and which later step of its run did it after all."""
    return {**broken_off(context.ws, step), "done_since_by": _done_since(begun, step)}


def _done_since(steps: Sequence[Step], one: Step) -> str:
    """Which later step of a run did after all what one did not; empty: none."""
    later = steps[[step.id for step in steps].index(one.id) + 1 :] if one in steps else steps
    same = (one.run, one.stage, one.arm, DONE)
    return next((step.id for step in later if (step.run, step.stage, step.arm, step.status) == same), "")
