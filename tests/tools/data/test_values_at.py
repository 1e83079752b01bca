"""Where an answer says its values is told from the answer and its form; where nothing is known nothing is claimed."""

from __future__ import annotations

import pytest

from tests.fixtures.behaviours import PICKUP
from tests.fixtures.tables import table
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.behaviour import load_behaviour, spec_of
from tunesmith.tools.data.draw import draw
from tunesmith.tools.data.spec import Answer, Spec

JSON, WRITTEN = Answer(form="json"), Answer()
TEXT = Answer(form="text", template="room={room}; person={person}", otherwise="no parcel")
LINES = Answer(form="lines", template="- {what} at {when}", otherwise="nothing")


def values_at(answer: Answer, text: str) -> list[str]:
    """What of an answer its form takes for values."""
    form = form_of(spec_of(PICKUP, "x").model_copy(update={"answer": answer}))
    return [text[start:end] for start, end in form.values_at(text)]


@table(
    ("answer", "text", "values"),
    [
        (TEXT, "room=34; person=Bo", ["34;", "Bo"]),  # the mark after a value says where it ends
        (TEXT, "no parcel", ["no parcel"]),
        (TEXT, "room 34, Bo", []),
        (TEXT, "", []),
        (Answer(form="text", template="{label}"), "urgent", ["urgent"]),
        (LINES, "- tea at 3\n- a walk at 14:30", ["tea ", "3\n", "a walk ", "14:30"]),
        (LINES, "- tea at 3\nand no more", []),
        (LINES, "nothing", ["nothing"]),
        (JSON, '{"a": 34, "b": "Bo \\"B\\" Li", "c": false, "d": []}', ["34", '"Bo \\"B\\" Li"', "false", "[]"]),
        (JSON, '{"a": {"b": [1, -2.5e3, {"c": null}]}, "d:": "e: f"}', ["1", "-2.5e3", "null", '"e: f"']),
        (JSON, '{"room": 34', []),
        (WRITTEN, "Thank you for your message.", []),
        (WRITTEN, '[{"name": "lamp", "arguments": {"on": true}}]', ['"lamp"', "true"]),
        (WRITTEN, '"a text in quotes"', []),
        (WRITTEN, "[" * 100_000, []),
    ],
)  # fmt: skip
def test_values_are_found_in_a_finished_answer(answer: Answer, text: str, values: list[str]) -> None:
    assert values_at(answer, text) == values


def test_a_value_at_the_end_of_an_answer_reaches_behind_it() -> None:
    """So that the token which ends the answer belongs to it."""
    form = form_of(spec_of(PICKUP, "x").model_copy(update={"answer": TEXT}))
    assert form.values_at("room=34; person=Bo")[-1] == (16, 19)


@pytest.mark.parametrize("spec", [spec_of(PICKUP, "x"), load_behaviour("demo")], ids=["pickup", "demo"])
def test_all_that_was_drawn_and_is_answered_stands_in_the_values_of_the_answer(spec: Spec) -> None:
    for number in range(40):
        drawn = draw(spec, 17, number)
        answer = form_of(spec).compose(drawn.records)
        values = values_at(spec.answer, answer)
        said = [value for a in spec.attributes if a.shown and (value := drawn.values.get(a.name))]
        assert values and all(any(value in one for one in values) for value in said), answer
        assert len(values) <= sum(a.shown for a in spec.attributes)


@table("stored", [[[5, 8], [16, 19]], "5-8", [5, 8], [{"start": 5}]])
def test_a_row_keeps_the_places_and_takes_nothing_else_for_them(stored: object) -> None:
    read = RowAttributes.of({"values_at": stored})
    assert read.as_json() == {"values_at": stored if stored != [[5, 8], [16, 19]] else ((5, 8), (16, 19))}
    assert read.values_at == (((5, 8), (16, 19)) if stored == [[5, 8], [16, 19]] else ())
