"""One step of a conversation: checked, priced, asked about, carried out, and told of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.driver.turn_deps import Declined, TurnDeps
from tunesmith.agent.queries.answer import find
from tunesmith.agent.queries.registry import ask
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import RUNNING, Step
from tunesmith.tools.core.format import duration
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.following import as_before
from tunesmith.tools.pipeline.known_cases import refuse_cases
from tunesmith.tools.pipeline.plan_file import parse_fields
from tunesmith.tools.pipeline.run_step import Outcome, begun_before, continue_step, run_step
from tunesmith.tools.pipeline.runs import place
from tunesmith.tools.pipeline.workspace import StepRequest


def completed(deps: TurnDeps, stage: str, asked: Mapping[str, object]) -> dict[str, object]:
    """What a driver asked of a stage, with what its run has done before where it said nothing."""
    run = find(deps.store, str(asked["run"])) if asked.get("run") else deps.current_run()
    fields = as_before(deps.ws, run.id if run else "", stage, asked)
    named = {"run": fields.pop("run")} if "run" in fields else {}
    return {**parse_fields(stage, fields), **named}


def checked(deps: TurnDeps, entry: catalog.Entry, fields: dict[str, object]) -> StepRequest:
    """The request of a stage that costs something. Raises BadInput for a free path, and for one that is at work."""
    deps.check_grounded(fields)
    request = StepRequest.given(entry.name, fields)
    _refuse_a_second(deps, request)
    return request


def run_stage(deps: TurnDeps, entry: catalog.Entry, given: dict[str, object]) -> object:
    """Carry out one stage: what is expensive shows its price and asks first, and starts nothing without a yes.

    Raises Declined for a no, ApprovalPending where nobody could decide, BadInput for rows that hold a test case.
    """
    if source := given.get("source"):
        refuse_cases(deps.store, str(source), given.get("mapping"))
    if entry.asks(given):
        request = checked(deps, entry, given)
        outcome = continue_step(deps.ws, begun_before(deps.store, request), request, deps.approver, follow=deps.follow)
        if outcome.decision and outcome.declined:
            reason = outcome.decision.reason and f": {outcome.decision.reason}"
            raise Declined(
                f"{entry.name}: the user said no{reason}; nothing was started. “{entry.name}” shows its price again."
            )
        return started(deps, outcome.step)
    request = StepRequest.given(entry.name, given)
    if entry.only_looks:
        seen = run_steps.look(deps.ws, request)["result"]
        deps.show(render.result_table(seen))
        return {"stage": entry.name, **seen}
    ended = run_step(deps.ws, request, deps.approver).done()
    deps.show(render.result_table(ended.report))
    return _recorded(deps, ended)


def started(deps: TurnDeps, step: Step) -> object:
    """What is told of a step that was agreed to and started. Raises StepFailed where it was followed and failed."""
    deps.focused_run_id = ""
    ran = {"ran_with": dict(StepRequest.of(step).fields)}
    if deps.follow:
        return {**_recorded(deps, Outcome(step).done()), **ran}
    deps.say(f"{step.stage} runs in the background; you are told when it ends, and we can go on talking.")
    told = {"started": step.stage, "step": step.id, "run": step.run, "estimated": duration(step.estimated_seconds)}
    return {**told, **ran, "note": "it runs in the background; the user is told when it ends"}


def _recorded(deps: TurnDeps, step: Step) -> dict[str, Any]:
    """What a finished step came to, as a question about it is answered: none of the texts that it worked on."""
    told: dict[str, Any] = json.loads(ask(StepQuery(step=step.id), deps.records()).for_model())
    return told


def _refuse_a_second(deps: TurnDeps, request: StepRequest) -> None:
    """Raises BadInput where the stage is at work in the run already: the driver would only start it twice."""
    run = place(deps.store, request).run
    running = [step for step in deps.store.steps(run, status=RUNNING) if step.stage == request.stage]
    if running:
        raise BadInput(f"{request.stage} ({running[0].id}) runs already; wait for it to end")
