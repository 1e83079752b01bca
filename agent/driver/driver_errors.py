"""What went wrong: with the driver in one clear line, and in a turn, as a script's exit code."""

from __future__ import annotations

from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.usage import UsageLimits

from tunesmith.agent.driver.endpoint import refusal_in
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.registry import TOOLS
from tunesmith.memory.errors import GateRefused, StepFailed, TunesmithError
from tunesmith.tools.pipeline import catalog

LIMITS = UsageLimits(request_limit=16, tool_calls_limit=40, output_tokens_limit=24_000)
"""What a turn may take: requests to the driver, tool calls that went well, and tokens that it writes."""
_REACHED = {
    "request_limit": (LIMITS.request_limit, "requests to the driver"),
    "tool_calls_limit": (LIMITS.tool_calls_limit, "tool calls"),
    "output_tokens_limit": (LIMITS.output_tokens_limit, "tokens of the driver's"),
}


def clear_line(error: Exception) -> str:
    """What is wrong with the driver, and the next thing to try."""
    if refused := refusal_in(error):
        return str(refused)
    line = " ".join(str(error).split())[:300]
    if isinstance(error, ModelHTTPError):
        text = f"{error.body or line}"
        if "context length" in text or "maximum context" in text or "max_model_len" in text:
            return (
                "the conversation does not fit into the driver's context; /new starts a fresh one, or set a larger "
                "context_tokens under [driver] in settings.toml (8192 is enough)"
            )
        reason = " ".join(text.split())[:200]
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


_FREE = (entry.name for entry in catalog.STAGES if not entry.expensive and not entry.makes)
_READING = frozenset({*TOOLS, "query_records", *_FREE})
"""These put right only what they got wrong themselves."""


def went_wrong(deps: TurnDeps, tool: str, error: Exception) -> None:
    """Keep what a call ended with."""
    if not isinstance(error, TunesmithError):
        error = StepFailed(f"{tool}: unexpected {type(error).__name__}: {error}")
    if not is_lasting(deps.errors.get(tool)):
        deps.errors[tool] = error


def went_well(deps: TurnDeps, tool: str) -> None:
    """Forget what this call put right."""
    for name in [tool] if tool in _READING else list(deps.errors):
        if not is_lasting(deps.errors.get(name)):
            deps.errors.pop(name, None)


def of_turn(deps: TurnDeps) -> TunesmithError | None:
    """The error that the turn came to; None where all is well."""
    left = list(deps.errors.values())
    return next((error for error in left if is_lasting(error)), left[-1] if left else None)


def is_lasting(error: TunesmithError | None) -> bool:
    """Whether nothing that is called later puts it right."""
    return isinstance(error, StepFailed | GateRefused)
