"""A label that a number decides: the number is drawn, noted, and stands in the message, or the message is no row's."""

from __future__ import annotations

from tests.fixtures.tables import table
from tunesmith.tools.data.draw import draw
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.record_values import number_meant, number_ranges
from tunesmith.tools.data.row_checks import drawn_problem, stated_surfaces
from tunesmith.tools.data.spec import Attribute, Spec, Value
from tunesmith.tools.data.verify import verified
from tunesmith.tools.data.writer_requests import example_shots, note

_SIZES = {"small": ("up to 4", (1, 4)), "medium": ("5 to 12", (5, 12)), "large": ("13 and more", (13, 39))}
ROOMS = verified(
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
    ),
    Proposal(
        parts=(Part(name="size", values={n: Value(means=m, between=b) for n, (m, b) in _SIZES.items()}),),
    ),
).spec
SIZE = ROOMS.labels[0]


@table(
    ("between", "decided"),
    [
        ({"a": (1, 4), "b": (5, 12), "c": None}, ["a", "b"]),
        ({"a": (1, 10), "b": (5, 20)}, []),
        ({"a": (1, 4), "b": None}, []),
        ({"a": (9, 4), "b": (10, 12)}, []),
        ({"a": None, "b": None}, []),
    ],
)
def test_only_ranges_that_part_the_values_decide_them(
    between: dict[str, tuple[int, int] | None], decided: list[str]
) -> None:
    label = Attribute(name="size", values={name: Value(between=of) for name, of in between.items()})
    assert list(number_ranges(label)) == decided
    assert list(number_ranges(label.model_copy(update={"kind": "text"}))) == []


def test_a_drawn_number_lies_in_its_values_range_and_stands_in_the_note() -> None:
    for index in range(60):
        drawn = draw(ROOMS, 1, index)
        size, surface = str(drawn.values[SIZE.name]), drawn.surfaces[0][SIZE.name]
        low, high = number_ranges(SIZE)[size]
        assert low <= number_meant(surface) <= high
        assert f'{size} ({SIZE.values[size].means}, "{surface}")' in note(ROOMS, drawn.values, drawn.surfaces[0])


def test_a_message_that_says_no_number_or_one_of_another_value_is_no_row() -> None:
    values, surfaces = {SIZE.name: "medium"}, {SIZE.name: "7"}

    def problem(message: str) -> str:
        return drawn_problem(ROOMS, values, stated_surfaces(ROOMS, values, surfaces, message), message)

    assert problem("Could we get a room for the team?") and problem("A room for 14, please")
    assert problem("A room on floor 17") and problem("Room B7, please")
    for message in ("A room for 7", "a room for Seven of us", "We are 8 and need a room"):
        assert not problem(message)


def test_the_examples_are_shown_with_the_number_that_they_say() -> None:
    assert [one.surfaces.get(SIZE.name) for one in example_shots(ROOMS)] == ["six", None, "20"]


def test_the_same_row_is_drawn_again() -> None:
    assert [draw(ROOMS, 3, n) for n in range(20)] == [draw(ROOMS, 3, n) for n in range(20)]
    assert len({draw(ROOMS, 3, n).surfaces[0][SIZE.name] for n in range(20)}) > 5
