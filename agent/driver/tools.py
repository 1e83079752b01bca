"""The tools of a driver: the typed queries, a SELECT, the plan, and the stages."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Optional, TypeVar

from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic_ai import FunctionToolset, ModelRetry, RunContext, Tool
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed
from pydantic_ai.messages import ToolCallPart

from tunesmith.agent.commands import render
from tunesmith.agent.commands.fields import of_words
from tunesmith.agent.driver import planning
from tunesmith.agent.driver.agreement import STEP
from tunesmith.agent.driver.look_ups import remember
from tunesmith.agent.driver.stages import checked, run_stage, started
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.registry import REQUESTS, TOOLS, answer
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.views import VIEWS
from tunesmith.tools.core.auto import readable_default
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.run_step import propose_step, start_agreed

A = TypeVar("A", bound=BaseModel)

_RESULT_CHARACTERS = 1500
"""Half a page: the screen has the whole, and a driver's context is small."""
OTHER = "other"
"""The argument of a stage's tool that holds every field which has none of its own."""


@cache
def toolset() -> FunctionToolset[TurnDeps]:
    """All tools; which of them a request shows is decided per request. The same for every conversation: a third of a
    second of schemas."""
    tools = [
        *(_read_tool(name, kind) for name, kind in TOOLS.items()),
        _records_tool(),
        _tool("plan_fine_tune", planning.PlanFineTune, lambda ctx, args: planning.plan_fine_tune(ctx.deps, args)),
        _tool("edit_plan", planning.EditPlan, lambda ctx, args: planning.edit_plan(ctx.deps, args)),
        _tool("start_plan", planning.StartPlan, lambda ctx, args: planning.start_plan(ctx.deps, args)),
        *(_stage_tool(entry) for entry in catalog.STAGES),
    ]
    return FunctionToolset(tools)


def _tool(name: str, args: type[A], run: Callable[[RunContext[TurnDeps], A], object]) -> Tool[TurnDeps]:
    def call(ctx: RunContext[TurnDeps], args: A) -> str:
        return _capped(ctx.deps, run(ctx, args))

    call.__annotations__ = {"ctx": RunContext[TurnDeps], "args": args, "return": str}
    description = (args.__doc__ or "").strip()
    return Tool(call, takes_ctx=True, name=name, description=description, strict=True, sequential=True)


def _capped(deps: TurnDeps, result: object) -> str:
    text = json.dumps(result, ensure_ascii=False, default=str)
    deps.note(text)
    return text if len(text) <= _RESULT_CHARACTERS else text[:_RESULT_CHARACTERS] + " … (the rest is on the screen)"


# Stages


def _stage_tool(entry: catalog.Entry) -> Tool[TurnDeps]:
    model = entry.load().request
    fields: dict[str, Any] = {}
    for name in entry.load().settable:
        info = model.model_fields[name]
        usual = readable_default(info)
        text = f"{info.description or ''} null: as usual ({usual}).".strip()
        # Optional, as an annotation may be None, and None | None is an error.
        fields[name] = (Optional[info.annotation], Field(description=text))  # noqa: UP045
    others = [name for name in model.model_fields if name not in (*entry.load().settable, "run")]
    if others:
        text = f"Further fields as `field=value …`, of {', '.join(others)}. null: as usual."
        fields[OTHER] = (str | None, Field(None, description=text))
    fields["run"] = (str | None, Field(description="Run to work in, such as r3. null: the current one."))
    args = create_model(
        entry.name, __base__=planning.Args, __doc__=f"{entry.summary[0].upper()}{entry.summary[1:]}.", **fields
    )

    def run(ctx: RunContext[TurnDeps], given: BaseModel) -> object:
        deps = ctx.deps
        if ctx.tool_call_approved:
            return started(deps, start_agreed(deps.ws, str(ctx.tool_call_metadata[STEP]), follow=deps.follow))
        asked = given.model_dump(exclude_none=True)
        further = of_words(asked.pop(OTHER, ""), entry.load().request)
        fields = {**further, **asked}
        if not entry.asks(fields):
            return run_stage(deps, entry, fields)
        step = propose_step(deps.ws, checked(deps, entry, fields))
        raise ApprovalRequired(metadata={STEP: step.id})

    return _tool(entry.name, args, run)


def failed(error: Exception) -> ToolFailed:
    """An error as the driver is told it: what happened and what to try, without a traceback."""
    text = str(error) if isinstance(error, TunesmithError) else f"unexpected {type(error).__name__}: {error}"
    return ToolFailed(" ".join(text.split())[:600])  # a driver reads a few sentences of it


