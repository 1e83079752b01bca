"""A behaviour as its user describes it: when it applies, what exactly the answer is, what never, and examples.

A draft holds what was said so far, can be kept as JSON and taken up again, and knows what is still missing. All of it
is the user's own text: data everywhere, never a template and never a path. An example may be a conversation, kept as
a transcript, turn by turn.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue, ValidationError, field_validator, model_validator

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.record_files import ASKED
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.suites.grading.calls import check_tools

EXAMPLES_MIN = 3
"""Two examples may be alike by chance; what three have in common is worth asking about."""
OWN_BLIND = 10
"""Of enough examples so many become blind cases: a claim needs ten cases of people."""


# Conversations as text

_MESSAGES_MOST, _TOOLS_MOST, _TOOLS_CHARS = 40, 20, 32_000
"""Of a conversation and of the tools offered with it, all of which a model is given with every row."""
_NAMES = {"user": "User", "assistant": "Assistant"}
_TURN = re.compile(r"^(User|Assistant): ", re.MULTILINE)

Message = dict[str, Any]


def transcript(turns: Sequence[tuple[str, str]]) -> str:
    """(role, text) of some turns as one text; a single one is its own text."""
    if len(turns) == 1:
        return turns[0][1]
    return "\n".join(f"{_NAMES[role]}: {text}" for role, text in turns)


def turns_of(text: str) -> list[Message]:
    """The messages of a transcript; of any other text one of the user's."""
    starts = list(_TURN.finditer(text))
    if not starts or starts[0].start():
        return [{"role": "user", "content": text}]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return [
        {"role": match[1].lower(), "content": text[match.end() : end].strip()}
        for match, end in zip(starts, ends, strict=True)
    ]


def takes_turns(messages: Sequence[Mapping[str, object]]) -> bool:
    """Whether user and assistant speak in turn, the user first and last."""
    roles = [message.get("role") for message in messages]
    return len(roles) % 2 == 1 and all(role == ("assistant" if n % 2 else "user") for n, role in enumerate(roles))


def taught(messages: object) -> dict[str, object]:
    """The fields of an example that a conversation is. Raises ValueError where it is none that can be taught."""
    if not isinstance(messages, list) or not 2 <= len(messages) <= _MESSAGES_MOST:
        count = len(messages) if isinstance(messages, list) else 0
        raise ValueError(f"messages is a list of 2 to {_MESSAGES_MOST} messages, the last one the answer; got {count}")
    for place, message in enumerate(messages, 1):
        _check(message, place, last=place == len(messages))
    system = str(messages[0]["content"]) if messages[0]["role"] == "system" else ""
    asked = messages[bool(system) : -1]
    if not takes_turns(asked) or messages[-1]["role"] != "assistant":
        raise ValueError(
            "messages are a system message or none, then user and assistant in turn, and an answer at the end; "
            "results of tools (role tool) cannot be taught from examples: bring such rows with `rows import`"
        )
    turns = [(str(m["role"]), str(m["content"])) for m in asked]
    if len(turns) > 1 and (marked := next(filter(None, (_TURN.search(text) for _, text in turns)), None)):
        raise ValueError(f"a message has a line that begins with {marked[0]!r}, as turns do; put it in other words")
    return {
        "prompt": transcript(turns),
        "answer": _answer(messages[-1]),
        "system": system,
        "conversation": len(asked) > 1,
    }


def _check(message: object, place: int, *, last: bool) -> None:
    """Refuse, by ValueError, a message that an example cannot be made from."""
    if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant", "tool"):
        raise ValueError(f"message {place} has no role out of system, user, assistant")
    if odd := message.keys() - {"role", "content", "tool_calls"}:
        raise ValueError(f"message {place} has {min(map(str, odd))!r}; a message has a role, a content, or tool_calls")
    if message.get("tool_calls") and not last:
        raise ValueError(f"message {place} calls a tool before the last turn; only the last answer may call one")
    if not message.get("tool_calls") and not isinstance(message.get("content"), str):
        raise ValueError(f"message {place} has no text; images and other parts cannot be taught")


