"""A turn of a small model: the tool is chosen by a schema-bound request, and its words are asked for without a tool.

The first request of a turn chooses; those after it, and words that need no tool, are shown none.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic_ai.capabilities.abstract import WrapModelRequestHandler
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tunesmith.agent.driver import routing
from tunesmith.agent.driver.history import is_prompt, last_turns, shortened
from tunesmith.agent.driver.state_summary import STATE_HEADING, few_tools, in_half_a_line
from tunesmith.agent.driver.turn_deps import TurnDeps

_MAX_TOKENS = 160
_TURNS_SENT = 2
"""What is left to say leans on this turn's result; a window that slides is computed anew, and the user waits for it."""
_RESULT_CHARACTERS = 240


async def answer(deps: TurnDeps, request: ModelRequestContext, handler: WrapModelRequestHandler) -> ModelResponse:
    """The choice of a tool for the user's words, or words."""
    if not is_prompt(request.messages[-1]):
        return await handler(_showing(_few_turns(request), []))
    tools = request.model_request_parameters.function_tools
    try:
        found = await routing.choose(request.model, deps, in_half_a_line(deps))
    except routing.CannotRoute as error:
        deps.routed = not error.lasting
        few = few_tools(deps.store, deps.current_run(), deps.draft, deps.prompt)
        return await handler(_showing(_few_turns(request), [tool for tool in tools if tool.name in few]))
    if isinstance(found, ToolCallPart):
        deps.calls = [*deps.calls, _brief(found)]
        return ModelResponse([found], model_name=request.model.model_name)
    if found is not None:
        deps.note(found)
        return ModelResponse([TextPart(found)], model_name=request.model.model_name)
    return await handler(_showing(_small_talk(request, deps), []))


def _few_turns(request: ModelRequestContext) -> ModelRequestContext:
    messages = last_turns(request.messages, _TURNS_SENT + 1)
    for index, message in enumerate(messages):
        if isinstance(message, ModelRequest):
            parts = [shortened(part, _RESULT_CHARACTERS) for part in message.parts]
            messages[index] = replace(message, parts=parts)
    return replace(request, messages=messages)


def _small_talk(request: ModelRequestContext, deps: TurnDeps) -> ModelRequestContext:
    """Words about nothing in the store: the newest two turns, and where things stand in half a line instead of ten."""
    *before, newest = last_turns(request.messages, 2)
    assert isinstance(newest, ModelRequest)
    part = UserPromptPart(f"{deps.prompt}\n\n({STATE_HEADING}: {in_half_a_line(deps)}.)")
    return replace(request, messages=[*before, replace(newest, parts=[part])])


def _showing(request: ModelRequestContext, tools: list[ToolDefinition]) -> ModelRequestContext:
    parameters = replace(request.model_request_parameters, function_tools=tools)
    settings: ModelSettings = {**(request.model_settings or {})}
    if not tools:
        settings["max_tokens"] = _MAX_TOKENS
    return replace(request, model_request_parameters=parameters, model_settings=settings)


def _brief(call: ToolCallPart) -> str:
    values = [str(value) for value in call.args_as_dict().values() if value not in (None, "") and len(str(value)) < 24]
    return " ".join([call.tool_name, *values])
