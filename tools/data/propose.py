"""What a user left out of a spec, told from the words and the examples in code: attributes, form, rules, criteria.

Deterministic, so that the same file is always the same behaviour; what needs a model (near misses, values of open
attributes) is proposed where rows are made. Everything proposed may be changed in the file, field by field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import (
    NUMBER_WORDS,
    ONE_LINE,
    Rule,
    broken_rule,
    infer_rules,
    listed,
    number_of,
)
from tunesmith.tools.data.answer_shape import Shape, shape_of
from tunesmith.tools.data.description import Example, parted
from tunesmith.tools.data.enumerations import enumerations, listing, meanings
from tunesmith.tools.data.faults import other_language
from tunesmith.tools.data.spec import ATTRIBUTES_MAX, Answer, Attribute, Kind, Spec, Value
from tunesmith.tools.data.typed_values import WEEKDAYS, holds

TOPIC = "topic"
"""Of messages that no other attribute makes different."""
_ABSENT = ("-", "–", "?", "none", "n/a", "unknown", "null")
_ABSENT_WORDS = {"a dash": "-", "dash": "-", "null": None}
_COPIED_SHARE = 0.75
"""Of the examples, where a value stands in the message letter for letter; a user bends one now and then."""
_TELLS = "(?:is|are|means|has|at most)"
_REPEATED_SHARE = 0.5
_ABSENT_SHARES = (0.15, 0.35)
_ENUMERATION = re.compile(r"(?:[\w/-]+, )+[\w/-]+,? (?:or|and) [\w/-]+|[\w/-]+ or [\w/-]+")
_WORDS_AT_MOST = re.compile(
    rf"(?:at most|up to|no more than|one to) (\d+|{'|'.join(NUMBER_WORDS)}) words", re.IGNORECASE
)
_EXACT = re.compile(rf"exactly (\d+|{'|'.join(NUMBER_WORDS)}) digits", re.IGNORECASE)
_PATTERNS: Mapping[Kind, str] = {
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]+",
    "url": r"https?://\S+|www\.\S+",
    "amount": r"\d+\.\d\d",
    "digits": r"\d+",
    "phone": r"\+?\d[\d /()-]{6,}\d",
}
_CONVERTED: Mapping[Kind, str] = {"time": r"\d\d:\d\d", "date": r"\d{4}-\d\d-\d\d"}


def completed(spec: Spec, fields: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None) -> Spec:
    """The spec with everything that its file leaves out; what it says stays. `fields` and `labels` name and explain.

    From thirteen examples on ten are set aside as blind cases, and nothing is told from them.
    """
    fields, labels = fields or {}, labels or {}
    spec, blind = _without_blind(spec)
    changes: dict[str, object] = {}
    if not spec.attributes and spec.answer == Answer():
        shape = shape_of([example.answer for example in spec.examples], spec.what, list(fields))
        if len(shape.names) > ATTRIBUTES_MAX:
            many = len(shape.names)
            raise BadInput(f"the answers have {many} fields, at most {ATTRIBUTES_MAX} are taken; leave some out")
        attributes = _attributes(spec, shape, fields, labels)
        if any(a.shown for a in attributes) and (fields or labels or any(a.kind != "text" for a in attributes)):
            changes = {"attributes": attributes, "answer": _answer(spec, shape, attributes)}
        else:
            changes = {"attributes": (_topic(),)}
    spoken = {other_language(example.prompt, frozenset({"English"})) for example in spec.examples}
    if spec.language == Spec.model_fields["language"].default and len(spoken) == 1 and (own := spoken.pop()):
        changes["language"] = own
    made = spec.model_copy(update=changes)
    if not spec.rules:
        rules = tuple(r for r in _rules(made) if not any(broken_rule([r], example.answer) for example in blind))
        made = made.model_copy(update={"rules": rules})
    if not spec.criteria:
        made = made.model_copy(update={"criteria": _criteria(made)})
    return Spec.model_validate(made.model_dump()).model_copy(update={"blind": blind})


def _without_blind(spec: Spec) -> tuple[Spec, tuple[Example, ...]]:
    if spec.blind_sha256:  # they were set aside before
        return spec, spec.blind
    seen, blind = parted(spec.examples)
    if not blind:
        return spec, ()
    digest = hashlib.sha256(json.dumps([[e.prompt, e.answer] for e in blind]).encode()).hexdigest()
    tokens = {"answer_tokens": spec.max_tokens}  # as long as the longest of all
    return spec.model_copy(update={"examples": seen, "blind_sha256": digest, **tokens}), blind


# Attributes


def _attributes(
    spec: Spec, shape: Shape, fields: Mapping[str, str], labels: Mapping[str, str]
) -> tuple[Attribute, ...]:
    attributes = [_attribute(spec, shape, name, fields.get(name, ""), labels) for name in shape.names]
    attributes = [_absent_by_label(spec, shape, attribute, attributes) for attribute in attributes]
    fixed = all(a.kind != "text" or a.absent_where or a.absent_share for a in attributes)
    return (*attributes, *([_topic()] if fixed and shape.form != "lines" else []))


def _topic() -> Attribute:
    return Attribute(name=TOPIC, kind="text", means="what the message is about", shown=False, words_max=6)


def _attribute(spec: Spec, shape: Shape, name: str, means: str, labels: Mapping[str, str]) -> Attribute:
    pairs = [
        (example.prompt, record[name])
        for example, records in zip(spec.examples, shape.records, strict=True)
        for record in records
    ]
    told = "" if means else _told_of(spec.what, name, shape.names)
    absent = _absent_of(spec, name, pairs, means)
    given = [(message, value) for message, value in pairs if value is not None and value not in absent]
    kind, values = _kind_of(spec, name, means or told, given, labels)
    shown_absent = next((value for _, value in pairs if value in absent), absent[0] if absent else None)
    if shown_absent in values:  # "none" among the values of a label is a value like the others
        absent, shown_absent = [], None
        given = [(message, value) for message, value in pairs if value is not None]
    missing = len(pairs) - len(given)
    lacks = bool(shape.otherwise) and shape.form == "text" and kind in _PATTERNS
    share = (missing + (len(spec.examples) - len(pairs) if lacks else 0)) / max(1, len(spec.examples))
    low, high = _ABSENT_SHARES
    return Attribute(
        name=name,
        kind=kind,
        means=means
        or told
        or _sentence(spec.what, name)
        or (_sentence(spec.what, next(iter(values))) if values else ""),
        values=values,
        absent_share=round(min(high, max(low, share)), 2) if share or absent else 0,
        absent_as=shown_absent,
        lengths=_lengths(spec, means, [value for _, value in given]) if kind == "digits" else (),
        words_max=_words_max(spec, name, means) if kind in ("copied", "text") else 0,
    )


def _absent_of(spec: Spec, name: str, pairs: Sequence[tuple[str, str | None]], means: str) -> list[str | None]:
    """What the answer shows where the message does not say it, the one that was stated first."""
    stated = re.search(r"\bor ([\w ./-]+?)\.?\s*$", means)
    words = stated[1].strip().lower() if stated else ""
    if {value for _, value in pairs if value} <= set(listed(means)):
        words = ""  # "positive, mixed or neutral" ends with a value as good as the others
    known = {str(value).lower() for _, value in pairs if value is not None}
    absent: list[str | None] = []
    if words in _ABSENT_WORDS:
        absent.append(_ABSENT_WORDS[words])
    elif words and words in known and not any(holds(m, str(v)) for m, v in pairs if str(v).lower() == words):
        absent.append(next(str(v) for _, v in pairs if str(v).lower() == words))
    quoted = {text.lower() for text in re.findall(r"[\"“]([^\"”]+)[\"”] where", spec.what)}
    for clause in re.findall(r"\b(?:where|when|if)\b[^.;]*\b(?:no|not|nothing|missing)\b[^.;]*", spec.what):
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", clause, re.IGNORECASE):
            quoted |= {value.lower() for _, value in pairs if value and holds(clause, value)}
    for message, value in pairs:
        if value is None or ((value.lower() in _ABSENT or value.lower() in quoted) and not holds(message, value)):
            absent.append(value)
    return list(dict.fromkeys(absent))


def _kind_of(
    spec: Spec, name: str, means: str, given: Sequence[tuple[str, str]], labels: Mapping[str, str]
) -> tuple[Kind, dict[str, Value]]:
    seen = {value for _, value in given}
    if seen and seen <= set(labels):
        return "label", {value: Value(means=text) for value, text in labels.items()}
    means = re.sub(rf"^{re.escape(name)}\s*(?:[:=]|{_TELLS}\b)\s*", "", means)
    stated = _stated_values(spec, means, seen)
    if stated and _are_weekdays(stated):
        return "weekday", {value: Value() for value in sorted(stated, key=_weekday_place)}
    if stated:
        said = next((m for text in (means, spec.what) if any((m := meanings(text, stated)).values())), {})
        return "label", {value: Value(means=said.get(value, "")) for value in stated}
    if seen and _are_weekdays(list(seen)):
        short = all(len(value) == 3 for value in seen)
        return "weekday", {day[:3] if short else day: Value() for day in WEEKDAYS}
    verbatim = sum(holds(message, value) for message, value in given)
    if given and verbatim >= _COPIED_SHARE * len(given):
        kinds = [kind for kind, pattern in _PATTERNS.items() if all(re.fullmatch(pattern, value) for value in seen)]
        return (kinds[0] if kinds else "copied"), {}
    kinds = [kind for kind, pattern in _CONVERTED.items() if seen and all(re.fullmatch(pattern, v) for v in seen)]
    if kinds:
        return kinds[0], {}
    meant = meanings(spec.what, sorted(seen)) if all(len(value.split()) <= 3 for value in seen) else {}
    repeated = len(given) > len(seen) and all(len(value.split()) == 1 for value in seen)
    if len(seen) >= 2 and (repeated or all(meant.get(value) for value in seen)):
        return "label", {value: Value(means=meant.get(value, "")) for value in sorted(seen)}
    return "text", {}


def _stated_values(spec: Spec, means: str, seen: set[str]) -> list[str]:
    """The enumeration in the user's words that holds every value of the examples."""
    for text in (means, spec.what):
        for match in _ENUMERATION.finditer(re.sub(r" \([^()]*\)", "", text)):
            values = listed(match[0])
            if len(seen) >= 1 and len(values) >= 2 and seen <= set(values):
                return values
    answers = [example.answer for example in spec.examples]
    told = (one.values for one in enumerations(spec.what, answers))
    return listing(means, answers, seen) or next((list(values) for values in told if seen and seen <= set(values)), [])


