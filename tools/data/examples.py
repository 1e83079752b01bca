"""The user's examples against a spec: the kinds of their answers' parts, and whether the spec holds on them.

Formats are those of values (12:30, 2026-03-14, a@b.c), whatever the language; what a value means is nobody's here. Sets
of labels in answers that are text, and numbers in whichever marks, are told by the examples alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

from tunesmith.tools.core.arithmetic import NUMERIC, Unanswerable, number_of
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_shape import absent_share
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.proposal import Part
from tunesmith.tools.data.record_values import Values, items_of, with_computed
from tunesmith.tools.data.spec import TYPED, Attribute, Kind, Spec, Value
from tunesmith.tools.data.typed_values import WEEKDAYS, holds, matches_in

_COPIED_SHARE = 0.75
"""Of the examples, where a value stands in the message letter for letter; a user bends one now and then."""
VALUES_MAX = 20
"""Of a label: a few hundred rows do not teach a choice among more."""
COPIED_FORMATS: Mapping[Kind, str] = {
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]+",
    "url": r"https?://\S+|www\.\S+",
    "amount": r"\d+\.\d\d",
    "digits": r"\d+",
    "phone": r"\+?\d[\d /()-]{6,}\d",
}
_FORMATS: Mapping[Kind, str] = {
    **COPIED_FORMATS, "time": r"\d\d:\d\d", "date": r"\d{4}-\d\d-\d\d", "number": r"-?\d+(?:[.,]\d+)?",
}  # fmt: skip
"""How a typed value is written in an answer; those before `time` as the message writes it."""


Pairs = Sequence[tuple[str, str | None]]
"""(message, value) of a part in each record of the examples; None where it is missing."""


Notes = list[str]
"""What is left out while a proposal is looked through, a sentence each; the same one may come twice."""


def attribute_of(
    part: Part, pairs: Pairs, labels: Mapping[str, Value], notes: Notes, *, lacking: int = 0, number: bool = False
) -> Attribute:
    """A part as an attribute. `labels` are the values of whichever part has only such ones.

    `lacking`: examples that answer something else where it is missing. `number`: its values are numbers of JSON.
    """
    absent = _absent(part, pairs)
    given = [(message, value) for message, value in pairs if value is not None and value not in absent]
    several = set_of(part, [value for _, value in given], labels)
    if several:
        absent += [several.empty] if several.empty else []
        given = [(m, item) for m, text in given if text not in absent for item in several.items(text)]
    kind, values = _kind(part, given, labels, notes, number=number)
    absent_text = next((value for _, value in pairs if value in absent), absent[0] if absent else None)
    if absent_text in values:  # "none" among the values of a label is a value like the others
        absent, absent_text = [], None
        given = [(message, value) for message, value in pairs if value is not None]
    missing = sum(value is None or value in absent for _, value in pairs) + (lacking if kind in COPIED_FORMATS else 0)
    return Attribute(
        name=part.name.rpartition(".")[2],
        kind=kind,
        means=part.means,
        values=values,
        absent_share=absent_share(missing, len(pairs) + lacking) if missing or absent else 0,
        absent_as=absent_text,
        lengths=tuple(sorted({len(value) for _, value in given})) if kind == "digits" else (),
        words_max=_words_max(part, [value for _, value in given], notes) if kind in ("copied", "text") else 0,
        many=several.many if several else None,
        joined=several.joined if several else ", ",
    )


def set_of(part: Part, texts: Sequence[str], labels: Mapping[str, Value]) -> LabelSet | None:
    """The set that a part shows, where most of what stands in it are values that were stated; as many at once as were
    stated, and as the examples show."""
    values = part.values or labels
    several = label_set(values, texts) if values and not set(texts) <= set(values) else None
    if several is None:
        return None
    items = {item for text in texts if text != several.empty for item in several.items(text)}
    if len(items - set(values)) > len(items) / 2 or len(items | set(values)) > VALUES_MAX:
        return None
    least, most = part.many or several.many
    return replace(several, many=(min(least, several.many[0]), max(most, several.many[1])))


def _absent(part: Part, pairs: Pairs) -> list[str | None]:
    """What the answer shows where the message does not say it: null, what was stated, or a mark that is no word."""
    absent: list[str | None] = [part.missing] if part.missing else []
    for message, value in pairs:
        mark = value is not None and not any(c.isalnum() for c in value) and value not in part.values
        if value is None or (mark and not holds(message, value)):
            absent.append(value)
    return list(dict.fromkeys(absent))


def _kind(
    part: Part, given: Sequence[tuple[str, str]], labels: Mapping[str, Value], notes: Notes, *, number: bool
) -> tuple[Kind, dict[str, Value]]:
    """What kind of part it is: as proposed where its values bear it out, else by their format."""
    seen = list(dict.fromkeys(value for _, value in given))
    if seen and set(seen) <= {"true", "false"}:
        return "label", {"true": Value(), "false": Value()}
    values = part.values or (labels if seen and set(seen) <= set(labels) else {})
    if values and (label := _label(part.name, values, seen, notes)):
        days = {name: Value() for name in sorted(label, key=_weekday)}
        return ("weekday", days) if _are_weekdays([*label]) else ("label", label)
    if seen and part.kind not in ("text", "copied") and _are_weekdays(seen):
        short = all(len(value) == 3 for value in seen)  # Mon, Tue: the answers shorten them, so rows do
        return "weekday", {day[:3] if short else day: Value() for day in WEEKDAYS}
    verbatim = copied(given)
    typed = format_of(part, seen, verbatim=verbatim)
    if typed in (None, "digits") and (numeric := _numeric(part, given, typed, number=number)):
        return numeric, {}
    if number and not verbatim:
        notes.append(
            f"{part.name} is a number that the messages of the examples do not say in figures, so code cannot draw it: "
            "state its values as a list, or a formula under attributes"
        )
    if part.kind == "text" and not (typed and verbatim):
        return "text", {}
    if part.kind == "copied" and not verbatim:
        notes.append(f"{part.name} is not copied: its values do not stand in the messages of the examples")
    elif part.kind in TYPED and part.kind != typed:
        notes.append(f"{part.name} is no {part.kind}: the examples show {(seen or ['none'])[0]!r}")
    return typed or ("copied" if verbatim else "text"), {}


def copied(pairs: Pairs) -> bool:
    """Whether the values of a part stand in the messages letter for letter, but for one that was bent."""
    given = [(message, value) for message, value in pairs if value is not None]
    return bool(given) and sum(holds(message, value) for message, value in given) >= _COPIED_SHARE * len(given)


def odd_value(pairs: Pairs) -> str:
    """The one value that does not stand in its message where most others do; empty where it is not like that."""
    odd = {value for message, value in pairs if value and not holds(message, value) and any(map(str.isalnum, value))}
    rest = [(message, value) for message, value in pairs if value not in odd]
    return odd.pop() if len(odd) == 1 and copied(rest) and 2 * len(rest) > len(pairs) else ""


def _numeric(part: Part, given: Sequence[tuple[str, str]], typed: Kind | None, *, number: bool) -> Kind | None:
    """The kind of values that messages say as numbers, in whichever marks: money where these have two places or none.

    `number`: they are numbers of JSON. Of texts a number alone may be a code.
    """
    decimals = [places for message, value in given if (places := places_said(message, value)) is not None]
    wanted = number or (typed is None and part.kind not in ("text", "copied"))
    if not given or not wanted or len(decimals) < _COPIED_SHARE * len(given):
        return None
    if part.kind in ("number", "amount"):
        return part.kind
    whole = all(value.isdigit() for _, value in given)
    money = set(decimals) <= {0, 2} and not whole
    return "amount" if money else "number" if number or whole else None


def format_of(part: Part, seen: Sequence[str], *, verbatim: bool) -> Kind | None:
    """The typed kind whose format every value has; that of the proposal first."""
    order: list[Kind] = [part.kind] if part.kind is not None and part.kind in _FORMATS else []
    order += [kind for kind in _FORMATS if kind != "number"]
    fits = (k for k in order if seen and all(re.fullmatch(_FORMATS[k], value) for value in seen))
    return next((kind for kind in fits if verbatim or kind not in COPIED_FORMATS), None)


def _label(name: str, values: Mapping[str, Value], seen: Sequence[str], notes: Notes) -> dict[str, Value]:
    """The values of a label, spelled as the examples do, those of the examples among them; empty where it is none."""
    spelled = {value.casefold(): value for value in seen}
    label = {spelled.get(value.casefold(), value): of for value, of in values.items()}
    beside = [value for value in seen if value not in label]
    if len(beside) > len(seen) / 2 or not 2 <= len(label) + len(beside) <= VALUES_MAX:
        listed, seen_text = ", ".join(list(values)[:4]), ", ".join(seen[:4]) or "none"
        notes.append(f"{name} is no choice of {listed}: the examples show {seen_text}")
        return {}
    if beside:
        notes.append(f"{', '.join(beside)} was added to the values of {name}, as the examples show it")
    return label | {value: Value() for value in beside}


def _are_weekdays(values: Sequence[str]) -> bool:
    return len(values) >= 2 and all(_weekday(value) < 7 for value in values)  # 7: none of them; one alone may be a name


def _weekday(value: str) -> int:
    # as people shorten them: Tue, Tues; 7 is none of them and sorts last
    known = [n for n, day in enumerate(WEEKDAYS) if value.lower() in (day.lower(), day[:3].lower(), day[:4].lower())]
    return known[0] if known else 7


def _words_max(part: Part, values: Sequence[str], notes: Notes) -> int:
    longest = max((len(value.split()) for value in values), default=0)
    if part.words_max and part.words_max < longest:
        notes.append(f"{part.name} has at most {part.words_max} words: not taken, an example has {longest}")
        return 0
    return part.words_max


# Attributes beside one another

Records = Sequence[Mapping[str, str | None]]
"""What the answers of the examples say, part by part; of a list each line."""


def together(attributes: Sequence[Attribute], records: Records, notes: Notes) -> list[Attribute]:
    """Attributes beside one another: no two labels share a value, and one may be missing where a label has a value."""
    apart = [_apart(one, attributes, records, notes) for one in attributes]
    return [_absent_by_label(attribute, apart, records) for attribute in apart]


def _apart(one: Attribute, attributes: Sequence[Attribute], records: Records, notes: Notes) -> Attribute:
    """A label without the values that another one holds and that no example shows in it."""
    seen = {item for record in records for item in _items(one, record.get(one.name))}
    others = {v for other in attributes if other.kind == "label" and other.name != one.name for v in other.values}
    wrong = [value for value in one.values if one.kind == "label" and value in others - seen]
    if not wrong or set(one.values) == {"true", "false"}:
        return one
    left = {value: of for value, of in one.values.items() if value not in wrong}
    notes.append(f"{', '.join(wrong)}: a value of another part, so it was taken out of {one.name}")
    alone = Attribute(name=one.name, kind="text", means=one.means)
    return one.model_copy(update={"values": left}) if len(left) >= 2 else alone


def _items(attribute: Attribute, text: str | None) -> list[str | None]:
    """The values that a text shows of an attribute."""
    return [text] if text is None or attribute.many is None else [*map(str.strip, text.split(attribute.joined.strip()))]


def _absent_by_label(attribute: Attribute, attributes: Sequence[Attribute], records: Records) -> Attribute:
    """Where a part is missing in every example of a label's value, more than once, and not with others, that is why."""
    for label in attributes:
        if label.kind != "label" or label.name == attribute.name or attribute.kind not in ("copied", "text"):
            continue
        by_value: dict[str | None, list[bool]] = {}
        for record in records:
            lacks = record.get(attribute.name) == attribute.absent_as
            by_value.setdefault(record.get(label.name), []).append(lacks)
        mixed = any(any(lacks) and not all(lacks) for lacks in by_value.values())
        never = tuple(v for v, of in by_value.items() if v is not None and all(of) and (len(of) > 1 or not mixed))
        others = [lack for value, lacks in by_value.items() if value not in never for lack in lacks]
        if others and not all(others) and any(len(by_value[value]) > 1 for value in never):
            share = absent_share(sum(others), len(others)) if any(others) else 0
            return attribute.model_copy(update={"absent_share": share, "absent_where": {label.name: never}})
    return attribute


