"""Other forms of a row say other drawn values and answer them; what cannot be right by construction is left out."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.fixtures.behaviours import COMMIT, PICKUP
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import Draw, RowAttributes
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.augmentation import EACH, variants
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.record_values import number_meant
from tunesmith.tools.data.row_checks import BehaviourChecks
from tunesmith.tools.data.spec import Spec

SPEC = spec_of(PICKUP, "x")


def row(
    spec: Spec, message: str, values: dict[str, str | None], surfaces: dict[str, str], identity: str = "w1"
) -> TrainingRow:
    drawn = Draw(identity, (values,), (surfaces,), 0)
    return TrainingRow(
        identity,
        "generated",
        [{"role": "user", "content": spec.render(message)}],
        [{"role": "assistant", "content": form_of(spec).compose(drawn.records)}],
        RowAttributes(draw=drawn, text=message),
    )


def message_of(one: TrainingRow) -> str:
    return str(one.prompt[-1]["content"])


def answer(one: TrainingRow) -> str:
    return str(one.completion[-1]["content"])


PARCEL = row(
    SPEC, "Tuesday the parcel goes, half past two in the afternoon if you can",
    {"day": "Tue", "hour": "14:30"}, {"day": "tuesday", "hour": "half past two in the afternoon"},
)  # fmt: skip


def test_a_variant_says_other_values_in_the_same_words_and_answers_them() -> None:
    made = variants(SPEC, [PARCEL], each=40)
    assert len(made) > 20 and len({message_of(one) for one in made}) == len(made)
    for one in made:
        assert re.fullmatch(r"[A-Z]\w+ the parcel goes, .+ if you can", message_of(one)), message_of(one)
        assert re.fullmatch(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [0-2]\d:[0-5]\d", answer(one))
        assert message_of(one)[:2].lower() == answer(one)[:2].lower()
        assert BehaviourChecks(SPEC, []).fault(one) is None
        assert one.attributes.variant_of == "w1" and one.row_id.startswith("w1.")
    assert {answer(one)[:3] for one in made} >= {"Mon", "Sat"} and len({answer(one)[4:] for one in made}) > 10


def test_the_same_rows_have_the_same_variants_and_as_many_as_are_seen() -> None:
    assert variants(SPEC, [PARCEL]) == variants(SPEC, [PARCEL]) and len(variants(SPEC, [PARCEL])) == EACH


def test_what_is_not_said_stays_unsaid() -> None:
    only = row(SPEC, "fetch it on friday", {"day": "Fri", "hour": None}, {"day": "friday"})
    assert all(answer(one).endswith(" -") for one in variants(SPEC, [only], each=5))


@pytest.mark.parametrize(
    ("message", "surfaces"),
    [
        ("friday or friday", {"day": "friday"}),  # which one?
        ("fetch it at the weekend", {"day": "friday"}),  # not there
    ],
)
def test_a_value_that_does_not_stand_in_one_place_has_no_variant(message: str, surfaces: dict[str, str]) -> None:
    assert not variants(SPEC, [row(SPEC, message, {"day": "Fri", "hour": None}, surfaces)])


def test_rows_from_elsewhere_and_words_without_values_have_none() -> None:
    assert not variants(SPEC, [replace(PARCEL, attributes=RowAttributes())])
    commit = spec_of(COMMIT, "x")
    values = {"type": "fix", "scope": "cli", "summary": "stop the crash"}
    assert not variants(commit, [row(commit, "The crash is gone", values, {})])


def test_a_number_that_tells_a_label_changes_within_its_range() -> None:
    sizes = {"small": {"between": [1, 4]}, "medium": {"between": [5, 12]}, "large": {"between": [13, 39]}}
    said = [("six of us", "medium"), ("me and Anna", "small"), ("all 20", "large")]
    spec = spec_of(
        {
            "name": "rooms", "when": "somebody wants a room", "what": "one word: small, medium or large",
            "never": "explain", "labels": sizes, "examples": [{"prompt": p, "answer": a} for p, a in said],
        },
        "x",
    )  # fmt: skip
    label = spec.labels[0].name
    made = variants(spec, [row(spec, "we are eight", {label: "medium"}, {label: "eight"})], each=20)
    assert len(made) > 5
    assert all(answer(one) == "medium" and 5 <= number_meant(message_of(one).split()[-1]) <= 12 for one in made)
