"""The six questions that are asked where no model reads a user's words; each answer is held to the examples at once.

When it applies, what the answers are made of, the text around their parts, what each part may be, what is never in
them, and the language. An empty answer takes what stands in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.answer_rules import Check
from tunesmith.tools.data.answer_shape import fitted, json_examples
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.rows import other_language
from tunesmith.tools.data.spec import Kind, Spec, Value
from tunesmith.tools.data.verify import fields_of, verified

_FORMS = ("label", "template", "free")
_KINDS: dict[str, Kind] = {"copied": "copied", "words": "text"}
_SEPARATOR, _COMMA = re.compile(r"\s*[;；\n]\s*"), re.compile(r"\s*[,，、;；\n]\s*")

Take = Callable[[Proposal, str], Proposal]
"""The proposal with an answer. Raises BadInput with what is wrong with it."""


class Question(NamedTuple):
    """What is asked, and what its answer does."""

    text: str
    take: Take


def answered(spec: Spec, stated: Proposal, ask: Callable[[str], str], say: Callable[[str], None]) -> Proposal:
    """The proposal that a person's answers make; what the file states already is not asked."""
    proposal = stated
    for number, questions in enumerate((_applies, _form, _template, _part_questions, _never, _language), 1):
        for question in questions(spec, proposal):
            while True:
                try:
                    proposal = question.take(proposal, ask(f"{number} of 6: {question.text} ").strip())
                    break
                except BadInput as error:
                    say(str(error))
    return proposal


def _applies(spec: Spec, proposal: Proposal) -> list[Question]:
    def take(before: Proposal, text: str) -> Proposal:
        return before.model_copy(update={"every_message": _one_of(text or "some", ("every", "some")) == "every"})

    return [Question("Does it apply to every message, or to some? every / [some]", take)]


def _is_open(spec: Spec, proposal: Proposal) -> bool:
    """Whether nobody said yet what the answers are made of, and the examples do not show it by themselves."""
    fixed = len({example.answer for example in spec.examples}) == 1
    return not (proposal.shapes or json_examples(spec.examples) or fixed)


def _form(spec: Spec, proposal: Proposal) -> list[Question]:
    if not _is_open(spec, proposal):
        return []

    def take(before: Proposal, text: str) -> Proposal:
        form = _one_of(text or "free", _FORMS)
        changes = {"label": {"template": "{label}", "parts": (Part(name="label", kind="label"),)}, "template": {}}
        return before.model_copy(update=changes.get(form, {"form": "written"}))

    what = "label: one of a few values; template: the same text with parts filled in; free: free text"
    return [Question(f"What is every answer ({what})? label / template / [free]", take)]


def _template(spec: Spec, proposal: Proposal) -> list[Question]:
    answers = [example.answer for example in spec.examples]
    if not _is_open(spec, proposal):
        return []

    def take(before: Proposal, text: str) -> Proposal:
        if not text:
            return before.model_copy(update={"form": "written"})
        shape, why = fitted(answers, text.replace("\\n", "\n"))
        if shape is None:
            raise BadInput(f"that template does not do: {why}")
        return before.model_copy(update={"template": shape.template})

    yours = answers[0].replace("\n", "\\n")[:60]  # to know it again
    return [
        Question(
            f"Write the answer with {{name}} in place of each part that differs [free text]; yours is: {yours}\n",
            take,
        )
    ]


def _part_questions(spec: Spec, proposal: Proposal) -> list[Question]:
    return [
        _part(name, list(dict.fromkeys(value for _, value in pairs if value is not None)), proposal)
        for name, pairs in fields_of(spec, proposal).items()
        if not proposal.part(name).values and proposal.part(name).kind in (None, "label")
    ]


def _part(name: str, seen: list[str], proposal: Proposal) -> Question:
    def take(before: Proposal, text: str) -> Proposal:
        part = before.part(name)
        if text in _KINDS:
            part = part.model_copy(update={"kind": _KINDS[text]})
        elif text:
            values = _values(text)
            if lacking := [value for value in seen if value not in values]:
                raise BadInput(f"your examples show {', '.join(lacking)} too; say all values of {name}")
            part = part.model_copy(update={"kind": "label", "values": values})
        elif part.kind == "label":
            raise BadInput("say the values, for instance: urgent = the shop is down; normal = everything else")
        parts = (*(other for other in before.parts if other.name != name), part)
        return before.model_copy(update={"parts": parts})

    sample = ", ".join(seen[:6])  # a line of them
    if proposal.part(name).kind == "label":
        return Question(f"Which values are there (yours: {sample})? value = what it means; value = …\n", take)
    what = "its values as value = what it means; …, or copied (letter for letter from the message), or [words]"
    return Question(f"What is {name} (yours: {sample})? {what}\n", take)


def _values(text: str) -> dict[str, Value]:
    """`value = meaning; value = meaning`, or values between commas where nothing is said of them."""
    entries = [entry for entry in (_SEPARATOR if "=" in text else _COMMA).split(text) if entry]
    pairs = [tuple(part.strip() for part in entry.partition("=")[::2]) for entry in entries]
    return {value: Value(means=means) for value, means in pairs if value}


def _never(spec: Spec, proposal: Proposal) -> list[Question]:
    def take(before: Proposal, text: str) -> Proposal:
        checks = [Check(kind="never says", text=one) for one in _SEPARATOR.split(text) if one]
        after = before.model_copy(update={"checks": (*before.checks, *checks)})
        if left_out := [line for line in verified(spec, after).left_out if line.startswith("never says")]:
            raise BadInput(f"{left_out[0]}; say the others")
        return after

    return [Question("Which words must never be in an answer (one; another)? [none]", take)]


def _language(spec: Spec, proposal: Proposal) -> list[Question]:
    own = {other_language(example.prompt, frozenset({"English"})) for example in spec.examples}
    default = (own.pop() if len(own) == 1 else "") or "English"

    def take(before: Proposal, text: str) -> Proposal:
        return before.model_copy(update={"language": text or default})

    return [Question(f"In which language are the messages? [{default}]", take)]


def _one_of(text: str, options: tuple[str, ...]) -> str:
    """The option that a text is, or begins. Raises BadInput."""
    matches = [option for option in options if option.startswith(text.lower())]
    if len(matches) != 1:
        raise BadInput(f"{text!r} is none of {', '.join(options)}")
    return matches[0]