def _answer(message: Mapping[str, object]) -> str:
    calls = message.get("tool_calls")
    if not calls:
        return str(message["content"])
    if not isinstance(calls, list) or len(calls) != 1:
        raise ValueError("an answer that calls several tools at once cannot be taught; show one call")
    return call_text(calls[0])


def call_text(call: object) -> str:
    """A tool call in OpenAI's form as the text of an answer. Raises ValueError where it is none."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("a tool call has a function with a name and arguments")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of {function['name']} are no object")
    return json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)


def offered(tools: Sequence[dict[str, JsonValue]]) -> tuple[dict[str, JsonValue], ...]:
    """Tools, each by itself valid. Raises ValueError where they are none, too many, or larger than may be."""
    if len(tools) > _TOOLS_MOST or len(json.dumps(list(tools))) > _TOOLS_CHARS:
        raise ValueError(f"tools: at most {_TOOLS_MOST}, of {_TOOLS_CHARS:,} characters together, are offered")
    check_tools(list(tools))
    return tuple(tools)


# What is said of a behaviour


def _clean(text: str) -> str:
    """`text` with one kind of line end and without space around it. Raises ValueError for what is no plain text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    odd = next((c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs")), None)
    if odd is not None:
        raise ValueError(f"holds the character {ord(odd):#04x}, which is no text; leave it out")
    return text


# What a person writes of a behaviour, or a stranger's file has: a model of 8,192 tokens reads all of it in one request.
_Sentence = Annotated[str, AfterValidator(_clean), Field(max_length=4_000)]
Tools = Annotated[tuple[dict[str, JsonValue], ...], Field(max_length=20), AfterValidator(offered)]
"""Offered with a message, in OpenAI's form."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]


class Example(Frozen):
    """A message, and the answer that its user wants to it.

    Also read from `messages`, a conversation in OpenAI's form whose last message is the answer that is taught: several
    turns become the text of a transcript, and a tool call the text {"name": …, "arguments": {…}}.
    """

    # Characters: a message and its answer fit into the context of a model that reads them, four characters a token.
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
        if not isinstance(data, dict):
            return data
        if "messages" not in data:
            lacking = [name for name in ("answer", "prompt") if name not in data]
            if lacking and (odd := next((name for name in data if name not in cls.model_fields), "")):
                meant = lacking[-1 if odd in ASKED else 0]
                raise ValueError(f"examples take prompt and answer; `{odd}` is not one of them: did you mean {meant}?")
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


class Examples(Frozen):
    """Examples by themselves: what is wrong with one is told with its place."""

    examples: tuple[Example, ...]


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
    # 200: more are rows, which `--rows` takes; all examples are compared with each other.
    examples: tuple[Example, ...] = Field(min_length=EXAMPLES_MIN, max_length=200)

    @field_validator("examples")
    @classmethod
    def _distinct(cls, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        prompts = [_message(example) for example in examples]
        if twice := next((p for p in prompts if prompts.count(p) > 1), None):
            raise ValueError(f"two examples have the same message {twice[:60]!r}; give each a message of its own")
        return examples

    @field_validator("when", "what", "never")
    @classmethod
    def _not_empty(cls, text: str) -> str:
        if not text:
            raise ValueError("is empty")
        return text


def missing(draft: DescriptionDraft) -> tuple[str, ...]:
    """What is still to be asked for, in this order: when, what, never, examples (three different messages)."""
    lacking = [name for name in ("when", "what", "never") if not getattr(draft, name)]
    return (*lacking, *(["examples"] if len(distinct(draft.examples)) < EXAMPLES_MIN else []))


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
    # it names a folder and a model on the screen: a few words tell it apart
    return "-".join(words[:5])[:40].rstrip("-") or "behaviour"