def _are_weekdays(values: Sequence[str]) -> bool:
    return len(values) >= 2 and all(_weekday_place(value) < 7 for value in values)


def _weekday_place(value: str) -> int:
    known = [n for n, day in enumerate(WEEKDAYS) if value.lower() in (day.lower(), day[:3].lower(), day[:4].lower())]
    return known[0] if known else 7


def _absent_by_label(spec: Spec, shape: Shape, attribute: Attribute, attributes: Sequence[Attribute]) -> Attribute:
    """Where an attribute is missing for one value of a label and never for another, that value is the reason."""
    records = [record for records in shape.records for record in records]
    for label in attributes:
        if label.kind != "label" or label.name == attribute.name:
            continue
        missing = {r[label.name] for r in records if r[attribute.name] == attribute.absent_as}
        present = {r[label.name] for r in records if r[attribute.name] != attribute.absent_as}
        unstated = [value for value in missing - present if value is not None]
        count = sum(r[attribute.name] == attribute.absent_as for r in records)
        sure = count > len(missing) or all(_said_absent(spec.what, attribute, value) for value in unstated)
        if missing and unstated == list(missing) and attribute.kind in ("copied", "text") and sure:
            where = {label.name: tuple(unstated)}
            return attribute.model_copy(update={"absent_share": 0, "absent_where": where})
    return attribute


