"""A proposal held to the user's examples: what they bear out becomes the spec, what they do not is named and left out.

Code decides nothing about meaning here. It takes answers apart by the proposed form and puts them together again, and
looks whether labels cover the examples, whether checks hold for them, and whether a value has the format of its kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import permutations

from pydantic import ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.similarity import normal
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import Rule, broken_rule, json_rules, rule_of
from tunesmith.tools.data.answer_shape import (
    LACKS,
    WRITTEN,
    NotExpressed,
    Samples,
    Shape,
    aligned,
    as_text,
    fitted,
    json_examples,
    leaves,
    renamed,
    tree,
)
from tunesmith.tools.data.description import Example, parted
from tunesmith.tools.data.examples import COPIED_FORMATS, Notes, attribute_of, example_problems, set_of, together
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.record_values import json_object
from tunesmith.tools.data.rows import common_words, may_be_in, other_language
from tunesmith.tools.data.spec import ATTRIBUTES_MAX, Answer, Attribute, Spec


def form_rules(spec: Spec) -> list[Rule]:
    """What the form of the answers asks of every one of them; nobody stated it, so it keeps no person's row out."""
    answers, form = [example.answer for example in spec.examples], form_of(spec)
    rules = list(form.rules())
    if not form.composed:
        rules += json_rules(answers)
        if len(set(answers)) == 1:
            rules.append(Rule(says=f"the answer is always {answers[0]!r}", type="equals", value=answers[0]))
    unique = {json.dumps([rule.type, rule.value], sort_keys=True): rule for rule in rules}
    return [rule.model_copy(update={"guessed": True}) for rule in unique.values()]


def criteria_of(spec: Spec) -> tuple[str, ...]:
    """What is right in meaning, by what is known of each part and in the user's own words."""
    criteria = []
    for attribute in spec.attributes:
        if not attribute.shown:
            continue
        if attribute.kind == "label" and any(value.means for value in attribute.values.values()):
            values = [f"{name}: {value.means}" if value.means else name for name, value in attribute.values.items()]
            criteria.append(f"{attribute.name} fits the message ({'; '.join(values)})")
        elif attribute.kind in ("copied", "text"):
            means = f" ({attribute.means})" if attribute.means else ""
            criteria.append(f"{attribute.name} is what this message says{means}")
    # a judge is asked each of every row
    return (*criteria[:4], f"the answer is right for this very message: {spec.what}"[:1000])


TOPIC = "topic"
"""Of messages that no other attribute makes different."""
LABEL = "label"
"""The part that labels are the values of, where nobody gave it a name."""
_ORDERED = 4
"""Parts whose orders are all tried: of four there are 24, of five 120."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The spec of what the examples bear out, and what of the proposal was left out, a sentence each."""

    spec: Spec
    left_out: tuple[str, ...] = ()


def verified(spec: Spec, proposal: Proposal | None = None) -> Verified:
    """The spec with all that its file leaves out: as proposed where the examples bear it out; what the file says stays.

    From thirteen examples on ten are set aside as blind cases, and nothing is concluded from them. Raises BadInput for
    answers with more fields than are taken.
    """
    proposal = proposal or Proposal()
    notes: Notes = []
    completed, blind = _without_blind(spec)
    bare = completed.answer == Answer() or (proposal.shapes and completed.answer == _without_form(completed.answer))
    if not completed.attributes and bare:
        completed = _formed(completed, proposal, notes)
    elif proposal.shapes:
        notes.append(
            "labels, fields and template are not taken, as attributes and answer say what answers are made of: say all "
            "of it in one of the two ways"
        )
    changes: dict[str, object] = {}
    if "rules" in spec.model_fields_set:
        notes += rule_faults(spec)
    else:
        changes["rules"] = _rules(completed, proposal, blind, notes)
    if completed.language == Spec.model_fields["language"].default:
        changes["language"] = _language(completed, proposal, notes)
    if not completed.near_misses and not completed.every_message:
        changes["near_misses"] = _near_misses(completed, proposal, notes)
    if proposal.every_message and not completed.every_message and not spec.near_misses:
        changes |= {"every_message": True, "near_misses": ()}
    if not completed.criteria:
        changes["criteria"] = proposal.criteria[:4] + criteria_of(completed)  # each is one more question of every row
    completed = Spec.model_validate(completed.model_copy(update=changes).model_dump())
    return Verified(completed.model_copy(update={"blind": blind}), tuple(dict.fromkeys(notes)))


