"""A behaviour as its user describes it: when it applies, what exactly the answer is, what never, and examples.

A draft holds what was said so far, can be kept as JSON and taken up again, and knows what is still missing. All of
it is the user's own text: data everywhere, never a template and never a path.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue, ValidationError, field_validator, model_validator

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.row_file import offered, taught

EXAMPLES_MIN = 3
"""Two examples may be alike by chance; what three have in common is worth asking about."""
OWN_BLIND = 10
"""Of enough examples so many become blind cases: a claim needs ten cases of people."""
_PARTS = ("when", "what", "never", "examples")


def _clean(text: str) -> str:
    """`text` with one kind of line end and without space around it. Raises ValueError for what is no plain text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    odd = next((c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs")), None)
    if odd is not None:
        raise ValueError(f"holds the character {ord(odd):#04x}, which is no text; leave it out")
    return text


_Sentence = Annotated[str, AfterValidator(_clean), Field(max_length=4_000)]
Tools = Annotated[tuple[dict[str, JsonValue], ...], Field(max_length=20), AfterValidator(offered)]
"""Offered with a message, in OpenAI's form."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]


class Example(Frozen):
    """A message, and the answer that its user wants to it.

    Also read from `messages`, a conversation in OpenAI's form whose last message is the answer that is taught: several
    turns become the text of a transcript, and a tool call the text {"name": …, "arguments": {…}}.
    """

    prompt: Annotated[str, AfterValidator(_clean), Field(max_length=32_000)]
    answer: Annotated[str, AfterValidator(_clean), Field(max_length=8_000)]
    system: Annotated[str, AfterValidator(_clean), Field(max_length=8_000)] = ""
    """The system prompt that it was seen under."""
    conversation: bool = False
    """Whether the prompt is a transcript of several turns."""
    tools: Tools = ()

    @model_validator(mode="before")
    @classmethod
    def _of_messages(cls, data: object) -> object:
        if not isinstance(data, dict) or "messages" not in data:
            return data
        rest = {name: value for name, value in data.items() if name != "messages"}
        if clash := rest.keys() & {"prompt", "answer", "system", "conversation"}:
            raise ValueError(f"has messages and {min(clash)}; say one of them")
        return {**rest, **taught(data["messages"])}

    @field_validator("answer", mode="before")
    @classmethod
    def _as_text(cls, answer: object) -> object:
        return json.dumps(answer, ensure_ascii=False) if isinstance(answer, dict | list) else answer

    @field_validator("prompt", "answer")
    @classmethod
    def _something(cls, text: str) -> str:
        if not text:
            raise ValueError("is empty; an example has a message and its answer")
        return text


def distinct(examples: Iterable[Example]) -> tuple[Example, ...]:
    """One example a message, whatever its case and space: the last one said, which corrects those before it."""
    by_message: dict[str, Example] = {}
    for example in examples:
        by_message.pop(_message(example), None)
        by_message[_message(example)] = example
    return tuple(by_message.values())


def parted(examples: tuple[Example, ...]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples that everybody may see, and the ten that only a suite holds; of fewer than thirteen, none.

    By digest of their messages, but for those that are seen so that every word which answers share is seen once: the
    values of a choice, the keys of an object, a frame. Of each answer the same share is blind, as near as ten come to
    it: were nine of ten the same, one answer to everything would pass nine.
    """
    if len(examples) < EXAMPLES_MIN + OWN_BLIND:
        return examples, ()
    answers = Counter(example.answer for example in examples)
    words = {example.prompt: set(example.answer.split()) for example in examples}
    counts = Counter(word for of_one in words.values() for word in of_one)
    lacking = {word for word, count in counts.items() if count > 1}
    left = sorted(examples, key=lambda example: sha256(_message(example).encode()).hexdigest())
    seen: set[str] = set()
    while len(left) > OWN_BLIND:
        now = Counter(example.answer for example in left)
        best = max(  # the first of equals
            left, key=lambda one: (len(words[one.prompt] & lacking), now[one.answer] / answers[one.answer])
        )
        left.remove(best)
        seen.add(best.prompt)
        lacking -= words[best.prompt]
    return tuple(e for e in examples if e.prompt in seen), tuple(e for e in examples if e.prompt not in seen)


def _message(example: Example) -> str:
    return " ".join(example.prompt.lower().split())


class DescriptionDraft(Frozen):
    """What was said so far; empty: not yet. `model_dump_json` keeps it, `model_validate_json` takes it up again."""

    name: Name | None = None
    """A short name in small letters, digits and dashes."""
    when: _Sentence = ""
    """When it applies: "the user asks how to cook something"."""
    what: _Sentence = ""
    """What exactly the answer is: "exactly three bullet points, each one step"."""
    never: _Sentence = ""
    """What the answer must never do; "nothing" is an answer too."""
    examples: tuple[Example, ...] = Field(default=(), max_length=200)


class Description(DescriptionDraft):
    """A whole description: nothing is missing."""

    name: Name
    examples: tuple[Example, ...] = Field(min_length=EXAMPLES_MIN, max_length=200)

    @field_validator("examples")
    @classmethod
    def _distinct(cls, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        prompts = [_message(example) for example in examples]
        if twice := next((p for p in prompts if prompts.count(p) > 1), None):
            raise ValueError(f"two examples have the same message {twice[:60]!r}; each shows another one")
        return examples

    @field_validator("when", "what", "never")
    @classmethod
    def _not_empty(cls, text: str) -> str:
        if not text:
            raise ValueError("is empty")
        return text


def missing(draft: DescriptionDraft) -> tuple[str, ...]:
    """What is still to be asked for, in this order: when, what, never, examples (three different messages)."""
    lacking = {name for name in ("when", "what", "never") if not getattr(draft, name)}
    lacking |= {"examples"} if len(distinct(draft.examples)) < EXAMPLES_MIN else set()
    return tuple(name for name in _PARTS if name in lacking)


def described(draft: DescriptionDraft) -> Description:
    """The whole description of a draft that lacks nothing. Raises BadInput, naming what is missing or wrong."""
    if lacking := missing(draft):
        raise BadInput(f"the description lacks {', '.join(lacking)} ({EXAMPLES_MIN} different examples are needed)")
    try:
        return Description.model_validate({**draft.model_dump(), "name": draft.name or slug(draft.what)})
    except ValidationError as error:
        raise BadInput(sentence(error.errors()[0], Description)) from None


def slug(text: str) -> str:
    """A name made of the first words of `text`: small letters, digits and dashes."""
    plain = unicodedata.normalize("NFKD", text.lower())
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in plain if not unicodedata.combining(c)).split()
    return "-".join(words[:5])[:40].rstrip("-") or "behaviour"
