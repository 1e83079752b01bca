"""Which tool answers what the user said: one short request whose answer a schema holds to the tools of this moment.

A small model that sees ten tool schemas chooses badly and slowly. Here it reads a fixed page of examples
(prompts/routing.yaml, computed once by the server) and writes one JSON object: the tool, and only those arguments that
were said. The object becomes an ordinary tool call, checked and priced like any other. A driver that cannot be held to
a schema chooses by its own tool calling instead.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tunesmith.agent.driver.argument_grounding import grounded, named_numbers, named_outright, numbers, runs_named
from tunesmith.agent.driver.stage_calls import stage_call
from tunesmith.agent.driver.understanding.cards import cards_gib
from tunesmith.agent.driver.understanding.entities import sentence_of
from tunesmith.agent.driver.understanding.query import KINDS, Query
from tunesmith.agent.driver.understanding.typed import typed
from tunesmith.agent.driver.understanding.values import values_named
from tunesmith.agent.driver.understanding.words import readable
from tunesmith.agent.queries.registry import TOOLS, tool_of
from tunesmith.memory.records import Run
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.pipeline import catalog

Schema = Mapping[str, Any]
"""A JSON Schema, or the properties of one."""
CHAT = "chat"
"""No tool: words are the answer."""
NEXT = "next"
"""Whatever stage comes next; code knows which one that is."""
PLAN, EDIT, START, LOOK_UP = "plan_fine_tune", "edit_plan", "start_plan", "look_up"
_WHY = re.compile(r"\s*(?:but |and |so )?(?:why|how come)\b", re.IGNORECASE)
_FEW_WORDS = 6
_WORDS_CHARACTERS = 1200
_MAX_TOKENS = 120
_KEPT = ("type", "enum", "const", "items", "minimum", "maximum")


@dataclass(frozen=True, slots=True)
class RoutingContext:
    """What a choice depends on beside the words."""

    state: str
    """One line, in the form that the examples have."""
    following: str = ""
    """The tool that comes next, for words that only say to go on."""
    verbatim: Mapping[str, object] = field(default_factory=dict)
    """Arguments that are the user's own words and not the model's to write."""
    runs: tuple[Run, ...] = ()


class CannotRoute(Exception):
    """The driver's answer was no choice, or (`lasting`) it cannot be held to a schema at all."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


async def choose(
    model: Model, words: str, context: RoutingContext, tools: Sequence[ToolDefinition]
) -> ToolCallPart | None:
    """The call that answers `words`, or None where words are the answer. Raises CannotRoute."""
    # By hand: pydantic-ai's native output writes the schema into the prompt, where it would cost the server its cache.
    bound = {"type": "json_schema", "json_schema": {"name": "choice", "schema": choice_schema(tools, context, words)}}
    settings = ModelSettings(temperature=0.0, max_tokens=_MAX_TOKENS, extra_body={"response_format": bound})
    try:
        response = await model_request(model, _messages(words, context.state), model_settings=settings)
    except ModelHTTPError as error:
        if error.status_code in (400, 404, 422, 501):
            raise CannotRoute(f"no schema-bound answers here (status {error.status_code})", lasting=True) from error
        raise
    return call_of(response.text or "", words, context, tools)


def call_of(text: str, words: str, context: RoutingContext, tools: Sequence[ToolDefinition]) -> ToolCallPart | None:
    """The call that a choice stands for, every argument filled in, null where nothing was said. Raises CannotRoute."""
    try:
        chosen = json.loads(text)
        name = chosen.pop("tool")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CannotRoute(f"the choice could not be read: {text[:80]!r}") from error
    by_name = {tool.name: tool for tool in tools}
    if name == CHAT and not (asked := _why_this_number(words)):
        return None
    if name == CHAT:
        name, chosen = LOOK_UP, asked
    if name == NEXT:
        name, chosen = context.following, {}
    if name == LOOK_UP:
        return _looked_up(chosen, words, context)
    name = _taker(name, by_name, words)
    if name not in by_name:
        raise CannotRoute(f"no tool {name!r} now")
    properties = by_name[name].parameters_json_schema.get("properties", {})
    runs = zip(("run",), runs_named(words), strict=False)  # a step goes into a run only where its id was said
    read = values_named(readable(words), (name,), words) if name in catalog.BY_NAME else {}
    arguments = {
        **read,
        **grounded(chosen, words),
        **_named(properties, chosen, words),
        **dict(runs),
        **context.verbatim,
    }
    call_id = f"routed_{secrets.token_hex(6)}"
    if name in catalog.BY_NAME:
        given = {key: value for key, value in arguments.items() if key != "run" and value is not None}
        known = catalog.BY_NAME[name].load().request.model_fields
        return stage_call(
            name, {key: v for key, v in given.items() if key in known}, str(arguments.get("run") or ""), call_id
        )
    return ToolCallPart(
        name, {key: arguments.get(key, _otherwise(schema)) for key, schema in properties.items()}, call_id
    )


