"""Written answers: the best of several under the rules, and gold only where most of them come to the same value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fixtures.ordinary_behaviours import BEHAVIOURS
from tests.fixtures.scripted_asker import Answering
from tests.fixtures.tables import table
from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.data.answers import answer_messages, write_answers
from tunesmith.tools.data.synthesis import Written
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

VAT = BEHAVIOURS["vat"].spec("vat").model_copy(update={"rules": ()})
PIRATE = BEHAVIOURS["pirate"].spec("pirate")


def solver_of(solve: Callable[[str, int], str], finish: str = "stop") -> Answering:
    """Solves what a request asks for as `solve` does, given the message and the number of the sample."""

    def answer(request: ChatRequest) -> ChatResponse:
        text = solve(str(request.messages[-1]["content"]), int(request.id[1]))
        return ChatResponse(id=request.id, text=text, finish_reason=finish)

    return Answering(answer)


def rows(count: int) -> list[Written]:
    return [
        Written(Draw(f"w{n:05d}", (), (), n), f"net {100 + n}", problem="" if n != 5 else "rule: x")
        for n in range(count)
    ]


def solved(solver: Answering, count: int = 30, spec: object = VAT) -> dict[str, Written]:
    return {one.message: one for one in write_answers(spec, solver, rows(count), 0.7)}  # type: ignore[arg-type]


def gross(message: str, rate: float = 1.19) -> str:
    return f"{int(message.split()[1]) * rate:.2f}"


@table(
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
        ("A and B", "B and A", False),
    ],
)
def test_answers_are_compared_by_value(first: str, second: str, same: bool) -> None:
    one = solved(solver_of(lambda message, sample: (first, second, "x", "y")[sample]), 1)["net 100"]
    assert (one.agreed is True) == same


def test_two_that_agree_are_enough_and_of_others_what_most_come_to_is_taken() -> None:
    """Every third row is taxed at the wrong rate by the first sample, every ninth by the second as well."""

    def solve(message: str, sample: int) -> str:
        number = int(message.split()[1])
        wrong = (number % 3 == 0 and sample == 0) or (number % 9 == 0 and sample == 1)
        return gross(message, 1.2 if wrong else 1.19)

    solver = solver_of(solve)
    made = solved(solver)
    right = {message for message, one in made.items() if one.answer == gross(message)}
    assert all(one.agreed is True for message, one in made.items() if message in right and one.agreed is not None)
    assert {m for m, one in made.items() if not one.problem} - right == {m for m in made if int(m.split()[1]) % 9 == 0}
    assert made["net 105"].problem == "rule: x" and not any("net 105" in str(r.messages) for r in solver.asked)
    asked = sum(r.id.endswith("/w00001") for r in solver.asked), sum(r.id.endswith("/w00002") for r in solver.asked)
    assert asked == (2, 4)


def test_an_answer_that_breaks_a_rule_or_is_cut_off_is_never_the_best() -> None:
    texts = (" ".join(["arr"] * 60), "Aye, matey!", " ".join(["arr"] * 70), "Arr arr arr!")
    made = solved(solver_of(lambda message, sample: texts[sample]), 4, PIRATE)
    assert {one.answer for one in made.values()} == {"Aye, matey!"} and not any(one.problem for one in made.values())
    cut = solved(solver_of(lambda message, sample: "Aye", finish="length"), 4, PIRATE)
    assert {one.problem for one in cut.values()} == {"cut off: the answer met the token limit"}


def test_of_prose_the_judge_takes_the_likeliest_to_be_right() -> None:
    def judge(pairs: Mapping[str, tuple[str, str]]) -> dict[str, float]:
        return {name: 0.9 if "third" in answer else 0.2 for name, (_, answer) in pairs.items()}

    words = ("first", "second", "third", "fourth")
    solver = solver_of(lambda message, sample: f"the {words[sample]} on {message}")
    made = write_answers(PIRATE, solver, rows(4), 0.7, judge)
    assert [one.answer for one in made] == [f"the third on {one.message}" for one in made]
    assert all(one.agreed is False and one.margin and one.margin > 2 for one in made)


def test_prose_without_a_judge_is_not_asked_for_again_for_nothing() -> None:
    solver = solver_of(lambda message, sample: f"{sample} on {message}")
    made = solved(solver, 20, PIRATE)
    assert len(solver.asked) == 2 * 19 and not any(one.agreed for one in made.values())


def test_every_example_is_shown_in_turn_and_a_turn_begins_alike() -> None:
    spec = VAT.model_copy(update={"examples": tuple(e.model_copy(update={"prompt": f"net {n}"}) for n, e in enumerate(
        VAT.examples * 5))})  # fmt: skip
    turns = [answer_messages(spec, "x", turn=turn) for turn in range(8)]
    assert {str(turn["content"]) for one in turns for turn in one[1:-1:2]} == {e.prompt for e in spec.examples}
    assert turns[0] == turns[4] and turns[0] != turns[1]
