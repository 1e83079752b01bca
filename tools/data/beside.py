"""Attributes beside one another: no two labels share a value, and one may be missing where a label has a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.tools.data.answer_shape import absent_share
from tunesmith.tools.data.examples import Notes
from tunesmith.tools.data.spec import Attribute

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
    notes.add(f"{', '.join(wrong)}: a value of another part, so it was taken out of {one.name}")
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
