"""The user's yes to a tool call: asked for where the call waits, and again after a restart, at the same price.

A tool that costs something prices its step and raises `ApprovalRequired` with it. What agrees is the approver, as
everywhere: no argument of a tool, and no text that a model reads, is an answer.
"""

from __future__ import annotations

import asyncio

from pydantic_ai import DeferredToolRequests, DeferredToolResults, RunContext, ToolApproved, ToolDenied
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart

from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import ApprovalPending, StepFailed, TunesmithError
from tunesmith.memory.records import PLANNED
from tunesmith.tools.pipeline.run_step import as_of_today, ask_about, current_plan

STEP = "step"
"""In the metadata of a call that waits: its step."""
LOST = "its result was lost with a restart; call it again if it is still needed"


async def asked(ctx: RunContext[TurnDeps], requests: DeferredToolRequests) -> DeferredToolResults | None:
    """Has the user asked about every call that waits; what is left undecided ends the turn and goes on waiting."""
    deps = ctx.deps
    deps.keep_waiting(ctx.messages, {call.tool_call_id: requests.metadata[call.tool_call_id][STEP]
                                     for call in requests.approvals})  # fmt: skip
    results = DeferredToolResults()
    for call in requests.approvals:
        step = requests.metadata[call.tool_call_id][STEP]
        await asyncio.to_thread(_put, deps, call, step, results)
    return results if results.approvals else None


def _put(deps: TurnDeps, call: ToolCallPart, step: str, results: DeferredToolResults) -> None:
    """Put one call to the user; without an answer it is in no result."""
    try:
        decided, decision = ask_about(deps.ws, deps.store.step(step), deps.approver)
    except ApprovalPending as pending:
        deps.undecided = pending
        return
    if decision.yes:
        results.approvals[call.tool_call_id] = ToolApproved()
        results.metadata[call.tool_call_id] = {STEP: decided.id}
        return
    reason = f": {decision.reason}" if decision.reason else ""
    error = StepFailed(f"{call.tool_name}: the user said no{reason}; nothing was started")
    deps.went_wrong(call.tool_name, error)
    deps.note(str(error))
    results.approvals[call.tool_call_id] = ToolDenied(str(error))


def asked_again(deps: TurnDeps, messages: list[ModelMessage], waiting: dict[str, str]) -> DeferredToolResults:
    """The answers to the calls that waited when the process ended: each is shown and asked about once more, at the
    price of today where it is another one. One that was carried out since then is taken as agreed to."""
    results = DeferredToolResults()
    for call in open_calls(messages):
        if call.tool_call_id not in waiting:
            continue
        try:
            step = deps.store.step(waiting[call.tool_call_id])
            step = as_of_today(deps.ws, step) if step.status == PLANNED else step
        except TunesmithError as error:
            results.approvals[call.tool_call_id] = ToolDenied(f"{call.tool_name} cannot be done any more: {error}")
            continue
        if step.status == PLANNED:
            plan = current_plan(step)
            deps.ws.emit("plan.shown", run=step.run, step=step.id, stage=step.stage, plan_hash=plan.hash, plan=plan,
                         resumed=True)  # fmt: skip
            _put(deps, call, step.id, results)
        elif step.started_at:
            results.approvals[call.tool_call_id] = ToolApproved()
            results.metadata[call.tool_call_id] = {STEP: step.id}
        else:
            results.approvals[call.tool_call_id] = ToolDenied(f"{call.tool_name} was {step.status} meanwhile")
    return results


def open_calls(messages: list[ModelMessage]) -> list[ToolCallPart]:
    """The calls of the newest response that have no result."""
    newest = max((i for i, message in enumerate(messages) if isinstance(message, ModelResponse)), default=-1)
    if newest < 0:
        return []
    done = {part.tool_call_id for message in messages[newest + 1 :] for part in message.parts
            if isinstance(part, ToolReturnPart)}  # fmt: skip
    return [part for part in messages[newest].parts if isinstance(part, ToolCallPart) and part.tool_call_id not in done]


def with_lost_results(messages: list[ModelMessage], waiting: dict[str, str]) -> list[ModelMessage]:
    """The messages with a result for every call that was under way and waited for nobody."""
    lost = [call for call in open_calls(messages) if call.tool_call_id not in waiting]
    results = [ToolReturnPart(call.tool_name, LOST, call.tool_call_id) for call in lost]
    return [*messages, ModelRequest(results)] if results else messages
