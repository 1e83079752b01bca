"""Carry out one step: price → propose → decide → start → follow → record. There is no other way.

The command line, the slash commands, the conversation and written plans all call `run_step`. They differ in who
answers (`approver`), in who is told (`ws.emit`), and in whether they wait for the end (`follow`). A step that waits
for its yes, or that was begun before, takes the same way from its decision on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pydantic import ValidationError

from tunesmith.memory.errors import ApprovalPending, BadInput, Declined, StepFailed, TunesmithError
from tunesmith.memory.locks import adding_to
from tunesmith.memory.records import ABANDONED, APPROVED, DECLINED, DONE, RUNNING, WAITING, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.auto import readable_value
from tunesmith.tools.core.field_names import our_names
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.evaluation.advice import before_spending
from tunesmith.tools.machine.vllm_program import no_vllm
from tunesmith.tools.pipeline import catalog, driver_eviction, planning_facts, there
from tunesmith.tools.pipeline.fits import lacking
from tunesmith.tools.pipeline.plan_file import parse_request
from tunesmith.tools.pipeline.progress import older_line, same_inputs
from tunesmith.tools.pipeline.runs import place, set_run_status
from tunesmith.tools.pipeline.start_step import follow_step, run_here, start
from tunesmith.tools.pipeline.workspace import Approver, Decision, Edited, StepRequest, Workspace
from tunesmith.tools.serving.eviction import machine_for_a_step


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step came to: the step as it is recorded now, and what was decided about its plan."""

    step: Step
    decision: Decision | None = None
    """None for a free step, which asks nobody, and for one that was only followed."""

    @property
    def declined(self) -> bool:
        """Whether the answer was no, so that nothing was started."""
        return self.decision is not None and not self.decision.yes

    def done(self) -> Step:
        """The step once it did its work. Raises Declined or StepFailed, with the reason."""
        step = self.step
        if self.decision is not None and not self.decision.yes:
            raise Declined(f"{step.stage} ({step.id}) was declined: {self.decision.reason or 'no reason given'}")
        if step.status != DONE:
            raise StepFailed(f"{step.stage} ({step.id}) {step.status}: {step.error}")
        return step


def run_step(ws: Workspace, request: StepRequest, approver: Approver, *, follow: bool = True) -> Outcome:
    """Carry out one step; without `follow` its worker is left to itself as soon as it runs.

    Raises BadInput or GateRefused before anything is recorded, ApprovalPending where nobody decided: the step waits.
    """
    with _adding(ws, request.stage, request.fields, place(ws.store, request).run):
        return _from_decision(ws, _proposed(ws, request), approver, follow=follow)


def propose_step(ws: Workspace, request: StepRequest) -> Step:
    """Price one step, show it, and let it wait for its yes: `ask_about` has it asked for, `start_agreed` starts it.

    What broke off is offered again, where nothing else is asked for and it can go on.

    Raises BadInput for one that asks nobody, and as `run_step` does before anything is recorded.
    """
    if not catalog.ENTRIES[request.stage].asks(request.fields):
        raise BadInput(f"{request.stage} costs nothing with these fields; type `tunesmith {request.stage}`")
    begun = begun_before(ws.store, request)
    return offer_again(ws, begun.id)[0] if begun and can_go_on(ws, begun) else ws.store.step(_proposed(ws, request))


def begun_before(store: Store, request: StepRequest) -> Step | None:
    """The step that broke off in a run, where nothing else is asked for than it was asked for."""
    broken = store.broken_off(run) if (run := place(store, request).run) else None
    if broken is None or broken.stage != request.stage:
        return None
    return broken if all(broken.request.get(name) == value for name, value in request.fields.items()) else None


def _proposed(ws: Workspace, request: StepRequest) -> str:
    placement = place(ws.store, request)
    for sentence in request.notices:
        ws.emit("message", stage=request.stage, text=sentence)
    plan = _settled(ws, replace(request, run=placement.run))
    if placement.new_name:  # what is refused opens no run
        plan = plan.in_run(ws.store.run_for_a_price(placement.new_name))
    return propose(ws, plan)


