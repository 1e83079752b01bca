"""What a row of one behaviour is held to by code: a message of the kind, an answer that is grounded.

Rows that were drawn are held to what was drawn; rows from elsewhere to what code can find in their message: a copied
value stands there letter for letter, a typed one is there in one of the ways of saying it, an absent one is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import jsonschema

from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import Rule, broken_rule
from tunesmith.tools.data.answers import answer_problem
from tunesmith.tools.data.draw import Draw
from tunesmith.tools.data.examples import overlap
from tunesmith.tools.data.faults import ORDINARY, cut_off, fault_of, languages, shown_kinds
from tunesmith.tools.data.message_checks import prompt_problem
from tunesmith.tools.data.own_rows import RULE
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import found, holds, ways_to_say
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion, asks_model, grade

_QUESTION = re.compile(
    r"^\W*(?:what|why|how|who|whom|whose|which|when|where|is|are|was|were|do|does|did|can|could|would|should|will|may"
    r"|has|have)\b|^\W*(?:please )?(?:tell me|explain|translate|write|give me|name|list|summari[sz]e|describe|define"
    r"|recommend|help)\b",
    re.IGNORECASE,
)
_QUESTION_SHARE = 0.5
"""Of a message's sentences: from here on it asks, and tells nothing."""
_ANSWERED_LIKE_US = 0.6


class BehaviourChecks:
    """The checks of one behaviour; `cases` are its target cases, whose shared form answers must pass."""

    def __init__(self, spec: Spec, cases: list[Case]) -> None:
        self.spec, self.answer = spec, form_of(spec)
        shown = [text for example in spec.examples for text in (example.prompt, example.answer)]
        self.allowed = shown_kinds(shown) if spec.told else languages()
        self.form = _shared_form(cases)
        self.answers = [example.answer for example in spec.examples]
        self.quick = [_quick_rule(rule) for rule in spec.rules]

    @cached_property
    def asks(self) -> bool:
        """Whether messages of the kind are questions or requests by themselves."""
        asking = sum(_is_question(example.prompt) for example in self.spec.examples)
        return asking / len(self.spec.examples) >= 0.2

    def fault(self, row: TrainingRow) -> Verdict | None:
        """The first thing that is wrong with a row; None: nothing that code can tell."""
        if not self.spec.told:
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
        if ungrounded := self._ungrounded(message, answer):
            return ungrounded
        if drawn is None and not self.asks and _is_question(message):
            return Verdict("kind", "the message asks for something; those of the examples only tell")
        return None

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
            return "form: the answer is not JSON" if _not_json(rule, answer) else f"rule: not kept: {rule.says}"
        if problem := answer_problem(self.spec.model_copy(update={"rules": ()}), answer):
            return problem
        verdict = grade(self.form, self.answer.response(answer)) if self.form else None
        return f"suite form: {verdict.reason[:120]}" if verdict and not verdict.passed else ""

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
            there = next((value for a in lacking if a.typed for value in found(a, message)), "")
            return Verdict("value", f"the answer says that there is none, the message has {there!r}") if there else None
        for values in records:
            for path, attribute in self.spec.leaves(values):
                if attribute.shown and (problem := _grounded(attribute, values.get(path), message)):
                    return Verdict("value", problem)
        return None


def _grounded(attribute: Attribute, value: str | None, message: str) -> str:
    if value is None:
        there = found(attribute, message) if attribute.typed and attribute.kind in ("digits", "email", "url") else []
        return f"{attribute.name} is missing, the message has {there[0]!r}" if there else ""
    if attribute.kind in ("copied", "digits", "email", "url", "phone"):
        loose = attribute.kind == "copied" and overlap({attribute.name: value}, message) >= _ANSWERED_LIKE_US
        return "" if loose or holds(message, value) else f"{attribute.name} {value[:40]!r} is not in the message"
    if attribute.typed and found(attribute, message):
        ways = ways_to_say(attribute, value)
        if ways and not any(holds(message, way) for way in ways) and not _bare(value, message):
            return (
                f"{attribute.name} {value!r} is not what the message says ({', '.join(found(attribute, message)[:3])})"
            )
    if attribute.typed and not found(attribute, message):
        return f"{attribute.name} {value!r} is not in the message"
    return ""


def _bare(value: str, message: str) -> bool:
    """Whether the digits of a converted value are in the message in some other order or form."""
    return all(re.search(rf"(?<!\d)0?{int(part)}(?!\d)", message) for part in re.findall(r"\d+", value) if int(part))


def _is_question(message: str) -> bool:
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n+", message.strip()) if s]
    asking = sum(s.rstrip().endswith("?") or bool(_QUESTION.match(s)) for s in sentences)
    return bool(sentences) and asking / len(sentences) > _QUESTION_SHARE


def _not_json(rule: Rule, answer: str) -> bool:
    if rule.type != "is-json":
        return False
    try:
        json.loads(answer)
    except ValueError:
        return True
    return False


def _quick_rule(rule: Rule) -> Callable[[str], bool]:
    """The rule as a function that is made once: a hundred thousand rows are held to it."""
    if rule.type == "is-json" and isinstance(rule.value, Mapping):
        validator = jsonschema.Draft202012Validator(dict(rule.value))

        def valid(answer: str) -> bool:
            try:
                value: object = json.loads(answer)
            except (ValueError, RecursionError):
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
