"""The demo's behaviour and the rows drawn from it: the label is right by construction, or the row is told apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
import yaml

from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.attributes import GO_ON, RETELL, Attributes, answer_of, draw
from tunesmith.tools.data.behaviour import behaviour_folder, load_behaviour, load_rehearsal
from tunesmith.tools.data.text_synthesis import compose, problems, says_it, taken, writer_messages

DEMO = load_behaviour("demo")
WRITTEN = ["I really hope that somebody looks into it."]


def drawn(**wanted: object) -> Attributes:
    for index in range(2000):
        attributes = draw(DEMO, 17, index)
        if all(getattr(attributes, name) == value for name, value in wanted.items()):
            return attributes
    raise AssertionError(f"nothing drawn has {wanted}")


def broken(tmp_path: Path, **changes: object) -> Path:
    document = yaml.safe_load((behaviour_folder("demo") / "behaviour.yaml").read_text())
    path = tmp_path / "behaviour.yaml"
    path.write_text(yaml.safe_dump({**document, **changes}))
    return path


def test_a_seed_and_a_number_always_draw_the_same_row() -> None:
    assert [draw(DEMO, 3, i) for i in range(50)] == [draw(DEMO, 3, i) for i in range(50)]
    assert draw(DEMO, 3, 7) != draw(DEMO, 4, 7)


def test_any_stretch_of_rows_is_balanced_over_groups_and_scenarios() -> None:
    rows = [draw(DEMO, 17, i) for i in range(150, 300)]
    assert set(Counter(row.group for row in rows).values()) == {30}
    assert set(Counter(row.scenario for row in rows).values()) == {2}


def test_what_was_drawn_is_in_the_text_whatever_the_writer_wrote() -> None:
    for index in range(1500):
        attributes = draw(DEMO, 17, index)
        text = compose(DEMO, attributes, WRITTEN)
        assert problems(DEMO, attributes, text) == [], text
        assert attributes.reference is None or attributes.reference in text


def test_every_answer_obeys_the_schema_and_gives_its_keys_in_order_on_one_line() -> None:
    validator = jsonschema.Draft202012Validator(DEMO.answer)
    for index in range(1500):
        answer = answer_of(DEMO, draw(DEMO, 17, index))
        value = json.loads(answer)
        validator.validate(value)
        assert "\n" not in answer and tuple(value) == ("category", "urgency", "order", "summary")
        assert len(value["summary"].split()) <= 12


@pytest.mark.parametrize(
    ("wanted", "change", "kind"),
    [
        ({"way": GO_ON}, lambda text: text + " Order 99182736.", "number"),
        ({"cue": "normal"}, lambda text: text + " This is urgent.", "cue"),
        ({"way": GO_ON}, lambda text: text + " As an AI I have no orders.", "role"),
        ({"way": GO_ON}, lambda text: "Hello there, how are you?", "off-topic"),
        ({"way": GO_ON}, lambda text: text + " so it goes on and on" * 2, "loop"),
        ({"way": GO_ON}, lambda text: "Hm.", "length"),
        ({"way": GO_ON}, lambda text: text + " я очень недоволен вашим магазином", "language"),
    ],
)
def test_a_text_that_contradicts_its_label_is_told_with_the_kind(wanted, change, kind) -> None:  # type: ignore[no-untyped-def]
    attributes = drawn(**wanted)
    found = problems(DEMO, attributes, change(compose(DEMO, attributes, WRITTEN)))
    assert kind in [verdict.kind for verdict in found], found


def test_a_lost_reference_is_told() -> None:
    attributes = drawn(typing="as-is")
    while attributes.reference is None:
        attributes = draw(DEMO, 17, int(attributes.row_id[1:]) + 1)
    text = compose(DEMO, attributes, WRITTEN).replace(attributes.reference, "12")
    assert any(verdict.kind == "reference" for verdict in problems(DEMO, attributes, text))


def test_a_retold_text_without_its_scenario_gets_it_in_the_specs_own_words() -> None:
    attributes = drawn(way=RETELL, typing="as-is")
    assert not says_it(DEMO, attributes, WRITTEN)
    text = compose(DEMO, attributes, WRITTEN).lower()
    assert attributes.fact.split("{")[0].lower()[:12] in text and "looks into it" in text


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
    assert taken(DEMO, drawn(way=GO_ON, cue="normal"), answered) == kept


def test_of_two_retellings_the_one_that_carries_the_scenario_is_taken() -> None:
    attributes = drawn(way=RETELL, scenario="forgot-password")
    answered = " The weather is nice.\n5. My password is gone."
    assert taken(DEMO, attributes, answered) == ["My password is gone."]


def test_the_writer_never_sees_the_reference_or_the_label() -> None:
    for index in range(300):
        attributes = draw(DEMO, 17, index)
        asked = json.dumps(writer_messages(DEMO, attributes))
        assert attributes.reference is None or attributes.reference not in asked
        assert '"category' not in asked


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt": "Triage this."}, "no place for the text"),
        ({"cues": {"low": {}}}, "urgency may be"),
        ({"colour": "red"}, "colour"),
        ({"answer": {"type": "object", "properties": {"category": {}}}}, "the fields are"),
        ({"answer": {"type": 3, "properties": {}}}, "not a JSON Schema"),
        ({"distractors": {"share": 0.5, "phrases": ["it is {weight}"]}}, "'weight'"),
    ],
)
def test_a_broken_spec_is_refused_with_the_place(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        load_behaviour(str(broken(tmp_path, **changes)))


def test_a_missing_spec_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        load_behaviour(str(tmp_path / "none.yaml"))


def test_the_demo_rehearses_enough_different_ordinary_prompts() -> None:
    prompts = load_rehearsal("demo")
    assert len(prompts) >= 180 and len(set(prompts)) == len(prompts)
    assert not any("Triage" in prompt for prompt in prompts)
