"""The agent: a language model in pydantic-ai's tool loop over the queries and the stages.

Reads run at once, acts one after the other; what costs something waits for the user (`agreement`). A request holds as
much of the conversation as the driver's context has room for (`history`), with the state card behind the newest words.
Around a small model: a call that it writes as text is taken for
the call that it is, the same call with the same result is stopped, and every ordinary error is told to it.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files

import pydantic_ai
from pydantic_ai import Agent, DeferredToolRequests, RunContext
from pydantic_ai.capabilities import HandleDeferredToolCalls, Hooks
from pydantic_ai.capabilities.abstract import WrapModelRequestHandler
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelHTTPError,
    ToolFailed,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
)
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import UsageLimits

from tunesmith.agent.driver import history
from tunesmith.agent.driver.agreement import asked
from tunesmith.agent.driver.endpoint import is_gone, model_of
from tunesmith.agent.driver.state_summary import STATE_HEADING, in_silence, state_summary
from tunesmith.agent.driver.tools import failed, toolset
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import ApprovalPending
from tunesmith.tools.serving.endpoint import refusal_in

pydantic_ai.BANNER_ENABLED = False  # the screen is the user's
# An endpoint that counts no tokens, though each request asks it to: its turn ends by its requests and their max_tokens.
warnings.filterwarnings("ignore", message="Some responses omitted usage")

_SAME_RESULT_LIMIT = 2
_END_OF_THOUGHTS = "</think>"
LIMITS = UsageLimits(request_limit=16, tool_calls_limit=40, output_tokens_limit=24_000)
"""What a turn may take: requests to the driver, tool calls that went well, and tokens that it writes: many times what
an answer takes, and an end for one that goes round in circles."""
_REACHED = {
    "request_limit": (LIMITS.request_limit, "requests to the driver"),
    "tool_calls_limit": (LIMITS.tool_calls_limit, "tool calls"),
    "output_tokens_limit": (LIMITS.output_tokens_limit, "tokens of the driver's"),
}


@cache
def instructions() -> str:
    """The driver's instructions: the same words in every request, so that a server computes them once."""
    return (files("tunesmith.prompts") / "driver.md").read_text()


def build_agent(model: Model | None) -> Agent[TurnDeps, str | DeferredToolRequests]:
    """The driver on a model; it ends with words, or with calls that nobody decided on."""
    return Agent(
        model,
        deps_type=TurnDeps,
        output_type=[str, DeferredToolRequests],
        instructions=instructions(),
        toolsets=[toolset()],
        model_settings=ModelSettings(temperature=0.0),
        retries=2,
        capabilities=[HandleDeferredToolCalls(asked), _hooks()],
    )


def _hooks() -> Hooks[TurnDeps]:
    hooks: Hooks[TurnDeps] = Hooks()
    hooks.on.prepare_tools(_that_fit)
    hooks.on.before_model_request(_fitted)
    hooks.on.model_request(_by_the_driver)
    hooks.on.after_model_request(_read)
    hooks.on.tool_execute(_no_loop)
    hooks.on.tool_execute_error(_failure_for_the_model)
    return hooks


# Before a request


