"""Typed values: said in many ways, each of them found again, and nothing that was not drawn is overlooked."""

from __future__ import annotations

import random
import re

from tests.fixtures.tables import table
from tunesmith.tools.data.spec import TYPED, Attribute, Value
from tunesmith.tools.data.typed_values import (
    WEEKDAYS,
    conflict,
    draw_value,
    holds,
    matches_in,
    surface_of,
    value_of,
    ways_to_say,
)

DAYS = Attribute(name="day", kind="weekday", values={day[:3]: Value() for day in WEEKDAYS})


def attribute(kind: str) -> Attribute:
    return DAYS if kind == "weekday" else Attribute(name="it", kind=kind, lengths=(5,) if kind == "digits" else ())  # type: ignore[arg-type]


@table("kind", TYPED)
def test_whatever_is_drawn_is_said_and_found_again_alone(kind: str) -> None:
    one, rng = attribute(kind), random.Random(3)
    for _ in range(300):
        value = draw_value(one, rng)
        surface = surface_of(one, value, rng)
        message = f"It is about {surface} and no more than that."
        assert holds(message, surface) and matches_in(one, message), message
        assert conflict(one, surface, message) == ""


@table("kind", ["digits", "time", "weekday", "email"])
def test_a_second_value_that_nobody_drew_is_told(kind: str) -> None:
    one, rng = attribute(kind), random.Random(5)
    first, second = surface_of(one, draw_value(one, rng), rng), surface_of(one, draw_value(one, rng), rng)
    while second.lower() in first.lower() or first.lower() in second.lower():
        second = surface_of(one, draw_value(one, rng), rng)
    assert "was not drawn" in conflict(one, first, f"say {first}, then {second}")
    assert "was not drawn" in conflict(one, "", f"say {first}")
    assert "is not in the message" in conflict(one, first, "say nothing")


def test_other_numbers_are_no_reference() -> None:
    digits = attribute("digits")
    text = "I paid 24.90 on 3 March 2026, call 0151 2233445, model AB-12345, order 48120."
    assert matches_in(digits, text) == ["48120"]


def test_no_way_of_saying_a_time_says_another_time() -> None:
    words = {
        word: n
        for n, word in enumerate(
            ["twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
        )
    }
    for hour in range(24):
        for minute in (0, 5, 15, 30, 45, 55):
            for way in ways_to_say(attribute("time"), f"{hour:02d}:{minute:02d}"):
                if clock := re.match(r"(\d{1,2})[:.]?(\d\d)? ?(am|pm|in|at|$)", way):
                    late = clock[3] == "pm" or re.search("afternoon|evening|night", way)
                    told = int(clock[1]) % 12 + (12 if late else 0) if clock[3] else int(clock[1])
                    assert (told, int(clock[2] or 0)) == (hour, minute), way
                elif past := re.match(r"(half|quarter|five|ten|twenty) (past|to) (\w+)", way):
                    minutes = {"half": 30, "quarter": 15, "five": 5, "ten": 10, "twenty": 20}[past[1]]
                    late = re.search("pm|afternoon|evening|night", way)
                    base = words[past[3]] % 12 + (12 if late else 0)
                    total = base * 60 + (minutes if past[2] == "past" else -minutes)
                    assert divmod(total % 1440, 60) == (hour, minute), way


@table(
    ("message", "amount"),
    [
        ("you owe $45, please", "$45"),
        ("it was £7.", "£7"),
        ("1,200.50 euros now", "1,200.50 euros"),
    ],
)
def test_an_amount_ends_with_its_last_digit(message: str, amount: str) -> None:
    assert matches_in(Attribute(name="a", kind="amount"), message) == [amount]


@table("kind", TYPED)
def test_what_is_said_is_read_back_as_its_value_or_as_none(kind: str) -> None:
    one, rng = attribute(kind), random.Random(11)
    read = []
    for _ in range(300):
        value = draw_value(one, rng)
        back = value_of(one, surface_of(one, value, rng))
        assert back in (None, value)
        read.append(back is not None)
    assert sum(read) > 150, "most ways say one value"


@table(
    ("kind", "text"), [("time", "half past four"), ("time", "4"), ("date", "March 2026"), ("amount", "about 20 euros")]
)
def test_what_may_say_several_values_is_read_as_none(kind: str, text: str) -> None:
    assert value_of(attribute(kind), text) is None


def test_a_value_is_found_between_characters_that_know_no_spaces() -> None:
    assert matches_in(attribute("digits"), "我的订单48120还没到") == ["48120"] and holds("我的订单48120还没到", "48120")
    assert holds("豆腐2块", "豆腐") and holds("两块豆腐", "豆腐"), "digits go on no word of a script without spaces"
    assert holds("请把沙发拿走", "沙发") and not holds("order A48120", "48120")
