"""JSON of a stranger: what is in bounds is what json says, and the rest is a ValueError."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.core.strict_json import depth_of, parse_json


def test_what_a_model_says_is_read_as_it_stands() -> None:
    document = {"a": [0, -1, 2**63, 1.5, 1e-05, True, None, float("inf")], "b": {"c": "é😀"}}
    assert parse_json(json.dumps(document).encode()) == document


@table(
    "data",
    [b"[" + b"1" * 21 + b"]", b"-" + b"9" * 20, b"[" * 200_000, b"\xff", b"\xef\xbb\xbf{}", "[1]".encode("utf-16"), b"",
     b"{} {}"],
)  # fmt: skip
def test_everything_else_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(data)


@table(("document", "depth"), [(1, 0), ([], 0), ([1], 1), ({"a": [{}]}, 2), ([[[1]], 2], 3)])
def test_how_deep_a_document_is(document: object, depth: int) -> None:
    assert depth_of(document, 9) == depth


def test_no_more_is_counted_than_is_asked_for() -> None:
    deep: list[object] = []
    for _ in range(50_000):
        deep = [deep]
    assert depth_of(deep, 32) == 33
