"""A proposal held to the user's examples: what they bear out becomes the spec, what they do not is named and left out.

Code decides nothing about meaning here. It takes answers apart by the proposed form and puts them together again, and
looks whether labels cover the examples, whether checks hold for them, and whether a value has the format of its kind.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import Rule, broken_rule, rule_of
from tunesmith.tools.data.answer_shape import WRITTEN, Shape, aligned, fitted, json_shape
from tunesmith.tools.data.description import Example, parted
from tunesmith.tools.data.example_checks import example_problems
from tunesmith.tools.data.faults import may_be_in, other_language
from tunesmith.tools.data.form_rules import criteria_of, form_rules
from tunesmith.tools.data.json_values import json_object
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import ATTRIBUTES_MAX, TYPED, Answer, Attribute, Kind, Spec, Value
from tunesmith.tools.data.typed_values import WEEKDAYS, holds

_COPIED_SHARE = 0.75
"""Of the examples, where a value stands in the message letter for letter; a user bends one now and then."""
_ABSENT_SHARES = (0.15, 0.35)
VALUES_MAX = 20
TOPIC = "topic"
"""Of messages that no other attribute makes different."""
_COPIED_FORMATS: Mapping[Kind, str] = {
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]+",
    "url": r"https?://\S+|www\.\S+",
    "amount": r"\d+\.\d\d",
    "digits": r"\d+",
    "phone": r"\+?\d[\d /()-]{6,}\d",
}
_FORMATS: Mapping[Kind, str] = {
    **_COPIED_FORMATS, "time": r"\d\d:\d\d", "date": r"\d{4}-\d\d-\d\d", "number": r"-?\d+(?:[.,]\d+)?",
}  # fmt: skip
"""How a typed value is written in an answer; those before `time` as the message writes it."""


Pairs = Sequence[tuple[str, str | None]]
"""(message, value) of a part in each record of the examples; None where it is missing."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The spec of what the examples bear out, and what of the proposal was left out, a sentence each."""

    spec: Spec
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class _Notes:
    """What is left out while a proposal is looked through."""

    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)


def verified(spec: Spec, proposal: Proposal | None = None) -> Verified:
    """The spec with all that its file leaves out: as proposed where the examples bear it out; what the file says stays.

    From thirteen examples on ten are set aside as blind cases, and nothing is concluded from them. Raises BadInput for
    answers with more fields than are taken.
    """
    proposal, notes = proposal or Proposal(), _Notes()
    made, blind = _without_blind(spec)
    if not made.attributes and made.answer == Answer():
        made = _formed(made, proposal, notes)
    changes: dict[str, object] = {}
    if not made.rules:
        changes["rules"] = _rules(made, proposal, blind, notes)
    if made.language == Spec.model_fields["language"].default:
        changes["language"] = _language(made, proposal, notes)
    if not made.near_misses and not made.every_message:
        changes["near_misses"] = _near_misses(made, proposal, notes)
    if proposal.every_message and not made.every_message:
        changes |= {"every_message": True, "near_misses": ()}
    if not made.criteria:
        changes["criteria"] = proposal.criteria[:4] + criteria_of(made)
    made = Spec.model_validate(made.model_copy(update=changes).model_dump())
    return Verified(made.model_copy(update={"blind": blind}), tuple(notes.sentences))


def faults(spec: Spec) -> tuple[str, ...]:
    """What a spec says that its own examples contradict, a sentence each: after somebody has changed its file."""
    told = list(example_problems(spec))
    for number, example in enumerate(spec.examples, 1):
        if (rule := broken_rule(spec.rules, example.answer)) is not None:
            told.append(f"the answer of example {number} breaks the rule: {rule.says}")
    prompts = {normal(example.prompt) for example in spec.examples}
    told += [f"the near miss {text[:60]!r} is an example" for text in spec.near_misses if normal(text) in prompts]
    return tuple(told)


def gives_back(spec: Spec, example: Example) -> bool:
    """Whether an example's answer can be taken apart and put together again into the very same."""
    form = form_of(spec)
    if (records := form.parse(example.answer)) is None:
        return False
    again = form.compose(records)
    if form.says_what_it_is:
        return json_object(again) == json_object(example.answer)
    return again.strip() == example.answer.strip()


