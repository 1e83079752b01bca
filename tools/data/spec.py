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
from graphlib import CycleError, TopologicalSorter
from operator import not_
from typing import Annotated, Any, Literal, cast

from pydantic import Field, JsonValue, model_validator

from tunesmith.tools.core.arithmetic import NUMERIC, check_formula, names_in
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.answer_rules import Rule
from tunesmith.tools.data.description import Description, Example, Examples, Message, Tools, turns_of
from tunesmith.tools.data.description import transcript as as_transcript
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
"""A spec may be a stranger's: each attribute is drawn, written and checked in every row."""
_TOKENS_PER_CHAR = 0.4
"""On the safe side for any language; English takes about 0.25."""
ANSWER_CHARACTERS_MAX = int(MAX_ANSWER_TOKENS / _TOKENS_PER_CHAR)
"""Of an example: a longer answer is more than a model is given tokens for."""


def tokens_for(characters: int) -> int:
    """Tokens for answers, by the characters of the longest known one: half as many again, a sentence at least."""
    return min(MAX_ANSWER_TOKENS, max(48, round(characters * _TOKENS_PER_CHAR * 1.5)))


class Value(Frozen):
    """One value of a label."""

    means: str = ""
    weight: float = Field(default=1, gt=0)
    phrases: tuple[str, ...] = ()  # as `Spec.situations`
    words: tuple[str, ...] = ()
    between: tuple[int, int] | None = Field(default=None, exclude_if=not_)
    """Where a number of the message decides it: the lowest and the highest that has this value. Left out of the digest
    where it is empty, as `not_` does elsewhere: a spec of before there was such a field keeps its own."""


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
    """Of rows whose list is empty: often enough to be learned, and not the usual answer."""

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
    """Both of earlier versions: nothing is written from them any more, and the digest of other specs is what it was."""
    tools: Tools = ()
    """Offered with every message; also taken from the examples."""
    near_misses: tuple[str, ...] = Field(default=(), max_length=400)
    """Messages that look alike and get an ordinary answer."""
    rules: tuple[Rule, ...] = ()
    """What every answer keeps, checked by code."""
    criteria: tuple[str, ...] = Field(default=(), max_length=20)  # each is asked of every row
    """What is right in meaning, in words; judged by a model."""
    language: str = "English"
    """Of the messages, as the writer is told."""
    system_prompts: tuple[str, ...] = ()
    """System prompts that rows are seen under, in turn with none."""
    system_share: float = Field(default=0.3, ge=0, le=1)  # the others have none: it must not hang on it
    answer_tokens: int = Field(default=0, ge=0, le=MAX_ANSWER_TOKENS)
    """Tokens an answer may have; 0: told from the longest example."""
    blind_sha256: str = ""
    """Digest of the user's further examples, which are blind cases of its suite alone; empty: there are none."""
    blind: tuple[Example, ...] = Field(default=(), exclude=True)
    """Those examples, until the suite is written: nothing is made from them, and no other file holds them."""
    every_message: bool = Field(default=False, exclude_if=not_)
    """Whether it applies to every message, so that there are none beside it that stay as they were."""
    words_sha256: str = Field(default="", exclude_if=not_)
    """Digest of the words that were read for it (`words_digest`): they are not read again; empty: none were."""
    unstated: bool = Field(default=False, exclude_if=not_)
    """Whether a script or another agent gave the examples: no case that is made of them is a person's."""
    described: bool = Field(default=True, exclude=True)
    """Whether somebody said what it is; where rows alone show it, code holds them to no form."""

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
        """Tokens of a written message: half as many again as in the longest of a few examples, a sentence at least."""
        return max(30, round(max(len(example.prompt) for example in self.examples) * _TOKENS_PER_CHAR * 1.5))

    @property
    def labels(self) -> tuple[Attribute, ...]:
        """The attributes that are one of a few values; a set of them is none."""
        return tuple(a for a in self.attributes if a.kind == "label" and a.many is None)

    def attribute(self, path: str) -> Attribute:
        """The attribute of a name, or of a value's path such as items[0].price. Raises KeyError."""
        attributes, match = self.attributes, None
        for name in without_places(path).split("."):
            match = next((a for a in attributes if a.name == name), None)
            if match is None:
                raise KeyError(path)
            attributes = match.attributes
        assert match is not None
        return match

    def value_attributes(self) -> Iterator[Attribute]:
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
        examples = Examples.model_validate({"examples": data["examples"]}).examples
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

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        if "{{" + self.slot + "}}" not in self.prompt:
            raise ValueError(f"prompt has no {{{{{self.slot}}}}}: there is no place for the text")
        _check_names(self.attributes)
        for attribute in self.attributes:
            _check_attribute(attribute, attribute.name, self)
        _check_formulas(self)
        _check_answer(self)
        return self


def as_document(spec: Spec) -> dict[str, object]:
    """The spec as its file holds it, without what has its default. No rules are said, as unsaid ones are concluded."""
    none: dict[str, object] = {} if spec.rules else {"rules": []}
    return {"spec": spec.spec, **spec.model_dump(mode="json", exclude_defaults=True), **none}


_ITEMS_MAX, _DEPTH_MAX = 20, 4
"""Values of a list, objects in one another; no small model writes more whole. Below: what a spec must be whole in."""


