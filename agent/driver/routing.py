"""Which tool answers what the user said: one short request whose answer a schema holds to the tools of this moment.

A small model that sees ten tool schemas chooses badly and slowly. Here it reads a fixed page of examples
(prompts/routing.yaml, computed once by the server) and writes one JSON object: the tool, and only those arguments that
were said. The object becomes an ordinary tool call, checked and priced like any other. A driver that cannot be held to
a schema chooses by its own tool calling instead.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tunesmith.agent.driver.said import as_said, runs_said

CHAT = "chat"
"""No tool: words are the answer."""
NEXT = "next"
"""Whatever stage comes next; code knows which one that is."""
_RUNS = ("run", "other_run")
"""Arguments that are read from the user's words, not chosen."""
_WORDS_CHARACTERS = 1200
_MAX_TOKENS = 120
_KEPT = ("type", "enum", "const", "items", "minimum", "maximum")


@dataclass(frozen=True, slots=True)
class Moment:
    """What a choice depends on beside the words."""

    state: str
    """One line, in the form that the examples have."""
    following: str = ""
    """The tool that comes next, for words that only say to go on."""
    verbatim: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that are the user's own words and not the model's to write."""
    known_runs: tuple[str, ...] = ()


class CannotRoute(Exception):
    """The driver's answer was no choice, or (`lasting`) it cannot be held to a schema at all."""

    def __init__(self, told: str, *, lasting: bool = False) -> None:
        super().__init__(told)
        self.lasting = lasting


async def choose(model: Model, words: str, moment: Moment, tools: Sequence[ToolDefinition]) -> ToolCallPart | None:
    """The call that answers `words`, or None where words are the answer. Raises CannotRoute."""
    # By hand: pydantic-ai's native output writes the schema into the prompt, where it would cost the server its cache.
    bound = {"type": "json_schema", "json_schema": {"name": "choice", "schema": choice_schema(tools, moment)}}
    settings = ModelSettings(temperature=0.0, max_tokens=_MAX_TOKENS, extra_body={"response_format": bound})
    try:
        response = await model_request(model, _messages(words, moment.state), model_settings=settings)
    except ModelHTTPError as error:
        if error.status_code in (400, 404, 422, 501):
            raise CannotRoute(f"no schema-bound answers here (status {error.status_code})", lasting=True) from error
        raise
    return call_of(response.text or "", words, moment, tools)


def call_of(text: str, words: str, moment: Moment, tools: Sequence[ToolDefinition]) -> ToolCallPart | None:
    """The call that a choice stands for, every argument filled in, null where nothing was said. Raises CannotRoute."""
    try:
        chosen = json.loads(text)
        name = chosen.pop("tool")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CannotRoute(f"the choice could not be read: {text[:80]!r}") from error
    if name == CHAT:
        return None
    if name == NEXT:
        name, chosen = moment.following, {}
    by_name = {tool.name: tool for tool in tools}
    if name not in by_name:
        raise CannotRoute(f"no tool {name!r} now")
    properties = by_name[name].parameters_json_schema.get("properties", {})
    # A question may name a run in any way; a step goes into one only where its id was said.
    runs = zip(_RUNS, runs_said(words, moment.known_runs if "topic" in properties else ()), strict=False)
    said = {**as_said(chosen, words), **dict(runs), **moment.verbatim}
    arguments = {key: said.get(key, _otherwise(schema)) for key, schema in properties.items()}
    return ToolCallPart(name, arguments, tool_call_id=f"routed_{secrets.token_hex(6)}")


def _otherwise(schema: Mapping[str, Any]) -> Any:
    """What an argument is where nothing was said: null, else yes for a switch, else the first of a choice."""
    if any(option.get("type") == "null" for option in schema.get("anyOf", ())):
        return None
    if schema.get("type") == "boolean":
        return True
    return schema["enum"][0] if "enum" in schema else None


def choice_schema(tools: Sequence[ToolDefinition], moment: Moment) -> dict[str, Any]:
    """JSON Schema of a choice: one shape per tool, the tool's name first."""
    shapes = [_shape(tool, {*moment.verbatim, *_RUNS}) for tool in tools]
    shapes.append(_named(CHAT, {}, []))
    if moment.following:
        shapes.append(_named(NEXT, {}, []))
    return {"anyOf": shapes}


def _shape(tool: ToolDefinition, verbatim: set[str]) -> dict[str, Any]:
    schema = tool.parameters_json_schema
    shown = {name: _bare(value) for name, value in schema.get("properties", {}).items() if name not in verbatim}
    needed = [name for name, value in schema.get("properties", {}).items() if name in shown and not _nullable(value)]
    return _named(tool.name, shown, needed)


def _named(name: str, properties: Mapping[str, Any], needed: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"tool": {"const": name}, **properties},
        "required": ["tool", *needed],
        "additionalProperties": False,
    }


def _nullable(schema: Mapping[str, Any]) -> bool:
    return any(option.get("type") == "null" for option in schema.get("anyOf", ()))


def _bare(schema: Mapping[str, Any]) -> dict[str, Any]:
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