def spec_faults(spec: Spec) -> tuple[str, ...]:
    """What a spec says that its own examples contradict, a sentence each: after somebody has changed its file."""
    problems = [*example_problems(spec), *rule_faults(spec)]
    prompts = {normal(example.prompt) for example in spec.examples}
    problems += [f"the near miss {text[:60]!r} is an example" for text in spec.near_misses if normal(text) in prompts]
    return tuple(problems)


def rule_faults(spec: Spec) -> list[str]:
    """Where the answer of an example breaks a rule, a sentence each."""
    broken = [(n, broken_rule(spec.rules, example.answer)) for n, example in enumerate(spec.examples, 1)]
    return [
        f"the answer of example {number} breaks the rule: {rule.says}; correct the example, or the rule"
        for number, rule in broken
        if rule is not None
    ]


def gives_back(spec: Spec, example: Example) -> bool:
    """Whether an example's answer can be taken apart and put together again into the very same."""
    form = form_of(spec)
    if (records := form.parse(example.answer)) is None:
        return False
    again = form.compose(records)
    if any(one.many and one.kind == "label" for one in spec.value_attributes()):  # a set has no order
        letters = [sorted("".join(text.split())) for text in (again, example.answer)]
        return form.parse(again) == records and letters[0] == letters[1]
    if form.says_what_it_is:
        return json_object(again) == json_object(example.answer)
    return again.strip() == example.answer.strip()


def _without_form(answer: Answer) -> Answer:
    """What may be said of an answer before its form is known."""
    return Answer(language=answer.language, otherwise=answer.otherwise)


def _without_blind(spec: Spec) -> tuple[Spec, tuple[Example, ...]]:
    """The spec without the examples that become blind cases, and these; once set aside they stay so."""
    if spec.blind_sha256:  # they were set aside before
        return spec, spec.blind
    seen, blind = parted(spec.examples)
    if not blind:
        return spec, ()
    digest = hashlib.sha256(json.dumps([[e.prompt, e.answer] for e in blind]).encode()).hexdigest()
    tokens = {"answer_tokens": spec.max_tokens}  # as long as the longest of all
    return spec.model_copy(update={"examples": seen, "blind_sha256": digest, **tokens}), blind


# Form and attributes


def _formed(spec: Spec, proposal: Proposal, notes: Notes) -> Spec:
    """The spec with its answer's form and attributes: written by a model where no other form gives the examples."""
    objects = json_examples(spec.examples) if proposal.form != "written" else []
    answer: dict[str, object] = {"form": "json", "language": spec.answer.language}
    if objects:
        attributes = _of_json(objects, proposal, notes)
    elif (shape := shape_of(spec, proposal, notes)) == WRITTEN:
        attributes = []
    else:
        attributes = _of_shape(spec, shape, proposal, notes)
        otherwise = shape.otherwise or spec.answer.otherwise
        answer |= {"form": shape.form, "template": shape.template, "otherwise": otherwise}
        answer["needs"] = _needs(shape, attributes)
    written = spec.model_copy(update={"attributes": (topic(),)})
    _name_lacking(attributes, proposal, notes)
    of_labels = any(set(proposal.labels) & set(one.values) for one in attributes)
    if proposal.labels and not of_labels and (attributes or not notes):
        notes.append(f"no part of the answers has only the labels {', '.join(proposal.labels)}: they are not taken")
    if not attributes:
        return written
    fixed = all(a.kind != "text" or a.absent_where or a.absent_share for a in attributes)
    attributes += [topic()] if fixed and answer["form"] != "lines" else []
    try:
        formed = Spec.model_validate({**spec.model_dump(), "attributes": attributes, "answer": answer})
    except ValidationError as error:
        notes.append(f"the form is not taken: {sentence(error.errors()[0], Spec)}")
        return written
    if odd := next((n for n, one in enumerate(formed.examples, 1) if not gives_back(formed, one)), 0):
        notes.append(f"the form is not taken: put together again, the answer of example {odd} is another one")
        return written
    if proposal.form not in (None, formed.answer.form):
        notes.append(
            f"the form {proposal.form} is not taken: the answers of the examples are of the form {answer['form']}"
        )
    return formed


def _name_lacking(attributes: Sequence[Attribute], proposal: Proposal, notes: Notes) -> None:
    """Name the parts of the proposal that answers with attributes have not."""
    names = {one.name for one in attributes} | {path for one in attributes for path in _paths(one)}
    lacking = [part.name for part in proposal.parts if part.name not in names]
    if attributes and lacking:
        there = ", ".join(one.name for one in attributes)
        notes.append(f"{', '.join(lacking)}: the answers have no such part, but {there}; write the name as they do")


