"""What the served driver can really do, tried out: engines have promised strict tool calls and silently not kept them.

What was found is kept (`abilities`), and the conversation goes by it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.agent.commands.settings import DriverSettings
from tunesmith.agent.driver import levels
from tunesmith.agent.driver.abilities import keep
from tunesmith.agent.driver.endpoint import Endpoint, refusal_in
from tunesmith.agent.driver.history import Window

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionUserMessageParam
    from openai.types.chat.chat_completion import Choice

_TIMEOUT_S = 120.0
_TRIED_TOKENS = 768
"""One that thinks has thought by then."""
_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
_ASKED: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What is the weather in Oslo, in celsius? Use the tool."}
]


def probe(endpoint: Endpoint, home: Path, chosen: DriverSettings) -> dict[str, object]:
    """Try the driver out, in at most two minutes, and keep what was found.

    Every ability is true, false, or the words of its refusal; `level` is how much it is let do by itself.
    """
    with endpoint.client(timeout_s=_TIMEOUT_S) as client:
        abilities = _tried(client, endpoint)
    if abilities["auto"] is True:
        context = abilities.get("context_tokens")
        abilities |= levels.examine(endpoint, Window(context) if isinstance(context, int) else Window())
    else:
        abilities |= {"level": "routed", "tasks_passed": "none: it calls no tool"}
    keep(home, endpoint.model, chosen, abilities)
    return abilities


def _tried(client: OpenAI, endpoint: Endpoint) -> dict[str, object]:
    checks: dict[str, Callable[[], object]] = {
        "auto": lambda: _called(_ask(client, endpoint, tools=[_tool()])),
        "required": lambda: _called(_ask(client, endpoint, tools=[_tool()], tool_choice="required")),
        "named": lambda: _called(
            _ask(client, endpoint, tools=[_tool()], tool_choice={"type": "function", "function": {"name": "weather"}})
        ),
        "strict": lambda: _obeys(_ask(client, endpoint, tools=[_tool(strict=True)], tool_choice="required")),
        "json_schema": lambda: _is_city(
            _ask(
                client, endpoint, response_format={"type": "json_schema", "json_schema": {"name": "w", "schema": _CITY}}
            ).message.content
        ),
        "no_argument_tool": lambda: _called(
            _ask(client, endpoint, tools=[_bare_tool()], tool_choice="required"), "now"
        ),
    }
    abilities: dict[str, object] = {"model": endpoint.model, "url": endpoint.url}
    for name, check in checks.items():
        try:
            abilities[name] = check()
        except Exception as error:
            abilities[name] = f"refused: {' '.join(str(refusal_in(error) or error).split())[:160]}"
    return abilities | _speed(client, endpoint) | _context(client, endpoint)


def _tool(*, strict: bool = False) -> dict[str, object]:
    function = {"name": "weather", "description": "The weather now.", "parameters": _CITY}
    return {"type": "function", "function": {**function, "strict": True} if strict else function}


def _bare_tool() -> dict[str, object]:
    parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "function", "function": {"name": "now", "description": "The time now.", "parameters": parameters}}


def _ask(client: OpenAI, endpoint: Endpoint, **options: Any) -> Choice:
    answer: ChatCompletion = client.chat.completions.create(
        model=endpoint.model, messages=_ASKED, max_tokens=_TRIED_TOKENS, temperature=0.0, **options
    )
    return answer.choices[0]


def _called(choice: Choice, name: str = "weather") -> bool:
    called, arguments = _first_call(choice)
    return called == name and isinstance(json.loads(arguments), dict)


def _obeys(choice: Choice) -> bool:
    return _called(choice) and _is_city(_first_call(choice)[1])


def _first_call(choice: Choice) -> tuple[str, str]:
    """The function that is called first, and its arguments as JSON; empty where none is."""
    call = next(iter(choice.message.tool_calls or ()), None)
    return (call.function.name, call.function.arguments) if call and call.type == "function" else ("", "")


def _is_city(text: str | None) -> bool:
    value = json.loads(text or "")
    return isinstance(value, dict) and set(value) == {"city", "unit"} and value["unit"] in ("celsius", "kelvin")


def _speed(client: OpenAI, endpoint: Endpoint) -> dict[str, object]:
    """Seconds to the first token of a warm prefix, and tokens per second after it; None where it does not stream."""
    try:
        for _ in range(2):  # the first one warms the prefix
            began = time.monotonic()
            first, count = 0.0, 0
            stream = client.chat.completions.create(
                model=endpoint.model,
                messages=[{"role": "user", "content": "Count from 1 to 30, one number a line."}],
                max_tokens=48,
                temperature=0.0,
                stream=True,
            )
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    first = first or time.monotonic() - began
                    count += 1
        rest = time.monotonic() - began - first
        return {
            "first_token_seconds": round(first, 2),
            "tokens_per_second": round(count / rest, 1) if rest > 0 else None,
        }
    except Exception:
        return {"first_token_seconds": None, "tokens_per_second": None}


def _context(client: OpenAI, endpoint: Endpoint) -> dict[str, object]:
    try:
        listed = [model for model in client.models.list().data if model.id == endpoint.model]
        return {"context_tokens": getattr(listed[0], "max_model_len", None) if listed else None}
    except Exception:
        return {"context_tokens": None}
