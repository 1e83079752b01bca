"""Sentences made readable: slips of the fingers, other languages, and words that only look like slips."""

from __future__ import annotations

import pytest

from tunesmith.agent.driver.understanding.parts import parts_of
from tunesmith.agent.driver.understanding.words import readable


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hwo long did trainign take", "how long did training take"),
        ("compre teh adpater adn the base", "compare the adapter and the base"),
        ("quantised modle?", "quantized model?"),
        ("epcohs", "epochs"),
        ("the adaptor's lerning rate", "the adapter's learning rate"),
    ],
)
def test_a_slip_of_the_fingers_is_put_right(typed: str, meant: str) -> None:
    assert readable(typed) == meant


@pytest.mark.parametrize("words", ["write me a poem", "a duplicate row", "the plain trail", "repeat that", "it rates"])
def test_a_word_of_its_own_is_left_alone(words: str) -> None:
    assert readable(words) == words


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("wie lange dauerte das Training?", "how long took the training?"),
        ("combien de lignes ont été rejetées ?", "how many rows were dropped ?"),
        ("Was soll ich als nächstes probieren?", "what should i next try?"),
        ("quelle est la taille de l'adaptateur ?", "which is the size of the adapter ?"),
        ("¿cuánto tardó el entrenamiento?", "¿how long took the training?"),
        ("what does it do to die-hard fans", "what does it do to die-hard fans"),
    ],
)
def test_the_trade_is_read_in_four_languages(typed: str, meant: str) -> None:
    assert readable(typed) == meant


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("how long did it take, and then merge the adapter", ["how long did it take", "merge the adapter"]),
        ("what did r1 cost? and how many rows were kept?", ["what did r1 cost?", "how many rows were kept?"]),
        ("one line, then nothing", ["one line, then nothing"]),
        ("how big is it and which cases fail", ["how big is it", "which cases fail"]),
        ("how many rows were dropped and why", ["how many rows were dropped and why"]),
        ('say "yes, then go on"', ['say "yes, then go on"']),
        ("first line\nthen that", ["first line\nthen that"]),
    ],
)
def test_several_things_are_taken_one_after_the_other(words: str, parts: list[str]) -> None:
    assert parts_of(words) == parts
