"""Orders: the step with its fields, to be priced and asked about, and what is done or refused at once."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.agent.driver.look_ups import looked_up
from tunesmith.agent.driver.plan_words import not_taken
from tunesmith.agent.driver.state_summary import next_stages
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import Context, find
from tunesmith.agent.queries.machine import MachineQuery
from tunesmith.agent.queries.prices import inherited
from tunesmith.agent.words.acts import Assigned, Order, settled
from tunesmith.agent.words.lexicon import lexicon
from tunesmith.agent.words.slots import Slots
from tunesmith.memory.records import FAILED, RUNNING, STOPPED, Run, Step
from tunesmith.tools.pipeline.plan_file import parse_fields


def accepted(deps: TurnDeps, slots: Slots) -> TurnAnswer | Call:
    """`do that`, after an answer that proposed steps: the one that is meant, to be priced and asked about."""
    if not deps.proposals:
        return TurnAnswer("Nothing is proposed that I could do; ask “what should I try next?”, or name the step.")
    number = next((int(match.name) for match in lexicon()["ordinals"].find(slots.words)), 1)
    at = number - 1 if number > 0 else number
    if at >= len(deps.proposals):
        return TurnAnswer(f"Only {len(deps.proposals)} was proposed; say “do that” for it.")
    one, deps.proposals = deps.proposals[at], ()
    fields = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in one.fields.items()}
    return call_of(deps, Order(one.stage, fields, one.run))


def refused(deps: TurnDeps, act: str) -> str:
    """What is said to an order that is never carried out; empty for one that may be."""
    return {
        "delete": "I delete nothing: runs, models and rows stay as they are, since later steps and answers rest on "
        f"them. Files lie in {deps.store.home} if you want to remove some yourself.",
        "approve": "I approve nothing on anybody's word: each price is shown where its step is asked for, and your own "
        "yes there starts it. “what is running?” tells what waits.",
        "repeat_run": "A whole run is not repeated, copied or renamed: its steps are done again one by one, such as "
        "“train again in r1”, and another run begins with saying what a model should learn.",
    }.get(act, "")


def call_of(deps: TurnDeps, order: Order) -> TurnAnswer | Call:
    """The call that carries an order out, its fields checked and the run's own ways taken over. Raises BadInput."""
    stage = order.stage
    if stage == "inspect":
        return looked_up(deps, MachineQuery())
    if all(order.foreign):
        name, has = order.foreign
        return TurnAnswer(
            f"{stage} has no {name}; that is set in {has}. Say “{stage}” without it, or “{has} with {name}=…” first; "
            f"nothing was begun."
        )
    if order.unread and stage == "import" and (source := order.fields.get("source")):
        return TurnAnswer(f"Rows of another file come in first: `/import {source}`, then “train”; nothing was begun.")
    found = [Assigned(name, value, ()) for name, value in order.fields.items()]
    if order.unread and found:
        now = inherited(deps.ws, stage, {}, order.run, again=True)
        values, unread = settled(found, order.unread, now)
        order = replace(order, unread=unread, fields={one.field: one.value for one in values})
    if order.unread:
        return TurnAnswer(f"{not_taken(order.unread, 'nothing was begun')} `/help {stage}` lists the fields.")
    model = str(order.fields.get("model", ""))
    if stage == "base" and model and "/" not in model and not model.startswith("bundled"):
        return TurnAnswer(
            f"“{model}” is no whole name: on the hub a model is OWNER/NAME, such as Qwen/Qwen2.5-0.5B; a folder or "
            f"“bundled” will do too. Nothing was begun."
        )
    fields = inherited(deps.ws, stage, order.fields, order.run, again=order.again, times=order.factors)
    if order.unvalued and (order.another or order.unvalued not in fields or not order.again):
        was = f"it would be {fields[order.unvalued]}" if order.unvalued in fields else "it would be the usual"
        return TurnAnswer(
            f"Which {order.unvalued}? As things are {was}. Say “{stage} with {order.unvalued}=…” with a value, and its "
            f"price is shown before anything starts."
        )
    return Call(stage, {**parse_fields(stage, fields), **({"run": order.run} if order.run else {})})


def next_step(deps: TurnDeps, run_id: str) -> TurnAnswer | Call:
    """The step that comes next in a run: the one that ended badly, else the first that is missing."""
    run = find(deps.store, run_id) if run_id else deps.current_run()
    if run is not None and (ended_badly := _ended_badly(deps, run)):
        arm = {"arm": ended_badly.request["arm"]} if ended_badly.request.get("arm") else {}
        return call_of(deps, Order(ended_badly.stage, arm, run=run_id, again=True))
    following = next_stages(deps.store, run)
    if not following:
        name = run.id if run else "no run"
        return TurnAnswer(
            f"Every step of {name} is done. Ask “what should I try next?”, or say what another model should learn."
        )
    return call_of(deps, Order(following[0], run=run_id))


def _ended_badly(deps: TurnDeps, run: Run) -> Step | None:
    """The newest step of a run where it failed or was stopped: it is what goes on."""
    newest = deps.store.steps(run.id)[-1:]
    return newest[0] if newest and newest[0].status in (FAILED, STOPPED) else None


def report(deps: TurnDeps, run_id: str) -> TurnAnswer:
    """Write a run's report."""
    from tunesmith.agent.commands.summary import write_run_report
    from tunesmith.agent.queries.answer import clip

    run = Context(deps.ws, deps.focused_run()).run(run_id)
    written = write_run_report(deps.store, run.id)
    verdict = f" {clip(written.verdict, 300)}" if written.verdict else ""
    text = f"The report of {run.id} is written: {written.path}.{verdict}"
    return TurnAnswer(text, tool="report", arguments={"run": run.id})


def stop(deps: TurnDeps, slots: Slots) -> TurnAnswer:
    """Which step could be stopped, and how."""
    running = deps.store.steps(status=RUNNING)
    if not running:
        return TurnAnswer("Nothing is running, so there is nothing to stop.")
    named = {*slots.values("step"), *slots.values("stage")}
    step = next((one for one in running if {one.id, one.stage} & named), running[0])
    return TurnAnswer(
        f"{step.stage} ({step.id} of {step.run}) is running; `/stop {step.id}` ends it, after one more question."
    )
