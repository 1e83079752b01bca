"""The tools of a driver: the typed queries, a SELECT, the manual, the description, the plan, and the stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_ai import FunctionToolset, ModelRetry, RunContext, Tool
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed

from tunesmith.agent.commands import render
from tunesmith.agent.commands.ask_view import AnswersView
from tunesmith.agent.commands.fields import choices, of_words
from tunesmith.agent.commands.lean_schema import lean_schema
from tunesmith.agent.driver import describe, plan
from tunesmith.agent.driver.agreement import STEP
from tunesmith.agent.driver.manual import manual
from tunesmith.agent.driver.stages import checked, completed, run_stage, started
from tunesmith.agent.driver.told import Args
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.facts import Query
from tunesmith.agent.queries.registry import REQUESTS, TOOLS, ask
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.records import RUNNING
from tunesmith.memory.views import VIEWS
from tunesmith.tools.evaluation.ask import named_arms
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.ask_models import Question, ask_models
from tunesmith.tools.pipeline.run_step import propose_step, start_agreed

A = TypeVar("A", bound=BaseModel)
Run = Callable[[TurnDeps, Any], object]

_SHARE = 8
"""A result takes at most so small a part of the driver's context: a turn reads several."""
_LEAST_CHARACTERS = 1500


class AskModel(Args):
    """Put a message to the models of a run; the answers go to the screen."""

    message: str
    run: str = ""
    arms: str = Field(default="", description="base,adapter; empty: the newest and its base.")


class StopStep(Args):
    """Have the user asked whether a step at work is to end."""

    step: str


class StopServing(Args):
    """Have the user asked whether serving is to end."""

    confirm: Literal["ask"]


class ReadManual(Args):
    """What tunesmith is, does and sends; how a thing is done; terms."""

    about: str = Field(description="In English.")


ACTS: Mapping[str, tuple[type[BaseModel], Run]] = {
    "read_manual": (ReadManual, lambda deps, args: _read_manual(deps, args.about)),
    "describe_behaviour": (describe.DescribeBehaviour, describe.describe_behaviour),
    "plan_fine_tune": (plan.PlanFineTune, plan.plan_fine_tune),
    "edit_plan": (plan.EditPlan, plan.edit_plan),
    "start_plan": (plan.StartPlan, plan.start_plan),
    "ask_model": (AskModel, lambda deps, args: _ask_model(deps, args)),
    "stop_step": (StopStep, lambda deps, args: _stop(deps, args.step)),
    "stop_serving": (StopServing, lambda deps, args: _stop(deps, "")),
}
"""Tool → its arguments, whose docstring says what it does, and what it does."""


@cache
def toolset() -> FunctionToolset[TurnDeps]:
    """All tools. The same for every conversation: a third of a second of schemas."""
    reads = [_read_tool(name, kind) for name, kind in TOOLS.items()]
    acts = [_act_tool(name, args, run) for name, (args, run) in ACTS.items()]
    return FunctionToolset([*reads, _records_tool(), *acts, *map(_stage_tool, catalog.STAGES)])


def _act_tool(name: str, args: type[BaseModel], run: Run) -> Tool[TurnDeps]:
    def call(ctx: RunContext[TurnDeps], **given: object) -> str:
        return _capped(ctx.deps, run(ctx.deps, _read(args, given)))

    known = args.model_fields if args is plan.EditPlan else ()  # by plan_fine_tune
    return Tool.from_schema(call, name, _text(args), lean_schema(args, known), takes_ctx=True, sequential=True)


def _read(args: type[A], given: Mapping[str, object]) -> A:
    try:
        return args.model_validate({name: value for name, value in given.items() if value not in (None, "")})
    except ValidationError as error:
        raise ModelRetry(_in_words(error)) from None


def _text(args: type[BaseModel]) -> str:
    return " ".join((args.__doc__ or "").split())


def _capped(deps: TurnDeps, result: object) -> str:
    text = json.dumps(result, ensure_ascii=False, default=str)
    deps.note(text)
    most = max(_LEAST_CHARACTERS, int(deps.window.context_tokens * deps.window.characters_per_token) // _SHARE)
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} characters more)"


def failed(error: Exception) -> ToolFailed:
    """An error as the driver is told it: what happened and what to try, without a traceback."""
    text = str(error) if isinstance(error, TunesmithError) else f"unexpected {type(error).__name__}: {error}"
    return ToolFailed(" ".join(text.split())[:600])  # a driver reads a few sentences of it


# Stages

_OF_ALL_STAGES = ("run", "arm", "on")
"""Arguments, and a setting that the driver's instructions name once."""


def _stage_tool(entry: catalog.Entry) -> Tool[TurnDeps]:
    request = entry.load().request
    fields, arm = request.model_fields, request.model_fields.get("arm")
    settings = ", ".join(_taking(info, name) for name, info in fields.items() if name not in _OF_ALL_STAGES)
    given = {
        "settings": {"type": "string", **({"description": settings} if settings else {})},
        **({"arm": {"enum": list(get_args(arm.annotation))}} if arm else {}),
        "run": {"type": "string"},
    }
    schema = {"type": "object", "properties": given, "required": ["settings"]}

    def run(ctx: RunContext[TurnDeps], settings: str = "", **further: object) -> str:
        deps = ctx.deps
        if ctx.tool_call_approved:
            step = start_agreed(deps.ws, str(ctx.tool_call_metadata[STEP]), follow=deps.follow)
            return _capped(deps, started(deps, step))
        others = {name: value for name, value in further.items() if value not in (None, "")}
        asked = {**of_words(settings or "", request), **others}
        deps.check_grounded(asked, request)
        asked = completed(deps, entry.name, asked)
        if not entry.asks(asked):
            return _capped(deps, run_stage(deps, entry, asked))
        raise ApprovalRequired(metadata={STEP: propose_step(deps.ws, checked(deps, entry, asked)).id})

    summary = f"{entry.summary[0].upper()}{entry.summary[1:]}."
    return Tool.from_schema(run, entry.name, summary, schema, takes_ctx=True, sequential=True)


