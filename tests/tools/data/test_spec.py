"""A spec: read from what a user would say, completed in code the same way each time, and given back by its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.behaviours import ALL, CLAIM, COMMIT, ERRANDS, FEEDBACK, PICKUP
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.behaviour import behaviour_folder, load_behaviour, load_rehearsal, spec_of
from tunesmith.tools.data.example_values import shown_examples, shown_pieces
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_file import spec_text


def kinds(spec: Spec) -> dict[str, str]:
    return {a.name: a.kind for a in spec.attributes if a.shown}


def test_the_form_and_the_kinds_of_an_answer_are_told_from_its_examples() -> None:
    pickup, feedback, claim, errands, commit = (spec_of(said, "x") for said in ALL)
    assert (pickup.answer.form, kinds(pickup)) == ("text", {"day": "weekday", "hour": "time"})
    assert (feedback.answer.form, kinds(feedback)) == ("json", {"mood": "label", "quote": "copied"})
    assert feedback.attribute("mood").values["torn"].means == "both" and feedback.attribute("quote").words_max == 8
    assert (claim.answer.form, kinds(claim)) == ("text", {"NUMBER": "digits", "TROUBLE": "text"})
    assert claim.answer.otherwise == "Which loan?\nYour library" and claim.answer.needs == ("NUMBER",)
    assert claim.attribute("NUMBER").lengths == (6,)
    assert (errands.answer.form, kinds(errands)) == ("lines", {"WHO": "copied", "job": "text"})
    assert errands.attribute("WHO").absent_as == "anyone" and errands.answer.otherwise == "Nothing."
    assert commit.answer.template == "{type}({scope}): {summary}" and kinds(commit)["type"] == "label"
    assert list(commit.attribute("type").values) == ["feat", "fix", "docs", "test"]


@pytest.mark.parametrize("said", ALL, ids=lambda said: said["name"])
def test_every_example_keeps_the_proposed_rules_and_is_read_back_into_its_own_answer(said: dict[str, Any]) -> None:
    spec = spec_of(said, "x")
    for example in spec.examples:
        assert broken_rule(spec.rules, example.answer) is None, spec.rules
        assert form_of(spec).parse(example.answer) is not None


@pytest.mark.parametrize("said", ALL, ids=lambda said: said["name"])
def test_a_spec_is_given_back_by_its_file_and_completed_but_once(said: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of(said, "x")
    (tmp_path / "behaviour.yaml").write_text(spec_text(spec))
    assert load_behaviour(str(tmp_path)) == spec
    assert spec_of(said, "elsewhere").sha256 == spec.sha256


def test_what_an_example_says_is_found_in_its_message() -> None:
    pickup = [shown.surfaces for shown in shown_examples(spec_of(PICKUP, "x"))]
    assert pickup[0] == {"day": "monday", "hour": "half past two in the afternoon"}
    assert pickup[2] == {"hour": "6 pm"} and pickup[3] == {"day": "wednesdays"}
    pieces, fillers = shown_pieces(spec_of(ERRANDS, "x"))
    assert [piece.message for piece in pieces] == [
        "Lena feeds the cat.", "Omar will fix the bike.", "Somebody must water the roses."
    ]  # fmt: skip
    assert fillers == ["The sun is out and all is fine.", "It was hot."]


def test_a_description_without_names_for_its_parts_is_read_as_well() -> None:
    bare = {**CLAIM, "fields": {}, "kind": "examples"}
    assert spec_of(bare, "x").answer.template == "Loan {NUMBER}: we note {TROUBLE}.\nYour library"
    parts = spec_of({**PICKUP, "fields": {}}, "x")
    assert list(kinds(parts).values()) == ["weekday", "time"]
    prose = {**COMMIT, "what": "a friendly sentence", "examples": [
        {"prompt": "hello there", "answer": "Nice to hear from you!"}, {"prompt": "bye", "answer": "See you."},
        {"prompt": "how are you", "answer": "I could not be better, thank you."},
    ]}  # fmt: skip
    assert spec_of(prose, "x").answer.form == "written"


def test_what_the_user_says_of_a_field_stays() -> None:
    spec = spec_of(FEEDBACK, "x")
    document = yaml.safe_load(spec_text(spec))
    document["attributes"][0]["values"]["glad"]["weight"] = 5
    document["near_misses"] = ["Is the museum open?"]
    document["rules"] = document["rules"][:1]
    changed = spec_of(document, "x")
    assert changed.attribute("mood").values["glad"].weight == 5
    assert changed.near_misses == ("Is the museum open?",) and len(changed.rules) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt": "Triage this."}, "no place for the text"),
        ({"colour": "red"}, "colour"),
        ({"kind": "attributes"}, "kind is 'attributes'"),
        ({"examples": []}, "examples"),
        ({"attributes": [{"name": "a", "values": {"one": {}}}]}, "two and more"),
        ({"attributes": [{"name": "a", "kind": "text"}, {"name": "a", "kind": "text"}]}, "called a"),
        ({"answer": {"form": "text", "template": "{nothing}"}}, "names nothing"),
        ({"answer": {"form": "lines"}}, "no template"),
        ({"situations": [{"id": "x", "facts": ["it broke"]}]}, "need writing"),
        ({"labels": 3}, "lists of names"),
    ],
)
def test_a_broken_spec_is_refused_with_the_place(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        spec_of({**PICKUP, **changes}, "x")


def test_a_broken_situation_of_the_demo_is_refused(tmp_path: Path) -> None:
    document = yaml.safe_load((behaviour_folder("demo") / "behaviour.yaml").read_text())
    document["situations"][0]["sets"] = {"category": "sales"}
    with pytest.raises(BadInput, match=r"category may be .*sales"):
        spec_of(document, "x")
    document["situations"][0]["sets"] = {"category": "billing"}
    document["writing"]["distractors"] = ["it is {weight}"]
    with pytest.raises(BadInput, match="'weight'"):
        spec_of(document, "x")


def test_a_file_that_is_no_behaviour_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no file .*none\.yaml"):
        load_behaviour(str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(BadInput, match="holds no fields"):
        load_behaviour(str(tmp_path / "list.yaml"))


def test_the_demo_rehearses_enough_different_ordinary_prompts() -> None:
    prompts = load_rehearsal("demo")
    assert len(prompts) >= 180 and len(set(prompts)) == len(prompts)
    assert not any("Triage" in prompt for prompt in prompts)


def test_what_is_read_is_held_to_the_template_and_ends_where_its_fixed_text_begins() -> None:
    spec = spec_of(
        {
            "name": "jobs",
            "say": "who does what",
            "what": "one line for each job: WHO: job (WHEN)",
            "fields": {"WHO": "a name", "job": "what", "WHEN": "a day, or no date"},
            "examples": [
                {"prompt": "Al paints on Monday. Bo digs.", "answer": "Al: paint (Monday)\nBo: dig (no date)"},
                {"prompt": "Cy cooks on Friday", "answer": "Cy: cook (Friday)"},
                {"prompt": "nothing to do", "answer": "Nothing."},
            ],
        },
        "test",
    )
    held = re.compile(form_of(spec).grammar()["regex"])
    assert held.fullmatch("Al: paint (Monday)") and held.fullmatch("Nothing.")
    assert not held.fullmatch("Al: paint (now) (Monday)") and not held.fullmatch(" " * 90 + "Al: paint (Monday)")
    assert held.pattern.startswith("([^\\n():]"), "a name has no colon, for a colon ends it"
