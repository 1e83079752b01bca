"""Rules: each says what it asks, holds where it was stated to, and what JSON examples show by themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fixtures.descriptions import COOKING, HOSTILE
from tests.fixtures.tables import table
from tunesmith.tools.data.answer_rules import Check, broken_rule, json_rules, rule_of

TICKETS = [
    json.dumps({"area": "billing", "urgency": "low", "order": "4711", "paid": 3, "tags": ["a"]}),
    json.dumps({"area": "delivery", "urgency": "high", "order": None, "paid": 2.5, "tags": []}),
    json.dumps({"area": "billing", "urgency": "low", "order": "12", "paid": 0, "tags": ["b", "c"]}),
]


@table(
    ("answer", "word"),
    [
        ("- One.\n- Two.\n- Three.", ""),
        ("- One.\n- Two.\n- Three.\n", ""),
        ("- One.\n- Two.", "3 lines"),
        ("- One.\n- Two.\n- Three.\n- Four.", "3 lines"),
        ("1. One.\n2. Two.\n3. Three.", "every line begins"),
        ("Sure!\n- One.\n- Two.\n- Three.", "every line begins"),
        ("- One.\n- Two.\n- Three.\nEnjoy!", "every line begins"),
        ("- " + "one " * 60 + "\n- Two.\n- Three.", "words"),
        ("- As an AI, I cannot cook.\n- Two.\n- Three.", "As an AI"),
    ],
)
def test_three_points_are_held_to_what_was_described(answer: str, word: str) -> None:
    broken = broken_rule(COOKING.rules, answer)
    assert (word in broken.says) if word and broken else (not word and broken is None)


@table(
    ("stated", "says", "kept", "broken"),
    [
        ({"kind": "at most", "count": 3, "unit": "words"}, "at most 3 words", ["a", "a b c"], ["a b c d"]),
        ({"kind": "at least", "count": 2, "unit": "words"}, "at least 2 words", ["a b", "a b c"], ["a"]),
        ({"kind": "exactly", "count": 1, "unit": "words"}, "exactly 1 word", ["a"], ["a b"]),
        ({"kind": "at most", "count": 4, "unit": "characters"}, "at most 4", ["很好吃", "abcd"], ["很好吃很好"]),
        ({"kind": "exactly", "count": 2, "unit": "characters"}, "exactly 2 characters", ["好评"], ["好", "好评！"]),
        ({"kind": "at most", "count": 2, "unit": "lines"}, "at most 2 lines", ["a", "a\nb", "a\n\nb"], ["a\nb\nc"]),
        ({"kind": "at least", "count": 2, "unit": "lines"}, "at least 2 lines", ["a\nb", "a\nb\nc"], ["a"]),
        ({"kind": "exactly", "count": 1, "unit": "lines"}, "exactly 1 line", ["a b\n"], ["a\nb"]),
        ({"kind": "begins with", "text": "Arr, ("}, "begins with 'Arr, ('", ["Arr, (yes"], ["arr, (", "Aye. Arr, ("]),
        ({"kind": "ends with", "text": "Arr!"}, "ends with 'Arr!'", ["Aye. Arr!", "Arr! "], ["Arr! Aye."]),
        ({"kind": "every line begins with", "text": "* "}, "begins with '* '", ["* a\n* b"], ["* a\n- b", "a\n* b"]),
        ({"kind": "never says", "text": "Ich"}, "never says 'Ich'", ["Wir sind da."], ["ich bin da"]),
    ],
)  # fmt: skip
def test_a_check_says_what_it_asks_and_asks_just_that(
    stated: dict[str, Any], says: str, kept: list[str], broken: list[str]
) -> None:
    rule = rule_of(Check.model_validate(stated))
    assert says in rule.says
    assert [answer for answer in kept if broken_rule([rule], answer)] == []
    assert [answer for answer in broken if not broken_rule([rule], answer)] == []


@table("text", HOSTILE)
def test_a_text_of_a_check_is_looked_for_letter_for_letter(text: str) -> None:
    begins, ends = (rule_of(Check(kind=kind, text=text)) for kind in ("begins with", "ends with"))
    assert broken_rule([begins], f"{text} and more") is None and broken_rule([begins], "another") is not None
    assert broken_rule([ends], f"more and {text}") is None and broken_rule([ends], "another") is not None


@table(
    "stated",
    [{"kind": "at most", "count": 3}, {"kind": "exactly", "unit": "words"}, {"kind": "begins with"},
     {"kind": "at most", "count": 0, "unit": "words"}, {"kind": "never says", "text": " "},
     {"kind": "about", "text": "x"}],
)  # fmt: skip
def test_half_a_check_is_none(stated: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Check.model_validate(stated)


def test_objects_give_their_keys_and_types() -> None:
    rules = json_rules(TICKETS)
    words = " · ".join(rule.says for rule in rules)
    assert "one JSON object with the keys area, urgency, order, paid, tags" in words
    assert "order is text or null" in words and "paid is a number" in words and "tags is a list" in words
    assert not [answer for answer in TICKETS if broken_rule(rules, answer)]
    value = json.loads(TICKETS[0])
    for wrong in ({**value, "more": 1}, {**value, "order": 4711}, {k: v for k, v in value.items() if k != "paid"}):
        assert broken_rule(rules, json.dumps(wrong)) is not None
    assert broken_rule(rules, f"Here you are: {TICKETS[0]}") is not None


@table("answers", [["yes", "no"], ['{"a": 1}', "plain"], ["[1]", '{"a": 1}'], ["1", "2"]])
def test_what_is_not_all_json_of_one_kind_gives_no_rule(answers: list[str]) -> None:
    assert json_rules(answers) == []