def _paths(attribute: Attribute) -> list[str]:
    """The paths of all that an object holds."""
    return [f"{attribute.name}.{path}" for inner in attribute.attributes for path in (inner.name, *_paths(inner))]


def _of_json(objects: Samples, proposal: Proposal, notes: Notes) -> list[Attribute]:
    """The attributes of answers that are JSON objects; none where attributes cannot say them."""

    def leaf(path: str, samples: Samples) -> Attribute:
        number = bool(samples) and all(isinstance(v, int | float) and not isinstance(v, bool) for _, v in samples)
        pairs = [(message, as_text(value)) for message, value in samples]
        part = proposal.part(path)
        if part.missing == "null" and ("null" not in dict(pairs).values()):  # JSON's own, and no text
            part = part.model_copy(update={"missing": ""})
        return attribute_of(part, pairs, proposal.labels, notes, number=number)

    try:
        attributes = _as_many_as_stated(tree(objects, leaf), proposal)
    except NotExpressed as why:
        notes.append(f"{why}: the writer writes the answer, held to its keys and their types")
        return []
    if (many := len(list(leaves(objects)))) > ATTRIBUTES_MAX:
        raise BadInput(f"the answers have {many} fields, at most {ATTRIBUTES_MAX} are taken; leave some out")
    plain = [
        {n: _text(v) for n, v in value.items() if not isinstance(v, dict | list)}
        for _, value in objects
        if isinstance(value, dict)
    ]
    return together(attributes, plain, notes)


def _as_many_as_stated(attributes: Sequence[Attribute], proposal: Proposal, at: str = "") -> list[Attribute]:
    """Lists and sets of as many values as were stated, and as the examples show."""
    widened = []
    for one in attributes:
        stated, path = proposal.part(f"{at}{one.name}").many, f"{at}{one.name}."
        changes: dict[str, object] = {"attributes": tuple(_as_many_as_stated(one.attributes, proposal, path))}
        if one.many and stated:
            changes["many"] = (min(one.many[0], stated[0]), max(one.many[1], stated[1]))
        widened.append(one.model_copy(update=changes))
    return widened


def _of_shape(spec: Spec, shape: Shape, proposal: Proposal, notes: Notes) -> list[Attribute]:
    pairs = {name: pairs_of(spec, shape, name) for name in shape.names}
    lacking = len(spec.examples) - sum(map(bool, shape.records)) if shape.form == "text" else 0
    attributes = [
        attribute_of(proposal.part(n), pairs[n], proposal.labels, notes, lacking=lacking) for n in shape.names
    ]
    return together(attributes, [record for records in shape.records for record in records], notes)


def shape_of(spec: Spec, proposal: Proposal, notes: Notes) -> Shape:
    """The form of answers that are text: as stated where it gives the examples, else written."""
    answers = [example.answer for example in spec.examples]
    if proposal.form == "written":
        return WRITTEN
    if proposal.template:
        shape, why = fitted(answers, proposal.template)
        if shape is None:
            notes.append(f"the template {proposal.template!r} is not taken: {why}")
        return shape or WRITTEN
    names = [part.name for part in proposal.parts]
    only = proposal.parts[0] if len(names) == 1 else Part(name=LABEL, values=proposal.labels)
    known = proposal.labels or only.values
    if known and len(names) <= 1 and (set(answers) <= {*known, only.missing} or set_of(only, answers, known)):
        return Shape("text", f"{{{only.name}}}", (only.name,), tuple(({only.name: answer},) for answer in answers))
    shape = _placed(answers, names, proposal)
    odd = [n for n, answer in enumerate(answers) if answer not in {*known, only.missing}]
    if shape is None and known and len(names) <= 1 and len(odd) < len(answers):
        notes.append(
            f"an example is answered {answers[odd[0]]!r}, which is none of the values of {only.name}: "
            f"{', '.join(known)}; add it to these, or correct the example"
        )
    elif names and shape is None:
        notes.append(
            f"the answers have not {len(names)} parts ({', '.join(names)}) with the same text around them; state a "
            "template, with a {name} for each of them"
        )
    return shape or WRITTEN