def _taking(info: FieldInfo, name: str) -> str:
    """A field with the values that it takes, where they are words; its default is for `read_setting` to say."""
    listed = choices(info)
    return f"{name}={'|'.join(listed)}" if listed[:1] not in ([], ["true"]) else name


def _read_manual(deps: TurnDeps, about: str) -> object:
    sections, further = manual(about, deps.store.home, deps.driver_state)
    deps.reads.manual(about, sections, deps.show)
    return {"manual": sections, "further_sections": further}


def _ask_model(deps: TurnDeps, args: AskModel) -> object:
    """Ask the models of a run; what they answer is the user's to read, and reaches no driver."""
    asked = ask_models(deps.ws, Question(args.message, args.run, named_arms(args.arms)), deps.approver)
    deps.show(AnswersView(asked.answers))
    arms = [{"arm": one.arm, "tokens": one.tokens, "seconds": round(one.seconds, 2)} for one in asked.answers]
    return {"run": asked.run, "answered": arms, "note": "the answers are on the user's screen, and nowhere else"}


def _stop(deps: TurnDeps, step: str) -> object:
    """Have the user asked; nothing ends by a driver's word. Raises BadInput."""
    if deps.end is None:
        raise BadInput("nobody sits at a terminal to be asked; `tunesmith stop STEP` or `tunesmith serve stop` ends it")
    if step and (status := deps.store.step(step).status) != RUNNING:
        raise BadInput(f"{step} does not run: it is {status}")
    deps.end(step)
    return {"note": "the user is asked when this turn has ended; nothing has ended yet"}


# Reads

_SQL_ROWS = 40
"""More rows fill a small driver's context; the screen says that there are more."""
_SHARED = ("run", "other_run", "step", "stage", "arm", "other_arm", "block", "since", "until")
"""Arguments that mean the same in every tool: the driver's instructions say what, once."""
_SEEN = {"disk_use": ("made",), "row": ("verdict", "origin")}
"""Kind → arguments whose values the tool for the kind before it lists."""
_SHOW: Mapping[str, object] = {"show": {"type": "boolean"}}
_SQL = (
    "v_runs(run, name, status, created_at, finished_at, steps, steps_done, seconds), "
    "v_steps(run, step, stage, arm, status, seconds, estimated_seconds, peak_rss_bytes, decided_by, error, "
    "request, result, started_at, finished_at), v_flips(run, arm_a, arm_b, block, case_id, passed_a, passed_b, "
    "flip), v_lineage."
)


def _read_tool(name: str, kind: str) -> Tool[TurnDeps]:
    request = REQUESTS[kind]

    def read(ctx: RunContext[TurnDeps], show: object = False, **given: object) -> str:
        return answered(ctx.deps, _read(request, given), show=bool(show or given.get("examples")))

    schema = lean_schema(request, (*_SHARED, *_SEEN.get(kind, ())))
    needed = [field for field, info in request.model_fields.items() if info.is_required()]
    schema |= {"properties": {**_SHOW, **schema["properties"]}, "required": needed or ["show"]}
    return Tool.from_schema(read, name, _text(request), schema, takes_ctx=True)


def answered(deps: TurnDeps, asked: Query, *, show: bool = False) -> str:
    """Answer a request: what a model may read of it is returned; with `show` it goes to the screen as a table."""
    result = ask(asked, deps.records())
    with deps.one_at_a_time:  # the lines of one answer stay together, whatever else is read
        deps.focused_run_id = str(result.of.get("run", "") or getattr(asked, "run", "") or deps.focused_run_id)
        seen = deps.reads.looked(asked, result, deps.show, table=show)
        deps.note(told := result.for_model(seen=seen))
    return told


def _in_words(error: ValidationError) -> str:
    """What is wrong with some arguments, for the model to mend."""
    # three at once are enough to mend
    problems = [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:3]]
    return f"{'; '.join(problems)}. Call again with the arguments of this tool alone."


def _records_tool() -> Tool[TurnDeps]:
    def query(ctx: RunContext[TurnDeps], sql: str = "") -> str:
        return _capped(ctx.deps, _query_records(ctx.deps, sql))

    schema = {"type": "object", "properties": {"sql": {"type": "string", "description": _SQL}}, "required": ["sql"]}
    description = "One SELECT, for what no other read answers."
    return Tool.from_schema(query, "query_records", description, schema, takes_ctx=True)


def _query_records(deps: TurnDeps, sql: str) -> dict[str, object]:
    """Answer in a process with limits of its own, from the views alone; the query is shown to the user."""
    with deps.one_at_a_time:
        deps.show(render.plain(f"· asks the records: {' '.join(sql.split())[:400]}"))  # a line or two of a screen
    table = ask_in_process(deps.store.path, sql, max_rows=_SQL_ROWS, only=VIEWS, home=deps.store.home)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {"rows": rows, "note": f"only the first {len(rows)} rows"} if table.truncated else {"rows": rows}
