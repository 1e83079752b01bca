"""Rows that become cases: their answers are known, nothing like them is trained on, and a person's word comes first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.behaviours import FEEDBACK
from tests.fixtures.tables import table
from tunesmith.memory.marks import Decision, Mark, add_mark, marks_of
from tunesmith.memory.records import KEEP, TrainingRow, Verdict
from tunesmith.memory.row_attributes import Draw, RowAttributes
from tunesmith.memory.store import Store
from tunesmith.tools.data.balance import suspects
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.critique_job import Critic
from tunesmith.tools.data.held_out import KIND, hold_out, masked
from tunesmith.tools.data.spec_suites import write_case_suites
from tunesmith.tools.suites.case import MODELS_WORK
from tunesmith.tools.suites.grading import Response, grade
from tunesmith.tools.suites.leakage import LeakGate
from tunesmith.tools.suites.loading import load_suites

EXAMPLES = [
    ("the fern needs 2.5 litres", "fern gets 2.5"),
    ("Give 1.0 to the ivy", "ivy gets 1.0"),
    ("water the palm", "palm gets -"),
]
SPEC = spec_of(
    {
        "name": "water",
        "say": "what a plant gets",
        "what": "PLANT gets LITRES",
        "fields": {"PLANT": "plant", "LITRES": "how much, or a dash"},
        "examples": [{"prompt": p, "answer": a} for p, a in EXAMPLES],
    },
    "test",
)
PLANTS = ["oak", "elm", "birch", "maple", "cedar", "willow", "cherry", "apple", "plum", "quince", "hazel", "rowan"]
WORDS = ["yesterday", "my", "neighbour", "said", "that", "this", "old", "tree", "behind", "our", "shed", "again"]


def row(number: int, plant: str, text: str = "", origin: str = "generated", kept: bool = True) -> TrainingRow:
    message = (
        text or f"{WORDS[number % len(WORDS)]} {plant} {WORDS[(number * 7) % len(WORDS)]} {plant[::-1]} {number}.5"
    )
    answer = f"{plant} gets {number}.5" if origin == "generated" else "It is a tree."
    verdict = Verdict(KEEP) if kept else Verdict("rule")
    turns = [{"role": "user", "content": message}], [{"role": "assistant", "content": answer}]
    return TrainingRow(f"w{number:05d}", origin, *turns, RowAttributes(text=message), verdict=verdict)


ROWS = [row(n, plant) for n, plant in enumerate(PLANTS)]


def mark(of: TrainingRow, decision: Decision, answer: str = "") -> Mark:
    was = of.completion[0]["content"]
    return Mark("water", "r1", "s1", of.row_id, decision, of.prompt[0]["content"], answer or was, was)


def held_rows(rows: Sequence[TrainingRow]) -> list[str]:
    return [one.row_id for one in rows if one.verdict and one.verdict.kind == KIND]


def test_cases_are_kept_rows_with_their_answers_and_pass_with_those_alone(tmp_path: Path) -> None:
    held = hold_out(SPEC, [*ROWS, row(90, "yew", kept=False)], [], 5, 85)
    assert len(held.of("written")) == 5 and held.cases == 5 and len(held_rows(held.rows)) >= 5
    write_case_suites(SPEC, tmp_path, held)
    cases = load_suites([tmp_path / "held-out.yaml"]).cases
    answers = [Response(text=example.answer) for example in held.of("written")]
    passed = [[grade(case, answer).passed for answer in answers] for case in cases]
    assert passed == [[own == other for other in range(5)] for own in range(5)], "each by its own answer and no other"


def test_nothing_like_a_case_is_trained_on() -> None:
    twins = [row(50 + n, plant, text=ROWS[n].prompt[0]["content"].upper()) for n, plant in enumerate(PLANTS)]
    held = hold_out(SPEC, [*ROWS, *twins], [], 6, 85)
    gate = LeakGate(load_cases(held.of("written")), SPEC.slot, 85)
    left = [one for one in held.rows if one.usable]
    assert left and not [one for one in left if gate.check(one.row_id, [one.prompt[0]["content"]])]
    assert len(held_rows(held.rows)) > len(held.of("written")), "with a case its twin goes"


def load_cases(examples: Sequence[object]) -> list[object]:
    from tunesmith.tools.suites.case import Case

    return [
        Case(case_id=f"c{n}", suite="s", messages=(), vars={SPEC.slot: example.prompt})  # type: ignore[attr-defined]
        for n, example in enumerate(examples)
    ]


def test_what_a_person_put_right_comes_first_and_as_many_near_misses_go_along(tmp_path: Path) -> None:
    near = [row(200 + n, plant, text=f"What is a {plant}?", origin="near_miss") for n, plant in enumerate(PLANTS)]
    marks = [mark(ROWS[3], "edit", "maple gets -"), mark(ROWS[4], "keep"), mark(ROWS[5], "drop")]
    held = hold_out(SPEC, [*ROWS, *near], marks, 4, 85)
    assert [example.answer for example in held.of("marked")] == ["maple gets -", "cedar gets 4.5"]
    assert len(held.of("written")) == 2 and len(held.near_misses) == 4
    own = tuple(SPEC.text_of(one.prompt) for one in near[2:])
    held = hold_out(SPEC.model_copy(update={"near_misses": own}), [*ROWS, *near], marks, 4, 85)
    assert not set(held.near_misses) & set(own), "the user's own that are rows teach: the others are cases already"
    assert not hold_out(SPEC, ROWS, [mark(ROWS[3], "edit", "no such form")], 0, 85).known, "it breaks a rule of today"


def test_marks_drop_correct_and_overrule_the_reader(tmp_path: Path) -> None:
    store = Store(tmp_path)
    doubt = RowAttributes(problem="reading: PLANT was drawn as 'larch' and read as 'loch'")
    doubted = replace(row(60, "larch"), attributes=doubt)
    for one in (
        mark(ROWS[0], "keep"),
        mark(ROWS[0], "drop"),
        mark(ROWS[1], "edit", "elm gets -"),
        mark(doubted, "keep"),
    ):
        add_mark(store, one)
    marks = marks_of(store, "water")
    assert [one.decision for one in marks] == ["drop", "edit", "keep"], "the last word on a message counts"
    assert marks_of(store, "other") == []
    critic = Critic(SPEC, [], CritiqueRequest(embeddings=False), marks)
    judged = critic.judge([*ROWS[:3], doubted])
    assert [str(one.verdict).split(":")[0] for one in judged] == ["marked", "keep", "keep", "keep"]
    assert judged[1].completion[0]["content"] == "elm gets -"


@pytest.mark.parametrize("count", [0, 3])
def test_without_marks_and_a_number_nothing_is_held_out(count: int) -> None:
    assert len(hold_out(SPEC, ROWS, [], count, 85).of("written")) == count


def test_rows_whose_answers_are_only_hoped_to_be_right_are_no_cases() -> None:
    near = [row(200 + n, plant, text=f"What is a {plant}?", origin="near_miss") for n, plant in enumerate(PLANTS)]
    held = hold_out(SPEC, [*ROWS, *near], [mark(ROWS[3], "keep")], 5, 85, known=False)
    assert (len(held.of("marked")), len(held.of("written"))) == (1, 0) and held.near_misses, (
        "a person knows; near misses are ordinary"
    )


def quoting(number: int, quote: str, rest: str) -> TrainingRow:
    """A row whose answer copies a piece of its message, as it was drawn."""
    values = {"mood": "cross", "quote": quote}
    drawn = Draw(f"w{number:05d}", (values,), ({"quote": quote},), number)
    turns = [{"role": "user", "content": f"{quote} {rest}"}], [{"role": "assistant", "content": json.dumps(values)}]
    return TrainingRow(drawn.row_id, "generated", *turns, RowAttributes(draw=drawn), verdict=Verdict(KEEP))


def test_what_a_case_answers_by_copying_no_training_row_answers() -> None:
    feedback = spec_of(FEEDBACK, "x")
    quotes = ["the queue was endless", "nobody spoke to us", "my coat vanished", "stairs without a rail", "cold soup"]
    ends = ["and so we left.", "at noon, of all times!", "Never again, said my aunt from Bergen."]
    rows = [quoting(3 * n + m, quote, end) for n, quote in enumerate(quotes) for m, end in enumerate(ends)]
    held = hold_out(feedback, rows, [], 5, 95)
    trained = {json.loads(one.completion[0]["content"])["quote"] for one in held.rows if one.usable}
    asked = {json.loads(example.answer)["quote"] for example in held.of("written")}
    assert len(held.of("written")) == 5 and trained and not trained & asked
    assert len(asked) == 2, "whole groups, so that little is lost"


def test_a_row_that_the_user_brought_is_a_case_of_a_persons(tmp_path: Path) -> None:
    held = hold_out(SPEC, [replace(one, origin="imported") for one in ROWS], [], 4, 85)
    assert len(held.of("own")) == 4 and not held.of("written")
    write_case_suites(SPEC, tmp_path, held)
    sources = {str(case.metadata["source"]) for case in load_suites([tmp_path / "held-out.yaml"]).cases}
    assert sources == {"own"} and not sources & set(MODELS_WORK)


def test_ten_marks_are_ten_blind_cases_and_say_who_and_when(tmp_path: Path) -> None:
    brought = [replace(mark(one, "keep"), origin="imported", at=1_795_000_000.0) for one in ROWS[:10]]
    written = [replace(mark(one, "keep"), origin="generated") for one in ROWS[10:]]
    held = hold_out(SPEC, ROWS, [*written, *brought], 0, 85)
    assert len(held.of("gold")) == 10 and not held.of("marked"), "people's messages come first"
    write_case_suites(SPEC, tmp_path, held)
    cases = load_suites([tmp_path / "held-out.yaml"], models=("judge",)).cases
    assert all(case.is_blind and case.of_people and case.tests_meaning for case in cases)
    assert {case.metadata["at"] for case in cases} == {"2026-11-18T11:06:40+00:00"}
    models_own = hold_out(SPEC, ROWS, written, 0, 85)
    assert len(models_own.of("marked")) == 2, "right by a person, and no person's message"


def test_a_mark_knows_where_its_row_came_from(tmp_path: Path) -> None:
    store = Store(tmp_path)
    step = store.propose(store.new_run("r"), "import", plan={}, plan_hash="h", estimated_seconds=1.0)
    store.add_rows("r1", step, [replace(ROWS[0], origin="imported"), ROWS[1]])
    for one in ROWS[:3]:
        add_mark(store, replace(mark(one, "keep"), step=step))
    assert [one.of_people for one in marks_of(store, "water")] == [True, False, False], "a row that is gone is nobody's"


POEM = spec_of(
    {
        "name": "poem",
        "say": "s",
        "what": "a poem",
        "examples": [{"prompt": f"sing of {n}", "answer": f"tra la {n * 3}"} for n in ("a", "bee", "sea")],
    },
    "test",
)


@table(("agreed", "answer"), [(True, "oak gets 0.5"), (False, ""), (None, "")])
def test_an_answer_that_a_model_wrote_once_is_no_gold(agreed: bool | None, answer: str, tmp_path: Path) -> None:
    rows = [replace(one, attributes=replace(one.attributes, agreed=agreed)) for one in ROWS]
    held = hold_out(POEM, rows, [], 12, 85)
    assert {case.answer for case in held.known if "oak" in case.prompt} == {answer}
    write_case_suites(POEM, tmp_path, held, judged=False)
    cases = load_suites([tmp_path / "held-out.yaml"]).cases
    assert len(cases) == 12 and not any(case.of_people or case.tests_meaning for case in cases)


def test_rows_that_share_what_they_were_made_from_are_one_cluster(tmp_path: Path) -> None:
    def made(number: int, plant: str, request: str) -> TrainingRow:
        one = row(number, plant, text=f"{WORDS[number]} {plant} {WORDS[number + 1]} {number}.5 {plant[::-1]}")
        drawn = Draw(one.row_id, ({"PLANT": plant, "LITRES": f"{number}.5"},), ({},), number, {"request": request})
        return replace(one, attributes=RowAttributes(draw=drawn))

    rows = [made(0, "oak", "m1/0"), made(1, "elm", "m1/0"), made(2, "elm", "m1/1"), made(3, "yew", "m1/2")]
    write_case_suites(SPEC, tmp_path, hold_out(SPEC, rows, [], 4, 99))
    clusters = {str(c.vars["message"]).split()[1]: c.cluster for c in load_suites([tmp_path / "held-out.yaml"]).cases}
    assert len({clusters["oak"], clusters["elm"]}) == 1 and clusters["yew"] != clusters["oak"]


def test_no_view_shows_what_a_held_out_row_says() -> None:
    held = hold_out(SPEC, ROWS, [], 4, 85)
    out = [one for one in held.rows if not one.usable]
    assert out and not {one.message for one in suspects(SPEC, held.rows)} & {one.prompt[0]["content"] for one in out}
    texts = str([masked(replace(one, attributes=replace(one.attributes, text=""))) for one in out])
    assert not any(word in texts for one in out for word in one.prompt[0]["content"].split() if len(word) > 4)
