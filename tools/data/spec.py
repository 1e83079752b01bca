"""The spec of a behaviour: one kind for everything, the bundled demo included.

It says when the behaviour applies, what the answer is and what it never is; by which attributes messages and answers
differ; how an answer is put together from them; which messages only look alike; and what every answer keeps, as rules
that code checks and criteria in words. `load_behaviour` reads it; a `Proposal` fills in what its user left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.answer_rules import Rule
from tunesmith.tools.data.description import Description, Example
from tunesmith.tools.serving.spec import MAX_ANSWER_TOKENS

TYPED = ("digits", "number", "amount", "date", "time", "weekday", "email", "phone", "url")
"""Kinds whose values code can draw, write into a message in many ways, and find again in a message."""
Kind = Literal[
    "label", "copied", "text", "digits", "number", "amount", "date", "time", "weekday", "email", "phone", "url"
]
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBERS = frozenset({"amount", "date", "count", "small", "year", "phone", "postcode", "card", "model", "code"})
"""What a distractor may hold beside plain words; a number of each kind is drawn."""
ATTRIBUTES_MAX = 30
_TOKENS_PER_CHAR = 0.4
ANSWER_CHARACTERS_MAX = int(MAX_ANSWER_TOKENS / _TOKENS_PER_CHAR)
"""Of an example: a longer answer is more than a model is given tokens for."""
_LISTED_LINES = 4
"""Lines of an answer that is a list, at most as many as are drawn."""


def _is_default(value: object) -> bool:
    """Left out of the digest where it says nothing: a spec of before there was such a field keeps its own."""
    return not value


class Value(Frozen):
    """One value of a label."""

    means: str = ""
    weight: float = Field(default=1, gt=0)
    phrases: tuple[str, ...] = ()
    """Of these one is said in the message; empty: the writer is left to show it."""
    words: tuple[str, ...] = ()
    """Word beginnings that give this value away: no message of another value holds one."""
    between: tuple[int, int] | None = Field(default=None, exclude_if=_is_default)
    """Where a number of the message decides it: the lowest and the highest that has this value."""


class Attribute(Frozen):
    """Something in which messages or their answers differ; drawn before a word is written."""

    name: Annotated[str, Field(pattern=r"^[^\W\d]\w*$", max_length=40)]
    kind: Kind = "label"
    """label: one of `values`. copied: stands in the message letter for letter. text: in words of its own. The others
    are typed: code draws and finds them."""
    means: str = ""
    values: dict[str, Value] = Field(default_factory=dict)
    """Of a label, all there are; of another kind, some to draw from. Empty there: the writer proposes them."""
    shown: bool = True
    """Whether the answer shows it; what is not shown only makes messages differ."""
    absent_share: float = Field(default=0, ge=0, le=1)
    absent_as: str | None = None
    """What the answer shows where the message does not say it; None: null."""
    absent_where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Label → its values for which this attribute is absent."""
    lengths: tuple[int, ...] = ()
    """Of digits: how many."""
    words_max: int = Field(default=0, ge=0)
    """0: not limited."""
    forms: tuple[str, ...] = ()
    """Ways to write a typed value; `{n}` stands for it. Empty: the ways of its kind."""
    sentences: tuple[str, ...] = ()
    """A sentence that holds a form (`{ref}`), for a message that says nothing of it by itself."""
    inline: tuple[str, ...] = ()
    """The same, set behind the thing that the message is about."""

    @property
    def typed(self) -> bool:
        """Whether code can draw its values and find them in a message."""
        return self.kind in TYPED

    @property
    def open(self) -> bool:
        """Whether a model has to propose its values."""
        return self.kind in ("copied", "text") and not self.values


class Answer(Frozen):
    """How an answer is made. What an attribute decides is composed by code and never written by a model."""

    form: Literal["written", "json", "text", "lines"] = "written"
    """written: by the model, from message and description. json: an object of the shown attributes in their order.
    text: the template. lines: the template once for each of several records."""
    template: str = ""
    """`{name}` stands for an attribute."""
    otherwise: str = ""
    """The whole answer where one of `needs` is absent, or where a list has no record."""
    needs: tuple[str, ...] = ()
    otherwise_share: float = Field(default=0.2, ge=0, le=0.9)
    """Of rows whose list is empty."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The attributes that the template names."""
        return tuple(_PLACEHOLDER.findall(self.template))