def ask_about(ws: Workspace, waiting: Step, approver: Approver) -> tuple[Step, Decision]:
    """Have a step that waits decided on; the step that was decided on, which an edit makes another one.

    Raises ApprovalPending where nobody decides: it goes on waiting.
    """
    try:
        step, plan, decision = agree(ws, waiting.id, current_plan(waiting), approver)
    except ApprovalPending:
        _nobody_works(ws, waiting.run)
        raise
    if not decision.yes:
        _nobody_works(ws, plan.run)
    return ws.store.step(step), decision


def start_agreed(ws: Workspace, step: str, *, follow: bool) -> Step:
    """Start a step that a yes was said to; one that was started since then is only followed. Raises StepFailed."""
    current = ws.store.step(step)
    if current.status == APPROVED:
        current = start(ws, step)
    return follow_step(ws, step) if follow and not current.ended else current


@contextmanager
def _adding(ws: Workspace, stage: str, fields: Mapping[str, object], run: str) -> Iterator[None]:
    """A free step that makes something has its run to itself from its price to its end: two at once would build on the
    same, and the later one hide what the other made. A step of a worker takes its turn there."""
    entry = catalog.ENTRIES[stage]
    if not run or not entry.makes or entry.asks(fields):
        yield
        return

    def notify(holder: str) -> None:
        ws.emit("message", stage=stage, text=f"waiting for another step to be done with {run} ({holder})")

    with adding_to(ws.store.home, run, waiting=notify):
        yield


def resume_step(ws: Workspace, step: str, approver: Approver, *, follow: bool = True) -> Outcome:
    """Go on with a step that failed, was stopped, or waits: same plan, same folder, a new yes. Raises as
    `offer_again`."""
    offered, plan = offer_again(ws, step)
    with _adding(ws, plan.stage, plan.request, plan.run):
        return _from_decision(ws, offered.id, approver, follow=follow)


def offer_again(ws: Workspace, step: str) -> tuple[Step, Plan]:
    """Show a step that failed, was stopped, or waits as it was planned, and let it wait for a new yes.

    Raises BadInput where it serves and there is no vllm program any more, GateRefused where it may not be deployed now.
    """
    record = ws.store.step(step)
    entry = catalog.ENTRIES[record.stage]
    if entry.serves and not ws.vllm and not there.is_there(record.request):
        raise BadInput(no_vllm(ws.vllm_from))
    declared = entry.load()
    inputs = planning_facts.inputs_of(ws.store, record.run)
    declared.check_before_start(declared.request.of(record.stage, record.request), inputs)
    plan = current_plan(record)
    there.check_place(plan, ws.ray)
    ws.store.reopen(step, plan_hash=plan.hash)
    ws.emit("plan.shown", run=plan.run, step=step, stage=plan.stage, plan_hash=plan.hash, plan=plan, resumed=True)
    return ws.store.step(step), plan


def current_plan(step: Step) -> Plan:
    """The plan of a proposed step, its paths as they are now: a moved home gives another hash, `auto` for 0 none."""
    plan = Plan.model_validate(step.plan)
    known = catalog.ENTRIES[step.stage].load().request.model_fields
    request = {n: readable_value(known[n], value) if n in known else value for n, value in plan.request.items()}
    return plan.model_copy(update={"request": request})


def run_pending(ws: Workspace, waiting: Step, approver: Approver, *, follow: bool = True) -> Outcome:
    """Carry out a step that waits for a yes, if it would still be planned as it was shown.

    Else the plan of today waits in its place, for the approver agrees to no other one: raises ApprovalPending.
    """
    take_up = resume_step if (current := as_of_today(ws, waiting)).id == waiting.id else _from_decision
    return take_up(ws, current.id, approver, follow=follow)


def as_of_today(ws: Workspace, waiting: Step) -> Step:
    """A step that waits for a yes; where it would be planned otherwise today, that plan, which waits in its place."""
    now, proposed = price(ws, StepRequest.of(waiting)), current_plan(waiting)
    if now.hash == proposed.hash:
        return waiting
    changed = f"it would now be planned as {now.hash[:12]}, not {proposed.hash[:12]}"
    ws.store.decide(waiting.id, "no", by="--approve", reason=changed, price=proposed.estimate.model_dump(mode="json"))
    return ws.store.step(propose(ws, now))


