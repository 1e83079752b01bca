"""Orders: the step with its fields, priced, asked about and carried out, and what is done or refused at once.

The proposed plan in words: started, dropped, shown, and changed in as many places as one sentence names.
"""

from __future__ import annotations

from dataclasses import replace

from tunesmith.agent.commands.approvals import is_yes, no_clear_yes
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver import describing, kept_apart, named_files, plan_questions, planning
from tunesmith.agent.driver.choosing import edits_in, of_other_run, of_the_plan, settings_before
from tunesmith.agent.driver.describing import Interview
from tunesmith.agent.driver.look_ups import GUESSED, looked_up, turn_context
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import GOES_ON, Context, cite, clip, find, reached, taken_up
from tunesmith.agent.queries.facts import Proposed
from tunesmith.agent.queries.following import chain_ahead, lacking_before, next_stages
from tunesmith.agent.queries.machine import MachineQuery, ServedQuery, at_work
from tunesmith.agent.queries.prices import inherited
from tunesmith.agent.words.acts import OWN_SLOTS, Assigned, Order, places_of, settled
from tunesmith.agent.words.edits import Edits, beside_steps, without_rows
from tunesmith.agent.words.lexicon import lexicon
from tunesmith.agent.words.reading import Reading, reader
from tunesmith.agent.words.slots import Slots, amounts, slots_of
from tunesmith.agent.words.values import numbers_in
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DECLINED, RUNNING
from tunesmith.tools.core.format import listed
from tunesmith.tools.pipeline.plan_file import PipelinePlan, parse_fields


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


def call_of(deps: TurnDeps, order: Order) -> TurnAnswer | Call:
    """The call that carries an order out, its fields checked and the run's own ways taken over. Raises BadInput."""
    stage = order.stage
    if stage == "inspect":
        return looked_up(deps, MachineQuery())
    before = deps.last_query
    if stage == "deploy" and not order.fields and not order.run and before == ServedQuery(about="history"):
        order = replace(order, fields={"rollback": True})  # `put that back up`
    if order.denied:
        return TurnAnswer(f"I read that as not to {stage}, so nothing was begun; “{stage}” alone asks for it.")
    if all(order.foreign):
        name, has = order.foreign
        return TurnAnswer(
            f"{stage} has no {name}; that is set in {has}. Say “{stage}” without it, or “{has} with {name}=…” first; "
            f"nothing was begun."
        )
    if order.unread and stage == "import" and (source := order.fields.get("source")):
        return named_files.told(deps, str(source), slots_of(deps.prompt))
    slots = slots_of(deps.prompt, turn_context(deps).runs)
    if refusal := kept_apart.refused(deps, order, slots):
        return refusal
    if len(slots.values("run")) > 1:
        order = of_other_run(deps, order, slots)
    assigned = [Assigned(name, value, ()) for name, value in order.fields.items()]
    if order.unread and assigned:
        now = inherited(deps.ws, stage, {}, order.run, again=True)
        values, unread = settled(assigned, order.unread, now)
        order = replace(order, unread=unread, fields={one.field: one.value for one in values})
    if order.unread:
        deps.offered = (deps.prompt, (f"do.{stage}",))
        notice = unread_notice(order.unread, "nothing was begun")
        return TurnAnswer(f"{notice} Type 1 for {stage} without it; `/help {stage}` lists the fields.")
    if stage == "base" and (model := str(order.fields.get("model", ""))):
        order = replace(order, fields={**order.fields, "model": planning.whole_name(model)})
    if (early := _too_early(deps, order)) is not None:
        return early
    for one in order.beside:
        deps.show(prose(f"(About “{one}” nothing was done.)"))
    fields = inherited(deps.ws, stage, order.fields, order.run, again=order.again, times=order.factors)
    if order.unvalued and (order.another or order.unvalued not in fields or not order.again):
        was = f"it would be {fields[order.unvalued]}" if order.unvalued in fields else "it would be the usual"
        return TurnAnswer(
            f"Which {order.unvalued}? As things are {was}. Say “{stage} with {order.unvalued}=…” with a value, and its "
            f"price is shown before anything starts."
        )
    return Call(stage, {**parse_fields(stage, fields), **({"run": order.run} if order.run else {})})