# Sets of labels, and numbers, in texts


@dataclass(frozen=True, slots=True)
class LabelSet:
    """How a place shows several of its values at once."""

    joined: str
    """What stands between two of them."""
    many: tuple[int, int]
    """The fewest and the most in one answer."""
    empty: str = ""
    """The only text that is no value and stands alone; empty: there is none, or several."""

    def items(self, text: str) -> list[str]:
        """The values of a place."""
        return [item.strip() for item in text.split(self.joined.strip() or self.joined)]


def label_set(values: Collection[str], texts: Sequence[str]) -> LabelSet | None:
    """The set that texts are of, where two of the values stand beside one another; None where they are single ones."""
    between = Counter(mark for text in texts for mark in _marks(values, text))
    if not between:
        return None
    joined = between.most_common(1)[0][0]
    split = [LabelSet(joined, (1, 1)).items(text) for text in texts]
    odd = {item for items in split for item in items if item not in values}
    beside = {item for items in split if len(items) > 1 for item in items}
    alone = sorted(odd - beside)
    empty = alone[0] if len(alone) == 1 else ""
    counts = [len(items) for items in split if items != [empty]]
    return LabelSet(joined, (min(counts), max(counts)), empty)


def _marks(values: Collection[str], text: str) -> list[str]:
    """What stands between neighbouring values, where that is no word."""
    one = "|".join(re.escape(value) for value in sorted(filter(None, values), key=len, reverse=True))
    spans = [match.span() for match in re.finditer(rf"(?<!\w)(?:{one})(?!\w)", text)] if one else []
    marks = [text[a[1] : b[0]] for a, b in pairwise(spans)]
    return [mark for mark in marks if mark and not any(c.isalnum() for c in mark)]


