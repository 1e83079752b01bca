"""Rules told from answers: each holds for all of them, says what it asks, and nothing is concluded from chance."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.descriptions import COOKING, HOSTILE
from tunesmith.tools.data.answer_rules import broken_rule, infer_rules
from tunesmith.tools.data.scaffold import behaviour_of

POINTS = [example.answer for example in COOKING.examples]
TICKETS = [
    json.dumps({"area": "billing", "urgency": "low", "order": "4711", "paid": 3, "tags": ["a"]}),
    json.dumps({"area": "delivery", "urgency": "high", "order": None, "paid": 2.5, "tags": []}),
    json.dumps({"area": "billing", "urgency": "low", "order": "12", "paid": 0, "tags": ["b", "c"]}),
]
STATED = "JSON with area (one of billing, delivery or returns), urgency, order, paid and tags"


def said(answers: list[str], what: str = "", never: str = "") -> str:
    return " · ".join(rule.says for rule in infer_rules(answers, what=what, never=never))


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("- One.\n- Two.\n- Three.", ""),
        ("- One.\n- Two.\n- Three.\n", ""),
        ("- One.\n- Two.", "3 items"),
        ("- One.\n- Two.\n- Three.\n- Four.", "3 items"),
        ("1. One.\n2. Two.\n3. Three.", "list item"),
        ("Sure!\n- One.\n- Two.\n- Three.", "list item"),
        ("- One.\n- Two.\n- Three.\nEnjoy!", "list item"),
        ("- " + "one " * 60 + "\n- Two.\n- Three.", "words"),
        ("- One.\n- 第二点\n- Three.", "Latin"),
        ("- As an AI, I cannot cook.\n- Two.\n- Three.", "As an AI"),
    ],
)
def test_three_points_are_held_to_what_was_described(answer: str, word: str) -> None:
    broken = broken_rule(behaviour_of(COOKING).rules, answer)
    assert (word in broken.says) if word and broken else (not word and broken is None)


@pytest.mark.parametrize("answers", [POINTS, TICKETS, ["yes", "no", "yes"], ["1", "22", "3.5"], list(HOSTILE)])
def test_every_rule_holds_for_every_answer_that_it_was_told_from(answers: list[str]) -> None:
    rules = infer_rules(answers, what=STATED, never="say 'sorry', \"yes\" or “1”")
    assert rules and all(broken_rule(rules, answer) is None for answer in answers)


def test_objects_give_their_keys_and_types() -> None:
    words = said(TICKETS)
    assert "one JSON object with the keys area, urgency, order, paid, tags" in words
    assert "order is text or null" in words and "paid is a number" in words and "tags is a list" in words
    rules = infer_rules(TICKETS)
    value = json.loads(TICKETS[0])
    for wrong in ({**value, "more": 1}, {**value, "order": 4711}, {k: v for k, v in value.items() if k != "paid"}):
        assert broken_rule(rules, json.dumps(wrong)) is not None
    assert broken_rule(rules, f"Here you are: {TICKETS[0]}") is not None


def test_values_are_a_choice_only_where_the_words_state_it() -> None:
    assert "one of" not in said(TICKETS)
    rules = infer_rules(TICKETS, what=STATED)
    assert "area is one of billing, delivery, returns" in [rule.says for rule in rules]
    wrong = json.dumps({**json.loads(TICKETS[0]), "area": "sales"})
    assert broken_rule(rules, wrong) is not None
    assert "one of" not in said(TICKETS, "area is one of sales, service")


def test_a_number_of_items_is_a_rule_only_where_the_words_state_it() -> None:
    assert "exactly" not in said(POINTS, "bullet points")
    assert "exactly 3 items" in said(POINTS, "3 bullets") and "exactly 3" in said(POINTS, "three very short points")
    assert "exactly" not in said(POINTS, "four bullet points")


@pytest.mark.parametrize(
    ("answers", "what", "words"),
    [
        (["yes", "no", "yes"], "answer only yes or no", "one of yes, no"),
        (["Shopping list:\n- rice\n- peas", "Shopping list:\n- eggs", "Shopping list:\n- tea"], "", "Shopping list:"),
        (["Arr, the tide.", "Arr, a storm.", "Arr, gold."], 'begins with "Arr,"', "begins with 'Arr,'"),
        (["What else is there?", "Why do you ask?", "And then?"], "", "question mark"),
        (["12", "7", "1,200"], "", "a number and nothing else"),
        (["all small words here", "no big ones there", "quiet and calm"], "", "no capital letters"),
        (["a b c", "d e", "f"], "at most 5 words", "at most 5 words"),
        (["a b c", "d e", "f"], "under 5 words", "at most 4 words"),
        (["a", "b", "c"], "", "one line"),
    ],
)
def test_what_answers_share_is_said_in_plain_words(answers: list[str], what: str, words: str) -> None:
    assert words in said(answers, what)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["The sea is blue.", "The sky is grey.", "The sun is hot."], "begins"),
        (["- a\n- b", "* a\n* b", "1. a\n2. b"], "list item"),
        (["one\ntwo", "one"], "one line"),
        (['{"a": 1}', "plain", "text"], "JSON"),
        (["Да, конечно", "Нет", "Может быть"], "Latin"),
    ],
)
def test_what_may_be_chance_is_no_rule(answers: list[str], words: str) -> None:
    assert words not in said(answers)


def test_only_what_stands_in_quotes_is_never_said() -> None:
    assert "never" not in said(POINTS, never="don't greet, and don't ask the user's name")
    assert "never says 'I am sorry'" in said(POINTS, never="say 'I am sorry' or greet")


@pytest.mark.parametrize(
    ("what", "answers", "says"),
    [
        ("a title of two to five words", ["A Sleepless Night", "Talking With Dad"], "2 to 5 words"),
        ("at most five words", ["a b", "c d e"], "at most 5 words"),
        ("a title with no full stop", ["First Fish", "Dad"], "no full stop at the end"),
        ('like a pirate, ending with "Arr!"', ["Fine be I. Arr!", "That be four. Arr!"], "the answer ends with 'Arr!'"),
        ('{"risk": "low" | "high"}', ['{"risk": "low"}', '{"risk": "high"}'], "risk is one of low, high"),
    ],
)
def test_what_the_words_state_becomes_a_rule(what: str, answers: list[str], says: str) -> None:
    assert says in said(answers, what)
    assert "title" not in said(answers, what)


def test_few_letters_of_one_case_are_no_rule() -> None:
    assert "capital" not in said(["ls *.png", "du -sh src", "find . -type f -empty -delete"])