def _told_of(what: str, name: str, names: Sequence[str]) -> str:
    """What is said of a slot from "NAME is" or "NAME:" to where the next slot is told, or the sentence ends."""
    begins = [
        (match.start(), one)
        for one in names
        for match in re.finditer(rf"(?<![\w<{{\[]){re.escape(one)}(?:\s*[:=]\s|\s+{_TELLS}\b)", what)
    ]
    ends = sorted([*(at for at, _ in begins), *(m.start() for m in re.finditer(r"[.;](?:\s|$)", what)), len(what)])
    said = (what[at : next(end for end in ends if end > at)] for at, one in begins if one == name)
    return re.sub(r"[\s,]+(?:and|or)?\s*$", "", max(said, key=len, default=""))


def _said_absent(what: str, attribute: Attribute, label: str) -> bool:
    """Whether the words say that an attribute is missing where a label has this value: "null where it is neutral"."""
    shown = "null" if attribute.absent_as is None else re.escape(attribute.absent_as)
    absent = rf"(?:(?<!\w){shown}(?!\w)|\b(?:no|without) {re.escape(attribute.name)}\b)"
    named = rf"(?<!\w){re.escape(label)}(?!\w)"
    return any(re.search(absent, part) and re.search(named, part) for part in re.split(r"[.;\n]", what))


