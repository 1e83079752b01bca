"""Where an answer says its values: what of it has to be decided, beside the frame that all answers of its kind share.

Told from the finished answer by the form that code composes and parses answers in, so that an imported row and one that
a person corrected have it too. Of a written answer nothing is known, unless it is JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.answer_shape import pattern_of
from tunesmith.tools.data.faults import ORDINARY
from tunesmith.tools.data.held_out import answer_of_row
from tunesmith.tools.data.row_file import VALUES_AT
from tunesmith.tools.data.spec import Answer, Spec

Span = tuple[int, int]
_JSON_PART = re.compile(r"""("(?:[^"\\]|\\.)*")(\s*:)?|\[\s*\]|\{\s*\}|[^\s\[\]{}:,"]+""")
"""A key with its colon, or a value: a string, an empty list or object, a number or a literal."""


def with_values_at(spec: Spec, row: TrainingRow) -> TrainingRow:
    """The row with the places of its answer's values; without any where they are not known or it is ordinary."""
    spans = () if row.origin in ORDINARY else values_at(spec.answer, answer_of_row(row))
    others = {name: value for name, value in row.attributes.items() if name != VALUES_AT}
    places = {VALUES_AT: [list(span) for span in spans]} if spans else {}
    return replace(row, attributes={**others, **places})


def values_at(answer: Answer, text: str) -> tuple[Span, ...]:
    """Ranges of characters. One of a template ends behind the character after its value, which says where that ends:
    at the end of the answer, behind its end. An answer that is said instead of a value is one value."""
    if answer.form in ("json", "written"):
        return tuple(_in_json(text))
    if answer.otherwise and text == answer.otherwise:
        return ((0, len(text) + 1),)
    pattern, found, start = pattern_of(answer.template), [], 0
    for line in text.split("\n") if answer.form == "lines" else [text]:
        match = pattern.fullmatch(line)
        if match is None:
            return ()
        found += [(start + match.start(name), start + match.end(name) + 1) for name in match.groupdict()]
        start += len(line) + 1
    return tuple(found)


def _in_json(text: str) -> Iterator[Span]:
    try:
        made = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(made, dict | list):
        return
    yield from (part.span() for part in _JSON_PART.finditer(text) if not part[2])
