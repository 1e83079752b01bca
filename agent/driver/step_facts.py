"""A step that was ordered: priced, asked about and started, and what it came to, as the driver is told it: its numbers,
none of the texts it worked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver.at_price import Waits
from tunesmith.agent.driver.turn_deps import Declined, TurnDeps
from tunesmith.agent.words.slots import slots_of
from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_list, as_object
from tunesmith.memory.records import RUNNING, Step
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.evaluation.comparison import Comparison
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.run_step import Outcome, run_step
from tunesmith.tools.pipeline.runs import place
from tunesmith.tools.pipeline.workspace import Decision, StepRequest

_QUIET = frozenset(
    ["path", "sha256", "artifact", "keys", "key", "comparisons", "suite_sha256", "key_file", "first_answer", "fits"]
)


def step_facts(step: Step) -> dict[str, object]:
    """What a finished step came to, for the driver: its numbers, none of the texts it worked on."""
    result = dict(step.report)
    blocks = result.pop("blocks", None)
    if isinstance(blocks, Mapping):
        result["passed"] = {name: f"{block['passed']} of {block['cases']}" for name, block in blocks.items()}
    stored = map(as_object, as_list(step.report.get("comparisons", [])))
    if verdicts := [render.hop_line(Comparison.from_json(compared)).text.plain for compared in stored]:
        result["verdicts"] = verdicts
    return {"stage": step.stage, "step": step.id, "run": step.run, "took": duration(step.seconds)} | brief(result)


def brief(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: size(value)
        if name.endswith("bytes") and isinstance(value, int)
        else round(value, 4)
        if isinstance(value, float)
        else value
        for name, value in values.items()
        if name not in _QUIET
        and not (isinstance(value, str) and len(value) > 200)
        and not (isinstance(value, Sequence) and len(value) > 12)
    }


# A step that was ordered


def checked(deps: TurnDeps, entry: catalog.Entry, fields: dict[str, object]) -> StepRequest:
    """The request of a stage that costs something. Raises BadInput for a free path, and for one that is at work."""
    deps.check_grounded(fields)
    request = StepRequest.given(entry.name, fields)
    _refuse_a_second(deps, request)
    return request


def run_stage(deps: TurnDeps, entry: catalog.Entry, given: dict[str, object]) -> object:
    """Carry out one stage that code has read: what is expensive asks the user first, beside each time, memory or disk
    that the words name, and starts nothing without a yes."""

    def asked(plan: Plan, step: str) -> Decision:
        if told := Waits.of(plan).held_to(slots_of(deps.prompt)):
            deps.show(prose(told))
        return deps.approver(plan, step)

    if entry.asks(given):
        outcome = run_step(deps.ws, checked(deps, entry, given), asked, follow=deps.follow)
        if outcome.decision and outcome.declined:
            reason = f": {outcome.decision.reason}" if outcome.decision.reason else ""
            raise Declined(
                f"{entry.name}: the user said no{reason}; nothing was started, and nothing recorded goes with it. "
                f"“{entry.name}” shows its price again."
            )
        return started(deps, outcome.step)
    request = StepRequest.given(entry.name, given)
    if entry.only_looks:
        seen = run_steps.look(deps.ws, request)["result"]
        deps.show(render.result_table(seen))
        return {"stage": entry.name, **brief(seen)}
    ended = run_step(deps.ws, request, deps.approver).done()
    deps.show(render.result_table(ended.report))
    return step_facts(ended)


def started(deps: TurnDeps, step: Step) -> object:
    """What is told of a step that was agreed to and started. Raises StepFailed where it was followed and failed."""
    deps.focused_run_id = ""
    ran = {"ran_with": dict(StepRequest.of(step).fields)}
    if deps.follow:
        return {**step_facts(Outcome(step).done()), **ran}
    deps.say(f"{step.stage} runs in the background; you are told when it ends, and we can go on talking.")
    told = {"started": step.stage, "step": step.id, "run": step.run, "estimated": duration(step.estimated_seconds)}
    return {**told, **ran, "note": "it runs in the background; the user is told when it ends"}


def _refuse_a_second(deps: TurnDeps, request: StepRequest) -> None:
    """Raises BadInput where the stage is at work in the run already: the driver would only start it twice."""
    run = place(deps.store, request).run
    running = [step for step in deps.store.steps(run, status=RUNNING) if step.stage == request.stage]
    if running:
        raise BadInput(f"{request.stage} ({running[0].id}) runs already; wait for it to end")
