"""What a row of one behaviour is held to by code: a message that says what was drawn, an answer that is grounded in it.

A written message is one, says what was drawn, and is nobody else's. Rows that were drawn are held to what was drawn;
rows from elsewhere to what code can find in their message: a copied value stands there letter for letter, a typed one
is there in one of the ways of saying it, an absent one is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import jsonschema

from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.core.similarity import Likeness, loops, normal, overlap, word_count
from tunesmith.tools.core.strict_json import json_value
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import Rule, broken_rule
from tunesmith.tools.data.record_values import Values, items_of, number_ranges, stated_number, values_at
from tunesmith.tools.data.rows import (
    EXAMPLE,
    ORDINARY,
    RULE,
    conversation_fault,
    cut_off,
    fault_of,
    kinds_allowed_by,
    languages,
    secret_fault,
)
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import conflict, holds, matches_in, ways_to_say
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion, asks_model, grade

T = TypeVar("T")
LIKE_AN_EXAMPLE = 85.0
"""Similarity, of 100, from which a written message counts as one of the user's examples: a writer copies one with a
name or a day changed."""
LONG_ANSWER_CHARS = 60
"""Shorter answers are the same by right: "yes" is no copy of an example's."""
_WORDS_MAX = 120
"""Of a message, or twice the longest example's where that is more: a writer that goes on has lost the note."""
_SHORT_LABEL = 3
"""Characters of a label that may stand in a message by chance: "no", "P1", "yes"."""
_NOT_A_MESSAGE = re.compile(
    r"as an ai\b|language model|<\||^(?:sure|certainly|of course)[,!]|\bcan(?:no|')t assist\b|"
    r"how can i (?:help|assist)|"
    r"(?:provide|give) (?:me |us )?(?:more|the necessary) (?:context|information|details|materials)",
    re.IGNORECASE,
)
"""What shows that a writer answered instead of writing."""
_LEFTOVER = re.compile(
    r"\[[^\]]{0,60}\]|\{\{?[^}]{0,60}\}?\}|<[a-z_/]{2,20}>|\b(?:lorem ipsum|your name here|TODO)\b", re.IGNORECASE
)
_NOTE = re.compile(r"^\W*(?:no )?[\w ]{2,20}: [\"“]")


def prompt_problem(spec: Spec, prompt: str) -> str:
    """Why a message cannot be a row's; empty: it can. The first word is the kind."""
    words = word_count(prompt)
    if not 1 <= words <= max(_WORDS_MAX, *(2 * word_count(example.prompt) for example in spec.examples)):
        return f"length: a message of {words} words"
    if odd := _NOT_A_MESSAGE.search(prompt):
        return f"role: the message holds {odd[0]!r}"
    prompts = " ".join(example.prompt for example in spec.examples)
    if (odd := _LEFTOVER.search(prompt)) and not _LEFTOVER.search(prompts):
        return f"leftover: the message holds {odd[0]!r}"
    if _NOTE.match(prompt) and not _NOTE.match(prompts):
        return "leftover: the message is the note that it was to be written for"
    if loops(prompt):
        return "loop: the message repeats itself"
    examples = _examples(tuple(example.prompt for example in spec.examples))
    like = examples.match(prompt, LIKE_AN_EXAMPLE, digits_count=True)
    return f"leak: the message is {like.score:.0f} of 100 like example {like.name}" if like else ""


def names_label(spec: Spec, values: Values, message: str) -> str:
    """The label that a message says by its own name, where people do not: "the decor was neutral"; empty: none.

    Some may ("I want a refund" is a refund), all must not: the name would be what is learned.
    """
    for label in spec.labels:
        value = values.get(label.name)
        if value and says_its_name(spec, label, value) and holds(message, value):
            return value
    return ""


def says_its_name(spec: Spec, label: Attribute, value: str) -> bool:
    """Whether a message that holds a label's name says more than the user's own examples do."""
    named = any(holds(example.prompt, one) for example in spec.examples for one in label.values)
    return len(value) > _SHORT_LABEL and not named