def _check_attribute(attribute: Attribute, path: str, spec: Spec, depth: int = 1) -> None:
    """Refuse, by ValueError, an attribute that has no values to draw, or more than can be shown."""
    if attribute.kind == "label" and len(attribute.values) < 2:
        raise ValueError(f"the label {path} has {len(attribute.values)} values; two and more can be told apart")
    known = {label.name: label.values for label in spec.labels}
    for name, values in attribute.absent_where.items():
        if odd := [value for value in values if value not in known.get(name, {})]:
            raise ValueError(f"{path} is absent where {name} is {odd[0]}, which {name} never is")
    if (attribute.kind == "object") != bool(attribute.attributes):
        raise ValueError(f"{path}: an object has attributes, and nothing else has any")
    if attribute.many and not 0 <= attribute.many[0] <= attribute.many[1] <= _ITEMS_MAX:
        raise ValueError(f"{path}: many is the fewest and the most values, of 0 to {_ITEMS_MAX}; got {attribute.many}")
    if attribute.many and attribute.kind == "label" and attribute.many[1] > len(attribute.values):
        raise ValueError(f"{path} is a set of up to {attribute.many[1]} of {len(attribute.values)} values")
    if (attribute.kind == "computed") != (attribute.formula is not None):
        raise ValueError(f"{path}: what is computed has a formula, and nothing else has one")
    if depth > _DEPTH_MAX:
        raise ValueError(f"{path}: objects are nested more than {_DEPTH_MAX} deep")
    _check_names(attribute.attributes)
    for inner in attribute.attributes:
        _check_attribute(inner, f"{path}.{inner.name}", spec, depth + 1)


def formula_target(name: str, path: str, beside: Sequence[Attribute]) -> str:
    """The path that a name in the formula of `path` means: of an attribute beside it, else of one at the top."""
    parent = path.rpartition(".")[0]
    return f"{parent}.{name}" if parent and name.split(".")[0] in [a.name for a in beside] else name


def _formula_needs(attribute: Attribute, beside: Sequence[Attribute], path: str, spec: Spec) -> set[str]:
    """The attributes that a formula reads, each a number or a date."""
    check_formula(attribute.formula)
    read = set()
    for name in set(names_in(attribute.formula)):
        target = formula_target(name, path, beside)
        try:
            other = spec.attribute(target)
        except KeyError:
            raise ValueError(f"{path} is computed from {name}, which is no attribute") from None
        if other.kind not in ("digits", "date", *NUMERIC):
            raise ValueError(f"{path} is computed from {name}, of the kind {other.kind}, no number and no date")
        read.add(target)
    return read


def _check_formulas(spec: Spec) -> None:
    """Refuse, by ValueError, a formula that reads what there is not, or in a circle."""
    needs: dict[str, set[str]] = {}

    def collect(beside: Sequence[Attribute], at: str) -> None:
        for one in beside:
            if one.formula is not None:
                needs[f"{at}{one.name}"] = _formula_needs(one, beside, f"{at}{one.name}", spec)
            collect(one.attributes, f"{at}{one.name}.")

    collect(spec.attributes, "")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise ValueError(f"{error.args[1][0]} is computed from itself, by way of {error.args[1][1]}") from None


def _check_names(attributes: Sequence[Attribute]) -> None:
    """Refuse, by ValueError, two of one name."""
    names = [a.name for a in attributes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two attributes are called {twice}")


def _check_answer(spec: Spec) -> None:
    """Refuse, by ValueError, an answer that the attributes cannot make."""
    answer, names = spec.answer, [a.name for a in spec.attributes]
    for name in (*answer.placeholders, *answer.needs):
        if name not in names:
            raise ValueError(f"answer names {name}, but the attributes are {', '.join(names) or 'none'}; add it")
    if answer.form in ("text", "lines") and not answer.placeholders:
        raise ValueError(f"answer has the form {answer.form} and no template with an attribute in it")
    if answer.form in ("text", "lines") and (odd := [a.name for a in spec.attributes if a.shown and a.attributes]):
        raise ValueError(f"{odd[0]} is an object; an answer of the form {answer.form} shows texts: use the form json")
    if answer.form == "call":
        _check_call(spec)


def _check_call(spec: Spec) -> None:
    """Refuse, by ValueError, a call that no offered tool takes."""
    known = {str(cast("dict[str, Any]", tool["function"])["name"]) for tool in spec.tools}
    places = spec.answer.placeholders
    if places and spec.answer.template != f"{{{places[0]}}}":
        raise ValueError("the template of a call is a tool's name, or one label whose values are the tools' names")
    named = list(spec.attribute(places[0]).values) if places else [spec.answer.template]
    if odd := [name for name in named if name not in known]:
        raise ValueError(f"the answer calls {odd[0] or 'no tool'}; the tools are {', '.join(sorted(known)) or 'none'}")
    always_stated = {a.name for a in spec.attributes if a.shown and not a.absent_share}
    for function in (cast("dict[str, Any]", tool["function"]) for tool in spec.tools):
        wanted = (function.get("parameters") or {}).get("required") or ()
        if function["name"] in named and (lacking := [name for name in wanted if name not in always_stated]):
            raise ValueError(
                f"{function['name']} needs {lacking[0]}: add an attribute of this name that is never absent"
            )