def continue_step(
    ws: Workspace, begun: Step | None, request: StepRequest, approver: Approver, *, follow: bool = True
) -> Outcome:
    """Carry out a step of which an attempt may have been made before: followed, resumed, or planned anew.

    It goes on from its own checkpoint, unless the run holds other inputs by now, or what its plan pins was changed: its
    worker would refuse that.
    """
    if begun and begun.status == RUNNING:
        return Outcome(follow_step(ws, begun.id))
    if begun and can_go_on(ws, begun):
        return resume_step(ws, begun.id, approver, follow=follow)
    return run_step(ws, request, approver, follow=follow)


def can_go_on(ws: Workspace, begun: Step) -> bool:
    """Whether a step may be offered again as it was: nothing that it builds on was changed since."""
    try:
        current_plan(begun)
    except ValidationError:  # of another version
        return False
    offered_anew = begun.status not in (DECLINED, ABANDONED)
    return offered_anew and same_inputs(ws.store, begun) and _still_pinned(ws, begun)


def _nobody_works(ws: Workspace, run: str) -> None:
    """A price leaves its run as it was; only one whose worker died a moment ago waits from now on."""
    if ws.store.run(run).status == RUNNING:
        set_run_status(ws.store, run, WAITING)


def _still_pinned(ws: Workspace, begun: Step) -> bool:
    """Whether a plan pins what one of today would; where none can be made today, its worker says what is wrong."""
    try:
        return quote(ws, StepRequest.of(begun)).pins == begun.plan.get("pins", {})
    except TunesmithError:
        return True


def _from_decision(ws: Workspace, step: str, approver: Approver, *, follow: bool) -> Outcome:
    """The way of a proposed step: ask, start, follow. Its run is left as the step is, by a price alone as it was."""
    waiting = ws.store.step(step)
    if not catalog.ENTRIES[waiting.stage].asks(waiting.request):
        return Outcome(run_here(ws, step))
    decided, decision = ask_about(ws, waiting, approver)
    return Outcome(start_agreed(ws, decided.id, follow=follow) if decision.yes else decided, decision)


def _settled(ws: Workspace, request: StepRequest) -> Plan:
    """The priced plan of a step once the person has answered what it asks; a no starts nothing.

    Raises BadInput where it cannot be done, Declined after a no, ApprovalPending where a person has to be there.
    """
    plan = quote(ws, request)
    for question in plan.questions:
        try:
            agreed = ws.agreed(plan, question)
        except Edited:  # what the question rests on was changed: the step is planned anew
            return _settled(ws, request)
        if agreed:
            request = replace(request, fields={**request.fields, **question.yes})
    return price(ws, request) if plan.questions else _possible(plan)


def price(ws: Workspace, request: StepRequest) -> Plan:
    """The priced plan of one step as things stand now. Raises BadInput where it cannot be done."""
    return _possible(quote(ws, request))


def _possible(plan: Plan) -> Plan:
    if plan.refusals:
        raise BadInput(f"{plan.stage}: {'; '.join(plan.refusals)}")
    return plan


def quote(ws: Workspace, request: StepRequest) -> Plan:
    """Like `price`, but a plan that cannot be done is returned with its refusals."""
    declared, run = catalog.ENTRIES[request.stage].load(), request.run
    parsed = parse_request(request.stage, {**request.fields, "run": run})
    try:
        context = declared.inspect_inputs(parsed, planning_facts.inputs_of(ws.store, run))
        machine = machine_for_a_step(ws.store.home)
        known = planning_facts.gather(ws.store, run, vllm=ws.vllm, vllm_from=ws.vllm_from, machine=machine)
        known = there.facts_for(ws, parsed, known)
        plan = declared.plan(parsed, known, context).model_copy(update={"on": known.there})
    except KeyError as missing:  # in what an earlier version recorded of an artifact
        remedy = "do the steps that it builds on again, first base, or begin another run"
        raise BadInput(f"{request.stage} cannot be priced: the records of {run} lack {missing}; {remedy}") from missing
    machine, evicted = known.machine, not plan.on and driver_eviction.in_the_way(ws.store.home, plan.estimate)
    return plan.model_copy(
        update={
            "notes": (
                *plan.notes,
                *known.notes,
                *lacking(plan, context, known),
                *(before_spending(ws.store.steps(run, status=DONE)) if declared.spends else ()),
                *older_line(ws.store, plan),
                *((driver_eviction.EVICTED,) if evicted else ()),
                *driver_eviction.notes_of_held(ws.store.home, plan, machine),
            ),
            "free_ram_bytes": machine.ram_free_bytes + machine.swap_free_bytes,
            "free_vram_bytes": machine.vram_free_on(plan.estimate.cards),
            "free_disk_bytes": machine.disk_free_bytes,
        }
    )


