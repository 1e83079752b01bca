"""One index of likeness, in every script, for few texts and for many."""

from __future__ import annotations

import random

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.core import similarity
from tunesmith.tools.core.similarity import Likeness, loops, word_count

LONG = "my heating has been cold since the early morning"


@table(
    ("text", "how", "same"),
    [
        (LONG, "exact", {}),
        (LONG.upper() + "!", "normalised", {}),
        (f"Hello there, {LONG}, please help", "contained", {}),
        (f"Hello there, {LONG}, please help", "", {"contained": False}),
        (LONG.replace("cold", "cool"), "alike", {}),
        ("order 4411 is late", "alike", {}),
        ("order 4411 is late", "", {"digits_count": True}),
        ("the lift is stuck", "", {}),
    ],
)
def test_a_text_is_found_by_what_it_repeats(text: str, how: str, same: dict[str, bool]) -> None:
    index = Likeness([("a", LONG), ("b", "order 9023 is late")])
    match = index.match(text, 90, **same)
    assert (match.how if match else "") == how


@pytest.mark.heavy
def test_many_texts_are_compared_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    words = [f"{a}{b}{c}" for a in "bdfklm" for b in "aeiou" for c in "nrst"]
    texts = [" ".join(rng.choices(words, k=9)) for _ in range(80)]
    asked = [text.replace(text.split()[4], "quux") for text in texts] + [" ".join(rng.choices(words, k=9))] * 5
    few = [Likeness(zip(texts, texts, strict=True)).match(text, 85) for text in asked]
    monkeypatch.setattr(similarity, "_SCANNED", 10)
    many = [Likeness(zip(texts, texts, strict=True)).match(text, 85) for text in asked]
    found = [match for match in many if match]
    assert set(found) <= set(few) and len(found) >= 0.9 * sum(match is not None for match in few) > 50


@table(
    ("text", "words"),
    [("a b c", 3), ("", 0), ("一般般吧", 2), ("退货吗", 2), ("今天 Wifi 坏了", 3), ("ขอบคุณ", 3), ("Straße 7", 2)],
)
def test_words_are_counted_where_no_space_stands_between_them(text: str, words: int) -> None:
    assert word_count(text) == words


def test_a_loop_is_one_in_any_script() -> None:
    assert loops("我想要退货谢谢" * 3) and not loops("物流很快，质量也很好，下次还会再来买")
    assert loops("one two three four five one two three four five") and not loops("one two three four five six")