def note_problem(spec: Spec, message: str) -> str:
    """Whether a message repeats the note that it was written for, instead of saying it."""
    prompts = " ".join(example.prompt for example in spec.examples)
    if any(set(normal(message).split()) == {normal(value)} for label in spec.labels for value in label.values):
        return "leftover: the message is a label"
    for attribute in spec.attributes:
        named = re.compile(rf"(?<!\w){re.escape(attribute.name)}:\s", re.IGNORECASE)
        if named.search(message) and not named.search(prompts):
            return f"leftover: the message holds its note, {attribute.name}:"
    return ""


@lru_cache(maxsize=8)  # a process checks rows of few behaviours, each of some hundred rows
def _examples(prompts: tuple[str, ...]) -> Likeness:
    return Likeness((str(place), prompt) for place, prompt in enumerate(prompts, 1))


def drawn_problem(spec: Spec, values: Values, surfaces: Mapping[str, str], message: str) -> str:
    """Why a message does not say what was drawn, as far as code can tell; empty: it does."""
    stated = list(surfaces.values())
    for path, attribute in spec.leaves(values):
        if path not in values or attribute.kind == "computed":
            continue
        surface = surfaces.get(path, "")
        if attribute.typed:
            if clash := conflict(attribute, surface, message, stated):
                return f"value: {clash}"
        elif surface and (attribute.kind == "copied" or number_ranges(attribute)) and not holds(message, surface):
            return f"value: {path}: {surface!r} is not in the message"
    within = [part for part in spec.value_attributes() if part.typed and (part.many is not None or "." in part.name)]
    for part in within:  # of an empty list, or an object that is absent, there is no leaf
        if not values_at(values, part.name) and (clash := conflict(part, "", message, stated)):
            return f"value: {clash}"
    return ""


def stated_surfaces(spec: Spec, values: Values, surfaces: Mapping[str, str], message: str) -> dict[str, str]:
    """The surfaces as the message has them: a writer may say a typed value in another of its ways."""
    stated = dict(surfaces)
    for path, attribute in spec.leaves(values):
        value, surface = values.get(path), surfaces.get(path, "")
        if attribute.typed and value is not None and surface and not holds(message, surface):
            ways = sorted(ways_to_say(attribute, value), key=len, reverse=True)
            stated[path] = next((way for way in ways if holds(message, way)), surface)
        elif surface and number_ranges(attribute):
            stated[path] = stated_number(attribute, str(value), surface, message)
    return stated


def in_message_order(spec: Spec, drawn: Draw, message: str) -> Draw:
    """The draw with its lists in the order in which the message says them, which is the order of the answer.

    A list with an item that does not stand in the message letter for letter stays as it was drawn.
    """
    values, surfaces = drawn.values, drawn.surfaces[0] if drawn.surfaces else {}
    for attribute in spec.attributes:
        if attribute.many is None or attribute.kind == "label":
            continue
        count = items_of(attribute.name, values)
        starts = [f"{attribute.name}[{number}]" for number in range(count)]
        places = [_first_place(message, [s for p, s in surfaces.items() if p.startswith(start)]) for start in starts]
        if count < 2 or min(places) < 0:
            continue
        order = sorted(range(count), key=lambda number: places[number])
        moved = {starts[old]: starts[new] for new, old in enumerate(order)}
        values, surfaces = _moved(values, moved), _moved(surfaces, moved)
    return replace(drawn, records=(values,), surfaces=(surfaces,)) if values != drawn.values else drawn


def _first_place(message: str, surfaces: Sequence[str]) -> int:
    places = [place for part in surfaces if (place := message.lower().find(part.lower())) >= 0]
    return min(places, default=-1)


def _moved(values: dict[str, T], moved: Mapping[str, str]) -> dict[str, T]:
    """Values under their new paths, the items of a list together and in order."""
    renamed: dict[str, T] = {}
    for path, value in values.items():
        start = next((old for old in moved if path.startswith(old)), "")
        renamed[moved[start] + path[len(start) :] if start else path] = value
    return renamed


def verbatim(spec: Spec, values: Values, message: str) -> Values:
    """The values with what is copied written as the message writes it: its case is the message's."""
    exact = dict(values)
    for path, attribute in spec.leaves(values):
        value = values.get(path)
        if attribute.kind == "copied" and value and (there := re.search(re.escape(value), message, re.IGNORECASE)):
            exact[path] = there[0]
    return exact