# Proposed and decided


def propose(ws: Workspace, plan: Plan) -> str:
    """Record a priced plan as a step that waits for a decision, show it, and return the step's id."""
    price_ = plan.estimate
    step = ws.store.propose(
        plan.run,
        plan.stage,
        arm=plan.arm,
        request=plan.request,
        plan=plan.model_dump(mode="json"),
        plan_hash=plan.hash,
        inputs={name: pin.artifact for name, pin in plan.inputs.items()},
        estimated_seconds=price_.seconds,
        estimated_peak_bytes=max(price_.peak_ram_bytes, price_.peak_vram_bytes),
    )
    ws.emit("plan.shown", run=plan.run, step=step, stage=plan.stage, plan_hash=plan.hash, plan=plan)
    return step


def decide(ws: Workspace, step: str, plan: Plan, approver: Approver) -> Decision:
    """Ask once, and record the answer. Raises ApprovalPending where nobody can answer, Edited as the approver does.

    A price that is left by Ctrl-C is abandoned: nobody was told how to agree to it later.
    """
    seconds = plan.estimate.seconds
    ws.emit(
        "approval.required", run=plan.run, step=step, stage=plan.stage, plan_hash=plan.hash, estimated_seconds=seconds
    )
    try:
        decision = approver(plan, step)
    except KeyboardInterrupt:  # nobody answered: as if it were never asked
        ws.store.abandon_step(step, "it was interrupted")
        raise
    word = "yes" if decision.yes else "no"
    ws.store.decide(step, word, by=decision.by, reason=decision.reason, price=plan.estimate.model_dump(mode="json"))
    ws.store.event("approval.decided", run=plan.run, step=step, decision=word, reason=decision.reason)
    ws.emit("approval.decided", step=step, stage=plan.stage, decision=word, by=decision.by, reason=decision.reason)
    return decision


def agree(ws: Workspace, step: str, plan: Plan, approver: Approver) -> tuple[str, Plan, Decision]:
    """Ask until there is a yes or a no; the step and the plan that it was said to, and the answer.

    An edit is checked and priced before anything changes: the old plan is then declined with the edit as its reason,
    and the new one is a step of its own, shown and asked about again. Raises ApprovalPending where nobody answers.
    """
    while True:
        try:
            return step, plan, decide(ws, step, plan, approver)
        except Edited as edit:
            try:
                new = our_names(edit.fields, catalog.ENTRIES[plan.stage].load().request.model_fields)
                asked = _edited(plan, new.fields)
                edited = price(ws, asked)
            except TunesmithError as error:
                ws.emit("message", text=f"that cannot be: {error}")
                continue
            for sentence in (*new.notes, *asked.notices):
                ws.emit("message", stage=plan.stage, text=sentence)
            edited_to = Decision(False, "edit", f"edited: {Edited(new.fields)}")
            decide(ws, step, plan, lambda *_, no=edited_to: no)  # bound now, not when it is asked
            step, plan = propose(ws, edited), edited


def _edited(plan: Plan, fields: Mapping[str, object]) -> StepRequest:
    before = {name: value for name, value in plan.request.items() if name != "run"}
    declared = catalog.ENTRIES[plan.stage].load()
    new = declared.carried_over(before, fields) | dict(fields)
    settlement = declared.settle(new)
    return StepRequest(plan.stage, new | dict(settlement.fields), plan.run, settlement.notes)