def _without_blind(spec: Spec) -> tuple[Spec, tuple[Example, ...]]:
    if spec.blind_sha256:  # they were set aside before
        return spec, spec.blind
    seen, blind = parted(spec.examples)
    if not blind:
        return spec, ()
    digest = hashlib.sha256(json.dumps([[e.prompt, e.answer] for e in blind]).encode()).hexdigest()
    tokens = {"answer_tokens": spec.max_tokens}  # as long as the longest of all
    return spec.model_copy(update={"examples": seen, "blind_sha256": digest, **tokens}), blind


# Form and attributes


def _formed(spec: Spec, proposal: Proposal, notes: _Notes) -> Spec:
    """The spec with its answer's form and attributes: written by a model where no other form gives the examples."""
    shape = shape_of(spec, proposal, notes)
    written = spec.model_copy(update={"attributes": (_topic(),)})
    if shape.form == "written":
        return written
    if len(shape.names) > ATTRIBUTES_MAX:
        many = len(shape.names)
        raise BadInput(f"the answers have {many} fields, at most {ATTRIBUTES_MAX} are taken; leave some out")
    attributes = _apart([_attribute(spec, shape, proposal.part(n), proposal, notes) for n in shape.names], shape, notes)
    attributes = [_absent_by_label(shape, attribute, attributes) for attribute in attributes]
    fixed = all(a.kind != "text" or a.absent_where or a.absent_share for a in attributes)
    if fixed and shape.form != "lines":
        attributes.append(_topic())
    answer: dict[str, object] = {"form": shape.form, "template": shape.template, "otherwise": shape.otherwise}
    answer["needs"] = _needs(shape, attributes)
    try:
        made = Spec.model_validate({**spec.model_dump(), "attributes": attributes, "answer": answer})
    except ValidationError as error:
        notes.add(f"the form is not taken: {sentence(error.errors()[0], Spec)}")
        return written
    if odd := next((n for n, one in enumerate(made.examples, 1) if not gives_back(made, one)), 0):
        notes.add(f"the form is not taken: put together again, the answer of example {odd} is another one")
        return written
    return made


def shape_of(spec: Spec, proposal: Proposal, notes: _Notes | None = None) -> Shape:
    """The form of the answers: of JSON by itself, else as stated where it gives the examples, else written."""
    notes, answers = notes or _Notes(), [example.answer for example in spec.examples]
    if proposal.form == "written":
        return WRITTEN
    if (as_json := json_shape(answers)) is not None:
        if as_json == WRITTEN:
            notes.add("JSON with objects or lists inside it, or with other keys in each answer, cannot be composed: "
                      "the writer writes it, held to its keys and their types")  # fmt: skip
        return as_json
    if proposal.template:
        shape, why = fitted(answers, proposal.template)
        if shape is None:
            notes.add(f"the template {proposal.template!r} is not taken: {why}")
        return shape or WRITTEN
    names = [part.name for part in proposal.parts]
    known = proposal.labels or (proposal.parts[0].values if len(names) == 1 else {})
    if known and len(names) <= 1 and set(answers) <= set(known):
        name = names[0] if names else "label"
        return Shape("text", f"{{{name}}}", (name,), tuple(({name: answer},) for answer in answers))
    shape = aligned(answers, names) if names else None
    if names and shape is None:
        notes.add(f"the answers have not {len(names)} parts ({', '.join(names)}) with the same text around them")
    return shape or WRITTEN


def _topic() -> Attribute:
    return Attribute(name=TOPIC, kind="text", means="what the message is about", shown=False, words_max=6)


def pairs_of(spec: Spec, shape: Shape, name: str) -> list[tuple[str, str | None]]:
    """The values of a part beside their messages."""
    return [
        (example.prompt, record[name])
        for example, records in zip(spec.examples, shape.records, strict=True)
        for record in records
    ]


def _attribute(spec: Spec, shape: Shape, part: Part, proposal: Proposal, notes: _Notes) -> Attribute:
    pairs = pairs_of(spec, shape, part.name)
    absent = _absent(part, pairs)
    given = [(message, value) for message, value in pairs if value is not None and value not in absent]
    kind, values = _kind(part, given, proposal, notes)
    shown_absent = next((value for _, value in pairs if value in absent), absent[0] if absent else None)
    if shown_absent in values:  # "none" among the values of a label is a value like the others
        absent, shown_absent = [], None
        given = [(message, value) for message, value in pairs if value is not None]
    lacks = bool(shape.otherwise) and shape.form == "text" and kind in _COPIED_FORMATS
    missing = len(pairs) - len(given) + (len(spec.examples) - len(pairs) if lacks else 0)
    low, high = _ABSENT_SHARES
    return Attribute(
        name=part.name,
        kind=kind,
        means=part.means,
        values=values,
        absent_share=round(min(high, max(low, missing / max(1, len(spec.examples)))), 2) if missing or absent else 0,
        absent_as=shown_absent,
        lengths=tuple(sorted({len(value) for _, value in given})) if kind == "digits" else (),
        words_max=_words_max(part, [value for _, value in given], notes) if kind in ("copied", "text") else 0,
    )


