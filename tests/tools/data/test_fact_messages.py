"""Messages that begin with a fact of the spec: the answer is right by construction, or the row is told apart."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.draw import Draw, answer_of, draw
from tunesmith.tools.data.fact_messages import compose, go_on_messages, problems, taken

DEMO = load_behaviour("demo")
WRITTEN = ["I really hope that somebody looks into it."]


def drawn(typing: str = "", **wanted: object) -> Draw:
    for index in range(2000):
        one = draw(DEMO, 17, index)
        if all(one.values[name] == value for name, value in wanted.items()) and typing in ("", one.told["typing"]):
            return one
    raise AssertionError(f"nothing drawn has {wanted}")


def test_a_seed_and_a_number_always_draw_the_same_row() -> None:
    assert [draw(DEMO, 3, i) for i in range(50)] == [draw(DEMO, 3, i) for i in range(50)]
    assert draw(DEMO, 3, 7) != draw(DEMO, 4, 7)


def test_any_stretch_of_rows_is_balanced_over_labels_and_situations() -> None:
    rows = [draw(DEMO, 17, i) for i in range(150, 300)]
    assert set(Counter(row.values["category"] for row in rows).values()) == {30}
    assert set(Counter(row.told["situation"] for row in rows).values()) == {2}


def test_what_was_drawn_is_in_the_text_whatever_the_writer_wrote() -> None:
    for index in range(1500):
        one = draw(DEMO, 17, index)
        text = compose(DEMO, one, WRITTEN)
        assert problems(DEMO, one, text) == [], text
        assert one.values["order"] is None or one.values["order"] in text


def test_every_answer_keeps_the_rules_and_gives_its_keys_in_order_on_one_line() -> None:
    for index in range(600):
        answer = answer_of(DEMO, draw(DEMO, 17, index))
        assert broken_rule(DEMO.rules, answer) is None, answer
        value = json.loads(answer)
        assert "\n" not in answer and tuple(value) == ("category", "urgency", "order", "summary")
        assert len(value["summary"].split()) <= 12


def test_a_draw_is_given_back_by_its_record() -> None:
    one = draw(DEMO, 17, 5)
    assert RowAttributes.of(json.loads(json.dumps(RowAttributes(draw=one).as_json()))).draw == one


@pytest.mark.parametrize(
    ("wanted", "change", "kind"),
    [
        ({}, lambda text: text + " Order 99182736.", "value"),
        ({"urgency": "normal"}, lambda text: text + " This is urgent.", "label"),
        ({}, lambda text: text + " As an AI I have no orders.", "role"),
        ({}, lambda text: "Hello there, how are you?", "off-topic"),
        ({}, lambda text: text + " so it goes on and on" * 2, "loop"),
        ({}, lambda text: "Hm.", "length"),
        ({}, lambda text: text + " я очень недоволен вашим магазином", "language"),
    ],
)
def test_a_text_that_contradicts_its_label_is_told_with_the_kind(wanted, change, kind) -> None:  # type: ignore[no-untyped-def]
    one = drawn(**wanted)
    found = problems(DEMO, one, change(compose(DEMO, one, WRITTEN)))
    assert kind in [reason.partition(":")[0] for reason in found], found


def test_a_lost_reference_is_told() -> None:
    one = next(d for n in range(100) if (d := draw(DEMO, 17, n)).values["order"] and d.told["typing"] == "as-is")
    text = compose(DEMO, one, WRITTEN).replace(str(one.values["order"]), "12")
    assert any(reason.startswith("value") for reason in problems(DEMO, one, text))


@pytest.mark.parametrize(
    ("answered", "kept"),
    [
        (" Nobody told me. Dear customer, we apologize.", ["Nobody told me."]),
        (" Nobody told me. It was 48213 or so.", ["Nobody told me."]),
        (" and I need it immediately. Nobody told me.", []),
        (" as an AI I cannot know. Nobody told me.", []),
        (" Nobody told me. And then the", ["Nobody told me."]),
    ],
)
def test_of_the_writers_sentences_only_those_that_fit_the_label_are_taken(answered: str, kept: list[str]) -> None:
    assert taken(DEMO, drawn(urgency="normal"), answered) == kept


def test_the_writer_never_sees_the_reference_or_the_label() -> None:
    for index in range(300):
        one = draw(DEMO, 17, index)
        asked = json.dumps(go_on_messages(DEMO, one))
        assert one.values["order"] is None or one.values["order"] not in asked
        assert '"category' not in asked
