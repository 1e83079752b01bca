"""Written answers: gold only where two independent solutions come to the same value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.fixtures.ordinary_behaviours import BEHAVIOURS
from tunesmith.tools.data.answers import same_answer, solved_twice
from tunesmith.tools.data.draw import Draw
from tunesmith.tools.data.synthesis import Written
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

VAT = BEHAVIOURS["vat"].spec("vat")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("119.00", " 119.00\n", True),
        ("119.00", "120.00", False),
        ("-5", "5", False),
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ("Paris", "paris.", True),
        ("好评。", "好评", True),
        ("ﬁne", "fine", True),
        ("", "", False),
        ("A and B", "B and A", False),
    ],
)
def test_answers_are_compared_by_value(first: str, second: str, same: bool) -> None:
    assert same_answer(first, second) is same


class Solver:
    """A second solver, and what it was asked."""

    model = "m"

    def __init__(self, solve: Callable[[str], str]) -> None:
        self.solve = solve
        self.asked: list[ChatRequest] = []

    def ask(
        self, requests: Sequence[ChatRequest], note: str, on_answer: Callable[[ChatResponse], None] | None = None
    ) -> dict[str, ChatResponse]:
        self.asked += requests
        return {r.id: ChatResponse(id=r.id, text=self.solve(str(r.messages[-1]["content"]))) for r in requests}


def written(count: int) -> list[Written]:
    """Answers of which every third is taxed at the wrong rate."""
    made = []
    for n in range(count):
        net = 100 + n
        answer = f"{net * (1.2 if n % 3 == 0 else 1.19):.2f}"
        made.append(Written(Draw(f"w{n:05d}", (), (), n), f"net {net}", answer, "" if n != 5 else "rule: x"))
    return made


def test_only_what_a_second_solution_comes_to_as_well_is_known() -> None:
    solver = Solver(lambda message: f"{int(message.split()[1]) * 1.19:.2f}")
    agreed = solved_twice(VAT, solver, written(30))
    assert agreed == {f"w{n:05d}": n % 3 != 0 for n in range(30) if n != 5}


def test_prose_is_not_solved_a_second_time_for_nothing() -> None:
    solver = Solver(lambda message: f"something else about {message}")
    assert not any(solved_twice(VAT, solver, written(100)).values()) and len(solver.asked) == 12


def test_the_second_solution_is_asked_for_in_another_way() -> None:
    solver = Solver(lambda message: "x")
    solved_twice(VAT, solver, written(1))
    turns = [str(message["content"]) for message in solver.asked[0].messages]
    assert turns[1] == VAT.examples[-1].prompt and solver.asked[0].temperature == 0.0
