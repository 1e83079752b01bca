"""A label that a number decides: the number is drawn, noted, and stands in the message, or the message is no row's."""

from __future__ import annotations

import pytest

from tunesmith.tools.data.draw import draw
from tunesmith.tools.data.example_values import shown_examples
from tunesmith.tools.data.message_checks import drawn_problem, said_in
from tunesmith.tools.data.propose import completed
from tunesmith.tools.data.ranges import numbers, value_of
from tunesmith.tools.data.spec import Attribute, Spec, Value
from tunesmith.tools.data.writer_requests import note

ROOMS = completed(
    Spec(
        name="rooms",
        when="the user asks for a meeting room",
        what='"small", "medium" or "large". Small is up to 4 people, medium 5 to 12, large 13 and more.',
        never="explain",
        examples=[
            {"prompt": "We need a room for six people.", "answer": "medium"},
            {"prompt": "A room for me and Anna", "answer": "small"},
            {"prompt": "room for 20, company quiz", "answer": "large"},
        ],
    )
)
SIZE = ROOMS.labels[0]


def label(**means: str) -> Attribute:
    return Attribute(name="size", values={name: Value(means=text) for name, text in means.items()})


@pytest.mark.parametrize(
    ("means", "ranges"),
    [
        ({"a": "up to 4 people", "b": "5 to 12", "c": "13 and more"}, {"a": (1, 4), "b": (5, 12), "c": (13, 39)}),
        ({"a": "less than 3 days", "b": "at least three days"}, {"a": (1, 2), "b": (3, 9)}),
        ({"a": "18 or under", "b": "over 18"}, {"a": (1, 18), "b": (19, 57)}),
        ({"a": "between 10 and 50 users", "b": "51-200", "c": "no users"}, {"a": (10, 50), "b": (51, 200)}),
        ({"a": "bis 4 Personen", "b": "ab 5 Personen"}, {"a": (1, 4), "b": (5, 15)}),
        ({"a": "5+", "b": "fewer than five"}, {"a": (5, 15), "b": (1, 4)}),
    ],
)
def test_ranges_are_told_in_the_words_that_people_use(
    means: dict[str, str], ranges: dict[str, tuple[int, int]]
) -> None:
    assert numbers(label(**means)) == ranges


@pytest.mark.parametrize(
    "means",
    [
        {"a": "up to 10", "b": "5 to 20"},  # overlap
        {"a": "before 12:00", "b": "after 12:00"},  # times, which are another kind
        {"a": "over 1,000 users", "b": "under 1,000 users"},  # not read, so not misread
        {"a": "1 to 3 days, or 5", "b": "over 9"},  # one range and more
        {"a": "somebody is hurt", "b": "over 9"},  # nothing to part it from
        {"P1": "all are hit", "P2": "one is hit"},
    ],
)
def test_what_does_not_part_values_by_one_number_draws_none(means: dict[str, str]) -> None:
    assert numbers(label(**means)) == {}


def test_a_drawn_number_lies_in_its_values_range_and_stands_in_the_note() -> None:
    for index in range(60):
        drawn = draw(ROOMS, 1, index)
        size, surface = str(drawn.values[SIZE.name]), drawn.surfaces[0][SIZE.name]
        low, high = numbers(SIZE)[size]
        assert low <= value_of(surface) <= high
        assert f'{size} ({SIZE.values[size].means}, "{surface}")' in note(ROOMS, drawn.values, drawn.surfaces[0])


def test_a_message_that_says_no_number_or_one_of_another_value_is_no_row() -> None:
    values, surfaces = {SIZE.name: "medium"}, {SIZE.name: "7"}

    def problem(message: str) -> str:
        return drawn_problem(ROOMS, values, said_in(ROOMS, values, surfaces, message), message)

    assert problem("Could we get a room for the team?") and problem("A room for 14, please")
    assert problem("A room on floor 17") and problem("Room B7, please")
    for message in ("A room for 7", "a room for Seven of us", "We are 8 and need a room"):
        assert not problem(message)


def test_the_examples_are_shown_with_the_number_that_they_say() -> None:
    assert [one.surfaces.get(SIZE.name) for one in shown_examples(ROOMS)] == ["six", None, "20"]


def test_the_same_row_is_drawn_again() -> None:
    assert [draw(ROOMS, 3, n) for n in range(20)] == [draw(ROOMS, 3, n) for n in range(20)]
    assert len({draw(ROOMS, 3, n).surfaces[0][SIZE.name] for n in range(20)}) > 5
