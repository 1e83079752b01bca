"""Spans of time and graphics cards, as people name them."""

from __future__ import annotations

import time

import pytest

from tunesmith.agent.driver.understanding.cards import cards_counted, cards_gib, unknown_card
from tunesmith.agent.driver.understanding.times import span_named, window


@pytest.mark.parametrize(
    ("words", "gib", "count"),
    [
        ("two 3090s", 24.0, 2),
        ("2x4090", 24.0, 2),
        ("4 24gb cards", 24.0, 4),
        ("dual 3090", 24.0, 2),
        ("an rtx 6000 ada", 48.0, 1),
        ("a100 40gb", 40.0, 1),
        ("two a100 80gb cards", 80.0, 2),
        ("3 epochs on a 4090", 24.0, 1),
        ("rtx 4070 ti super", 16.0, 1),
        ("no card at all", 0.0, 1),
    ],
)
def test_a_card_is_known_by_its_name_or_its_memory_and_counted(words: str, gib: float, count: int) -> None:
    assert (cards_gib(words), cards_counted(words)) == (gib, count)


def test_a_card_that_nobody_knows_is_no_card_of_another_size() -> None:
    assert unknown_card("a 7b on an rtx 9999") == "rtx 9999" and cards_gib("a 7b on an rtx 9999") == 0.0


@pytest.mark.parametrize(
    ("words", "span"),
    [
        ("what did i approve yesterday", "yesterday"),
        ("what ran in the last 3 hours", "last 3 hours"),
        ("deployments on 2026-11-20", "2026-11-20"),
        ("what happened on monday", "monday"),
        ("the last run", ""),
    ],
)
def test_a_span_is_read_as_it_is_said(words: str, span: str) -> None:
    assert span_named(words) == span
    assert (window(span) is None) == (span == "")


@pytest.mark.parametrize(
    "span", ["today", "yesterday", "last week", "last month", "this month", "last 3 days", "monday"]
)
def test_every_span_begins_before_it_ends_and_none_begins_in_the_future(span: str) -> None:
    found = window(span)
    assert found is not None and found[0] < found[1] and found[0] <= time.time()


def test_yesterday_ends_where_today_begins() -> None:
    yesterday, today = window("yesterday"), window("today")
    assert yesterday and today and yesterday[1] == today[0] and yesterday[0] < yesterday[1]


def test_a_day_that_there_is_none_of_is_no_span() -> None:
    assert window("2026-13-40") is None
