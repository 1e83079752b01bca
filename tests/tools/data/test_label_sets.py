"""Sets and numbers are told from the examples: by what stands between values, and by figures in whichever marks."""

from __future__ import annotations

import json
from typing import Any

from tests.fixtures.tables import table
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.draw import draw
from tunesmith.tools.data.examples import LabelSet, label_set, places_said
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import gives_back


@table(
    ("values", "texts", "expected"),
    [
        (("hot", "sweet"), ("hot, sweet", "sweet"), LabelSet(", ", (1, 2))),
        (("hot", "sweet"), ("sweet / hot", "sweet", "plain"), LabelSet(" / ", (1, 2), "plain")),
        (("hot", "sweet"), ("hot, sour", "sweet, hot", "none", "bare"), LabelSet(", ", (1, 2))),
        (("辣", "素"), ("辣、素", "无"), LabelSet("、", (2, 2), "无")),
        (("sans gluten", "sans"), ("sans, sans gluten",), LabelSet(", ", (2, 2))),
        (("hot", "sweet"), ("hot", "sweet"), None),
        (("hot", "sweet"), ("hot and sweet",), None),
        (("hot", "sweet"), ("hotsweet",), None),
        ((), ("hot, sweet",), None),
    ],
)
def test_a_set_is_what_shows_two_of_its_values_beside_one_another(values: Any, texts: Any, expected: Any) -> None:
    assert label_set(values, texts) == expected


@table(
    ("message", "value", "places"),
    [
        ("Total: 1.240,50 €", "1240.5", 2),
        ("Total: 1,240.50 €", "1240.50", 2),
        ("1 240,50 kr", "1240.5", 2),
        ("CHF 1'240.50", "1240.5", 2),
        ("2 bags, 12,5 each", "12.50", 1),
        ("3, 4 and 5", "3", 0),
        ("12.000 people", "12000", 0),
        ("two of them", "2", None),
        ("room 112", "12", None),
        ("room 112", "high", None),
    ],
)
def test_a_number_is_said_in_whichever_marks_people_write(message: str, value: str, places: int | None) -> None:
    assert places_said(message, value) == places


def spec(examples: dict[str, str], **more: Any) -> Spec:
    shown = [{"prompt": prompt, "answer": answer} for prompt, answer in examples.items()]
    return spec_of({"name": "own", "what": "w", "examples": shown, **more}, "x")


DISHES = {"pea soup, ten minutes": "quick, vegan", "stew": "none", "chili": "hot", "thai curry with tofu": "vegan, hot"}


@table(
    ("answers", "template"),
    [(DISHES, None), ({m: f"tags: {a}" for m, a in DISHES.items()}, "tags: {tags}")],
)
def test_a_set_in_a_text_is_drawn_and_composed_and_none_of_it_is_its_own_text(
    answers: dict[str, str], template: str | None
) -> None:
    """Whatever order an example shows it in."""
    own = spec(answers, template=template, fields={"tags": ["hot", "vegan", "quick"]})
    tags = own.attribute("tags")
    assert (tags.kind, tags.many, tags.joined, tags.absent_as) == ("label", (1, 2), ", ", "none")
    assert all(gives_back(own, one) for one in own.examples)
    drawn = {form_of(own).compose(draw(own, 1, n).records).removeprefix("tags: ") for n in range(40)}
    assert "none" in drawn and any(", " in one for one in drawn)
    assert {value for one in drawn for value in one.split(", ")} == {"hot", "vegan", "quick", "none"}


@table(
    ("stated", "many"), [(None, (1, 2)), (True, (1, 2)), ([0, 3], (0, 3)), ([2, 2], (1, 2))],
)  # fmt: skip
def test_a_set_has_as_many_values_as_were_stated_and_as_the_examples_show(stated: Any, many: Any) -> None:
    shown = {"snap it": ["photo"], "call and snap": ["photo", "call"], "ring me": ["call"]}
    examples = {message: json.dumps({"may": may}) for message, may in shown.items()}
    own = spec(examples, fields={"may": {"values": ["call", "photo", "place"], "many": stated}})
    assert own.attribute("may").many == many and own.answer.form == "json"


BILLS = {"Sol: 1.240,50 €": "1240.50", "17/11, 86,20 euros": "86.20", "La cuenta de 300 €": "300.00"}


@table(
    ("answers", "field", "kind"),
    [
        ({m: f'{{"sum": {a}}}' for m, a in BILLS.items()}, "", "amount"),
        ({m: f'{{"sum": {a}}}' for m, a in BILLS.items()}, {"kind": "number"}, "number"),
        (BILLS, "", "amount"),
        (BILLS, {"kind": "text"}, "text"),
        ({"12.000 people": '{"sum": 12000}', "8.500 came": '{"sum": 8500}', "900": '{"sum": 900}'}, "", "number"),
        ({"24,5 kg": '{"sum": 24.5}', "3 kg": '{"sum": 3}', "11.25 kg": '{"sum": 11.25}'}, "", "number"),
        ({"two pies": '{"sum": 2}', "a pie": '{"sum": 1}', "three": '{"sum": 3}'}, "", "text"),
    ],
)
def test_a_number_that_a_message_writes_in_other_marks_is_still_a_number(
    answers: dict[str, str], field: Any, kind: str
) -> None:
    """Of a text that no code can draw a writer would make up the value."""
    template = None if "{" in next(iter(answers.values())) else "{sum}"
    assert spec(answers, template=template, fields={"sum": field}).attribute("sum").kind == kind
