"""The spec of a behaviour: one kind for everything.

It says when the behaviour applies, what the answer is and what it never is; by which attributes messages and answers
differ; how an answer is put together from them; which messages only look alike; and what every answer keeps, as rules
that code checks and criteria in words. `load_behaviour` reads it; a `Proposal` fills in what its user left out. Its
file is YAML that is read back letter for letter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

import yaml
from pydantic import Field, JsonValue, field_validator, model_validator

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.answer_rules import Rule
from tunesmith.tools.data.description import Description, Example
from tunesmith.tools.data.row_file import Message, offered, turns_of
from tunesmith.tools.data.row_file import transcript as as_transcript
from tunesmith.tools.data.spec_checks import check_answer, check_attribute, check_formulas, check_names
from tunesmith.tools.serving.spec import MAX_ANSWER_TOKENS

TYPED = ("digits", "number", "amount", "date", "time", "weekday", "email", "phone", "url")
"""Kinds whose values code can draw, write into a message in many ways, and find again in a message."""
Kind = Literal[
    "label", "copied", "text", "digits", "number", "amount", "date", "time", "weekday", "email", "phone", "url",
    "object", "computed",
]  # fmt: skip
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_INDEX = re.compile(r"\[\d+\]")


def without_places(path: str) -> str:
    """The path of an attribute, of the path of one of its values: items.price of items[0].price."""
    return _INDEX.sub("", path)


ATTRIBUTES_MAX = 30
_TOKENS_PER_CHAR = 0.4
ANSWER_CHARACTERS_MAX = int(MAX_ANSWER_TOKENS / _TOKENS_PER_CHAR)
"""Of an example: a longer answer is more than a model is given tokens for."""


def tokens_for(characters: int) -> int:
    """Tokens that answers are given where the longest known one has so many characters: half as many again."""
    return min(MAX_ANSWER_TOKENS, max(48, round(characters * _TOKENS_PER_CHAR * 1.5)))


def _says_nothing(value: object) -> bool:
    """Left out of the digest then: a spec of before there was such a field keeps its own."""
    return not value


class Value(Frozen):
    """One value of a label."""

    means: str = ""
    weight: float = Field(default=1, gt=0)
    phrases: tuple[str, ...] = ()  # as `Spec.situations`
    words: tuple[str, ...] = ()
    between: tuple[int, int] | None = Field(default=None, exclude_if=_says_nothing)
    """Where a number of the message decides it: the lowest and the highest that has this value."""


class Attribute(Frozen):
    """Something in which messages or their answers differ; drawn before a word is written."""

    name: Annotated[str, Field(pattern=r"^[^\W\d]\w*$", max_length=40)]
    kind: Kind = "label"
    """label: one of `values`. copied: stands in the message letter for letter. text: in words of its own. object: holds
    `attributes`. computed: by `formula` from others. The others are typed: code draws and finds them."""
    attributes: tuple[Attribute, ...] = Field(default=(), max_length=ATTRIBUTES_MAX)
    """Of an object, what it holds."""
    many: tuple[int, int] | None = None
    """The fewest and the most values of a list, in the order of the message; of a label, of a set without an order."""
    formula: JsonValue = None
    """Of what is computed; `arithmetic` says what it may hold. A name is looked for beside it, then at the top."""
    means: str = ""
    values: dict[str, Value] = Field(default_factory=dict)
    """Of a label, all there are; of another kind, some to draw from. Empty there: the writer proposes them."""
    shown: bool = True
    """Whether the answer shows it; what is not shown only makes messages differ."""
    absent_share: float = Field(default=0, ge=0, le=1)
    absent_as: str | None = None
    """What the answer shows where the message does not say it; None: null."""
    left_out: bool = False
    """Whether an object lacks the key then, instead of showing `absent_as`."""
    joined: str = ", "
    """What stands between the values of a list or a set in an answer that is text."""
    absent_where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Label → its values for which this attribute is absent."""
    lengths: tuple[int, ...] = ()
    """Of digits: how many."""
    words_max: int = Field(default=0, ge=0)
    """0: not limited."""
    forms: tuple[str, ...] = ()
    """Ways to write a typed value; `{n}` stands for it. Empty: the ways of its kind."""
    sentences: tuple[str, ...] = ()  # as `Spec.situations`
    inline: tuple[str, ...] = ()

    @property
    def typed(self) -> bool:
        """Whether code can draw its values and find them in a message."""
        return self.kind in TYPED

    @property
    def open(self) -> bool:
        """Whether a model has to propose its values."""
        return self.kind in ("copied", "text") and not self.values

    @property
    def plain(self) -> bool:
        """Whether it has one value, which is a text."""
        return self.kind != "object" and self.many is None