def _placed(answers: Sequence[str], names: Sequence[str], proposal: Proposal) -> Shape | None:
    """Answers with a slot for each name, in the order in which the most slots hold a value that is stated for them.

    Labels that stand beside stated parts are a part of their own where no slot of theirs holds another text.
    """
    values: dict[str, Collection[str]] = {part.name: part.values for part in proposal.parts if part.values}
    shapes = _orders(aligned(answers, names), names, every_order=bool(values)) if names else []
    if proposal.labels and len(names) < _ORDERED:
        values[LABEL] = proposal.labels
        named = [*names, LABEL]
        beside = _orders(aligned(answers, named), named, every_order=True)
        shapes += [s for s in beside if all(r[LABEL] in proposal.labels for of in s.records for r in of)]
    stated = [sum(r[n] in values[n] for of in s.records for r in of for n in s.names if n in values) for s in shapes]
    return shapes[stated.index(max(stated))] if shapes else None


def _orders(shape: Shape | None, names: Sequence[str], *, every_order: bool) -> list[Shape]:
    """The shape with its slots called by the names in each order, its own first: answers are compared once for all."""
    if shape is None or not every_order or len(names) > _ORDERED:
        return [shape] if shape else []
    return [renamed(shape, dict(zip(names, order, strict=True))) for order in permutations(names)]


def fields_of(spec: Spec, proposal: Proposal) -> dict[str, list[tuple[str, str | None]]]:
    """The parts that differ in the answers of a proposed form, each with its values beside their messages."""
    if objects := json_examples(spec.examples) if proposal.form != "written" else []:
        return {path: [(message, _text(value)) for message, value in samples] for path, samples in leaves(objects)}
    shape = shape_of(spec, proposal, [])
    return {name: pairs_of(spec, shape, name) for name in shape.names}


def _text(value: object) -> str | None:
    return None if value is None or value is LACKS else as_text(value)


def topic() -> Attribute:
    """What messages differ in where nothing else makes them differ."""
    # more words are a message
    return Attribute(name=TOPIC, kind="text", means="what the message is about", shown=False, words_max=6)


def pairs_of(spec: Spec, shape: Shape, name: str) -> list[tuple[str, str | None]]:
    """The values of a part beside their messages."""
    return [
        (example.prompt, record[name])
        for example, records in zip(spec.examples, shape.records, strict=True)
        for record in records
    ]


def _needs(shape: Shape, attributes: Sequence[Attribute]) -> tuple[str, ...]:
    """The part without which an answer is the other text: the first that code can look for in a message."""
    if not shape.otherwise or shape.form != "text" or all(shape.records):
        return ()
    return tuple(a.name for a in attributes if a.shown and (a.kind in COPIED_FORMATS or a.kind == "copied"))[:1]


# Rules, language, near misses


def _rules(spec: Spec, proposal: Proposal, blind: Sequence[Example], notes: Notes) -> tuple[Rule, ...]:
    """The rules of the form, and the stated checks that hold for every example."""
    rules, examples = form_rules(spec), [*spec.examples, *blind]
    for check in proposal.checks if form_of(spec).is_text else ():
        rule = rule_of(check).model_copy(update={"guessed": True})
        odd = next((n for n, one in enumerate(examples, 1) if broken_rule([rule], one.answer)), 0)
        if odd:
            breaker = f"example {odd} breaks it" if odd <= len(spec.examples) else "an example breaks it"
            notes.append(f"{rule.says}: not taken, {breaker}")
        else:
            rules.append(rule)
    return tuple(rule for rule in rules if not any(broken_rule([rule], one.answer) for one in blind))


def _language(spec: Spec, proposal: Proposal, notes: Notes) -> str:
    """The language of the messages: as proposed, unless their letters or commonest words are of another one."""
    messages = "\n".join(example.prompt for example in spec.examples)
    seen = other_language(messages, frozenset())
    if not seen:  # too few of their words are common ones: that of the user's words, where no more speak for English
        own, counts = other_language("\n".join((spec.say, spec.when, spec.what)), frozenset()), common_words(messages)
        seen = own if counts.get(own, 0) >= counts["English"] else ""
    if proposal.language and may_be_in(messages, proposal.language):
        return proposal.language
    if proposal.language:
        notes.append(f"the messages are not in {proposal.language}" + (f": they read as {seen}" if seen else ""))
    return seen or "English"


def _near_misses(spec: Spec, proposal: Proposal, notes: Notes) -> tuple[str, ...]:
    known = {normal(example.prompt) for example in spec.examples}
    unique = {normal(text): text for text in proposal.near_misses if normal(text) and normal(text) not in known}
    if len(unique) < len(proposal.near_misses):
        notes.append(f"{len(proposal.near_misses) - len(unique)} near misses are examples, or said twice")
    return tuple(unique.values())