_NUMERAL = re.compile(r"\d(?:[\d.,' \u00a0\u202f’]*\d)?")
"""Digits with the marks that people group them by or set before decimals."""
_SPACE, _GROUPS = re.compile("[ \u00a0\u202f]"), re.compile("[ '\u00a0\u202f’]")


def places_said(message: str, value: str) -> int | None:
    """Places after the decimal mark with which a message says a number; None where it does not say it in figures.

    In whichever marks: 1.240,50 and 1,240.50 are both 1240.50.
    """
    number = number_of(value)
    places = (_readings(match[0]).get(number) for match in _NUMERAL.finditer(message)) if number is not None else ()
    return next((one for one in places if one is not None), None)


def _readings(numeral: str) -> dict[Decimal, int]:
    """What a numeral may mean, with its places: its last mark stands before decimals, or groups digits too."""
    readings: dict[Decimal, int] = {}
    for text in (numeral, *_SPACE.split(numeral)):  # "2 12,50" is two numbers, or one
        *before, last = re.split("[.,]", _GROUPS.sub("", text))
        plain = "".join(before)
        readings |= {Decimal(plain + last): 0} if plain + last else {}
        # with its last mark before decimals
        readings |= {Decimal(f"{plain}.{last}"): len(last)} if plain and last else {}
    return readings


