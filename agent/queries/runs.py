"""Runs and their steps: which there are, how they went, what is left, and what their steps took."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from rich.console import Group

from tunesmith.agent.commands import render
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, find, ordinary, within
from tunesmith.agent.queries.arguments import Query, RunName, Since, StageName, Until
from tunesmith.agent.queries.facts import Fact, Proposed, Result
from tunesmith.agent.queries.following import ahead_of
from tunesmith.agent.queries.scores import Score
from tunesmith.agent.queries.steps import BEGUN, BROKEN, broken_off, known_stage, listed, progress, same_arm
from tunesmith.memory.json_values import picked
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import ASIDE_RUNS, DONE, FAILED, RUNNING, STOPPED, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.verdict import Verdict
from tunesmith.tools.suites.case import PRIMARY_BLOCK


class RunsQuery(Query):
    """All runs, the newest first, each with its status, time, verdict and target cases passed; in a span of time those
    that did a step in it."""

    kind: Literal["runs"] = "runs"
    status: Literal["", "done", "failed", "running", "waiting"] = ""
    """`failed`: or stopped."""
    since: Since = None
    until: Until = None


class RunQuery(Query):
    """How one run went: its verdict, its goal and dates, its steps, why one broke off, and the steps that it has ahead
    with their prices."""

    kind: Literal["run"] = "run"
    run: RunName = ""
    stage: StageName = ""
    """Its steps of this stage alone."""


def all_runs(query: RunsQuery, context: Context) -> Result:
    """Every run that is meant; none is no error."""
    store, facts = context.store, list[Fact]()
    for run in ordinary(store):
        steps = [s for s in store.steps(run.id) if within(s.started_at, query.since, query.until)]
        if (query.since or query.until) and not steps:
            continue
        if query.status in ("", run.status) or (query.status == FAILED and run.status == STOPPED):
            ran = {"ran": [f"{s.stage} {s.status}" for s in steps]} if query.since or query.until else {}
            measured = scores.of_run(store, run.id)
            came_to = _came_to(_verdict(store, run, measured), measured)
            facts.append({"run": run.id, "name": run.name, **_of(store, run, steps), **came_to, **ran})
    aside = sum(run.name in ASIDE_RUNS for run in store.runs())
    of = {"runs": len(facts), **picked(query, "status"), "since_at": _at(query.since), "until_at": _at(query.until)}
    return Result(tuple(facts), of, left_out={"runs of the driver and of checks": aside} if aside else {})


def one_run(query: RunQuery, context: Context) -> Result:
    """What is known of a run as a whole, its verdict, its steps in their order, and those that it has ahead."""
    from tunesmith.agent.commands.summary import summarise, summary_view

    store, run, stage = context.store, context.run(query.run), known_stage(query.stage)
    steps, measured = store.steps(run.id), scores.of_run(store, run.id)
    (whole, ahead), verdict = ahead_of(context, run), _verdict(store, run, measured)
    running = [step for step in steps if step.status == RUNNING]
    of = {
        "run": run.id,
        "name": run.name,
        "goal": run.goal,
        **_of(store, run, steps),
        **_came_to(verdict, measured),
        **{f"{block}_passed": _passed(measured, block) for block in (PRIMARY_BLOCK, "general")},
        "at_work": {step.id: {"stage": step.stage, **progress(store, step)} for step in running},
        "broke_off": {step.id: {"stage": step.stage, **broken_off(context.ws, step)} for step in _broken(store, run)},
        **whole,
    }
    every = [*(_of_its_run(step) for step in steps), *ahead]
    return Result(
        tuple(fact for fact in every if stage in ("", fact["stage"])) or ({"stage": stage, "status": "not done"},),
        of,
        (verdict.sentence,) if verdict else (),
        proposals=_to_follow(context, run, stage, ahead),
        page=lambda: Group(render.run_table(show_run(store, run.id)), summary_view(summarise(store, run.id))),
    )


def _of(store: Store, run: Run, steps: Sequence[Step]) -> Fact:
    """Where a run stands, when it was at work and for how long."""
    return {
        "status": store.status_words(run),
        "begun_at": run.created_at,
        "ended_at": max((step.finished_at or 0.0 for step in steps), default=0.0) or None,
        "seconds": sum(step.seconds or 0.0 for step in steps),
        "steps_done": str(store.step_counts(run.id)),
    }


def _verdict(store: Store, run: Run, measured: Sequence[Score]) -> Verdict | None:
    """The verdict on a run's last tuned arm; None where none was tested."""
    arm = _tuned(measured)
    return evidence_of(store, run.id, arm).verdict if arm else None


def _tuned(measured: Sequence[Score]) -> str:
    """The last tuned arm with answers on the target block."""
    return next((s.arm for s in reversed(measured) if s.block == PRIMARY_BLOCK and s.arm in scores.TUNED), "")


def _came_to(verdict: Verdict | None, measured: Sequence[Score]) -> Fact:
    """The verdict in a word, on which arm, and what that passes."""
    arm = _tuned(measured)
    if not verdict:
        return {}
    return {"verdict": verdict.word, "arm": arm, "target_passed": _passed(measured, PRIMARY_BLOCK)[arm]}