def _looked_up(chosen: Mapping[str, object], words: str, context: RoutingContext) -> ToolCallPart:
    """The question of the kind that was chosen, its arguments read from the words by code."""
    s = sentence_of(words, context.runs)
    arm, other = (s.arms[1], s.arms[0]) if len(s.arms) > 1 and chosen["kind"] == "compare" else (s.arm, "")
    read = {
        "kind": chosen["kind"],
        "run": s.run,
        "other_run": s.runs[1] if len(s.runs) > 1 else "",
        "step": s.step,
        "stage": s.stage,
        "arm": arm,
        "other_arm": other,
        "block": s.block,
        "outcome": s.outcome,
        "field": chosen.get("field") or next(iter(s.fields), ""),
        "model": s.model,
        "card_gib": cards_gib(s.text) or None,
    }
    try:
        request = typed(Query.model_validate({name: value for name, value in read.items() if value}))
    except ValidationError as error:
        raise CannotRoute(f"the words say too little for {chosen['kind']}") from error
    arguments = request.model_dump(mode="json", exclude={"kind"}, exclude_defaults=True)
    return ToolCallPart(tool_of(request), arguments, tool_call_id=f"routed_{secrets.token_hex(6)}")


def _why_this_number(words: str) -> dict[str, object]:
    """The question behind `why rank 16?`: a setting's number is never small talk. Empty for other words."""
    named = named_outright(words) if _WHY.match(words) else {}
    return {"kind": "setting", "field": next(iter(named))} if named else {}


def _taker(name: str, tools: Mapping[str, ToolDefinition], words: str) -> str:
    """The tool that takes a number which the words name: where the chosen act has no place for it, whichever has.

    Only a step, the start of a plan, or a new plan in a few words gives it up. A plan that is proposed takes it as a
    change, and is shown again.
    """
    named = named_numbers(words)
    anew = name == PLAN and EDIT in tools and len(words.split()) <= _FEW_WORDS
    gives_way = (
        name == START
        or anew
        or (name in catalog.BY_NAME and not set(catalog.BY_NAME[name].load().settable) & set(named))
    )
    if not named or not gives_way:
        return name
    return next((other for other in (EDIT, _owner(next(iter(named)))) if other in tools), name)


def _named(properties: Schema, chosen: Schema, words: str) -> Schema:
    """The arguments that the words name: where they do so outright, whatever was chosen; else where nothing was."""
    outright = named_outright(words)
    if {"step", "field", "value"} <= set(properties):
        if not outright or ("step" in chosen and "field" not in chosen):
            return {}
        field = chosen["field"] if chosen.get("field") in outright else next(iter(outright))
        return {"step": _owner(field), "field": field, "value": f"{outright[field]:g}"}
    named = {name: value for name, value in named_numbers(words).items() if name not in chosen} | outright
    return {
        field: int(value) if _bare(properties[field])["type"] == "integer" else value
        for field, value in named.items()
        if field in properties
    }


def _owner(field: str) -> str:
    return next(entry.name for entry in catalog.STAGES if field in entry.load().settable)


def _otherwise(schema: Schema) -> object:
    """What an argument is where nothing was said: null, else yes for a switch, else the first of a choice."""
    if any(option.get("type") == "null" for option in schema.get("anyOf", ())):
        return None
    if schema.get("type") == "boolean":
        return True
    return schema["enum"][0] if "enum" in schema else None


