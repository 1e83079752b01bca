"""Questions about a user's words: each a page with worked examples, held to a schema where more than a word is asked.

Small and about one thing, as a model of a billion parameters answers them. Nothing here sends a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from tunesmith.tools.serving.client import ChatRequest, ChatResponse

Ask = Callable[[Sequence[ChatRequest]], Mapping[str, ChatResponse]]
"""Puts requests to a model: its answers by the requests' ids; what was not answered is left out."""
_WORD_TOKENS, _ANSWER_TOKENS = 4, 500
TEXT: Mapping[str, object] = {"type": "string", "maxLength": 300}
NUMBER: Mapping[str, object] = {"type": ["integer", "null"]}


def object_of(**properties: Mapping[str, object]) -> dict[str, object]:
    """The schema of an object with just these keys."""
    return {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def list_of(*items: Mapping[str, object], most: int) -> dict[str, object]:
    """The schema of an object with a list under `items`, as servers hold answers to objects alone."""
    item = dict(items[0]) if len(items) == 1 else {"anyOf": [dict(one) for one in items]}
    return object_of(items={"type": "array", "items": item, "maxItems": most})


@cache
def _page(name: str) -> tuple[dict[str, str], ...]:
    """The turns of a page: what is asked for, then questions (`>`) and their answers (`=`)."""
    text = (files("tunesmith.prompts") / "read-words.md").read_text(encoding="utf-8")
    page = next(body for body in f"\n{text}".split("\n# ") if body.partition("\n")[0].strip() == name)
    lines = [line for line in page.split("\n")[1:] if line.strip()]
    turns = []
    for mark, group in groupby(lines, lambda line: line[:2]):
        role = {"> ": "user", "= ": "assistant"}.get(mark, "system")
        turns.append({"role": role, "content": "\n".join(line[0 if role == "system" else 2 :] for line in group)})
    return tuple(turns)


def question(
    page: str, lines: Sequence[str], model: str, schema: Mapping[str, object] | None = None, *, identity: str = "",
    temperature: float = 0.0, seed: int = 0,
) -> ChatRequest:  # fmt: skip
    """The question of a page about these lines; without a schema a word is asked for."""
    messages = [*_page(page), {"role": "user", "content": "\n".join(lines)}]
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema or {})}}
    extra: Mapping[str, object] = {"response_format": form} if schema else {}
    tokens = _ANSWER_TOKENS if schema else _WORD_TOKENS
    return ChatRequest(identity or page, model, messages, tokens, temperature, seed=seed, extra=extra)


def object_in(answers: Mapping[str, ChatResponse], identity: str) -> dict[str, Any]:
    """What was answered, as an object; empty where nothing was, or no object."""
    try:
        value = json.loads(answers[identity].text)
    except (KeyError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def items_in(answers: Mapping[str, ChatResponse], identity: str) -> list[dict[str, Any]]:
    """The list that was answered, its objects alone; empty where none was."""
    items = object_in(answers, identity).get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def word_in(answers: Mapping[str, ChatResponse], identity: str) -> str:
    """The word that was answered, without marks around it; empty where none was."""
    return answers[identity].text.strip().strip("\"'`.*“”").split("\n")[0].strip() if identity in answers else ""


def data(text: str) -> str:
    """A text as a JSON string, in which nothing can pass for a part of the question."""
    return json.dumps(text, ensure_ascii=False)
