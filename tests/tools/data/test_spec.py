"""A spec: read from what a user would say, completed in code the same way each time, and given back by its file."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.behaviours import ALL, CLAIM, COMMIT, ERRANDS, FEEDBACK, PICKUP
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Inputs
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.behaviour import load_behaviour, load_rehearsal, spec_of, spec_text
from tunesmith.tools.data.generate import GenerateRequest, inspect_inputs
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.writer_requests import example_shots, sentence_shots


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


@table("said", ALL)
def test_every_example_keeps_the_proposed_rules_and_is_read_back_into_its_own_answer(said: dict[str, Any]) -> None:
    spec = spec_of(said, "x")
    for example in spec.examples:
        assert broken_rule(spec.rules, example.answer) is None, spec.rules
        assert form_of(spec).parse(example.answer) is not None


@table("said", ALL)
def test_a_spec_is_given_back_by_its_file_and_completed_but_once(said: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of(said, "x")
    (tmp_path / "behaviour.yaml").write_text(spec_text(spec))
    assert load_behaviour(str(tmp_path)) == spec
    assert spec_of(said, "elsewhere").sha256 == spec.sha256


def test_what_an_example_says_is_found_in_its_message() -> None:
    pickup = [shown.surfaces for shown in example_shots(spec_of(PICKUP, "x"))]
    assert pickup[0] == {"day": "monday", "hour": "half past two in the afternoon"}
    assert pickup[2] == {"hour": "6 pm"} and pickup[3] == {"day": "wednesdays"}
    pieces, fillers = sentence_shots(spec_of(ERRANDS, "x"))
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


@table(
    ("changes", "told"),
    [
        ({"prompt": "Triage this."}, "no place for the text"),
        ({"colour": "red"}, "colour"),
        ({"kind": "attributes"}, "kind is 'attributes'"),
        ({"examples": []}, "examples"),
        ({"attributes": [{"name": "a", "values": {"one": {}}}]}, "two and more"),
        ({"attributes": [{"name": "a", "kind": "text"}, {"name": "a", "kind": "text"}]}, "called a"),
        ({"answer": {"form": "text", "template": "{nothing}"}}, "names nothing"),
        ({"answer": {"form": "lines"}, "template": None, "fields": None}, "no template"),
        ({"labels": 3}, "lists of names"),
    ],
)
def test_a_broken_spec_is_refused_with_the_place(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        spec_of({**PICKUP, **changes}, "x")


KNOTS: dict[str, Any] = {
    "name": "knots", "when": "somebody asks for a knot", "what": "its name", "never": "explain",
    "attributes": [
        {"name": "knot", "values": {"bowline": {"means": "a loop"}, "clove": {"means": "a hitch", "weight": 2}}},
        {"name": "size", "kind": "number", "forms": ["{n} mm"]},
    ],
    "examples": [{"prompt": f"knot {n}", "answer": "bowline"} for n in range(3)],
}  # fmt: skip


def test_a_file_of_facts_from_an_earlier_version_is_read_and_nothing_is_written_from_it(tmp_path: Path) -> None:
    """And the digest of every other spec is what it was when there were such files: rows stay bound to theirs."""
    assert Spec.model_validate(KNOTS).sha256 == "9b9a29cb7d03cc8664c7e2ac65878a07ad1ec31c462971a26aaedb2596bea518"
    document = copy.deepcopy(KNOTS)
    document["attributes"][0]["values"]["clove"] |= {"phrases": ["to a pole"], "words": ["pole"]}
    document["attributes"][1] |= {"sentences": ["It is {ref}."], "inline": [" ({ref})"]}
    document |= {"situations": [{"id": "x", "facts": ["it slips"]}], "writing": {"go_on": "Write.", "joiners": [" so"]}}
    (tmp_path / "behaviour.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "rehearsal.txt").write_text("How are you?\n")
    spec, inputs = load_behaviour(str(tmp_path)), Inputs(Store(tmp_path / "home"), "", {})
    assert list(spec.labels[0].values) == ["bowline", "clove"] and spec_of(yaml.safe_load(spec_text(spec)), "x") == spec
    with pytest.raises(BadInput, match=r"earlier version: its 1 situations.*messages are written whole, or bring rows"):
        inspect_inputs(GenerateRequest(behaviour=str(tmp_path)), inputs)
    assert inspect_inputs(GenerateRequest(behaviour=str(tmp_path), rows=0), inputs).name == "knots"


def test_a_file_that_is_no_behaviour_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml is not there; check the name$"):
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
