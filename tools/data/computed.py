"""The values of a row that are computed from its others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tunesmith.tools.data.arithmetic import evaluate, names_in
from tunesmith.tools.data.json_values import Values, items_of
from tunesmith.tools.data.spec import Attribute, Spec, without_places


class _Place(NamedTuple):
    """Where a value is computed: its path, and the attributes beside it, which its formula names first."""

    path: str
    formula: object
    beside: Sequence[Attribute]

    def needs(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Name in the formula → the paths that it means: one, or those of a list."""
        known = list(paths)
        return {name: _meant(self._target(name), known) for name in names_in(self.formula)}

    def _target(self, name: str) -> str:
        inner = name.split(".")[0] in [attribute.name for attribute in self.beside]
        return f"{self.path.rpartition('.')[0]}.{name}" if inner and "." in self.path else name


def with_computed(spec: Spec, values: Values) -> Values:
    """The values with those that are computed; None where something that a formula needs is not said.

    Raises Unanswerable for a division by zero, or a value out of bounds.
    """
    made = {path: value for path, value in values.items() if spec.attribute(path).kind != "computed"}
    pending = {place.path: place for place in _computed(spec.attributes, made)}
    while pending:
        every = [*made, *pending]
        waits = {p: any(pending.keys() & paths for paths in one.needs(every).values()) for p, one in pending.items()}
        for path in [p for p, waiting in waits.items() if not waiting]:  # a circle is refused when the spec is read
            made[path] = _value(pending.pop(path), made)
    return made


def _value(place: _Place, made: Mapping[str, str | None]) -> str | None:
    needs = place.needs(made)
    if any(made[path] is None for paths in needs.values() for path in paths):
        return None
    return evaluate(place.formula, lambda name: [made[path] or "" for path in needs[name]])


def _meant(target: str, paths: Sequence[str]) -> list[str]:
    return [target] if target in paths else [path for path in paths if without_places(path) == target]


def _computed(attributes: Sequence[Attribute], values: Mapping[str, object], at: str = "") -> Iterator[_Place]:
    for attribute in attributes:
        path = f"{at}{attribute.name}"
        if attribute.kind == "computed":
            yield _Place(path, attribute.formula, attributes)
        elif attribute.kind == "object" and path not in values:
            many = attribute.many is not None
            places = [f"{path}[{n}]" for n in range(items_of(path, values))] if many else [path]
            for place in places:
                yield from _computed(attribute.attributes, values, f"{place}.")