def choice_schema(tools: Sequence[ToolDefinition], context: RoutingContext, words: str) -> Schema:
    """JSON Schema of a choice: one shape per tool, the tool's name first; a number can only be one that was said."""
    acts = [tool for tool in tools if tool.name not in TOOLS]
    shapes = [_object(LOOK_UP, {"kind": {"enum": [*KINDS]}}, ["kind"])]
    shapes += [shape for tool in acts for shape in _shapes(tool, context, words)]
    shapes.append(_object(CHAT, {}, []))
    if context.following:
        shapes.append(_object(NEXT, {}, []))
    return {"anyOf": shapes}


def _shapes(tool: ToolDefinition, context: RoutingContext, words: str) -> list[Schema]:
    properties = tool.parameters_json_schema.get("properties", {})
    if {"step", "field"} <= set(properties):
        return _edits(tool.name, words)
    if tool.name in catalog.BY_NAME:  # the other fields are read from the words
        properties = {
            name: value for name, value in properties.items() if name in catalog.BY_NAME[tool.name].load().settable
        }
    read = {*context.verbatim, "run"}
    shown = {name: _bare(value) for name, value in properties.items() if name not in read}
    for name in [name for name, value in shown.items() if _numeric(value)]:
        shown[name] = {"enum": _numbers_for(shown[name], words)}
        if not shown[name]["enum"]:
            del shown[name]
    return [_object(tool.name, shown, [name for name in shown if not _nullable(properties[name])])]


def _edits(name: str, words: str) -> list[Schema]:
    """What can be changed in a plan: each step left out, and each of its fields set to what such a field may be."""
    shapes = []
    for entry in catalog.STAGES:
        step = {"step": {"const": entry.name}}
        shapes.append(_object(name, step, ["step"]))
        fields = entry.load().request.model_json_schema()["properties"]
        for asked in entry.load().settable:
            if options := _values_for(_bare(fields[asked]), words):
                shape = {**step, "field": {"const": asked}, "value": {"enum": options}}
                shapes.append(_object(name, shape, [*shape]))
    return shapes


def _values_for(schema: Schema, words: str) -> list[str]:
    """What a field of a plan can be set to: one of its choices, a number that was said, a model that was named."""
    if _numeric(schema):
        return [f"{number:g}" for number in _numbers_for(schema, words)]
    if schema.get("type") == "string" and "enum" not in schema:
        return [*BUNDLED, *(word.strip(".,;:!?'\"()") for word in words.split() if "/" in word)]
    return [*schema.get("enum", ())]


def _numbers_for(schema: Schema, words: str) -> list[float]:
    spoken = dict.fromkeys(numbers(words))
    if schema["type"] == "integer":
        return [int(number) for number in spoken if number.is_integer()]
    return [*spoken]


def _numeric(schema: Schema) -> bool:
    return schema.get("type") in ("integer", "number")


def _object(name: str, properties: Schema, needed: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": {"tool": {"const": name}, **properties},
        "required": ["tool", *needed],
        "additionalProperties": False,
    }


def _nullable(schema: Schema) -> bool:
    return any(option.get("type") == "null" for option in schema.get("anyOf", ()))


def _bare(schema: Schema) -> Schema:
    """A property without its words and without null: an argument that was not said is left out."""
    options = [option for option in schema.get("anyOf", (schema,)) if option.get("type") != "null"]
    return {key: value for key, value in options[0].items() if key in _KEPT}


@cache
def _page() -> tuple[str, tuple[ModelMessage, ...]]:
    """The fixed page: instructions, and the examples as turns."""
    page = yaml.safe_load((files("tunesmith.prompts") / "routing.yaml").read_text())
    turns: list[ModelMessage] = []
    for state, words, call in page["examples"]:
        turns.append(ModelRequest([UserPromptPart(_asked(words, state))]))
        turns.append(ModelResponse([TextPart(json.dumps(call))]))
    return page["instructions"], tuple(turns)


def _messages(words: str, state: str) -> list[ModelMessage]:
    instructions, turns = _page()
    asked = ModelRequest([UserPromptPart(_asked(words[:_WORDS_CHARACTERS], state))])
    first, *rest = [*turns, asked]
    assert isinstance(first, ModelRequest)
    return [ModelRequest(first.parts, instructions=instructions), *rest]


def _asked(words: str, state: str) -> str:
    return f"[{state}]\n{words}"
