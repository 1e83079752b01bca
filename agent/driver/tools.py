"""The driver's typed tools: every stage of the catalogue, the plan of a whole fine-tune, and the history.

Schemas are flat and every argument is required; `null` stands for "as usual". No tool takes a path, a command or SQL.
An expensive stage goes the way of every step (`run_step`): the tool waits for the user's answer in its own thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, TypeVar

from pydantic import BaseModel, Field, create_model
from pydantic_ai import FunctionToolset, RunContext, Tool
from pydantic_ai.exceptions import ToolFailed

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.commands.fields import of_words
from tunesmith.agent.driver import planning
from tunesmith.agent.driver.look_ups import look_up
from tunesmith.agent.driver.stage_calls import OTHER
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding.entities import sentence_of
from tunesmith.agent.driver.understanding.query import Query
from tunesmith.memory.errors import BadInput, StepFailed, TunesmithError
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.records import RUNNING, Step
from tunesmith.memory.views import VIEWS
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.evaluation.comparison import Comparison
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.runs import place
from tunesmith.tools.pipeline.workspace import StepRequest

A = TypeVar("A", bound=BaseModel)

_RESULT_CHARACTERS = 1500
_SQL_ROWS = 40


class _LookUpBase(planning.Args):
    """Look something up: in the history of runs, on this machine, or by arithmetic (whether a model would fit)."""


LookUp = create_model(
    "LookUp",
    __base__=_LookUpBase,
    __doc__=_LookUpBase.__doc__,
    **{
        name: (
            info.annotation if name == "kind" else Optional[info.annotation],  # noqa: UP045
            Field(... if name == "kind" else None, description=info.description),
        )  # type: ignore[call-overload]
        for name, info in Query.model_fields.items()
    },
)


def toolset() -> FunctionToolset[TurnDeps]:
    """All tools; which of them a request shows is decided per request."""
    tools = [
        _tool("look_up", LookUp, _look_up, strict=False),
        _tool("query_records", QueryRecords, _query_records),
        _tool("plan_fine_tune", planning.PlanFineTune, planning.plan_fine_tune),
        _tool("describe_behaviour", planning.DescribeBehaviour, planning.describe_behaviour),
        _tool("edit_plan", planning.EditPlan, planning.edit_plan),
        _tool("start_plan", planning.StartPlan, planning.start_plan),
        *(_stage_tool(entry) for entry in catalog.STAGES),
    ]
    return FunctionToolset(tools, sequential=True)


def _tool(
    name: str, args: type[A], run: Callable[[TurnDeps, A, RunContext[TurnDeps]], object], *, strict: bool = True
) -> Tool[TurnDeps]:
    def call(ctx: RunContext[TurnDeps], args: A) -> str:
        return _capped(ctx.deps, run(ctx.deps, args, ctx))

    call.__annotations__ = {"ctx": RunContext[TurnDeps], "args": args, "return": str}
    description = (args.__doc__ or "").strip()
    return Tool(call, takes_ctx=True, name=name, description=description, strict=strict, sequential=True)


def _capped(deps: TurnDeps, result: object) -> str:
    text = json.dumps(result, ensure_ascii=False, default=str)
    deps.note(text)
    return text if len(text) <= _RESULT_CHARACTERS else text[:_RESULT_CHARACTERS] + " … (the rest is on the screen)"


# History


def _look_up(deps: TurnDeps, args: BaseModel, ctx: RunContext[TurnDeps]) -> object:
    given = {name: value for name, value in args.model_dump().items() if value not in (None, "")}
    runs = deps.store.runs()
    if name := given.get("run"):
        given["run"] = next(iter(sentence_of(str(name), runs).runs), name)
    answer = look_up(deps, Query.model_validate(given))
    for line in answer.lines:
        deps.show(render.plain(line))
    if deps.routed:
        deps.spoken, deps.say_next = answer.lines, answer.facts or "It is on your screen."
    return answer.facts


class QueryRecords(planning.Args):
    """Ask the records by one read-only SELECT over the views v_runs, v_steps, v_flips and v_lineage."""

    sql: str = Field(
        description="One SELECT. v_runs(run, name, status, created_at, finished_at, steps, steps_done, seconds), "
        "v_steps(run, step, stage, arm, status, seconds, estimated_seconds, peak_rss_bytes, decided_by, error, "
        "request, result, started_at, finished_at), v_flips(run, arm_a, arm_b, block, case_id, passed_a, passed_b, "
        "flip), v_lineage."
    )


def _query_records(deps: TurnDeps, args: QueryRecords, ctx: RunContext[TurnDeps]) -> Any:
    """Answer in a process with limits of its own, from the views alone; the query is shown to the user."""
    deps.show(render.plain(f"· asks the records: {' '.join(args.sql.split())[:400]}"))
    found = ask_in_process(deps.store.path, args.sql, max_rows=_SQL_ROWS, only=VIEWS, home=deps.store.home)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return {"rows": rows, "note": f"only the first {len(rows)} rows"} if found.truncated else {"rows": rows}


# Stages


def _stage_tool(entry: catalog.Entry) -> Tool[TurnDeps]:
    model = entry.load().request
    fields: dict[str, Any] = {}
    for name in entry.load().settable:
        info = model.model_fields[name]
        usual = info.get_default(call_default_factory=True)
        text = f"{info.description or ''} null: as usual ({usual}).".strip()
        fields[name] = (Optional[info.annotation], Field(description=text))  # noqa: UP045
    others = [name for name in model.model_fields if name not in (*entry.load().settable, "run")]
    if others:
        text = f"Further fields as `field=value …`, of {', '.join(others)}. null: as usual."
        fields[OTHER] = (Optional[str], Field(None, description=text))  # noqa: UP045
    fields["run"] = (Optional[str], Field(description="Run to work in, such as r3. null: the current one."))  # noqa: UP045
    args = create_model(
        entry.name, __base__=planning.Args, __doc__=f"{entry.summary[0].upper()}{entry.summary[1:]}.", **fields
    )

    def run(deps: TurnDeps, given: BaseModel, ctx: RunContext[TurnDeps]) -> object:
        asked = given.model_dump(exclude_none=True)
        further = of_words(asked.pop(OTHER, ""), entry.load().request)
        return run_stage(deps, entry, {**further, **asked})

    return _tool(entry.name, args, run)


def run_stage(deps: TurnDeps, entry: catalog.Entry, given: dict[str, object]) -> object:
    """Carry out one stage: what is expensive asks the user first, whoever called, and starts nothing without a yes."""
    asks = entry.asks(given)
    if asks:
        deps.check_grounded(given)
    request = run_steps.step_request(entry.name, given)
    if not asks:
        ended = run_step(deps.ws, request, deps.approver).done()
        deps.show(render.result_table(ended))
        return step_facts(ended)
    _refuse_a_second(deps, request)
    outcome = run_step(deps.ws, request, deps.approver, follow=deps.follow)
    if outcome.decision and outcome.declined:
        reason = f": {outcome.decision.reason}" if outcome.decision.reason else ""
        raise StepFailed(f"{entry.name}: the user said no{reason}; nothing was started")
    deps.focused_run_id = ""
    step = outcome.done() if deps.follow else outcome.step
    ran = {"ran_with": dict(StepRequest.of(step).fields)}
    if deps.follow:
        return {**step_facts(step), **ran}
    deps.say(f"{step.stage} runs in the background; you are told when it ends, and we can go on talking.")
    return {
        "started": step.stage,
        "step": step.id,
        "run": step.run,
        "estimated": duration(step.estimated_seconds),
        **ran,
        "note": "it runs in the background; the user is told when it ends",
    }


def _refuse_a_second(deps: TurnDeps, request: StepRequest) -> None:
    """Raises BadInput where the stage is at work in the run already: the driver would only start it twice."""
    run = place(deps.store, request).run
    running = [step for step in deps.store.steps(run, status=RUNNING) if step.stage == request.stage]
    if running:
        raise BadInput(f"{request.stage} ({running[0].id}) runs already; wait for it to end")


_QUIET = (
    "path",
    "sha256",
    "artifact",
    "keys",
    "key",
    "comparisons",
    "suite_sha256",
    "key_file",
    "first_answer",
    "fits",
)


def step_facts(step: Step) -> dict[str, object]:
    """What a finished step came to, for the driver: its numbers, none of the texts it worked on."""
    result = {name: value for name, value in step.report.items() if name not in _QUIET}
    blocks = result.pop("blocks", None)
    if isinstance(blocks, Mapping):
        result["passed"] = {name: f"{block['passed']} of {block['cases']}" for name, block in blocks.items()}
    stored = step.report.get("comparisons", [])
    if verdicts := [render.hop_line(Comparison.from_json(compared)).text.plain for compared in stored]:
        result["verdicts"] = verdicts
    return {"stage": step.stage, "step": step.id, "run": step.run, "took": duration(step.seconds)} | _short(result)


def _short(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: size(value)
        if name.endswith("bytes") and isinstance(value, int)
        else round(value, 4)
        if isinstance(value, float)
        else value
        for name, value in values.items()
        if not (isinstance(value, str) and len(value) > 200) and not (isinstance(value, Sequence) and len(value) > 12)
    }


def failed(error: Exception) -> ToolFailed:
    """An error as the driver is told it: what happened and what to try, without a traceback."""
    text = str(error) if isinstance(error, TunesmithError) else f"unexpected {type(error).__name__}: {error}"
    return ToolFailed(" ".join(text.split())[:600])