def stage_call(stage: str, fields: Mapping[str, object], run: str, call_id: str) -> ToolCallPart:
    """The call that carries out a stage with these fields."""
    asks = catalog.BY_NAME[stage].load().settable
    further = {name: value for name, value in fields.items() if name not in (*asks, "run")}
    arguments: dict[str, object] = {name: fields.get(name) for name in asks} | {"run": run or None}
    if len(catalog.BY_NAME[stage].load().request.model_fields) > len(asks) + 1:
        arguments[OTHER] = " ".join(f"{name}={_word(value)}" for name, value in further.items()) or None
    return ToolCallPart(stage, arguments, tool_call_id=call_id)


def _word(value: object) -> str:
    """A value as one word of a command line, as `of_words` reads it."""
    if isinstance(value, list | tuple):
        return shlex.quote(json.dumps(list(value)))
    return shlex.quote(str(value).lower() if isinstance(value, bool) else str(value))


_SQL_ROWS = 40
"""More rows fill a small driver's context; the screen says that there are more."""
_SHARED = ("run", "step", "stage", "arm", "block", "since", "until")
"""Arguments that mean the same in every tool: the driver's instructions say what, once."""
_SQL = (
    "One SELECT. v_runs(run, name, status, created_at, finished_at, steps, steps_done, seconds), "
    "v_steps(run, step, stage, arm, status, seconds, estimated_seconds, peak_rss_bytes, decided_by, error, "
    "request, result, started_at, finished_at), v_flips(run, arm_a, arm_b, block, case_id, passed_a, passed_b, "
    "flip), v_lineage."
)


def _read_tool(name: str, kind: str) -> Tool[TurnDeps]:
    request = REQUESTS[kind]

    def read(ctx: RunContext[TurnDeps], **given: object) -> str:
        try:
            asked = request.model_validate({name: value for name, value in given.items() if value not in (None, "")})
        except ValidationError as error:
            raise ModelRetry(_in_words(error)) from None
        return answered(ctx.deps, asked)

    description = " ".join((request.__doc__ or "").split())
    return Tool.from_schema(read, name, description, lean_schema(kind), takes_ctx=True)


def answered(deps: TurnDeps, asked: Query) -> str:
    """Answer a request: its lines go to the screen, and what a model may read of them is returned."""
    reply = answer(asked, deps.records())
    with deps.one_at_a_time:  # the lines of one answer stay together, whatever else is read
        lines = remember(deps, asked, reply)
        for line in lines:
            deps.show(render.plain(line))
    if deps.routed:
        deps.spoken, deps.say_next = lines, reply.for_model or "It is on your screen."
    return reply.for_model


def lean_schema(kind: str) -> dict[str, object]:
    """The arguments of a kind as a model reads them: no titles, no nulls, and what all tools share is not explained."""
    fields = REQUESTS[kind].model_json_schema()
    given = {name: _lean(name, schema) for name, schema in fields["properties"].items() if name != "kind"}
    # Without a required argument some models call a tool again and again: the first one says what is asked.
    required = [name for name in fields.get("required", ()) if name != "kind"] or [*given][:1]
    return {"type": "object", "properties": given, "required": required, "additionalProperties": False}


def _lean(name: str, schema: Mapping[str, Any]) -> dict[str, object]:
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null" and one != {"const": ""}]
    flat = {**schema, **options[0]} if len(options) == 1 else dict(schema)
    enum = [value for one in options for value in one.get("enum", ())] if len(options) > 1 else flat.get("enum", [])
    dropped = {"title", "default", "anyOf", "enum", *(("description",) if name in _SHARED else ())}
    if len(options) > 1 and not enum:
        dropped.discard("anyOf")
    lean = {key: value for key, value in flat.items() if key not in dropped}
    return {**lean, **({"enum": [value for value in enum if value != ""]} if enum else {})}


def _in_words(error: ValidationError) -> str:
    """What is wrong with some arguments, for the model to mend."""
    # three at once are enough to mend
    problems = [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:3]]
    return f"{'; '.join(problems)}. Call again with the arguments of this tool alone."


def _records_tool() -> Tool[TurnDeps]:
    def query(ctx: RunContext[TurnDeps], sql: str = "") -> str:
        return json.dumps(_query_records(ctx.deps, sql), ensure_ascii=False, default=str)

    schema = {"type": "object", "properties": {"sql": {"type": "string", "description": _SQL}}, "required": ["sql"],
              "additionalProperties": False}  # fmt: skip
    description = "Ask the records by one read-only SELECT, for what no other read answers."
    return Tool.from_schema(query, "query_records", description, schema, takes_ctx=True)


def _query_records(deps: TurnDeps, sql: str) -> dict[str, object]:
    """Answer in a process with limits of its own, from the views alone; the query is shown to the user."""
    with deps.one_at_a_time:
        deps.show(render.plain(f"· asks the records: {' '.join(sql.split())[:400]}"))  # a line or two of a screen
    table = ask_in_process(deps.store.path, sql, max_rows=_SQL_ROWS, only=VIEWS, home=deps.store.home)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {"rows": rows, "note": f"only the first {len(rows)} rows"} if table.truncated else {"rows": rows}