class Situation(Frozen):
    """Something that happens to the people who write, with sentences that tell it and what the answer says then."""

    id: str
    sets: dict[str, str] = Field(default_factory=dict)
    """Label → the value that it has here."""
    facts: tuple[str, ...] = Field(min_length=1)
    """What happened, in the first person; `{thing}` is drawn."""
    answers: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Attribute → wordings of it for the answer."""
    mentions: tuple[str, ...] = ()
    """Word beginnings; a message of this situation holds at least one of them."""
    things: tuple[str, ...] = ()
    """What `{thing}` is drawn from here; empty: the spec's own list."""
    allows: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Label → the values that make sense here."""


class Voice(Frozen):
    """A way of writing."""

    name: str
    weight: float = Field(default=1, gt=0)
    typing: tuple[str, ...] = ("as-is",)
    """Drawn from: as-is, lower, caps, no-end (no full stop at the end)."""
    openers: tuple[str, ...] = ("",)


class Frame(Frozen):
    """What stands around a message: a greeting, a signature."""

    weight: float = Field(default=1, gt=0)
    before: str = ""
    after: str = ""


class Writing(Frozen):
    """How messages are written that begin with a fact of a situation: the writer goes on after it."""

    go_on: str
    """What the writer is asked for."""
    joiners: tuple[str, ...] = Field(min_length=1)
    max_tokens: int = Field(default=40, ge=8, le=1024)
    never: tuple[str, ...] = ()
    """What shows that the model answered instead of writing; in lower case."""
    voices: tuple[Voice, ...] = (Voice(name="plain"),)
    frames: tuple[Frame, ...] = (Frame(),)
    things: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()
    """Sentences with numbers that are none of the attributes'."""
    distractor_share: float = Field(default=0.5, ge=0, le=1)


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
    situations: tuple[Situation, ...] = ()
    writing: Writing | None = None
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
    every_message: bool = Field(default=False, exclude_if=_is_default)
    """Whether it applies to every message, so that there are none beside it that stay as they were."""
    words_sha256: str = Field(default="", exclude_if=_is_default)
    """Digest of the file that was read for it (`words_digest`): it is not read again; empty: none was."""
    told: bool = Field(default=True, exclude=True)
    """Whether somebody said what the behaviour is; where rows alone show it, code holds them to no form."""

    @property
    def sha256(self) -> str:
        """Digest of the whole spec, whatever its comments and layout."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def max_tokens(self) -> int:
        """Of an answer: half as much again as the longest example may need."""
        longest = max(len(example.answer) for example in self.examples)
        return self.answer_tokens or min(MAX_ANSWER_TOKENS, max(48, round(longest * _TOKENS_PER_CHAR * 1.5)))

    @property
    def labels(self) -> tuple[Attribute, ...]:
        """The attributes that are one of a few values."""
        return tuple(a for a in self.attributes if a.kind == "label")

    @property
    def seeded(self) -> bool:
        """Whether messages begin with a fact that the spec itself tells."""
        return bool(self.situations and self.writing)

    def attribute(self, name: str) -> Attribute:
        """The attribute of this name. Raises KeyError."""
        return next((a for a in self.attributes if a.name == name), None) or self._none(name)

    def _none(self, name: str) -> Attribute:
        raise KeyError(name)

    def render(self, text: str) -> str:
        """The user's message around a text."""
        return self.prompt.replace("{{" + self.slot + "}}", text)

    def text_of(self, message: str) -> str:
        """The text of a rendered message: what the prompt is around."""
        before, _, after = self.prompt.partition("{{" + self.slot + "}}")
        return message.removeprefix(before).removesuffix(after)

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        if "{{" + self.slot + "}}" not in self.prompt:
            raise ValueError(f"prompt has no {{{{{self.slot}}}}}: there is no place for the text")
        names = [a.name for a in self.attributes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two attributes are called {twice}")
        for attribute in self.attributes:
            _check_attribute(attribute, self.attributes)
        for name in (*self.answer.placeholders, *self.answer.needs):
            if name not in names:
                raise ValueError(f"answer names {name}, but the attributes are {', '.join(names) or 'none'}")
        if self.answer.form in ("text", "lines") and not self.answer.placeholders:
            raise ValueError(f"answer has the form {self.answer.form} and no template with an attribute in it")
        if self.situations and self.writing is None:
            raise ValueError("situations need writing: how the writer is asked to go on after a fact")
        for situation in self.situations:
            _check_situation(situation, self)
        if self.writing:
            _check_placeholders(self.writing.distractors, _NUMBERS)
        return self


def _check_attribute(attribute: Attribute, others: tuple[Attribute, ...]) -> None:
    if attribute.kind == "label" and len(attribute.values) < 2:
        raise ValueError(
            f"the label {attribute.name} has {len(attribute.values)} values; two and more can be told apart"
        )
    labels = {other.name: other.values for other in others if other.kind == "label"}
    for name, values in attribute.absent_where.items():
        if odd := [value for value in values if value not in labels.get(name, {})]:
            raise ValueError(f"{attribute.name} is absent where {name} is {odd[0]}, which {name} never is")


def _check_situation(situation: Situation, spec: Spec) -> None:
    _check_placeholders((*situation.facts, *(t for texts in situation.answers.values() for t in texts)), {"thing"})
    known: Mapping[str, Mapping[str, Value]] = {a.name: a.values for a in spec.labels}
    stated = [*((n, (v,)) for n, v in situation.sets.items()), *situation.allows.items()]
    for name, values in stated:
        if name not in known or not set(values) <= set(known[name]):
            raise ValueError(f"situation {situation.id}: {name} may be {list(known.get(name, ()))}, not {list(values)}")
    for fact in situation.facts:
        if situation.mentions and not mentions(fact, situation.mentions):
            raise ValueError(f"situation {situation.id}: {fact!r} holds none of its own mentions")
    for name, texts in situation.answers.items():
        most = next((a.words_max for a in spec.attributes if a.name == name), None)
        if most is None:
            raise ValueError(f"situation {situation.id}: there is no attribute {name}")
        if any("{thing}" not in f for f in situation.facts) and all("{thing}" in text for text in texts):
            raise ValueError(f"situation {situation.id}: a fact without a thing needs a {name} without one")
        long = next((t for t in texts if most and len(t.split()) + t.count("{thing}") * 2 > most), None)
        if long:
            raise ValueError(f"situation {situation.id}: {name} {long!r} can exceed {most} words")


def _check_placeholders(texts: tuple[str, ...], known: set[str] | frozenset[str]) -> None:
    for text in texts:
        if odd := set(_PLACEHOLDER.findall(text)) - known:
            raise ValueError(f"{text!r} has the placeholder {sorted(odd)[0]!r}; known are {', '.join(sorted(known))}")


def mentions(text: str, words: tuple[str, ...]) -> bool:
    """Whether any of `words` begins a word of `text`, whatever the case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}", text, re.IGNORECASE) for word in words)


def as_document(spec: Spec) -> dict[str, object]:
    """The spec as its file holds it, without what has its default."""
    return {"spec": spec.spec, **spec.model_dump(mode="json", exclude_defaults=True)}
