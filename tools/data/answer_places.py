"""The places of a template: what stands in one, as a text, as a pattern, and as what a server may write there."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.tools.data.answer_rules import js_escape
from tunesmith.tools.data.json_values import Values, items_of, may_lack
from tunesmith.tools.data.spec import Attribute
from tunesmith.tools.data.value_patterns import escaped, several_pattern, value_pattern

_LINE = r"[^\n]+?"


def several(attribute: Attribute, values: Mapping[str, str | None]) -> list[str]:
    """The texts that stand in one place: one, or those of a list."""
    if attribute.many is None:
        return [value] if (value := values.get(attribute.name)) is not None else []
    paths = [f"{attribute.name}[{n}]" for n in range(items_of(attribute.name, values))]
    return [value for path in paths if (value := values[path]) is not None]


def place_expected(attribute: Attribute, record: Values) -> str:
    """What stands in a place of a right answer, as a pattern that JavaScript and Python read alike."""
    if attribute.many is None:
        return value_pattern(attribute, record.get(attribute.name))
    return several_pattern(attribute, several(attribute, record))


def place_rule(attribute: Attribute) -> str:
    """What may stand in a place of any answer, as JavaScript and Python read it alike."""
    absent = [escaped(attribute.absent_as)] if attribute.absent_as and may_lack(attribute) else []
    one = "|".join(map(escaped, attribute.values)) if attribute.kind in ("label", "weekday") else ""
    one = one or {"time": "[0-2][0-9]:[0-5][0-9]", "date": "[0-9]{4}-[0-9]{2}-[0-9]{2}"}.get(attribute.kind, "")
    if attribute.kind == "digits" and attribute.lengths:
        one = "|".join(f"[0-9]{{{n}}}" for n in attribute.lengths)
    if attribute.many and one:
        one = rf"(?:{one})(?:\s*{escaped(attribute.joined.strip())}\s*(?:{one}))*"
    return f"(?:{'|'.join([one or _LINE, *absent])})"


def place_grammar(attribute: Attribute, behind: str) -> str:
    """What a server lets stand in a place; a free one ends where the fixed text `behind` it begins."""
    absent = [js_escape(attribute.absent_as)] if attribute.absent_as else []
    if attribute.kind in ("label", "weekday"):
        one = "|".join([*map(js_escape, attribute.values), *absent])
        return f"({one})(({js_escape(attribute.joined)})({one}))*" if attribute.many else f"({one})"
    if attribute.kind == "digits" and attribute.lengths:
        return f"({'|'.join([*(f'[0-9]{{{n}}}' for n in attribute.lengths), *absent])})"
    end = js_escape(behind.strip()[:1])
    return "[0-2][0-9]:[0-5][0-9]" if attribute.kind == "time" and not absent else rf"[^\n(){end}]{{1,80}}"
