"""A row's attributes: what was stored before is read, what is stored is given back, and nothing of it gets lost."""

from __future__ import annotations

import json
from typing import Any

from tests.fixtures.tables import table
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import Draw, RowAttributes

# As rows were stored before they had a type: a generated one, a near miss, an imported one, a variant.
STORED: list[dict[str, Any]] = [
    {
        "row_id": "w00003", "records": [{"mood": "torn", "quote": None}], "surfaces": [{}], "order": 3,
        "told": {"request": "m1/0"}, "text": "so so", "attempt": 2, "problem": "", "read": [["mood", "torn", "glad"]],
        "finish_reason": "stop", "agreed": False, "of_kind": 0.25, "judged": 1,
    },
    {"finish_reason": "length"},
    {"number": 7, "tools": [{"type": "function", "function": {"name": "add"}}]},
    {"variant_of": "w1", "hidden": True, "problem": "label: no"},
]  # fmt: skip


@table("stored", STORED)
def test_what_was_stored_untyped_is_read_and_given_back(stored: dict[str, Any]) -> None:
    read = RowAttributes.of(stored)
    assert not read.others
    again = json.loads(json.dumps(read.as_json()))
    assert {**stored, **again} == stored, "what is written is as it was"
    assert {name for name in stored if name not in again} <= {"problem"}, "only an empty problem is left out"
    assert RowAttributes.of(again) == read


def test_the_fields_hold_what_the_names_say() -> None:
    read, _, imported, variant = map(RowAttributes.of, STORED)
    assert read.draw == Draw("w00003", ({"mood": "torn", "quote": None},), ({},), 3, {"request": "m1/0"})
    assert (read.attempt, read.agreed, read.of_kind, read.read) == (2, False, 0.25, (("mood", "torn", "glad"),))
    assert imported.tools[0]["function"]["name"] == "add" and imported.draw is None
    assert variant.hidden and variant.variant_of == "w1" and variant.problem == "label: no"
    placed = RowAttributes(tools=imported.tools, values_at=((0, 1),), read=(("mood", "torn", "glad"),))
    assert RowAttributes.of(placed.as_json()) == placed, "also where nobody wrote it down between"


@table(
    "stored",
    [
        {"attempt": "two"}, {"attempt": True}, {"tools": "add"}, {"tools": ["add"]}, {"read": [1]}, {"text": None},
        {"records": "x", "surfaces": []}, {"records": [1], "surfaces": [{}]}, {"agreed": "yes"},
        {"topic": {"deep": [1]}},
        {"records": [{}], "surfaces": [{}], "order": "first"},
    ],
)  # fmt: skip
def test_what_a_file_says_in_another_type_is_kept_and_believed_by_nobody(stored: dict[str, Any]) -> None:
    read = RowAttributes.of(stored)
    assert read == RowAttributes(others=stored)
    assert read.as_json() == stored


def test_the_answer_of_a_row_is_its_text_or_its_calls() -> None:
    called = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns: list[tuple[list[dict[str, Any]], str]] = [
        ([{"role": "assistant", "content": "4"}], "4"),
        ([{"role": "assistant", "content": "", "tool_calls": [called]}], '{"name": "add", "arguments": {"a": 1}}'),
        ([{"role": "assistant", "content": "3"}, {"role": "assistant", "content": "4"}], "4"),
        ([], ""),
    ]
    for completion, answer in turns:
        assert TrainingRow("r", "generated", [], completion).answer == answer