def _passed(measured: Sequence[Score], block: str) -> dict[str, object]:
    return {s.arm: f"{s.passed} of {s.judged}" for s in measured if s.block == block}


def _of_its_run(step: Step) -> dict[str, object]:
    """A step beside the others of its run; an arm is told where a stage does several."""
    arm = step.arm if step.stage == "evaluate" else ""
    own = picked(step, "status", "seconds", "estimated_seconds", "peak_rss_bytes")
    return {"step": step.id, "stage": step.stage, "arm": arm, **own}


def _broken(store: Store, run: Run) -> list[Step]:
    return [step for step in [store.broken_off(run.id)] if step]


def _to_follow(context: Context, run: Run, stage: str, ahead: Sequence[Fact]) -> tuple[Proposed, ...]:
    """What goes on: the stage that is asked about where it was not done, what broke off, else the first step ahead."""
    store = context.store
    begun = {step.stage for step in store.steps(run.id) if step.status in BEGUN}
    if stage:
        return () if stage in begun else (Proposed(run.id, stage, {}),)
    if store.steps(run.id, status=RUNNING):
        return ()
    if broken := _broken(store, run):
        return (Proposed(run.id, broken[0].stage, same_arm(broken[0])),)
    return tuple(Proposed(run.id, str(one["stage"]), {"arm": one["arm"]} if one["arm"] else {}) for one in ahead[:1])


_NO_MEMORY = re.compile(r"out of memory|\boom\b|memory|signal 9", re.IGNORECASE)
"""In the errors that our workers and the libraries below them write."""


class StepsQuery(Query):
    """The steps of a run, or of all runs, together: time against estimate, memory; what failed, or ran out of memory,
    and why."""

    kind: Literal["steps"] = "steps"
    which: Literal["all", "failures", "out_of_memory"] = "all"
    order: Literal["newest", "time", "memory", "late"] = "newest"
    run: RunName = ""
    """Empty: of all the one talked about, of failures every one."""
    stage: StageName = ""
    since: Since = None
    until: Until = None


def answer(query: StepsQuery, context: Context) -> Result:
    """The steps that are meant, and what they took in all. A question to which none answers has none, and no error."""
    store, stage, bad = context.store, known_stage(query.stage), query.which != "all"
    runs = [find(store, query.run)] if query.run else store.runs() if bad else [context.run("")]
    begun = [step for run in runs for step in reversed(store.steps(run.id)) if stage in ("", step.stage)]
    spanned = [s for s in begun if within(s.finished_at or s.created_at, query.since, query.until)]
    chosen = sorted((step for step in spanned if _WHICH[query.which](step)), key=_ORDER[query.order], reverse=True)
    facts = [
        {**listed(step), "finished_at": step.finished_at, **(_after(context, step) if bad else {})} for step in chosen
    ]
    of = {
        "runs": [run.id for run in runs],
        "stage": stage,
        "since_at": _at(query.since),
        "until_at": _at(query.until),
        _COUNTED[query.which]: len(chosen),
        "of_steps": len(spanned) if bad else None,
        "seconds": sum(step.seconds or 0.0 for step in chosen) or None,
        "estimated_seconds": sum(step.estimated_seconds for step in chosen) or None,
        "later_than_estimated": None if bad else sum(_ORDER["late"](step) > 0 for step in chosen),
        "share_an_error": _alike(chosen) if bad and len(chosen) > 1 else None,
    }
    follow = [Proposed(s.run, s.stage, same_arm(s)) for s in chosen if bad and store.broken_off(s.run) == s]
    return Result(tuple(facts), of, proposals=tuple(follow[:1]))


_COUNTED = {"all": "steps", "failures": "failed_or_stopped", "out_of_memory": "ran_out_of_memory"}
_WHICH: Mapping[str, Callable[[Step], bool]] = {
    "all": lambda s: True, "failures": lambda s: s.status in BROKEN,
    "out_of_memory": lambda s: s.status in BROKEN and bool(_NO_MEMORY.search(s.error or "")),
}  # fmt: skip
_ORDER: Mapping[str, Callable[[Step], float]] = {
    "newest": lambda s: s.started_at or 0.0, "time": lambda s: s.seconds or 0.0,
    "memory": lambda s: s.peak_rss_bytes or 0, "late": lambda s: (s.seconds or 0.0) - s.estimated_seconds,
}  # fmt: skip


def _after(context: Context, step: Step) -> Fact:
    """Why a step broke off, and which later step of its run did it after all."""
    return {**broken_off(context.ws, step), "done_since_by": done_since(context.store.steps(step.run), step)}


def _alike(steps: Sequence[Step]) -> int:
    """How many of several steps that ended badly have the same error on record, but for its numbers."""
    most = max(Counter(re.sub(r"\d[\d.,]*", "#", step.error or "") for step in steps).values())
    return most if most > 1 else 0


def done_since(steps: Sequence[Step], one: Step) -> str:
    """Which later step of a run did after all what one did not; empty: none."""
    later = steps[[step.id for step in steps].index(one.id) + 1 :] if one in steps else steps
    done = (step.id for step in later if (step.stage, step.arm, step.status) == (one.stage, one.arm, DONE))
    return next(done, "")


def _at(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
