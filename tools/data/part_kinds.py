"""Of which kind a part of the answers is, by its values in the examples: as proposed where they bear it out.

Formats are those of values (12:30, 2026-03-14, a@b.c), whatever the language; what a value means is nobody's here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.tools.data.proposal import Part
from tunesmith.tools.data.spec import TYPED, Attribute, Kind, Value
from tunesmith.tools.data.typed_values import WEEKDAYS, holds

_COPIED_SHARE = 0.75
"""Of the examples, where a value stands in the message letter for letter; a user bends one now and then."""
ABSENT_SHARES = (0.15, 0.35)
VALUES_MAX = 20
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


@dataclass(slots=True)
class Notes:
    """What is left out while a proposal is looked through."""

    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        """Take a sentence, once."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)


def attribute_of(
    part: Part, pairs: Pairs, labels: Mapping[str, Value], notes: Notes, *, lacking: int = 0, number: bool = False
) -> Attribute:
    """A part as an attribute. `labels` are the values of whichever part has only such ones.

    `lacking`: examples that answer something else where it is missing. `number`: its values are numbers of JSON.
    """
    absent = _absent(part, pairs)
    given = [(message, value) for message, value in pairs if value is not None and value not in absent]
    kind, values = _kind(part, given, labels, notes)
    if number and kind in ("digits", "copied"):
        kind = "number"
    shown_absent = next((value for _, value in pairs if value in absent), absent[0] if absent else None)
    if shown_absent in values:  # "none" among the values of a label is a value like the others
        absent, shown_absent = [], None
        given = [(message, value) for message, value in pairs if value is not None]
    missing = len(pairs) - len(given) + (lacking if kind in COPIED_FORMATS else 0)
    low, high = ABSENT_SHARES
    share = missing / max(1, len(pairs) + lacking)
    return Attribute(
        name=part.name.rpartition(".")[2],
        kind=kind,
        means=part.means,
        values=values,
        absent_share=round(min(high, max(low, share)), 2) if missing or absent else 0,
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
    part: Part, given: Sequence[tuple[str, str]], labels: Mapping[str, Value], notes: Notes
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
    return next((kind for kind in fits if verbatim or kind not in COPIED_FORMATS), None)


def _label(name: str, values: Mapping[str, Value], seen: Sequence[str], notes: Notes) -> dict[str, Value]:
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


def _words_max(part: Part, values: Sequence[str], notes: Notes) -> int:
    longest = max((len(value.split()) for value in values), default=0)
    if part.words_max and part.words_max < longest:
        notes.add(f"{part.name} has at most {part.words_max} words: not taken, an example has {longest}")
        return 0
    return part.words_max
