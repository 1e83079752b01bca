"""The agent: instructions, tools, and what makes a small model dependable around them.

Beside pydantic-ai's own loop: the tool chosen by a schema-bound request of its own (routing), few tools per request,
only the last turns sent, a state card behind the user's words, a call written as text taken for the call it is, the
same call with the same result stopped, and every ordinary exception told to the model instead of ending the turn.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import pydantic_ai
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import Hooks
from pydantic_ai.capabilities.abstract import WrapModelRequestHandler
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tunesmith.agent.driver import routing, turn_errors
from tunesmith.agent.driver.describing import open_interview
from tunesmith.agent.driver.endpoint import NotYetStarted, is_gone, model_of
from tunesmith.agent.driver.state_summary import (
    STATE_HEADING,
    called_outright,
    routed_tools,
    routing_context,
    state_summary,
    visible_tools,
)
from tunesmith.agent.driver.tools import failed, toolset
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import ApprovalPending

pydantic_ai.BANNER_ENABLED = False  # the screen is the user's

TURNS_SENT = 3
"""Earlier turns that a request holds; what was before is in the store, not in the prompt."""
REQUESTS_PER_TURN = 8
REQUESTS_NATIVE = 16
_RESULT_SENT_CHARACTERS = 700
# Where the tool was chosen by a request of its own, what is left to say leans on this turn's result; a window that
# slides is computed anew every turn, and the user waits for it.
_ROUTED_TURNS_SENT = 2
_ROUTED_RESULT_SENT_CHARACTERS = 240
_SUMMED_UP = "(What was said before, in short: "
_SAME_RESULT_LIMIT = 2
_MAX_TOKENS = 400
_ROUTED_MAX_TOKENS = 160


def instructions(ctx: RunContext[TurnDeps]) -> str:
    """The driver's instructions: the same words in every request, so that a server computes them once."""
    deps = ctx.deps
    return _text("voice.md" if deps.routed else "driver-native.md" if deps.native else "driver.md")


@cache
def _text(name: str) -> str:
    return (files("tunesmith.prompts") / name).read_text()


def build_agent(model: Model | None) -> Agent[TurnDeps, str]:
    """The driver on a model."""
    return Agent(
        model,
        deps_type=TurnDeps,
        output_type=str,
        instructions=instructions,
        toolsets=[toolset()],
        model_settings=ModelSettings(temperature=0.0, max_tokens=_MAX_TOKENS),
        retries=2,
        capabilities=[_hooks()],
    )


def _hooks() -> Hooks[TurnDeps]:
    hooks: Hooks[TurnDeps] = Hooks()
    hooks.on.prepare_tools(_few_tools)
    hooks.on.model_request(_routed)
    hooks.on.before_model_request(_short_request)
    hooks.on.after_model_request(_call_in_text)
    hooks.on.tool_execute(_no_loop)
    hooks.on.tool_execute_error(_told_to_the_model)
    return hooks


