"""The driver's read tools: one for each kind of question, and the records by SQL. None changes or begins anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_ai import ModelRetry, RunContext, Tool

from tunesmith.agent.commands import render
from tunesmith.agent.driver.look_ups import remember
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.registry import REQUESTS, TOOLS, Request, answer
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.views import VIEWS

QUERY_RECORDS = "query_records"
_SQL_ROWS = 40
_SHARED = ("run", "step", "stage", "arm", "block", "since", "until")
"""Arguments that mean the same in every tool: the driver's instructions say what, once."""
_SQL = (
    "One SELECT. v_runs(run, name, status, created_at, finished_at, steps, steps_done, seconds), "
    "v_steps(run, step, stage, arm, status, seconds, estimated_seconds, peak_rss_bytes, decided_by, error, "
    "request, result, started_at, finished_at), v_flips(run, arm_a, arm_b, block, case_id, passed_a, passed_b, "
    "flip), v_lineage."
)


def read_tools() -> list[Tool[TurnDeps]]:
    """All of them, free to run at once."""
    return [*(_read_tool(name, kind) for name, kind in TOOLS.items()), _records_tool()]


def _read_tool(name: str, kind: str) -> Tool[TurnDeps]:
    request = REQUESTS[kind]

    def read(ctx: RunContext[TurnDeps], **given: Any) -> str:
        try:
            asked = request.model_validate({name: value for name, value in given.items() if value not in (None, "")})
        except ValidationError as error:
            raise ModelRetry(_in_words(error)) from None
        return answered(ctx.deps, asked)  # type: ignore[arg-type]

    description = " ".join((request.__doc__ or "").split())
    return Tool.from_schema(read, name, description, lean_schema(kind), takes_ctx=True)


def answered(deps: TurnDeps, asked: Request) -> str:
    """Answer a request: its lines go to the screen, and what a model may read of them is returned."""
    found = answer(asked, deps.records())
    with deps.one_at_a_time:  # the lines of one answer stay together, whatever else is read
        remember(deps, asked, found)
        for line in found.lines:
            deps.show(render.plain(line))
    if deps.routed:
        deps.spoken, deps.say_next = found.lines, found.for_model or "It is on your screen."
    return found.for_model


def lean_schema(kind: str) -> dict[str, Any]:
    """The arguments of a kind as a model reads them: no titles, no nulls, and what all tools share is not explained."""
    fields = REQUESTS[kind].model_json_schema()
    given = {name: _lean(name, schema) for name, schema in fields["properties"].items() if name != "kind"}
    # Without a required argument some models call a tool again and again: the first one says what is asked.
    required = [name for name in fields.get("required", ()) if name != "kind"] or [*given][:1]
    return {"type": "object", "properties": given, "required": required, "additionalProperties": False}


def _lean(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null" and one != {"const": ""}]
    flat = {**schema, **options[0]} if len(options) == 1 else dict(schema)
    enum = [value for one in options for value in one.get("enum", ())] if len(options) > 1 else flat.get("enum", [])
    dropped = {"title", "default", "anyOf", "enum", *(("description",) if name in _SHARED else ())}
    if len(options) > 1 and not enum:
        dropped.discard("anyOf")
    kept = {key: value for key, value in flat.items() if key not in dropped}
    return {**kept, **({"enum": [value for value in enum if value != ""]} if enum else {})}


def _in_words(error: ValidationError) -> str:
    """What is wrong with some arguments, for the model to mend."""
    parts = [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:3]]
    return f"{'; '.join(parts)}. Call again with the arguments of this tool alone."


def _records_tool() -> Tool[TurnDeps]:
    def query(ctx: RunContext[TurnDeps], sql: str = "") -> str:
        return json.dumps(_query_records(ctx.deps, sql), ensure_ascii=False, default=str)

    schema = {"type": "object", "properties": {"sql": {"type": "string", "description": _SQL}}, "required": ["sql"],
              "additionalProperties": False}  # fmt: skip
    description = "Ask the records by one read-only SELECT, for what no other read answers."
    return Tool.from_schema(query, QUERY_RECORDS, description, schema, takes_ctx=True)


def _query_records(deps: TurnDeps, sql: str) -> dict[str, Any]:
    """Answer in a process with limits of its own, from the views alone; the query is shown to the user."""
    with deps.one_at_a_time:
        deps.show(render.plain(f"· asks the records: {' '.join(sql.split())[:400]}"))
    found = ask_in_process(deps.store.path, sql, max_rows=_SQL_ROWS, only=VIEWS, home=deps.store.home)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return {"rows": rows, "note": f"only the first {len(rows)} rows"} if found.truncated else {"rows": rows}