def _too_early(deps: TurnDeps, order: Order) -> TurnAnswer | None:
    """Where a run lacks what a step works on, and how it comes to that; None where nothing is lacking, or no usual step
    makes it."""
    run = find(deps.store, order.run) if order.run else deps.current_run()
    if run is None or order.fields.get("rollback"):  # what is gone back to is the deployment before
        return None
    lacking, before = lacking_before(deps.store, run, order.stage, order.fields)
    if not (lacking and before):
        return None
    stages = [one.split()[0] for one in before]
    if at := [one for one in deps.store.steps(run.id, status=RUNNING) if one.stage in stages]:
        return TurnAnswer(f"{at_work(at[0])} Order {order.stage} once it has ended; nothing was begun.")
    deps.proposals = (Proposed(run.id, stages[0], {}),)
    return TurnAnswer(
        f"{order.stage} needs {listed(lacking, 4)}, which {run.id} does not have yet. Before it "
        f"come{'s' if len(before) == 1 else ''} {listed(before, 9)}: “do that” prices the first; nothing was begun."
    )


def next_step(deps: TurnDeps, run_id: str) -> TurnAnswer | Call:
    """The step that comes next in a run: the one that ended badly, else the first that is missing."""
    run = find(deps.store, run_id) if run_id else deps.current_run()
    if run is not None and (ended_badly := deps.store.broken_off(run.id)):
        arm = {"arm": ended_badly.request["arm"]} if ended_badly.request.get("arm") else {}
        starting_point = f", {kept}" if (kept := taken_up(deps.store, ended_badly)) else ""
        why = f": {clip(ended_badly.error, 200)}" if ended_badly.error else ""
        told = f"{cite(ended_badly)} ({ended_badly.stage}) ended{why}.{reached(ended_badly)}"
        deps.show(prose(f"{told} To try it again{starting_point}:"))
        return call_of(deps, Order(ended_badly.stage, arm, run=run_id, again=True))
    following = next_stages(deps.store, run)
    refused = [step.stage for step in deps.store.priced_steps(run.id)[-1:] if step.status == DECLINED] if run else []
    following = [*(stage for stage in refused if stage in following), *following]  # what was said no to is meant
    if not following:
        name = run.id if run else "no run"
        return TurnAnswer(
            f"Every step of {name} is done. Ask “what should I try next?”, or say what another model should learn."
        )
    first, tested = next(iter(chain_ahead(deps.store, run)), ("", "")) if run else ("", "")
    return call_of(deps, Order(following[0], {"arm": tested} if tested and first == following[0] else {}, run=run_id))


def report(deps: TurnDeps, run_id: str) -> TurnAnswer:
    """Write a run's report."""
    from tunesmith.agent.commands.summary import write_run_report

    run = Context(deps.ws, deps.focused_run()).run(run_id)
    written = write_run_report(deps.store, run.id)
    verdict = f" {clip(written.verdict, 300)}" if written.verdict else ""
    text = f"The report of {run.id} is written: {written.path}.{verdict}"
    return TurnAnswer(text, tool="report", arguments={"run": run.id})


_CERTAIN = 0.995
"""From which probability an order to stop is one whatever words are in it: of who only left, none was read as so likely
(`close it` has 0.991)."""


def _is_stop(reading: Reading) -> bool:
    """Whether words order a stop beyond doubt: each of them says so, or names what."""
    slots, known = reading.slots, reader().known(reading.label)
    loose = slots.unread(places_of(slots, (*OWN_SLOTS, "stage", "step", "work", "field")), known)
    return reading.probability >= (_CERTAIN if loose else GUESSED)


def stop(deps: TurnDeps, reading: Reading) -> TurnAnswer:
    """Which step could be stopped, how far it is, and how; else, or where that is named, the server that answers. Who
    sits at a terminal and orders it beyond doubt is asked whether it is to end."""
    from tunesmith.agent.commands.served_models import status

    slots, ends = reading.slots, _is_stop(reading)
    running = deps.store.steps(status=RUNNING)
    if not running or "serve" in slots.values("work") or "port" in slots.values("field"):
        for served in (line for line in status(deps.store) if line["role"] == "deployed" and not line["down"]):
            arm = f" ({deps.store.artifact(str(served['artifact'])).kind})" if served["run"] else ""
            statement = f"{served['model']} of {served['run'] or 'an unknown run'}{arm} is served at {served['url']}; "
            if deps.end and ends:
                deps.end("")
            return TurnAnswer(f"{statement}`/serve stop` ends that, and no file goes with it.")
    if not running and deps.draft is not None:
        return TurnAnswer(f"Nothing is running; {_waits(deps.draft)} “without …” and a step's name leaves that out.")
    if not running:
        return TurnAnswer("Nothing is running and nothing is served, so there is nothing to stop.")
    named = {*slots.values("step"), *slots.values("stage")}
    step = next((one for one in running if {one.id, one.stage} & named), running[0])
    if deps.end and ends:
        deps.end(step.id)
    alone = "" if ends else "It goes on without you, also with this terminal closed. "
    later = f" “Go on” takes it up {GOES_ON[step.stage]}." if step.stage in GOES_ON else ""
    return TurnAnswer(f"{at_work(step)} {alone}`/stop {step.id}` ends it, after one more question.{later}")


