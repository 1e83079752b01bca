"""The call of a stage's tool from the fields that code has read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from pydantic_ai.messages import ToolCallPart

from tunesmith.tools.pipeline import catalog

OTHER = "other"
"""The argument of a stage's tool that holds every field which has none of its own."""


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