def answer_problem(spec: Spec, answer: str) -> str:
    """Why an answer cannot be a row's; empty: it can. The first word is the kind."""
    if not answer.strip():
        return "empty: there is no answer"
    if rule := broken_rule(spec.rules, answer):
        return f"rule: not kept: {rule.says}"
    if problem := form_of(spec).problem(answer):
        return problem
    long = len(normal(answer)) >= LONG_ANSWER_CHARS
    copied = long and normal(answer) in {normal(example.answer) for example in spec.examples}
    return "copy: the answer is that of an example" if copied and not form_of(spec).composed else ""


_COPIED_OVERLAP = 0.6
"""Of the words of a copied value, so many in the message are enough: an answer may bend one."""


class BehaviourChecks:
    """The checks of one behaviour; `cases` are its target cases, whose shared form answers must pass."""

    def __init__(self, spec: Spec, cases: list[Case]) -> None:
        self.spec, self.answer = spec, form_of(spec)
        texts = [text for example in spec.examples for text in (example.prompt, example.answer)]
        self.allowed = kinds_allowed_by(texts) if spec.described else languages()
        self.form = _shared_form(cases)
        self.answers = [example.answer for example in spec.examples]
        self.quick = [_quick_rule(rule) for rule in spec.rules]

    def fault(self, row: TrainingRow) -> Verdict | None:
        """The first thing that is wrong with a row; None: nothing that code can tell."""
        if not self.spec.described:
            return None
        if row.origin in ORDINARY:
            return self._ordinary(row)
        message = self.spec.text_of(row.prompt)
        answer = row.answer
        if self._swapped(message, answer):
            return Verdict("roles", "the message is an answer of the behaviour, and the answer is none")
        for problem in (prompt_problem(self.spec, message), self._form(answer)):
            if problem:
                return fault_of(problem)
        if not self.answer.composed and cut_off(answer, self.answers, self.allowed):
            return Verdict("cut off", f"the answer ends in {answer[-20:]!r}")
        drawn = row.attributes.draw
        if drawn is not None and (fault := self._as_drawn(drawn, message, answer, row)):
            return fault
        return self._ungrounded(message, answer)

    def own_fault(self, row: TrainingRow) -> Verdict | None:
        """What keeps a person's row out, whatever the other rows and the base are."""
        fault = conversation_fault(row) or secret_fault(row, allowed=self.allowed)
        if fault is None and row.origin != EXAMPLE:  # which all others are held to
            fault = self.stated_fault(row.answer)
        return fault

    def stated_fault(self, answer: str) -> Verdict | None:
        """The rule that an answer breaks of those that a person stated; what was concluded from examples is none."""
        broken = next((rule for rule in self._broken(answer) if not rule.guessed), None)
        return Verdict(RULE, f"not kept: {broken.says}") if broken else None

    def broken_guesses(self, answer: str) -> list[Rule]:
        """The rules that an answer breaks of those that were concluded from examples."""
        return [rule for rule in self._broken(answer) if rule.guessed]

    def _broken(self, answer: str) -> Iterator[Rule]:
        return (rule for rule, check in zip(self.spec.rules, self.quick, strict=True) if not check(answer))

    def _form(self, answer: str) -> str:
        if rule := next(self._broken(answer), None):
            no_json = rule.type == "is-json" and json_value(answer) is None
            return "form: the answer is not JSON" if no_json else f"rule: not kept: {rule.says}"
        if problem := answer_problem(self.spec.model_copy(update={"rules": ()}), answer):
            return problem
        verdict = grade(self.form, self.answer.response(answer)) if self.form else None
        return f"suite form: {verdict.reason[:120]}" if verdict and not verdict.passed else ""  # a line of a table

    def _ordinary(self, row: TrainingRow) -> Verdict | None:
        """An ordinary answer in the form of the behaviour would teach it where it must not show."""
        answer = row.answer
        formed = self.answer.composed and self._formed(answer)
        return Verdict("form", "an ordinary answer in the form of the behaviour") if formed else None

    def _formed(self, text: str) -> bool:
        """Whether a text could be an answer of the behaviour.

        JSON with its keys could, whatever is in them; "{weekday} {time}" alone fits any line of two words, so there
        the values count.
        """
        records = self.answer.parse(text)
        if records is None or self.answer.says_what_it_is:
            return records is not None
        labels = {label.name: label.values for label in self.spec.labels}
        known = all(record.get(name) in {*values, None} for record in records for name, values in labels.items())
        return known and not self._form(text)

    def _swapped(self, message: str, answer: str) -> bool:
        if not self.answer.composed:
            return False
        return self._formed(message) and not self._formed(answer)

    def _as_drawn(self, drawn: Draw, message: str, answer: str, row: TrainingRow) -> Verdict | None:
        """Where a row is no longer what was drawn for it: somebody, or another step, changed its texts."""
        if (wanted := self.answer.compose(drawn.records)) and answer != wanted:
            return Verdict("label", "the answer is not the one that was drawn")
        for values, surfaces in zip(drawn.records, drawn.surfaces, strict=True):
            if missing := next((part for part in surfaces.values() if not holds(message, part)), ""):
                return Verdict("value", f"{missing!r} was drawn and is not in the message")
            for path, attribute in self.spec.leaves(values):
                value = values.get(path)
                if attribute.kind == "text" and attribute.shown and value and row.attributes.text != message:
                    return Verdict("label", "the message is not the one that was written for what was drawn")
        return None

    def _ungrounded(self, message: str, answer: str) -> Verdict | None:
        """A value of the answer that the message does not hold, or one of the message that the answer leaves out."""
        records = self.answer.parse(answer)
        if records is None:
            return None
        if not records:
            lacking = [a for a in self.spec.attributes if a.name in self.spec.answer.needs]
            there = next((value for a in lacking if a.typed for value in matches_in(a, message)), "")
            return Verdict("value", f"the answer says that there is none, the message has {there!r}") if there else None
        for values in records:
            for path, attribute in self.spec.leaves(values):
                if attribute.shown and (problem := _grounded(attribute, values.get(path), message)):
                    return Verdict("value", problem)
        return None