async def _that_fit(ctx: RunContext[TurnDeps], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
    """All tools, the same in every request, as far as the context has room for them beside the words."""
    deps = ctx.deps
    if deps.start_driver and not deps.driver:
        deps.driver = await deps.start_driver()  # its context says how many of them there is room for
    return history.that_fit(tool_defs, deps.window)


async def _fitted(ctx: RunContext[TurnDeps], request_context: ModelRequestContext) -> ModelRequestContext:
    """The messages that the context has room for, and the state card behind the newest words."""
    deps = ctx.deps
    state = state_summary(deps.store, deps.current_run(), deps.draft)
    deps.note(state)
    card = f"\n\n({STATE_HEADING}. {'; '.join(state.splitlines())}.)"
    sent = history.fitted(request_context.messages, deps.window.room(_others(request_context) + len(card)))
    newest = max((i for i, message in enumerate(sent) if history.is_prompt(message)), default=-1)
    if newest >= 0:
        sent[newest] = _with(sent[newest], card)
    return replace(request_context, messages=sent)


def _others(request_context: ModelRequestContext) -> int:
    """Characters that are sent beside the messages."""
    return len(instructions()) + history.tool_characters(request_context.model_request_parameters.function_tools)


def _with(message: ModelMessage, card: str) -> ModelMessage:
    assert isinstance(message, ModelRequest)
    parts = [
        replace(part, content=f"{part.content}{card}") if isinstance(part, UserPromptPart) else part
        for part in message.parts
    ]
    return replace(message, parts=parts)


async def _by_the_driver(
    ctx: RunContext[TurnDeps], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
) -> ModelResponse:
    """Ask the driver, started anew where it gave way to a step; what code had to say of that is said by code."""
    deps = ctx.deps
    model = deps.driver or request_context.model
    if is_gone(model):
        if deps.say_next:
            text, deps.say_next = deps.say_next, ""
            return ModelResponse([TextPart(text)], model_name=model.model_name)
        if deps.endpoint:
            model = deps.driver = model_of(await asyncio.to_thread(deps.endpoint))
    settings: ModelSettings = {**(request_context.model_settings or {}), "max_tokens": deps.window.answer_tokens}
    if deps.window.thinks:  # which at temperature 0 goes round in circles
        settings.pop("temperature", None)
    return await handler(replace(request_context, model=model, model_settings=settings))


# After it

_WHOLE = re.compile(r"^\s*(?:<tool_call>|<tools>)?\s*(\{.*\})\s*(?:</tool_call>|</tools>)?\s*$", re.DOTALL)
_FENCED = re.compile(r"```(?:json|tool_call|xml)?\s*(?:<tool_call>)?\s*(\{.*?\})\s*(?:</tool_call>)?\s*```", re.DOTALL)


async def _read(
    ctx: RunContext[TurnDeps], *, request_context: ModelRequestContext, response: ModelResponse
) -> ModelResponse:
    """A response as it is meant: thoughts are no words, and a call that is written as plain JSON is a call."""
    sent = history.characters(request_context.messages) + _others(request_context)
    ctx.deps.window.learn(sent, response.usage.input_tokens)
    # some servers leave the thoughts' end in the text
    thoughts = any(isinstance(p, ThinkingPart) or _END_OF_THOUGHTS in getattr(p, "content", "") for p in response.parts)
    ctx.deps.window.thinks |= thoughts
    response = replace(response, parts=[_without_thoughts(part) for part in response.parts])
    texts = [part for part in response.parts if isinstance(part, TextPart)]
    calls = any(isinstance(part, ToolCallPart) for part in response.parts)
    if ctx.retry and not calls and not any(part.content.strip() for part in texts):  # it was asked for some again
        return replace(response, parts=[*response.parts, TextPart(in_silence(ctx.deps))])
    if len(texts) != 1 or calls:
        return response
    names = {tool.name for tool in request_context.model_request_parameters.function_tools}
    call = call_in_text(texts[0].content, names)
    return replace(response, parts=[call]) if call else response


def _without_thoughts(part: ModelResponsePart) -> ModelResponsePart:
    """A text without the thoughts before it, where a template opened them in the prompt and only their end is said."""
    if not isinstance(part, TextPart) or _END_OF_THOUGHTS not in part.content:
        return part
    return replace(part, content=after_thoughts(part.content))


def after_thoughts(text: str) -> str:
    """What is said after the last thought."""
    return text.rpartition(_END_OF_THOUGHTS)[2].lstrip()


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


def _object(text: str) -> Mapping[str, object] | None:
    """The JSON object in a text, its braces doubled or not: a template's habit that small models have picked up."""
    for candidate in (text, text.replace("{{", "{").replace("}}", "}")):
        try:
            value = json.loads(candidate)
        except ValueError:  # no JSON yet: the next candidate
            continue
        return value if isinstance(value, dict) else None
    return None


def looks_like_a_call(text: str) -> bool:
    """Whether the beginning of a text may be a call rather than words for the user."""
    return text.lstrip()[:1] in ("{", "`", "<") or "```" in text or "<tool_call>" in text


# Around a tool


async def _no_loop(
    ctx: RunContext[TurnDeps],
    *,
    call: ToolCallPart,
    tool_def: object,
    args: dict[str, object],
    handler: Callable[[dict[str, object]], Awaitable[object]],
) -> object:
    """The same call with the same result is not carried out for ever."""
    deps = ctx.deps
    key = f"{call.tool_name}({json.dumps(call.args_as_dict(), sort_keys=True, default=str)})"
    last, times = deps.seen_calls.get(key, ("", 0))
    if times >= _SAME_RESULT_LIMIT:
        raise ToolFailed(f"{call.tool_name} was called {times} times with the same result; answer the user now")
    result = await handler(args)
    deps.went_well(call.tool_name)
    deps.seen_calls[key] = (str(result), times + 1 if str(result) == last or not times else 1)
    return result


async def _failure_for_the_model(
    ctx: RunContext[TurnDeps], *, call: ToolCallPart, tool_def: object, args: object, error: Exception
) -> object:
    if isinstance(error, ApprovalPending):
        raise error
    failure = failed(error)
    ctx.deps.say_next = ""
    ctx.deps.went_wrong(call.tool_name, error)
    ctx.deps.note(failure.message)
    raise failure from error


def messages_of(prompt: str, answer: str) -> list[ModelMessage]:
    """A turn that code answered, as a driver reads it later."""
    return [ModelRequest([UserPromptPart(prompt)]), ModelResponse([TextPart(answer)])]


def clear_line(error: Exception) -> str:
    """What is wrong with the driver, and the next thing to try."""
    if refused := refusal_in(error):
        return str(refused)
    line = " ".join(str(error).split())[:300]  # one sentence on the screen
    if isinstance(error, ModelHTTPError):
        text = f"{error.body or line}"
        if "context length" in text or "maximum context" in text or "max_model_len" in text:
            return (
                "the conversation does not fit into the driver's context; /new starts a fresh one, or set a larger "
                "context_tokens under [driver] in settings.toml (8192 is enough)"
            )
        reason = " ".join(text.split())[:200]  # a line or two
        return f"the driver's server answered with status {error.status_code}: {reason}; its log tells more"
    if isinstance(error, UsageLimitExceeded):
        reached = next((f"{most:,} {what}" for name, (most, what) in _REACHED.items() if name in line), "its limit")
        return f"stopped after {reached} in one turn; say it in smaller steps"
    if isinstance(error, UnexpectedModelBehavior):
        return f"the driver's answer could not be read ({line}); try again, or another driver"
    if isinstance(error, TimeoutError) or "timed out" in line.lower() or "Timeout" in type(error).__name__:
        return (
            "the driver did not answer in time (timeout_s under [driver] in settings.toml is how long it may take); "
            "/doctor says what is served, slash commands work"
        )
    if isinstance(error, ModelAPIError | OSError | TimeoutError) or type(error).__module__.startswith(
        ("openai", "httpx")
    ):
        return f"the driver cannot be reached or broke off ({line}); /doctor says what is served, slash commands work"
    return f"unexpected {type(error).__name__} in the conversation: {line}"
