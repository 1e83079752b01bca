"""What the user's examples say of each attribute: the values behind their answers, and how their messages say them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.json_values import Values
from tunesmith.tools.data.ranges import number_in
from tunesmith.tools.data.spec import Spec, without_places
from tunesmith.tools.data.typed_values import found, holds

_PIECE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_STOP_WORDS = (
    "a an the and or but is are was were be been to of in on at by for from with as it its this that i you we they he "
    "she my your our their not no do does did has have had will would can could should so if then than there here"
)
STOP = frozenset(_STOP_WORDS.split())
"""Words that mean little by themselves."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An example as a writer is shown it: its message, the values behind its answer, and their words in the message."""

    message: str
    values: Values
    surfaces: dict[str, str] = field(default_factory=dict)


def shown_examples(spec: Spec) -> list[Shown]:
    """The examples with their values, whole messages; of an answer that is a list, its first record alone."""
    made = []
    for example in spec.examples:
        records = form_of(spec).parse(example.answer)
        values: Values = records[0] if records else dict.fromkeys(spec.answer.needs)
        surfaces = surfaces_in(spec, values, example.prompt)
        made.append(Shown(example.prompt, values, surfaces))
    return made


def surfaces_in(spec: Spec, values: Values, message: str) -> dict[str, str]:
    """How the message says each value that stands in it letter for letter or that code can find."""
    surfaces = {}
    for path, attribute in spec.leaves(values):
        value = values.get(path)
        if value is None or attribute.kind == "computed":
            continue
        if number := number_in(attribute, value, message):
            surfaces[path] = number
        elif holds(message, value):
            if attribute.typed or attribute.kind == "copied":
                surfaces[path] = value
        elif attribute.typed and (there := found(attribute, message)):
            surfaces[path] = there[0]
    return surfaces


def shown_pieces(spec: Spec) -> tuple[list[Shown], list[str]]:
    """Of the examples of an answer that is a list: the sentence of each record, and the sentences without one."""
    pieces: list[Shown] = []
    fillers: list[str] = []
    for example in spec.examples:
        records = form_of(spec).parse(example.answer) or []
        sentences = _sentences(example, len(records))
        left = list(sentences)
        for record in records:
            best = max(left, key=lambda sentence: overlap(record, sentence), default="")
            if best and overlap(record, best):
                pieces.append(Shown(best, record, surfaces_in(spec, record, best)))
                left.remove(best)
        fillers += [sentence for sentence in left if len(sentence.split()) > 1]
    return pieces, fillers


def _sentences(example: Example, records: int) -> list[str]:
    sentences = [s.strip() for s in _PIECE_END.split(example.prompt) if s.strip()]
    whole: list[str] = []
    for sentence in sentences:  # "Mr. Roth" ends no sentence
        if whole and re.search(r"\b[A-Z][a-z]{0,2}\.$", whole[-1]):
            whole[-1] += " " + sentence
        else:
            whole.append(sentence)
    if len(whole) < records:
        whole = [part.strip() for sentence in whole for part in re.split(r"[;,]\s+", sentence)]
    return whole


def overlap(values: Mapping[str, str | None], text: str) -> float:
    """How much of the values' words stands in a text, from 0 to 1."""
    words = stems(" ".join(value for value in values.values() if value))
    return len(words & stems(text)) / len(words) if words else 0.0


def stems(text: str) -> set[str]:
    """The beginnings of the words that mean something."""
    words = [w for w in re.findall(r"[^\W_]{2,}", text.lower()) if w not in STOP]
    return {re.sub(r"(?:ations?|ings?|ies|es|ed|s|y|e)$", "", w)[:6] if len(w) > 3 else w for w in words}


def values_at(record: Values, name: str) -> list[str]:
    """The values of an attribute: one, those of a list, or none where it is absent."""
    return [value for path, value in record.items() if value is not None and without_places(path) == name]


def values_of(spec: Spec, name: str, where: Values) -> list[str]:
    """What the examples say of an attribute, first where their labels are those of `where`; else all of them."""
    records = [record for example in spec.examples for record in (form_of(spec).parse(example.answer) or [])]
    all_values = [value for record in records for value in values_at(record, name)]
    fitting = [
        value
        for record in records
        if all(record.get(n) == v for n, v in where.items())
        for value in values_at(record, name)
    ]
    return list(dict.fromkeys(fitting or ([] if where else all_values)))
