"""Cards as people name them, and what they have for programs: by name what torch finds there, by size less."""

from __future__ import annotations

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.tools.machine.cards import _OF, card_of

CAPACITY = {
    "RTX 4090": 23.64, "RTX 3090": 23.69, "A10": 22.19, "L4": 22.17, "A30": 23.53, "A100": 79.25, "A100 40GB": 39.59,
    "RTX A4000": 15.61, "L40S": 44.53, "H100": 79.11, "RTX 5090": 31.36,
}  # fmt: skip
"""Torch's "total capacity" of such cards, in GiB, as people's out-of-memory errors give it."""


@table("name", CAPACITY)
def test_a_named_card_has_what_torch_finds_there_and_no_more_to_speak_of(name: str) -> None:
    card = card_of(name)
    assert card.name == name and not card.note
    assert CAPACITY[name] - 0.7 < card.free_gib < CAPACITY[name] + 0.15


@table(
    ("said", "name"),
    [
        ("4090", "RTX 4090"), ("rtx4090", "RTX 4090"), ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("a10g", "A10G"),
        ("l4", "L4"), ("A100-40GB", "A100 40GB"), ("3080 12gb", "RTX 3080 12GB"), ("4060ti", "RTX 4060 Ti"),
    ],
)  # fmt: skip
def test_a_card_is_known_by_the_names_that_people_give_it(said: str, name: str) -> None:
    assert card_of(said).name == name


@table(("said", "gib"), [("24", 23.4), ("24 GB", 23.4), ("24gib", 23.4), ("7.5", 6.9), ("80", 79.2)])
def test_of_a_size_alone_a_desktop_and_the_driver_have_their_part_which_is_said(said: str, gib: float) -> None:
    card = card_of(said)
    assert card.free_gib == pytest.approx(gib) and "are left to a desktop and the driver; name the card" in card.note
    assert card.free_gib < card_of("RTX 4090").free_gib or gib > 24, "a name says more"


@table("said", ["", "rtx", "9999", "-3", "0", "nan", "1e3", "24 TB", "a" * 500, "4090\nx"])
def test_another_name_is_answered_with_some_that_are_known(said: str) -> None:
    with pytest.raises(BadInput, match="no card is known as") as refused:
        card_of(said)
    named = str(refused.value).partition("or one of ")[2].removesuffix(" …").split(", ")
    assert 1 <= len(named) <= 3 and {*named} <= {*_OF} and len(str(refused.value)) < 200


@table(
    "said", ["m3", "M2 Max", "apple m4", "7900 XTX", "7900xtx", "RX 6800", "mi300x", "2xMI300X", "Arc A770", "radeon"]
)
def test_a_gpu_of_another_maker_is_told_which_gpus_are_used(said: str) -> None:
    with pytest.raises(BadInput, match=r"is no NVIDIA GPU: .* not on AMD, Apple or Intel GPUs; name an NVIDIA card"):
        card_of(said)


@table("said", ["M40", "Quadro M4000", "4090 xy", "A770 Ti"])
def test_a_name_that_only_resembles_one_of_another_maker_is_not_told_so(said: str) -> None:
    with pytest.raises(BadInput, match="no card is known as"):
        card_of(said)


@table(("said", "nearest"), [("4900", "RTX 4090"), ("rtx 5900", "RTX 5090"), ("A6001", "RTX A6000"), ("h10", "H100")])
def test_a_slip_in_a_name_is_answered_with_the_nearest_one(said: str, nearest: str) -> None:
    with pytest.raises(BadInput, match=f"or one of {nearest}"):
        card_of(said)


@table(
    ("said", "name", "count"),
    [
        ("2x24", "2 × a card of 24 GB", 2), ("2x4090", "2 × RTX 4090", 2), ("8 × A100 80GB", "8 × A100 80GB", 8),
        ("1x24", "a card of 24 GB", 1), ("16*l4", "16 × L4", 16),
    ],
)  # fmt: skip
def test_several_cards_are_as_many_of_one(said: str, name: str, count: int) -> None:
    cards = card_of(said)
    assert (cards.name, cards.count) == (name, count)
    assert cards.free_gib == card_of(name.partition(" × ")[2].removeprefix("a card of ") or "24").free_gib


@table("said", ["0x24", "17x24", "2x", "x24", "2x9999", "-2x24", "2.5x24"])
def test_no_number_of_unknown_cards_is_a_machine(said: str) -> None:
    with pytest.raises(BadInput, match="2x24, or one of"):
        card_of(said)
