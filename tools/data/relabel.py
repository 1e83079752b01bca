"""A message that says another value than the drawn one, kept under what it says, where that can be verified.

Code tells it of a typed value that is the only one of its kind in the message; the reader, where it is sure, of a
label, of something copied that stands in the message letter for letter, and of what is not said at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.computed import with_computed
from tunesmith.tools.data.draw import Draw
from tunesmith.tools.data.json_values import Values
from tunesmith.tools.data.reader import WHOLE, Reading
from tunesmith.tools.data.reading import NOTHING
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import conflict, found, holds, value_of

SURE = 3.0
"""Log-odds, in nats, from which the reader's word on another value counts: twenty to one."""
_SURELY_FOUND = ("digits", "email", "url")
"""Kinds that are said in no other way than code looks for."""


def as_said(spec: Spec, drawn: Draw, message: str) -> Draw:
    """The draw with the typed values that the message says instead of the drawn ones, where it says one of a kind."""
    values, surfaces = dict(drawn.values), dict(drawn.surfaces[0])
    leaves = [(path, attribute) for path, attribute in spec.leaves(values) if attribute.typed]
    kinds = Counter(attribute.kind for _, attribute in leaves)
    for path, attribute in leaves:
        if kinds[attribute.kind] > 1 or not conflict(attribute, surfaces.get(path, ""), message):
            continue
        there = found(attribute, message)
        if not there and _may_lack(attribute) and attribute.kind in _SURELY_FOUND:
            values[path] = None
            surfaces.pop(path, None)
        elif len(there) == 1 and (value := value_of(attribute, there[0])) is not None:
            values[path], surfaces[path] = value, there[0]
    return _changed(spec, drawn, values, surfaces)


def as_read(spec: Spec, drawn: Draw, message: str, reading: Reading) -> Draw | None:
    """The draw with what the reader read instead; None where that cannot be verified, or does not go together."""
    values, surfaces = dict(drawn.values), dict(drawn.surfaces[0])
    for one in reading.differing:
        attribute = _attribute(spec, one.attribute)
        sure = reading.margins.get(one.attribute, reading.margins.get(WHOLE, 0.0)) >= SURE
        if attribute is None or not sure or one.attribute in reading.untried:
            return None
        if one.read in attribute.values and attribute.kind == "label":
            values[one.attribute] = one.read
        elif attribute.kind == "copied" and holds(message, one.read):
            values[one.attribute] = surfaces[one.attribute] = one.read
        elif one.read == NOTHING and _may_lack(attribute):
            values[one.attribute] = None
            surfaces.pop(one.attribute, None)
        else:
            return None
    return _changed(spec, drawn, values, surfaces) if _go_together(spec, values) else None


def _attribute(spec: Spec, path: str) -> Attribute | None:
    try:
        return spec.attribute(path)
    except KeyError:
        return None


def _may_lack(attribute: Attribute) -> bool:
    return attribute.absent_share > 0


def _go_together(spec: Spec, values: Mapping[str, str | None]) -> bool:
    """Whether each attribute is absent where a label says so, and only there or where it may be."""
    for path, attribute in spec.leaves(values):
        excluded = any(values.get(label) in absent for label, absent in attribute.absent_where.items())
        lacking = path in values and values[path] is None
        if attribute.shown and lacking != excluded and not (lacking and _may_lack(attribute)):
            return False
    return bool(form_of(spec).of_records) or any(value is not None for value in values.values())


def _changed(spec: Spec, drawn: Draw, values: Values, surfaces: dict[str, str]) -> Draw:
    made = with_computed(spec, values)
    return replace(drawn, records=(made, *drawn.records[1:]), surfaces=(surfaces, *drawn.surfaces[1:]))