def _absent(part: Part, pairs: Pairs) -> list[str | None]:
    """What the answer shows where the message does not say it: null, what was stated, or a mark that is no word."""
    absent: list[str | None] = [part.missing] if part.missing else []
    for message, value in pairs:
        mark = value is not None and not any(c.isalnum() for c in value) and value not in part.values
        if value is None or (mark and not holds(message, value)):
            absent.append(value)
    return list(dict.fromkeys(absent))


def _kind(
    part: Part, given: Sequence[tuple[str, str]], proposal: Proposal, notes: _Notes
) -> tuple[Kind, dict[str, Value]]:
    """What kind of part it is: as proposed where its values bear it out, else by their format."""
    seen = list(dict.fromkeys(value for _, value in given))
    if seen and set(seen) <= {"true", "false"}:
        return "label", {"true": Value(), "false": Value()}
    values = part.values or (proposal.labels if seen and set(seen) <= set(proposal.labels) else {})
    if values and (label := _label(part.name, values, seen, notes)):
        days = {name: Value() for name in sorted(label, key=_weekday)}
        return ("weekday", days) if _are_weekdays([*label]) else ("label", label)
    if seen and part.kind not in ("text", "copied") and _are_weekdays(seen):
        short = all(len(value) == 3 for value in seen)
        return "weekday", {day[:3] if short else day: Value() for day in WEEKDAYS}
    verbatim = copied(given)
    typed = format_of(part, seen, verbatim=verbatim)
    if part.kind == "text" and not (typed and verbatim):
        return "text", {}
    if part.kind == "copied" and not verbatim:
        notes.add(f"{part.name} is not copied: its values do not stand in the messages of the examples")
    elif part.kind in TYPED and part.kind != typed:
        notes.add(f"{part.name} is no {part.kind}: the examples show {(seen or ['none'])[0]!r}")
    return typed or ("copied" if verbatim else "text"), {}


def copied(pairs: Pairs) -> bool:
    """Whether the values of a part stand in the messages letter for letter, but for one that was bent."""
    given = [(message, value) for message, value in pairs if value is not None]
    return bool(given) and sum(holds(message, value) for message, value in given) >= _COPIED_SHARE * len(given)


def format_of(part: Part, seen: Sequence[str], *, verbatim: bool) -> Kind | None:
    """The typed kind whose format every value has; that of the proposal first."""
    order: list[Kind] = [part.kind] if part.kind is not None and part.kind in _FORMATS else []
    order += [kind for kind in _FORMATS if kind != "number"]
    fits = (k for k in order if seen and all(re.fullmatch(_FORMATS[k], value) for value in seen))
    return next((kind for kind in fits if verbatim or kind not in _COPIED_FORMATS), None)


def _label(name: str, values: Mapping[str, Value], seen: Sequence[str], notes: _Notes) -> dict[str, Value]:
    """The values of a label, spelled as the examples do, those of the examples among them; empty where it is none."""
    spelled = {value.casefold(): value for value in seen}
    made = {spelled.get(value.casefold(), value): of for value, of in values.items()}
    beside = [value for value in seen if value not in made]
    if len(beside) > len(seen) / 2 or not 2 <= len(made) + len(beside) <= VALUES_MAX:
        listed, shown = ", ".join(list(values)[:4]), ", ".join(seen[:4]) or "none"
        notes.add(f"{name} is no choice of {listed}: the examples show {shown}")
        return {}
    if beside:
        notes.add(f"{', '.join(beside)} was added to the values of {name}, as the examples show it")
    return made | {value: Value() for value in beside}


def _are_weekdays(values: Sequence[str]) -> bool:
    return len(values) >= 2 and all(_weekday(value) < 7 for value in values)