class Answer(Frozen):
    """How an answer is made. What an attribute decides is composed by code and never written by a model."""

    form: Literal["written", "json", "text", "lines", "call"] = "written"
    """written: by the model, from message and description. json: an object of the shown attributes in their order.
    text: the template. lines: the template once for each of several records. call: of the tool that the template
    names, with the shown attributes that it takes as its arguments."""
    template: str = ""
    """`{name}` stands for an attribute."""
    language: str = ""
    """Of an answer that is code: json, python, sql, toml and yaml are parsed, never run; another is not looked at."""
    otherwise: str = ""
    """The whole answer where one of `needs` is absent, or where a list has no record."""
    needs: tuple[str, ...] = ()
    otherwise_share: float = Field(default=0.2, ge=0, le=0.9)
    """Of rows whose list is empty."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The attributes that the template names."""
        return tuple(_PLACEHOLDER.findall(self.template))


class Spec(Description):
    """A behaviour: what is to be learned, and everything that its rows and its tests are made from."""

    spec: Literal[2] = 2
    say: str = ""
    """The wish in the user's own words."""
    prompt: str = "{{message}}"
    """The user's message of suites and rows; `{{slot}}` stands for the text."""
    slot: str = "message"
    attributes: tuple[Attribute, ...] = Field(default=(), max_length=ATTRIBUTES_MAX)
    answer: Answer = Answer()
    situations: tuple[JsonValue, ...] = ()
    writing: JsonValue = None
    """Both of earlier versions, whose messages could begin with facts of a file. Nothing is written from such a one any
    more (`generate`); it is still read, and the digest of every other spec is what it was."""
    tools: tuple[dict[str, JsonValue], ...] = Field(default=(), max_length=20)
    """Offered with every message, in OpenAI's form; also taken from the examples."""
    near_misses: tuple[str, ...] = Field(default=(), max_length=400)
    """Messages that look alike and get an ordinary answer."""
    rules: tuple[Rule, ...] = ()
    """What every answer keeps, checked by code."""
    criteria: tuple[str, ...] = Field(default=(), max_length=20)
    """What is right in meaning, in words; judged by a model."""
    language: str = "English"
    """Of the messages, as the writer is told."""
    system_prompts: tuple[str, ...] = ()
    """System prompts that rows are seen under, in turn with none."""
    system_share: float = Field(default=0.3, ge=0, le=1)
    answer_tokens: int = Field(default=0, ge=0, le=MAX_ANSWER_TOKENS)
    """Tokens an answer may have; 0: told from the longest example."""
    blind_sha256: str = ""
    """Digest of the user's further examples, which are blind cases of its suite alone; empty: there are none."""
    blind: tuple[Example, ...] = Field(default=(), exclude=True)
    """Those examples, until the suite is written: nothing is made from them, and no other file holds them."""
    every_message: bool = Field(default=False, exclude_if=_says_nothing)
    """Whether it applies to every message, so that there are none beside it that stay as they were."""
    words_sha256: str = Field(default="", exclude_if=_says_nothing)
    """Digest of the words that were read for it (`words_digest`): they are not read again; empty: none were."""
    told: bool = Field(default=True, exclude=True)
    """Whether somebody said what the behaviour is; where rows alone show it, code holds them to no form."""

    @property
    def sha256(self) -> str:
        """Digest of the whole spec, whatever its comments and layout."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def max_tokens(self) -> int:
        """Of an answer: half as much again as the longest example may need."""
        return self.answer_tokens or tokens_for(max(len(example.answer) for example in self.examples))

    @property
    def conversation(self) -> bool:
        """Whether messages are conversations of several turns, as transcripts."""
        return any(example.conversation for example in self.examples)

    @property
    def message_tokens(self) -> int:
        """Tokens that a written message may have: half as many again as the longest example's."""
        return max(30, round(max(len(example.prompt) for example in self.examples) * _TOKENS_PER_CHAR * 1.5))

    @property
    def labels(self) -> tuple[Attribute, ...]:
        """The attributes that are one of a few values; a set of them is none."""
        return tuple(a for a in self.attributes if a.kind == "label" and a.many is None)

    def attribute(self, path: str) -> Attribute:
        """The attribute of a name, or of a value's path such as items[0].price. Raises KeyError."""
        attributes, found = self.attributes, None
        for name in without_places(path).split("."):
            found = next((a for a in attributes if a.name == name), None)
            if found is None:
                raise KeyError(path)
            attributes = found.attributes
        assert found is not None
        return found

    def parts(self) -> Iterator[Attribute]:
        """Every attribute that has values of its own; one within an object is named by its path, as items.price."""
        pending = list(self.attributes)
        while pending:
            one = pending.pop(0)
            if one.kind == "object":
                pending = [a.model_copy(update={"name": f"{one.name}.{a.name}"}) for a in one.attributes] + pending
            else:
                yield one

    def leaves(self, values: Mapping[str, object]) -> Iterator[tuple[str, Attribute]]:
        """Each value's path with its attribute: an attribute's own name, but for objects, lists and sets.

        Of these as many as there are values; their own name where they are absent.
        """
        for attribute in self.attributes:
            if attribute.plain:
                yield attribute.name, attribute
            else:
                own = (path for path in values if re.split(r"[.[]", path, maxsplit=1)[0] == attribute.name)
                yield from ((path, self.attribute(path)) for path in own)

    def render(self, text: str) -> str:
        """The user's message around a text."""
        return self.prompt.replace("{{" + self.slot + "}}", text)

    def turns(self, text: str) -> list[Message]:
        """The messages that ask a text: one of the user's, or the turns of a transcript, the last one rendered."""
        turns: list[Message] = turns_of(text) if self.conversation else [{"role": "user", "content": text}]
        return [*turns[:-1], {**turns[-1], "content": self.render(str(turns[-1]["content"]))}]

    def text_of(self, messages: Sequence[Mapping[str, object]]) -> str:
        """The text that some messages ask, without the prompt around it: the reverse of `turns`."""
        before, _, after = self.prompt.partition("{{" + self.slot + "}}")
        last = str(messages[-1].get("content") or "").removeprefix(before).removesuffix(after)
        earlier = [m for m in messages[:-1] if m.get("role") in ("user", "assistant")] if self.conversation else []
        turns = [(str(m["role"]), str(m.get("content") or "")) for m in earlier]
        return as_transcript([*turns, ("user", last)])

    @model_validator(mode="before")
    @classmethod
    def _of_examples(cls, data: object) -> object:
        """What the examples say of the whole: the tools offered with them, and the system prompt that they share."""
        if not isinstance(data, dict) or not isinstance(data.get("examples"), list | tuple):
            return data
        examples = [Example.model_validate(example) for example in data["examples"]]
        systems = {example.system for example in examples if example.system}
        if len(systems) > 1:
            raise ValueError(
                f"the examples have {len(systems)} different system prompts; a behaviour is taught under one: "
                "give them the same, or teach one behaviour for each"
            )
        if systems and not data.get("system_prompts"):
            share = sum(bool(example.system) for example in examples) / len(examples)
            data = {**data, "system_prompts": tuple(systems), "system_share": share}
        if not data.get("tools"):
            every = {str(tool["function"]): tool for example in examples for tool in example.tools}
            data = {**data, "tools": tuple(every.values())} if every else data
        return {**data, "examples": examples}

    @field_validator("tools")
    @classmethod
    def _offered(cls, tools: tuple[dict[str, JsonValue], ...]) -> tuple[dict[str, JsonValue], ...]:
        return offered(tools)

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        if "{{" + self.slot + "}}" not in self.prompt:
            raise ValueError(f"prompt has no {{{{{self.slot}}}}}: there is no place for the text")
        check_names(self.attributes)
        for attribute in self.attributes:
            check_attribute(attribute, attribute.name, self)
        check_formulas(self)
        check_answer(self)
        return self


def as_document(spec: Spec) -> dict[str, object]:
    """The spec as its file holds it, without what has its default. No rules are said, as unsaid ones are concluded."""
    none: dict[str, object] = {} if spec.rules else {"rules": []}
    return {"spec": spec.spec, **spec.model_dump(mode="json", exclude_defaults=True), **none}


_HEADER = (
    "# A behaviour as it was described, with what was proposed beside it: change any field.\n"
    "# A rule that asks too much may be removed here and in the files of suites/.\n\n"
)
_ORDER = (
    "spec", "name", "say", "when", "what", "never", "prompt", "slot", "examples", "near_misses", "attributes", "answer",
    "rules", "criteria",
)  # fmt: skip


def spec_text(spec: Spec) -> str:
    """The behaviour as its behaviour.yaml."""
    document = as_document(spec)
    known = {name: document[name] for name in _ORDER if name in document}
    return _HEADER + dump_yaml({**known, **{k: v for k, v in document.items() if k not in known}})


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, and every value written out: no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not re.search(r"[ \t]\n|^\s", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_yaml(document: object) -> str:
    """Plain data as YAML, in its own order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
