"""Values that are computed from others: a small tree of arithmetic that code evaluates, and never as code.

A node is a number, the name of an attribute, or one operation: {multiply: [net, 0.19]}, {round: [x, 2]}, {sum:
items.price}, {add_days: [due, 14]}. Numbers are decimals, halves are rounded away from zero, as on an invoice.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, DecimalException, localcontext
from typing import NamedTuple

NODES_MAX = 50
"""Of a formula, which may be a stranger's."""
NUMERIC = ("number", "amount", "computed")
"""Kinds of attributes whose values are compared as numbers: 3 is 3.0. Digits are none: 007 is not 7."""
_MAGNITUDE_MAX = Decimal(10) ** 15
_PLACES_MAX, _DAYS_MAX, _DIGITS = 10, 36_600, 40
"""With a magnitude of 15 digits a number survives JSON, which many read as a float; a century of days; digits of a
step in between."""
_PLAIN = re.compile(r"[-+]?\d{1,15}(?:\.\d{1,10})?")

Operand = Decimal | date
Lookup = Callable[[str], Sequence[str]]
"""The texts of an attribute by its path: one, or as many as its list has; none where the message does not say it."""


class _Operation(NamedTuple):
    least: int
    most: int
    says: str


_OPERATIONS: Mapping[str, _Operation] = {
    "add": _Operation(2, NODES_MAX, "numbers"),
    "subtract": _Operation(2, 2, "two numbers"),
    "multiply": _Operation(2, NODES_MAX, "numbers"),
    "divide": _Operation(2, 2, "two numbers"),
    "round": _Operation(2, 2, "a number and how many places"),
    "sum": _Operation(1, 1, "an attribute of a list"),
    "add_days": _Operation(2, 2, "a date and a number of days"),
}


class Unanswerable(ValueError):
    """The formula has no value here: something that it needs is not said, or it leaves its bounds."""


def names_in(formula: object) -> Iterator[str]:
    """The attributes that a formula reads."""
    if isinstance(formula, str) and not _PLAIN.fullmatch(formula):
        yield formula
    for part in _operands(formula):
        yield from names_in(part)


def check_formula(formula: object) -> None:
    """Refuse, by ValueError, what is no formula, or has more than 50 nodes."""
    nodes = sum(1 for _ in _nodes(formula, 0))
    if nodes > NODES_MAX:
        raise ValueError(
            f"the formula has {nodes} nodes, at most {NODES_MAX} are evaluated; split it in two attributes"
        )


_SIGNS = {"add": " + ", "subtract": " - ", "multiply": " × ", "divide": " / "}


def formula_text(formula: object) -> str:
    """A formula as people write one: round(net × 0.19, 2)."""
    if not isinstance(formula, Mapping):
        return str(formula)
    name, texts = next(iter(formula)), [formula_text(part) for part in _operands(formula)]
    if name in _SIGNS:
        bare = [not isinstance(part, Mapping) or next(iter(part)) not in _SIGNS for part in _operands(formula)]
        return _SIGNS[name].join(text if plain else f"({text})" for text, plain in zip(texts, bare, strict=True))
    return {"round": "round({0}, {1})", "sum": "sum of {0}", "add_days": "{0} + {1} days"}[name].format(*texts, "")


def evaluate(formula: object, lookup: Lookup) -> str:
    """The value as an answer shows it: a number as it is written out, a date as 2026-03-14. Raises Unanswerable."""
    with localcontext(Context(prec=_DIGITS, rounding=ROUND_HALF_UP)):
        try:
            value = _value(formula, lookup)
        except (DecimalException, OverflowError) as error:  # 1/0, or a day after the year 9999
            raise Unanswerable(f"the formula has no value: {error}") from None
    return value.isoformat() if isinstance(value, date) else format(value, "f")


def number_of(text: str) -> Decimal | None:
    """A text as a number; None where it is none."""
    text = text.strip()
    return Decimal(text) if _PLAIN.fullmatch(text) else None


def _operands(formula: object) -> Sequence[object]:
    if not isinstance(formula, Mapping):
        return ()
    operands: list[object] = []
    for given in formula.values():
        operands += given if isinstance(given, list | tuple) else [given]
    return operands