def _sentence(what: str, name: str) -> str:
    """The sentence that says what a slot is: the one that begins with its name, else the first that holds it."""
    sentences = re.split(r"(?<=[.;])\s+", what)
    begins = [s for s in sentences if re.match(rf"(?:The )?{re.escape(name)}\b", s)]
    holding = [s for s in sentences if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", s)]
    return (begins or holding or [""])[0].rstrip(".;")


def _words_max(spec: Spec, name: str, means: str) -> int:
    match = _WORDS_AT_MOST.search(means) or _WORDS_AT_MOST.search(_sentence(spec.what, name))
    return number_of(match[1]) if match else 0


def _lengths(spec: Spec, means: str, values: Sequence[str]) -> tuple[int, ...]:
    match = _EXACT.search(means) or _EXACT.search(spec.what)
    return (number_of(match[1]),) if match else tuple(sorted({len(value) for value in values}))


# Answer, rules, criteria


def _answer(spec: Spec, shape: Shape, attributes: Sequence[Attribute]) -> Answer:
    needs: tuple[str, ...] = ()
    if shape.otherwise and shape.form == "text":
        lacking = [e.prompt for e, records in zip(spec.examples, shape.records, strict=True) if not records]
        typed = [a for a in attributes if a.shown and (a.kind in _PATTERNS or a.kind == "copied")]
        needs = tuple(a.name for a in typed[:1]) if lacking else ()
    return Answer(form=shape.form, template=shape.template, otherwise=shape.otherwise, needs=needs)  # type: ignore[arg-type]


def _rules(spec: Spec) -> tuple[Rule, ...]:
    answers, form = [example.answer for example in spec.examples], form_of(spec)
    rules = list(infer_rules(answers, what=spec.what, never=spec.never)) if form.is_text else []
    if all(_repeats(example) for example in spec.examples):  # as long as the message, in as many lines
        rules = [rule for rule in rules if rule.says != ONE_LINE and rule.type != "word-count"]
    if form.says_what_it_is or form.of_records:
        rules = [rule for rule in rules if rule.type != "word-count"]
    unique = {json.dumps([rule.type, rule.value], sort_keys=True): rule for rule in (*rules, *form.rules())}
    return tuple(rule.model_copy(update={"guessed": True}) for rule in unique.values())


def _repeats(example: Example) -> bool:
    """Whether an answer is its message with little changed."""
    message, answer = (re.findall(r"\w+", text.lower()) for text in (example.prompt, example.answer))
    return min(len(answer), sum(word in message for word in answer)) >= _REPEATED_SHARE * max(len(message), len(answer))


def _criteria(spec: Spec) -> tuple[str, ...]:
    criteria = []
    for attribute in spec.attributes:
        if not attribute.shown:
            continue
        if attribute.kind == "label" and any(value.means for value in attribute.values.values()):
            meanings = "; ".join(f"{name}: {value.means}" for name, value in attribute.values.items())
            criteria.append(f"{attribute.name} fits the message ({meanings})")
        elif attribute.kind in ("copied", "text"):
            criteria.append(f"{attribute.name} is what this message says ({attribute.means})")
    return (*criteria[:4], f"the answer is right for this very message: {spec.what}"[:1000])
