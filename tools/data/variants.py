"""Further rows out of a kept one, for a later epoch: its message with other drawn values in the places of its own.

"dentist on tuesday at 4 pm" is "dentist on friday at 11:30" the next time it is seen: right by construction as its
first form is, and no model is asked. Only values that code draws and finds: typed ones, and numbers that tell a label.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.computed import drawn_number, numbers
from tunesmith.tools.data.draw import Draw, answer_of
from tunesmith.tools.data.held_out import text_of
from tunesmith.tools.data.message_checks import drawn_problem, verbatim
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import GLUED, draw_value, holds, said

EACH = 8
"""Of a row: with the row itself three for each of three epochs, which is what a small model is given."""
_ROWS_MOST = 1_000
"""Of more rows each is seen once, whatever its forms are."""
_TRIES = 6


def variants(spec: Spec, rows: Sequence[TrainingRow], each: int = EACH) -> list[TrainingRow]:
    """`each` variants of every row that has such values and was made here; fewer where they do not come out right."""
    made: list[TrainingRow] = []
    if not form_of(spec).one_record or len(rows) > _ROWS_MOST:
        return made
    for row in rows:
        drawn = row.attributes.draw
        if drawn is None or len(row.prompt) > 2 or len(row.completion) > 1:
            continue
        there = {text_of(spec, row)}
        for number in range(1, each + 1):
            if (one := _variant(spec, row, drawn, number)) and text_of(spec, one) not in there:
                there.add(text_of(spec, one))
                made.append(one)
    return made


def _variant(spec: Spec, row: TrainingRow, drawn: Draw, number: int) -> TrainingRow | None:
    message, old = text_of(spec, row), drawn.surfaces[0]
    swapped = [a for a in spec.attributes if a.name in old and (a.typed or numbers(a)) and holds(message, old[a.name])]
    spans = {a.name: _spans(message, old[a.name]) for a in swapped}
    if not swapped or any(len(found) != 1 for found in spans.values()):
        return None
    rng = random.Random(f"{row.row_id}/{number}")
    for _ in range(_TRIES):
        values, surfaces, text = dict(drawn.values), dict(old), message
        for attribute in sorted(swapped, key=lambda a: spans[a.name][0], reverse=True):
            name = attribute.name
            values[name], surfaces[name] = _another(attribute, str(values[name]), rng)
            start, end = spans[name][0]
            text = text[:start] + _cased(surfaces[name], message[start:end], at_start=start == 0) + text[end:]
        if text == message or drawn_problem(spec, values, surfaces, text):
            continue
        changed = replace(drawn, records=(verbatim(spec, values, text),), surfaces=(surfaces,))
        attributes = replace(row.attributes, draw=changed, text=text, variant_of=row.row_id)
        prompt = [*row.prompt[: len(row.prompt) - len(spec.turns(text))], *spec.turns(text)]
        answer = [form_of(spec).turn(answer_of(spec, changed))]
        return replace(row, row_id=f"{row.row_id}.{number}", prompt=prompt, completion=answer, attributes=attributes)
    return None


def _another(attribute: Attribute, value: str, rng: random.Random) -> tuple[str, str]:
    """A value and how the message says it; a label keeps its value, for the rest of the message may speak of it."""
    if attribute.kind == "label":
        return value, drawn_number(attribute, value, rng)
    drawn = draw_value(attribute, rng)
    return drawn, said(attribute, drawn, rng)


def _spans(message: str, part: str) -> list[tuple[int, int]]:
    """Where a part stands in a message and not inside a longer word."""
    pattern = rf"(?<!{GLUED}){re.escape(part)}(?!{GLUED})"
    return [match.span() for match in re.finditer(pattern, message, re.IGNORECASE)]


def _cased(new: str, old: str, *, at_start: bool) -> str:
    """A capital at the start of a message stays one."""
    return new[:1].upper() + new[1:] if at_start and old[:1].isupper() else new