def _nodes(formula: object, depth: int) -> Iterator[object]:
    """Every node, each checked by itself; deeper than there may be nodes is refused before it is followed."""
    if depth > NODES_MAX:
        raise ValueError(f"the formula is nested more than {NODES_MAX} deep; split it in two attributes")
    yield formula
    if isinstance(formula, bool) or not isinstance(formula, Mapping | str | int | float):  # to Python True is an int
        raise ValueError(f"{reprlib.repr(formula)} in a formula is neither a number, an attribute nor an operation")
    if isinstance(formula, int | float) and not _PLAIN.fullmatch(str(formula)):
        raise ValueError(f"the number {formula!r} in a formula has more than 15 digits, or 10 places")
    if not isinstance(formula, Mapping):
        return
    if len(formula) != 1 or (name := str(next(iter(formula)))) not in _OPERATIONS:
        raise ValueError(f"{reprlib.repr(list(formula))} is no operation; a node holds one of {', '.join(_OPERATIONS)}")
    operands, operation = _operands(formula), _OPERATIONS[name]
    if not operation.least <= len(operands) <= operation.most:
        raise ValueError(f"{name} takes {operation.says}; got {len(operands)} of them")
    if name == "round" and not (type(operands[1]) is int and 0 <= operands[1] <= _PLACES_MAX):
        raise ValueError(f"round takes a number and 0 to {_PLACES_MAX} places; got {reprlib.repr(operands[1])}")
    if name == "sum" and not isinstance(operands[0], str):
        raise ValueError(f"sum takes an attribute of a list, such as items.price; got {reprlib.repr(operands[0])}")
    for part in operands:
        yield from _nodes(part, depth + 1)


def _value(formula: object, lookup: Lookup) -> Operand:
    """The number or date of a node."""
    if isinstance(formula, int | float):
        return Decimal(str(formula))
    if isinstance(formula, str):
        return number_of(formula) if _PLAIN.fullmatch(formula) else _one(formula, lookup)  # type: ignore[return-value]
    assert isinstance(formula, Mapping)
    name, operands = next(iter(formula)), _operands(formula)
    if name == "sum":
        return _bounded(sum(map(_number, map(_read, lookup(str(operands[0])))), Decimal(0)))
    if name == "add_days":
        start, days = _value(operands[0], lookup), _number(_value(operands[1], lookup))
        if not isinstance(start, date) or days != days.to_integral_value() or abs(days) > _DAYS_MAX:
            raise Unanswerable(f"add_days takes a date and at most {_DAYS_MAX:,} whole days; got {start} and {days}")
        return start + timedelta(days=int(days))
    numbers = [_number(_value(part, lookup)) for part in operands]
    return _bounded(_calculated(str(name), numbers))


def _calculated(name: str, numbers: Sequence[Decimal]) -> Decimal:
    """One operation on numbers; of several from left to right."""
    first, *others = numbers
    if name == "round":
        return first.quantize(Decimal(1).scaleb(-int(others[0])))
    for other in others:
        if name == "divide" and not other:
            raise Unanswerable("the formula divides by zero")
        first = {
            "add": Decimal.__add__, "subtract": Decimal.__sub__, "multiply": Decimal.__mul__,
            "divide": Decimal.__truediv__,
        }[name](first, other)  # fmt: skip
    return first


def _one(name: str, lookup: Lookup) -> Operand:
    texts = lookup(name)
    if len(texts) != 1:
        raise Unanswerable(f"{name} has {len(texts)} values here, one is needed")
    return _read(texts[0])


def _read(text: str) -> Operand:
    if (number := number_of(text)) is not None:
        return number
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Unanswerable(f"{text!r:.60} is neither a number nor a date") from None


def _number(value: Operand) -> Decimal:
    if isinstance(value, date):
        raise Unanswerable(f"{value} is a date where a number is needed")
    return value


def _bounded(value: Decimal) -> Decimal:
    if abs(value) > _MAGNITUDE_MAX:
        raise Unanswerable("the formula leaves the numbers up to 1e15")
    return value