# Whether the spec holds on them


def example_problems(spec: Spec) -> Iterator[str]:
    """What is wrong with the examples, one sentence each; nothing of answers that a model writes."""
    form = form_of(spec)
    for number, example in enumerate(spec.examples if form.composed else (), 1):
        records = form.parse(example.answer)
        if records is None:
            yield f"the answer of example {number} is not of the form {form}: {_why(spec, example)}"
            continue
        if problem := form.problem(example.answer):
            yield f"example {number}: {problem.partition(': ')[2]}"
        for record in records:
            yield from (f"example {number}: {problem}" for problem in _of_record(spec, example, record))


def _why(spec: Spec, example: Example) -> str:
    if example.answer.lstrip().startswith("["):
        return "a list at the top is no object; put it under a key, or leave the form to be written"
    names = ", ".join(a.name for a in spec.attributes if a.shown)
    return f"it shows {names} as {spec.answer.template!r}" if spec.answer.template else f"it holds {names}"


def _of_record(spec: Spec, example: Example, record: Values) -> Iterator[str]:
    """What is wrong with one record of an example: a value that its label lacks, a list of another length, a sum."""
    for path, attribute in spec.leaves(record):
        value = record.get(path)
        if attribute.kind == "label" and value is not None and value not in attribute.values:
            yield f"{path} is {value!r}, which is none of {', '.join(attribute.values)}"
    for attribute in spec.attributes:
        if attribute.many is not None and attribute.name not in record:
            count, (least, most) = items_of(attribute.name, record), attribute.many
            if not least <= count <= most:
                yield f"{attribute.name} has {count} values, its spec allows {least} to {most}"
    yield from _miscalculated(spec, example, record)


def _miscalculated(spec: Spec, example: Example, record: Values) -> Iterator[str]:
    """Where an answer shows another value than its formula gives for what the message says."""
    known = {**record, **{a.name: _stated_value(a, example.prompt) for a in spec.attributes if not a.shown and a.plain}}
    try:
        computed = with_computed(spec, known)
    except Unanswerable:  # what its formula reads is not said: there is nothing to hold it to
        return
    for path, value in computed.items():
        if spec.attribute(path).kind != "computed" or value is None or (stated := record.get(path)) is None:
            continue
        if number_of(stated) != number_of(value) or (number_of(value) is None and stated != value):
            yield f"{path} is {stated}, its formula gives {value}"


def _stated_value(attribute: Attribute, message: str) -> str | None:
    """The only number or date that a message says of an attribute; None where that is not sure."""
    if attribute.kind not in ("digits", "date", *NUMERIC) or attribute.kind == "computed":
        return None
    numbers = (re.search(r"\d[\d-]*(?:\.\d+)?", text) for text in matches_in(attribute, message))
    texts = {part[0] for part in numbers if part}
    texts &= set(attribute.values) or texts
    return texts.pop() if len(texts) == 1 else None