def _grounded(attribute: Attribute, value: str | None, message: str) -> str:
    """Why the message does not bear out a value of the answer; empty: it does, as far as code can find it."""
    matches = matches_in(attribute, message) if attribute.typed else []
    if value is None:
        shows = matches and attribute.kind in ("digits", "email", "url")
        return f"{attribute.name} is missing, the message has {matches[0]!r}" if shows else ""
    if attribute.kind in ("copied", "digits", "email", "url", "phone"):
        loose = attribute.kind == "copied" and overlap({attribute.name: value}, message) >= _COPIED_OVERLAP
        return "" if loose or holds(message, value) else f"{attribute.name} {value[:40]!r} is not in the message"
    if attribute.typed and not matches:
        return f"{attribute.name} {value!r} is not in the message"
    ways = ways_to_say(attribute, value) if attribute.typed else []
    if ways and not any(holds(message, way) for way in ways) and not _bare(value, message):
        return f"{attribute.name} {value!r} is not what the message says ({', '.join(matches[:3])})"
    return ""


def _bare(value: str, message: str) -> bool:
    """Whether the digits of a converted value are in the message in some other order or form."""
    return all(re.search(rf"(?<!\d)0?{int(part)}(?!\d)", message) for part in re.findall(r"\d+", value) if int(part))


def _quick_rule(rule: Rule) -> Callable[[str], bool]:
    """The rule as a function that is made once: a hundred thousand rows are held to it."""
    if rule.type == "is-json" and isinstance(rule.value, Mapping):
        validator = jsonschema.Draft202012Validator(dict(rule.value))

        def valid(answer: str) -> bool:
            try:
                value: object = json.loads(answer)
            except (ValueError, RecursionError):  # an answer may be anything
                return False
            return bool(validator.is_valid(value))

        return valid
    return lambda answer: broken_rule((rule,), answer) is None


def _shared_form(cases: list[Case]) -> Case | None:
    """What every target case asserts alike, as one case; None where they share nothing that code can grade."""
    if not cases:
        return None
    shared: list[Assertion] = [a for a in cases[0].assertions if all(a in case.assertions for case in cases)]
    shared = [a for a in shared if not asks_model([a])]  # a form is nothing that a model has to judge
    return cases[0].model_copy(update={"assertions": tuple(shared), "threshold": None}) if shared else None