# The proposed plan


def turn(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """What a sentence does to the proposed plan; None where it is about something else. Raises BadInput."""
    assert deps.draft is not None
    edits = reading.edits and edits_in(deps, reading, reading.edits)
    if about := plan_questions.judged(deps, reading, edits):
        return TurnAnswer(about)
    match of_the_plan(reading, edits or Edits(), [spec.stage for spec in deps.draft.steps]):
        case "plan.start" | "plan.drop" | "yes" | "no" | "accept" if edits is not None and edits.changes:
            return changed(deps, edits)
        case "plan.start" | "yes" | "accept" if edits is not None and edits.unread and not is_yes(deps.prompt):
            return TurnAnswer(unread_notice(edits.unread, "nothing was started"))
        case "plan.start" | "yes" | "accept" if not reading.slots.asks:
            return TurnAnswer(doubt) if (doubt := no_clear_yes(deps.prompt)) else _confirm(deps, "start")
        case "plan.drop" | "no":
            return _confirm(deps, "drop")
        case "plan.show" | "plan.cost":
            longest = plan_questions.held_to(deps, reading.slots)
            return TurnAnswer(f"{longest} It is unchanged.") if longest else _plan_again(deps)
        case "plan.wait" | "remark" | "plan.start":
            about = plan_questions.value_and_reason(deps, reading.slots)  # `3 epochs feels a lot`
            return TurnAnswer(f"{about}\nT{_waits(deps.draft)[1:]}".lstrip())
        case "plan.what_if" if edits is not None:
            return plan_questions.imagined(deps, reading.slots, edits)
        case "plan.set" | "plan.without" if edits is not None:
            return changed(deps, edits)
        case "setting.sensible" if reading.request is None:
            about = plan_questions.value_and_reason(deps, reading.slots)
            return TurnAnswer(about) if about else None
        case "plan.why" | "setting.value" if reading.label == "plan.why" or not reading.slots.all("run"):
            return plan_questions.reason(deps, reading.slots)
        case "plan.undo" if deps.draft_before is None and reading.slots.all("field"):  # `the old rank again`
            had = settings_before(deps, reading.slots, edits or Edits())
            return changed(deps, had) if had else plan_questions.undone(deps)
        case "plan.undo" if not (reading.slots.asks and "plan.before" in reading.likely[:_NEAR]):
            return plan_questions.undone(deps)
        case "plan.before" | "plan.undo":
            return plan_questions.last_change(deps)
        case "plan.as_before" if edits is not None:
            had = settings_before(deps, reading.slots, edits)
            return changed(deps, had) if had else TurnAnswer(_NOTHING_BEFORE)
        case "plan.rows":
            answer = plan_questions.with_rows_of(deps, reading.slots.first("run"))
            return _with_others(deps, answer, without_rows(edits) if edits else Edits())
        case "plan.compare":
            return plan_questions.compared(deps, reading.slots.first("run"))
        case "plan.add" if (added := plan_questions.added(deps, reading.slots)) is not None:
            return _with_others(deps, added, beside_steps(edits or Edits(), reading.slots))
    if reading.order is not None and edits is not None:
        if edits.changes:
            return changed(deps, edits)
        return TurnAnswer(
            f"A plan is proposed, {reading.order.stage} among its steps or not: “start it” carries it out, “drop it” "
            f"gives it up; a single step is ordered after that."
        )
    return None


def _with_others(deps: TurnDeps, answer: TurnAnswer, others: Edits) -> TurnAnswer:
    """An answer about steps or rows of the plan, with what else was changed by the words, and what was not."""
    before = deps.draft
    text = changed(deps, replace(others, unread=())).text if others.changes else ""
    done = deps.draft != before or answer.tool
    # beside what was done a word alone that names nothing is mostly how that is said: `après la fusion`
    unread = [one for one in others.unread if not done or " " in one or numbers_in(one) or slots_of(one).named]
    left = f"About {listed([f'“{one}”' for one in unread], 4)} nothing was done." if unread else ""
    lines = (answer.text, text if text or done else "The plan is unchanged.", left)
    return replace(answer, text="\n".join(filter(None, lines)))


_NEAR = 3
"""Labels among which a question about the last change is, for words that ask: then nothing is taken back."""
_NOTHING_BEFORE = "No training was done before whose settings the plan could take; it is unchanged."


def _waits(plan: PipelinePlan) -> str:
    return f"the plan {plan.name} waits as it is: “start it” begins it, “drop it” gives it up."


def _plan_again(deps: TurnDeps) -> TurnAnswer:
    assert deps.draft is not None
    summary = planning.show_draft(deps)
    return TurnAnswer(
        f"The plan {deps.draft.name}, {len(deps.draft.steps)} steps, takes about {summary['estimated_in_all']} in all. "
        f"{summary['memory']} Each step's price is in the table, and asked about again when its turn comes. Start it, "
        f"or change something?"
    )


def _confirm(deps: TurnDeps, how: str) -> TurnAnswer:
    planning.start_plan(deps, planning.StartPlan(confirm=how))  # type: ignore[arg-type]  # pydantic checks the word
    text, deps.say_next = deps.say_next, ""
    return TurnAnswer(text or "The plan is carried out.", tool="start_plan", arguments={"confirm": how})


def changed(deps: TurnDeps, edits: Edits) -> TurnAnswer:
    """Every step that a sentence leaves out and every value that it sets, in one go, or nothing of it."""
    assert deps.draft is not None
    try:
        plan, changes = planning.edited_plan(deps, deps.draft, edits)
    except BadInput as error:  # before what is not read: `rank -3 and a zillion epochs` is refused for its rank
        return TurnAnswer(f"{error}; the plan is unchanged.")
    limits = " ".join(one for one in edits.unread if amounts(slots_of(one))) if changes else ""
    edits = replace(edits, unread=tuple(one for one in edits.unread if one not in limits))
    slots = slots_of(deps.prompt)
    asks = not (slots.numbers or edits.changes) or (edits.unread and plan.steps == deps.draft.steps)
    if asks and (to_what := plan_questions.to_what(deps, slots)):
        return TurnAnswer(to_what)
    if edits.unread or edits.pace:
        notice = unread_notice((*edits.unread, *([edits.pace] if edits.pace else ())), "the plan is unchanged")
        if edits.changes and not edits.pace:
            label = "plan.without" if edits.without and not edits.values else "plan.set"
            deps.offered = (deps.prompt, (label,))
            notice += " Type 1 for the rest of it."
        return TurnAnswer(notice)
    if not changes:
        return TurnAnswer("I see no value and no step of the plan in that, so it is unchanged. Say such as “rank 8” or "
                      "“without quantizing”.")  # fmt: skip
    if plan.steps == deps.draft.steps:
        text = f"The plan has that already ({', '.join(changes)}), so it is unchanged."
    else:
        takes = planning.takes_now(deps, plan)
        text = f"The plan is changed: {', '.join(changes)}. It takes about {takes} now. Start it, or change more?"
    beside = " and ".join(f"“{one}”" for one in edits.beside)
    text += f"\n(About {beside} nothing was done.)" if beside else ""
    unused = [stage for stage in edits.stages if not any(stage in change.split() for change in changes)]
    text += "".join(f"\n(Of {stage} nothing was changed.)" for stage in unused)
    text += f"\n{plan_questions.held_to(deps, slots_of(limits))}" if limits else ""
    return TurnAnswer(text, tool="edit_plan", arguments={"changes": changes})


def unread_notice(unread: tuple[str, ...], so: str) -> str:
    """What is said where a part of an order is no argument of it."""
    quotes = " and ".join(f"“{one}”" for one in unread)
    return f"{quotes} I could not place, so {so}. Say it in other words, or with a setting's name."


def finish_description(deps: TurnDeps, opened: Interview) -> str:
    """Write a whole description down and propose its plan; what is said then. Errors ask on."""
    try:
        plan, words = describing.plan_of(deps, opened)
    except BadInput as error:
        return str(error)
    planning.draft(deps, plan, opened.goal, opened.quantize)
    return f"{words} It takes about {planning.show_draft(deps)['estimated_in_all']} in all."
