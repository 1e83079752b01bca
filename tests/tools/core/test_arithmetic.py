"""Values that are computed: exact, within bounds, and never evaluated as code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.tables import table
from tunesmith.tools.core.arithmetic import NODES_MAX, Unanswerable, check_formula, evaluate, names_in

KNOWN = {"net": ["100.00"], "rate": ["0.19"], "count": ["3"], "prices": ["0.10", "0.20"], "none": [], "zero": ["0"]}
KNOWN |= {"due": ["2024-02-20"], "word": ["soon"], "huge": ["999999999999999"]}


def lookup(name: str) -> list[str]:
    return KNOWN[name]


@table(
    ("formula", "value"),
    [
        ({"add": ["net", 1, 0.5]}, "101.50"),
        ({"subtract": [1, "net"]}, "-99.00"),
        ({"sum": "prices"}, "0.30"),  # 0.1 + 0.2, which floats do not make 0.3
        ({"sum": "none"}, "0"),
        ({"round": [{"multiply": ["net", "rate"]}, 2]}, "19.00"),
        ({"round": [2.5, 0]}, "3"),  # halves away from zero, as on an invoice; not to even
        ({"round": [{"subtract": [0, 0.125]}, 2]}, "-0.13"),
        ({"round": [{"divide": [1, "count"]}, 3]}, "0.333"),
        ({"add_days": ["due", 10]}, "2024-03-01"),  # over a leap day
        ({"add_days": ["due", {"subtract": [0, "count"]}]}, "2024-02-17"),
        ("net", "100.00"),
    ],
)
def test_a_formula_gives_the_exact_value(formula: Any, value: str) -> None:
    check_formula(formula)
    assert evaluate(formula, lookup) == value


@table(
    ("formula", "why"),
    [
        ({"divide": [1, "zero"]}, "divides by zero"),
        ({"divide": ["zero", "zero"]}, "divides by zero"),
        ({"multiply": ["huge", "huge"]}, "leaves the numbers"),
        ({"add": ["huge", "huge"]}, "leaves the numbers"),
        ({"add_days": ["due", 99_999]}, "at most 36,600 whole days"),
        ({"add_days": ["due", 1.5]}, "whole days"),
        ({"add_days": ["net", 1]}, "takes a date"),
        ({"add": ["due", 1]}, "where a number is needed"),
        ({"add": ["word", 1]}, "neither a number nor a date"),
        ({"add": ["prices", 1]}, "has 2 values"),
    ],
)
def test_what_has_no_value_is_told_and_never_a_number(formula: Any, why: str) -> None:
    check_formula(formula)
    with pytest.raises(Unanswerable, match=why):
        evaluate(formula, lookup)


@table(
    ("formula", "why"),
    [
        ({"power": [2, 99]}, "no operation"),
        ({"add": [1, 2], "subtract": [1, 2]}, "no operation"),
        ({"add": [1]}, "takes numbers; got 1"),
        ({"round": ["net", 99]}, "0 to 10 places"),
        ({"round": ["net", True]}, "0 to 10 places"),
        ({"sum": {"add": [1, 2]}}, "an attribute of a list"),
        ([1, 2], "neither a number"),
        (True, "neither a number"),
        (1e300, "more than 15 digits"),
        (float("nan"), "more than 15 digits"),
        ({"add": list(range(NODES_MAX))}, "has 51 nodes"),
    ],
)
def test_what_is_no_formula_is_refused_when_it_is_read(formula: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_formula(formula)


def test_a_formula_has_at_most_fifty_nodes_and_is_never_followed_deeper() -> None:
    check_formula({"add": [1] * (NODES_MAX - 1)})
    for name, why in (("sum", "an attribute of a list"), ("add", "nested more than 50 deep")):
        deep: Any = 1
        for _ in range(5_000):
            deep = {name: [deep, 1][: 1 + (name == "add")]}
        with pytest.raises(ValueError, match=why):
            check_formula(deep)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["add", "round", "sum", "x"]), inner),
)


@settings(deadline=None)
@given(_JSON)
def test_whatever_is_given_is_a_formula_with_a_value_or_refused_in_words(formula: Any) -> None:
    try:
        check_formula(formula)
    except ValueError as error:
        assert str(error)
        return
    known = {name: ["2"] for name in names_in(formula)}
    try:
        assert evaluate(formula, lambda name: known[name])
    except Unanswerable as error:
        assert str(error)