def _weekday(value: str) -> int:
    known = [n for n, day in enumerate(WEEKDAYS) if value.lower() in (day.lower(), day[:3].lower(), day[:4].lower())]
    return known[0] if known else 7


def _apart(attributes: Sequence[Attribute], shape: Shape, notes: _Notes) -> list[Attribute]:
    """Labels of which no two hold a value that the examples show in one of them alone, or in none."""
    shown = {a.name: {r[a.name] for records in shape.records for r in records} for a in attributes}
    made = []
    for one in attributes:
        others = [other for other in attributes if other.kind == "label" and other.name != one.name]
        wrong = [v for v in one.values for other in others if v in other.values and v not in shown[one.name]]
        if one.kind != "label" or not wrong:
            made.append(one)
            continue
        left = {value: of for value, of in one.values.items() if value not in wrong}
        notes.add(f"{', '.join(dict.fromkeys(wrong))}: a value of another part, so it was taken out of {one.name}")
        alone = Attribute(name=one.name, kind="text", means=one.means)
        made.append(one.model_copy(update={"values": left}) if len(left) >= 2 else alone)
    return made


def _absent_by_label(shape: Shape, attribute: Attribute, attributes: Sequence[Attribute]) -> Attribute:
    """Where a part is missing for one value of a label, more than once, and never for another, that is the reason."""
    records = [record for records in shape.records for record in records]
    for label in attributes:
        if label.kind != "label" or label.name == attribute.name or attribute.kind not in ("copied", "text"):
            continue
        missing = [r[label.name] for r in records if r[attribute.name] == attribute.absent_as]
        present = {r[label.name] for r in records if r[attribute.name] != attribute.absent_as}
        if missing and len(set(missing)) < len(missing) and not set(missing) & (present | {None}):
            where = {label.name: tuple(dict.fromkeys(value for value in missing if value is not None))}
            return attribute.model_copy(update={"absent_share": 0, "absent_where": where})
    return attribute


def _words_max(part: Part, values: Sequence[str], notes: _Notes) -> int:
    longest = max((len(value.split()) for value in values), default=0)
    if part.words_max and part.words_max < longest:
        notes.add(f"{part.name} has at most {part.words_max} words: not taken, an example has {longest}")
        return 0
    return part.words_max


def _needs(shape: Shape, attributes: Sequence[Attribute]) -> tuple[str, ...]:
    """The part without which an answer is the other text: the first that code can look for in a message."""
    if not shape.otherwise or shape.form != "text" or all(shape.records):
        return ()
    return tuple(a.name for a in attributes if a.shown and (a.kind in _COPIED_FORMATS or a.kind == "copied"))[:1]


# Rules, language, near misses


def _rules(spec: Spec, proposal: Proposal, blind: Sequence[Example], notes: _Notes) -> tuple[Rule, ...]:
    """The rules of the form, and the stated checks that hold for every example."""
    rules, shown = form_rules(spec), [*spec.examples, *blind]
    for check in proposal.checks if form_of(spec).is_text else ():
        rule = rule_of(check).model_copy(update={"guessed": True})
        odd = next((n for n, one in enumerate(shown, 1) if broken_rule([rule], one.answer)), 0)
        if odd:
            which = f"example {odd} breaks it" if odd <= len(spec.examples) else "an example breaks it"
            notes.add(f"{rule.says}: not taken, {which}")
        else:
            rules.append(rule)
    return tuple(rule for rule in rules if not any(broken_rule([rule], one.answer) for one in blind))


def _language(spec: Spec, proposal: Proposal, notes: _Notes) -> str:
    """The language of the messages: as proposed, unless their letters or commonest words are of another one."""
    messages = "\n".join(example.prompt for example in spec.examples)
    shown = other_language(messages, frozenset())
    if proposal.language and may_be_in(messages, proposal.language):
        return proposal.language
    if proposal.language:
        notes.add(f"the messages are not in {proposal.language}" + (f": they read as {shown}" if shown else ""))
    return shown or "English"


def _near_misses(spec: Spec, proposal: Proposal, notes: _Notes) -> tuple[str, ...]:
    known = {normal(example.prompt) for example in spec.examples}
    kept = {normal(text): text for text in proposal.near_misses if normal(text) and normal(text) not in known}
    if len(kept) < len(proposal.near_misses):
        notes.add(f"{len(proposal.near_misses) - len(kept)} near misses are examples, or said twice")
    return tuple(kept.values())