async def _few_tools(ctx: RunContext[TurnDeps], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
    deps = ctx.deps
    if deps.native:  # a plan that was proposed, a step that ended: the next request shows what they make possible
        names = routed_tools(deps.store, deps.current_run(), deps.draft, deps.prompt)
        return [tool for tool in tool_defs if tool.name in names | {"query_records"}]
    if not deps.tools:
        of_this_moment = routed_tools if deps.routed else visible_tools
        deps.tools = frozenset(of_this_moment(deps.store, deps.current_run(), deps.draft, deps.prompt))
        if open_interview(deps.store.home):
            deps.tools = frozenset({"describe_behaviour", "look_up", "inspect", *called_outright(deps.prompt)})
    shown = deps.tools | _followers(deps)
    return [tool for tool in tool_defs if tool.name in shown]


def _followers(deps: TurnDeps) -> set[str]:
    """With a yes given beforehand the plan that this turn proposed is started in this turn."""
    return {"start_plan"} if deps.agreed_before else set()


async def _routed(
    ctx: RunContext[TurnDeps], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
) -> ModelResponse:
    """The first request of a turn chooses the tool; those after it, and words without a tool, are shown none."""
    deps = ctx.deps
    if deps.say_next and (deps.routed or is_gone(request_context.model)):
        text, deps.say_next = deps.say_next, ""
        return ModelResponse([TextPart(text)], model_name=request_context.model.model_name)
    request_context = await _brought_back(request_context, deps)
    if not deps.routed:
        return await handler(request_context)
    if _is_prompt(request_context.messages[-1]):
        tools = request_context.model_request_parameters.function_tools
        try:
            call = await routing.choose(request_context.model, deps.prompt, routing_context(deps), tools)
        except routing.CannotRoute as error:
            deps.routed = not error.lasting
            few = {"describe_behaviour", *visible_tools(deps.store, deps.current_run(), deps.draft, deps.prompt)}
            return await handler(_showing(request_context, [tool for tool in tools if tool.name in few]))
        if call is not None:
            deps.calls = [*deps.calls, _brief_call(call)]
            return ModelResponse([call], model_name=request_context.model.model_name)
        request_context = _small_talk(request_context, deps)
    return await handler(_showing(request_context, []))


async def _brought_back(request_context: ModelRequestContext, deps: TurnDeps) -> ModelRequestContext:
    """With the driver started again where a step of this turn evicted it. Raises what keeps it from starting."""
    model = deps.returned or request_context.model
    if deps.start_driver and isinstance(model, NotYetStarted):
        model = deps.returned = await deps.start_driver()
    if deps.endpoint and is_gone(model):
        model = deps.returned = model_of(await asyncio.to_thread(deps.endpoint))
    return replace(request_context, model=model)


def _small_talk(request_context: ModelRequestContext, deps: TurnDeps) -> ModelRequestContext:
    """Words about nothing in the store: the newest two turns, and where things stand in half a line instead of ten."""
    *before, newest = last_turns(request_context.messages, 2)
    assert isinstance(newest, ModelRequest)
    part = UserPromptPart(f"{deps.prompt}\n\n({STATE_HEADING}: {routing_context(deps).state}.)")
    return replace(request_context, messages=[*before, replace(newest, parts=[part])])


def _showing(request_context: ModelRequestContext, tools: list[ToolDefinition]) -> ModelRequestContext:
    parameters = replace(request_context.model_request_parameters, function_tools=tools)
    settings = request_context.model_settings or ModelSettings()
    if not tools:
        settings = {**settings, "max_tokens": _ROUTED_MAX_TOKENS}
    return replace(request_context, model_request_parameters=parameters, model_settings=settings)


def _brief_call(call: ToolCallPart) -> str:
    values = [str(value) for value in call.args_as_dict().values() if value not in (None, "") and len(str(value)) < 24]
    return " ".join([call.tool_name, *values])


async def _short_request(ctx: RunContext[TurnDeps], request_context: ModelRequestContext) -> ModelRequestContext:
    """Only the last turns, their tool results shortened, and the state card behind the newest words."""
    deps = ctx.deps
    state = state_summary(deps.store, deps.current_run(), deps.draft)
    deps.note(state)
    turns = _ROUTED_TURNS_SENT if deps.routed else TURNS_SENT
    characters = _ROUTED_RESULT_SENT_CHARACTERS if deps.routed else _RESULT_SENT_CHARACTERS
    messages = last_turns(request_context.messages, turns + 1)
    newest = max((i for i, message in enumerate(messages) if _is_prompt(message)), default=0)
    sent = [_shortened(message, characters) if i < newest else message for i, message in enumerate(messages)]
    if sent and _is_prompt(sent[newest]):
        sent[newest] = _with_state(sent[newest], state)
    return replace(request_context, messages=sent)


def summed_up(summary: str) -> list[ModelMessage]:
    """The messages that stand for the turns before a compaction."""
    return [ModelRequest([UserPromptPart(f"{_SUMMED_UP}{summary})")]), ModelResponse([TextPart("Noted.")])]


def last_turns(messages: Sequence[ModelMessage], turns: int) -> list[ModelMessage]:
    """The messages from the last but `turns` user prompts on; a summary of those before stays, and is no turn."""
    head = 2 if messages and _is_summary(messages[0]) else 0
    prompts = [index for index, message in enumerate(messages) if index >= head and _is_prompt(message)]
    first = prompts[-turns] if len(prompts) > turns else head
    return [*messages[:head], *messages[first:]]


def _is_summary(message: ModelMessage) -> bool:
    return _is_prompt(message) and str(getattr(message.parts[0], "content", "")).startswith(_SUMMED_UP)


def _is_prompt(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts)


def _shortened(message: ModelMessage, characters: int) -> ModelMessage:
    if not isinstance(message, ModelRequest):
        return message
    parts = [_shortened_part(part, characters) if isinstance(part, ToolReturnPart) else part for part in message.parts]
    return replace(message, parts=parts)


def _shortened_part(part: ToolReturnPart[object], characters: int) -> ToolReturnPart[object]:
    text = part.content if isinstance(part.content, str) else ""
    return replace(part, content=text[:characters] + " …") if len(text) > characters else part


def _with_state(message: ModelMessage, state: str) -> ModelMessage:
    assert isinstance(message, ModelRequest)
    parts = [
        replace(part, content=f"{part.content}\n\n({STATE_HEADING}. {'; '.join(state.splitlines())}.)")
        if isinstance(part, UserPromptPart)
        else part
        for part in message.parts
    ]
    return replace(message, parts=parts)


_WHOLE = re.compile(r"^\s*(?:<tool_call>|<tools>)?\s*(\{.*\})\s*(?:</tool_call>|</tools>)?\s*$", re.DOTALL)
_FENCED = re.compile(r"```(?:json|tool_call|xml)?\s*(?:<tool_call>)?\s*(\{.*?\})\s*(?:</tool_call>)?\s*```", re.DOTALL)


async def _call_in_text(
    ctx: RunContext[TurnDeps], *, request_context: ModelRequestContext, response: ModelResponse
) -> ModelResponse:
    """Small models write a tool call as plain JSON now and then: taken for the call that it is."""
    texts = [part for part in response.parts if isinstance(part, TextPart)]
    if len(texts) != 1 or any(isinstance(part, ToolCallPart) for part in response.parts):
        return response
    names = {tool.name for tool in request_context.model_request_parameters.function_tools}
    call = call_in_text(texts[0].content, names)
    return replace(response, parts=[call]) if call else response


def call_in_text(text: str, names: set[str]) -> ToolCallPart | None:
    """The one call of a known tool that a text consists of, or that stands in it in a code fence of its own."""
    whole, fenced = _WHOLE.match(text), _FENCED.findall(text)
    if not whole and len(fenced) != 1:
        return None
    call = _object(whole[1] if whole else fenced[0])
    if call is None:
        return None
    name, arguments = call.get("name"), call.get("arguments", call.get("parameters"))
    if name not in names or not isinstance(arguments, dict):
        return None
    return ToolCallPart(name, arguments, tool_call_id=f"text_{secrets.token_hex(6)}")


def _object(text: str) -> dict[str, object] | None:
    """The JSON object in a text, its braces doubled or not: a template's habit that small models have picked up."""
    for candidate in (text, text.replace("{{", "{").replace("}}", "}")):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        return value if isinstance(value, dict) else None
    return None


def looks_like_a_call(text: str) -> bool:
    """Whether the beginning of a text may be a call rather than words for the user."""
    return text.lstrip()[:1] in ("{", "`", "<") or "```" in text or "<tool_call>" in text


async def _no_loop(
    ctx: RunContext[TurnDeps],
    *,
    call: ToolCallPart,
    tool_def: object,
    args: dict[str, Any],
    handler: Callable[[dict[str, Any]], Awaitable[object]],
) -> object:
    """The same call with the same result is not carried out for ever."""
    deps = ctx.deps
    key = f"{call.tool_name}({json.dumps(call.args_as_dict(), sort_keys=True, default=str)})"
    last, times = deps.seen_calls.get(key, ("", 0))
    if times >= _SAME_RESULT_LIMIT:
        raise ToolFailed(f"{call.tool_name} was called {times} times with the same result; answer the user now")
    result = await handler(args)
    turn_errors.went_well(deps, call.tool_name)
    deps.seen_calls[key] = (str(result), times + 1 if str(result) == last or not times else 1)
    return result


async def _told_to_the_model(
    ctx: RunContext[TurnDeps], *, call: ToolCallPart, tool_def: object, args: object, error: Exception
) -> object:
    if isinstance(error, ApprovalPending):
        raise error
    failure = failed(error)
    ctx.deps.say_next = ""
    turn_errors.went_wrong(ctx.deps, call.tool_name, error)
    ctx.deps.note(failure.message)
    raise failure from error
