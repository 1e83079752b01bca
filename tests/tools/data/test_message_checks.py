"""What stops a written message from being a row: among others that it says its label instead of showing it."""

from __future__ import annotations

import pytest

from tests.fixtures.behaviours import COMMIT, FEEDBACK
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.example_values import shown_examples
from tunesmith.tools.data.message_checks import names_label
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.writer_requests import Note, messages_request

MOODS = spec_of(FEEDBACK, "x")


def refunds() -> Spec:
    said = [("I want a refund for the lamp", "refund"), ("where is my box", "delivery"), ("the app crashes", "bug")]
    return spec_of(
        {
            "name": "desk", "when": "a customer writes", "what": "one word: refund, delivery or bug",
            "never": "explain", "labels": ["refund", "delivery", "bug"],
            "examples": [{"prompt": prompt, "answer": answer} for prompt, answer in said],
        },
        "x",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "mood", "named"),
    [
        ("the visit left me torn", "torn", "torn"),
        ("a Torn experience", "torn", "torn"),
        ("a page was torn out", "cross", ""),  # another label's word, which says nothing of this one
        ("it was glad weather", "glad", "glad"),
        ("gladly again", "glad", ""),
    ],
)
def test_a_message_that_says_its_label_is_told(message: str, mood: str, named: str) -> None:
    assert names_label(MOODS, {"mood": mood, "quote": "x"}, message) == named


def test_where_people_say_labels_by_their_names_so_may_messages() -> None:
    spec = refunds()
    assert not names_label(spec, {spec.labels[0].name: "refund"}, "please refund my order")


def test_short_labels_stand_in_messages_by_chance() -> None:
    assert not names_label(spec_of(COMMIT, "x"), {"type": "fix"}, "a fix for the clock")


def test_the_writer_is_told_to_show_a_label_and_not_to_name_it() -> None:
    notes = [Note("w1", {"mood": "torn", "quote": "cold soup"}, {"quote": "cold soup"})]
    request = messages_request(MOODS, notes, shown_examples(MOODS), "writer", 0.7, "m1/0")
    assert "None has the word “torn” in it." in str(request.messages[0]["content"])
