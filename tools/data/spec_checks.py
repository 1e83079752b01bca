"""What a spec must be whole in, beyond the types of its fields: attributes, formulas, the answer that they make."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, cast

from tunesmith.tools.data.arithmetic import NUMERIC, check_formula, names_in

if TYPE_CHECKING:
    from tunesmith.tools.data.spec import Attribute, Spec

_ITEMS_MAX, _DEPTH_MAX = 20, 4
"""Values of a list, and objects within one another."""


def check_attribute(attribute: Attribute, path: str, spec: Spec, depth: int = 1) -> None:
    """Refuse, by ValueError, an attribute that has no values to draw, or more than can be shown."""
    if attribute.kind == "label" and len(attribute.values) < 2:
        raise ValueError(f"the label {path} has {len(attribute.values)} values; two and more can be told apart")
    known = {label.name: label.values for label in spec.labels}
    for name, values in attribute.absent_where.items():
        if odd := [value for value in values if value not in known.get(name, {})]:
            raise ValueError(f"{path} is absent where {name} is {odd[0]}, which {name} never is")
    if (attribute.kind == "object") != bool(attribute.attributes):
        raise ValueError(f"{path}: an object has attributes, and nothing else has any")
    if attribute.many and not 0 <= attribute.many[0] <= attribute.many[1] <= _ITEMS_MAX:
        raise ValueError(f"{path}: many is the fewest and the most values, of 0 to {_ITEMS_MAX}; got {attribute.many}")
    if attribute.many and attribute.kind == "label" and attribute.many[1] > len(attribute.values):
        raise ValueError(f"{path} is a set of up to {attribute.many[1]} of {len(attribute.values)} values")
    if (attribute.kind == "computed") != (attribute.formula is not None):
        raise ValueError(f"{path}: what is computed has a formula, and nothing else has one")
    if depth > _DEPTH_MAX:
        raise ValueError(f"{path}: objects are nested more than {_DEPTH_MAX} deep")
    check_names(attribute.attributes)
    for inner in attribute.attributes:
        check_attribute(inner, f"{path}.{inner.name}", spec, depth + 1)


def _check_formula(attribute: Attribute, beside: Sequence[Attribute], path: str, spec: Spec) -> set[str]:
    """The attributes that a formula reads, each a number or a date."""
    check_formula(attribute.formula)
    read = set()
    for name in set(names_in(attribute.formula)):
        parent = path.rpartition(".")[0] if name.split(".")[0] in [a.name for a in beside] else ""
        target = f"{parent}.{name}" if parent else name
        try:
            other = spec.attribute(target)
        except KeyError:
            raise ValueError(f"{path} is computed from {name}, which is no attribute") from None
        if other.kind not in ("digits", "date", *NUMERIC):
            raise ValueError(
                f"{path} is computed from {name}, which is of the kind {other.kind}, no number and no date"
            )
        read.add(target)
    return read


def check_formulas(spec: Spec) -> None:
    """Refuse, by ValueError, a formula that reads what there is not, or in a circle."""
    needs: dict[str, set[str]] = {}

    def collect(beside: Sequence[Attribute], at: str) -> None:
        for one in beside:
            if one.formula is not None:
                needs[f"{at}{one.name}"] = _check_formula(one, beside, f"{at}{one.name}", spec)
            collect(one.attributes, f"{at}{one.name}.")

    collect(spec.attributes, "")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise ValueError(f"{error.args[1][0]} is computed from itself, by way of {error.args[1][1]}") from None


def check_names(attributes: Sequence[Attribute]) -> None:
    """Refuse, by ValueError, two of one name."""
    names = [a.name for a in attributes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two attributes are called {twice}")


def check_answer(spec: Spec) -> None:
    """Refuse, by ValueError, an answer that the attributes cannot make."""
    answer, names = spec.answer, [a.name for a in spec.attributes]
    for name in (*answer.placeholders, *answer.needs):
        if name not in names:
            raise ValueError(f"answer names {name}, but the attributes are {', '.join(names) or 'none'}")
    if answer.form in ("text", "lines") and not answer.placeholders:
        raise ValueError(f"answer has the form {answer.form} and no template with an attribute in it")
    if answer.form in ("text", "lines") and (odd := [a.name for a in spec.attributes if a.shown and a.attributes]):
        raise ValueError(f"{odd[0]} is an object; an answer of the form {answer.form} shows texts: use the form json")
    if answer.form == "call":
        _check_call(spec)


def _check_call(spec: Spec) -> None:
    known = {str(cast("dict[str, Any]", tool["function"])["name"]) for tool in spec.tools}
    places = spec.answer.placeholders
    if places and spec.answer.template != f"{{{places[0]}}}":
        raise ValueError("the template of a call is a tool's name, or one label whose values are the tools' names")
    named = list(spec.attribute(places[0]).values) if places else [spec.answer.template]
    if odd := [name for name in named if name not in known]:
        raise ValueError(f"the answer calls {odd[0] or 'no tool'}; the tools are {', '.join(sorted(known)) or 'none'}")
    always_said = {a.name for a in spec.attributes if a.shown and not a.absent_share}
    for function in (cast("dict[str, Any]", tool["function"]) for tool in spec.tools):
        wanted = (function.get("parameters") or {}).get("required") or ()
        if function["name"] in named and (lacking := [name for name in wanted if name not in always_said]):
            why = f"{function['name']} needs {lacking[0]}"
            raise ValueError(f"{why}: add an attribute of this name that is never absent")
