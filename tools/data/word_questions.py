"""Questions about a user's words, as requests that are held to a schema, and what their answers are held to.

Every request begins with the same description, so that a server reads it once. A choice is asked for twice, with its
options in both orders: a small model prefers the first. Nothing here sends a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rapidfuzz import fuzz

from tunesmith.tools.data.answer_shape import fill
from tunesmith.tools.data.proposal import Proposal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.serving.client import ChatRequest

Ask = Callable[[Sequence[ChatRequest]], Mapping[str, str]]
"""Puts requests to a model: the texts of its answers by the requests' ids; what was not answered is left out."""
_QUOTED = 85
"""Similarity, of 100, from which a text counts as a piece of the user's words."""
_EXAMPLES, _MESSAGE_CHARACTERS = 8, 600
_ANSWER_TOKENS = 400
TEXT: Mapping[str, object] = {"type": "string", "maxLength": 400}
NUMBER: Mapping[str, object] = {"type": ["integer", "null"]}


def object_of(**properties: Mapping[str, object]) -> dict[str, object]:
    """The schema of an object with just these keys."""
    return {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def list_of(item: Mapping[str, object], most: int) -> dict[str, object]:
    """The schema of an object with a list under `items`, as servers hold answers to objects alone."""
    return object_of(items={"type": "array", "items": dict(item), "maxItems": most})


@cache
def _pages() -> Mapping[str, str]:
    text = (files("tunesmith.prompts") / "read-words.md").read_text(encoding="utf-8")
    sections = (section.partition("\n") for section in f"\n{text}".split("\n# ")[1:])
    return {name.strip(): body.strip() for name, _, body in sections}


@dataclass(frozen=True, slots=True)
class Words:
    """A user's words, and the model that is asked about them."""

    spec: Spec
    stated: Proposal
    model: str

    @property
    def description(self) -> str:
        """All that was said, a part a line."""
        said = [("What they want", self.spec.say), ("When it applies", self.spec.when), ("The answer", self.spec.what)]
        said += [("Never", self.spec.never), *((f"{part.name} is", part.means) for part in self.stated.parts)]
        return "\n".join(f"{name}: {text}" for name, text in dict.fromkeys(said) if text)

    def quoted(self, text: str) -> bool:
        """Whether a text is a piece of the user's own words."""
        return bool(text.strip()) and fuzz.partial_ratio(text.casefold(), self.description.casefold()) >= _QUOTED

    def request(self, page: str, schema: Mapping[str, object], identity: str = "", /, **values: str) -> ChatRequest:
        """The question of a page, its places filled, below the description."""
        shown = self.spec.examples[:_EXAMPLES]
        examples = "\n".join(f"Message: {data(e.prompt)}\nAnswer: {data(e.answer)}" for e in shown)
        head = fill(_pages()["description"], {"description": self.description, "examples": examples})
        asked = fill(_pages()[page], {"again": "", **values})
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}
        messages = [{"role": "user", "content": f"{head}\n\n{asked}"}]
        extra = {"response_format": form}
        return ChatRequest(identity or page, self.model, messages, _ANSWER_TOKENS, extra=extra)

    def choice(self, page: str, options: Mapping[str, str], identity: str = "", /, **values: str) -> list[ChatRequest]:
        """Asks for one of several options, in both orders; nothing where there is no choice."""
        orders = [list(options), list(options)[::-1]] if len(options) > 1 else []
        return [
            self.request(
                page,
                object_of(choice={"enum": order}),
                f"{identity or page}/{n}",
                options="\n".join(f"- {name}: {options[name]}" for name in order),
                **values,
            )
            for n, order in enumerate(orders)
        ]


def chosen(identity: str, options: Mapping[str, str], answers: Mapping[str, str]) -> str:
    """The option that both readings chose; empty where they differ."""
    if len(options) < 2:
        return next(iter(options), "")
    one, other = (answer_of(answers, f"{identity}/{n}").get("choice") for n in range(2))
    return str(one) if one == other and one in options else ""


def answer_of(answers: Mapping[str, str], identity: str) -> dict[str, Any]:
    """What was answered, as an object; empty where nothing was, or no object."""
    try:
        value = json.loads(answers.get(identity, ""))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def items_of(answers: Mapping[str, str], identity: str) -> list[Any]:
    """The list that was answered; empty where none was."""
    items = answer_of(answers, identity).get("items")
    return items if isinstance(items, list) else []


def data(text: str) -> str:
    """A text as a JSON string, in which nothing can pass for a part of the question."""
    return json.dumps(text[:_MESSAGE_CHARACTERS], ensure_ascii=False)
