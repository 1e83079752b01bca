"""A description: what is missing is named, a draft can be kept, and its folder gives back every letter of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tests.fixtures.descriptions import COOKING, HOSTILE, SAID
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import SPEC_FILE, load_behaviour, load_rehearsal, words_in, write_behaviour
from tunesmith.tools.data.description import Description, DescriptionDraft, Example, described, missing
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import HARD_SUITE, NEAR_MISS_SUITE, SUITE
from tunesmith.tools.data.verify import verified
from tunesmith.tools.evaluation.prompts import prompt_of
from tunesmith.tools.pipeline import plan_file
from tunesmith.tools.pipeline.behaviour_plan import Pace, plan_for
from tunesmith.tools.pipeline.forecast import forecast
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.suites.case import LISTED_BLOCKS
from tunesmith.tools.suites.loading import bundled_suites, load_suites

EXAMPLES = tuple(Example(prompt=f"question {n}", answer=f"- a {n}\n- b") for n in range(3))


def test_what_is_missing_is_named_in_the_order_in_which_it_is_asked_for() -> None:
    draft = DescriptionDraft()
    assert missing(draft) == ("when", "what", "never", "examples")
    draft = draft.model_copy(update={"what": "two points", "examples": EXAMPLES[:2]})
    assert missing(draft) == ("when", "never", "examples")
    with pytest.raises(BadInput, match="lacks when, never, examples"):
        described(draft)
    whole = draft.model_copy(update={"when": "always", "never": "nothing", "examples": EXAMPLES})
    assert missing(whole) == () and described(whole).name == "two-points"


def test_one_message_said_three_times_is_no_three_examples() -> None:
    twice = (EXAMPLES[0], EXAMPLES[1], Example(prompt=" Question  1", answer="other"))
    draft = DescriptionDraft(when="always", what="two points", never="nothing", examples=twice)
    assert missing(draft) == ("examples",)
    with pytest.raises(BadInput, match="lacks examples"):
        described(draft)


def test_a_draft_is_taken_up_again_where_it_was_left() -> None:
    draft = DescriptionDraft(when=HOSTILE[1], never=HOSTILE[6], examples=(Example(prompt="a", answer=HOSTILE[12]),))
    assert DescriptionDraft.model_validate_json(draft.model_dump_json()) == draft


@table("text", ["a\x00b", "\x1b[31mred", "\ud800"])
def test_what_is_no_text_is_refused_with_its_character(text: str) -> None:
    with pytest.raises(ValidationError, match="which is no text"):
        DescriptionDraft(what=text)


@table("name", ["../up", "a b", "", "-", "Ärger", "x/y", "." * 3])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ValidationError):
        DescriptionDraft(name=name)


def test_the_folder_is_a_behaviour_with_its_suite_and_ordinary_prompts(tmp_path: Path) -> None:
    folder = write_behaviour(COOKING, tmp_path)
    behaviour = load_behaviour(str(folder))
    assert isinstance(behaviour, Spec) and behaviour == COOKING
    cases = load_suites([folder / SUITE], models=("judge",)).cases
    assert [case.vars["message"] for case in cases] == [example.prompt for example in COOKING.examples]
    assert {case.block for case in cases} == {"target"}
    for case in cases:
        assert [a.type for a in case.assertions][: len(behaviour.rules)] == [rule.type for rule in behaviour.rules]
    assert load_rehearsal(str(folder)) == load_rehearsal("demo") != []


def test_its_hard_cases_are_examples_in_disguise_held_to_the_same_rules_and_gate_nothing(tmp_path: Path) -> None:
    folder = write_behaviour(COOKING, tmp_path)
    cases, target = (
        load_suites([folder / HARD_SUITE], models=("judge",)).cases,
        load_suites([folder / SUITE], models=("judge",)).cases,
    )
    shown = len(COOKING.examples[:4])
    assert Counter(case.metadata["kind"] for case in cases) == dict.fromkeys(
        ("injected instruction", "long context", "typing"), shown
    )
    assert {case.block for case in cases} == {"adversarial"} and set(LISTED_BLOCKS) == {"adversarial"}
    for number, case in enumerate(cases):
        assert case.assertions == target[number % shown].assertions
        message, original = case.messages[-1]["content"], COOKING.examples[number % shown].prompt
        assert message != original
        assert (original in message) == (case.metadata["kind"] != "typing")
    (folder / HARD_SUITE).unlink()
    asked = [spec.fields["suites"] for spec in plan_for(folder, "full").steps if "suites" in spec.fields]
    assert asked and not any(str(folder / HARD_SUITE) in suites for suites in asked), "removed, it is not asked"


def test_a_behaviour_that_code_can_check_nothing_of_is_left_to_judges_and_people(tmp_path: Path) -> None:
    bare = COOKING.model_copy(update={"rules": ()})
    folder = write_behaviour(bare, tmp_path)
    cases = load_suites([folder / SUITE], models=("judge",)).cases
    assert {a.type for case in cases for a in case.assertions} == {"llm-rubric"}
    assert not (folder / NEAR_MISS_SUITE).exists(), "no answer could be told from an ordinary one"
    alone = write_behaviour(bare, tmp_path, judged=False)
    assert {case.metadata["meaning"] for case in load_suites([alone / SUITE], models=()).cases} == {"people"}
    plan_for(folder, "fast")


def test_nothing_that_stands_there_is_ever_replaced(tmp_path: Path) -> None:
    first = write_behaviour(COOKING, tmp_path)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    (tmp_path / "three-points-2").write_text("a file of the user's")
    assert write_behaviour(COOKING, tmp_path).name == "three-points-3"
    assert before == {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["three-points", "three-points-2", "three-points-3"]


def test_a_folder_that_cannot_be_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not valid YAML"):  # of the suite, which is written and then read
        write_behaviour(COOKING.model_copy(update={"near_misses": ("half of a pair: \ud83d",)}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
@table("text", HOSTILE)
def test_hostile_text_is_data_in_every_place(text: str, tmp_path: Path) -> None:
    examples = (
        *COOKING.examples[:2],
        Example(prompt=text, answer=COOKING.examples[2].answer),
        Example(prompt=f"Say it: {text}", answer=f"- {' '.join(text.split())}\n- b\n- c"),
    )
    description = Spec(**{**SAID.model_dump(), "when": text, "never": f'say "{text}"', "examples": examples})
    folder = write_behaviour(verified(description).spec, tmp_path)
    read = load_behaviour(str(folder))
    assert isinstance(read, Spec)
    assert read.model_dump(include=set(Description.model_fields)) == description.model_dump(
        include=set(Description.model_fields)
    )
    asked = [case.messages for case in load_suites([folder / SUITE], models=("judge",)).cases]
    assert [messages[0]["content"] for messages in asked] == [example.prompt for example in description.examples]
    assert all(len(messages) == 1 and messages[0]["role"] == "user" for messages in asked)


@pytest.mark.parametrize("pace", ["fast", "full"])
def test_its_plan_is_a_whole_arc_that_can_be_carried_out(pace: Pace, tmp_path: Path) -> None:
    folder = write_behaviour(COOKING, tmp_path)
    plan = plan_for(folder, pace)
    stages = [spec.stage for spec in plan.steps]
    assert stages[0] == "inspect" and stages[-1] == "deploy"
    assert stages.count("evaluate") == (2 if pace == "fast" else 3), "the prompted rival, where there is time for it"
    asked = {spec.stage: spec.fields.get("suites") for spec in plan.steps}
    beside = [str(folder / NEAR_MISS_SUITE), str(folder / HARD_SUITE)]
    assert asked["baseline"] == asked["critique"] == [str(folder / SUITE), "general", "tools", *beside]
    held = {spec.stage: spec.fields.get("held_out") for spec in plan.steps}
    assert held["critique"] >= 25 and held["baseline"] is True
    assert stages.index("generate") < stages.index("critique") < stages.index("baseline") < stages.index("train")
    written = tmp_path / "plan.yaml"
    steps = [{"stage": spec.stage, **spec.fields} for spec in plan.steps]
    written.write_text(yaml.safe_dump({"name": plan.name, "goal": plan.goal, "steps": steps}))
    assert plan_file.load_pipeline(written) == plan
    assert json.loads(plan.model_dump_json())["name"] == COOKING.name


def test_without_a_teacher_the_model_writes_its_own_rows(tmp_path: Path) -> None:
    plan = plan_for(write_behaviour(COOKING, tmp_path), "fast", model="./mine", teacher="")
    assert [spec.fields for spec in plan.steps if spec.stage == "base"] == [{"model": str(Path("mine").absolute())}]
    assert next(spec.fields["writer"] for spec in plan.steps if spec.stage == "generate") == "base"


def test_the_demo_is_planned_as_any_other_behaviour() -> None:
    plan = plan_for(bundled_suites()[0].parent.parent, "fast")
    assert [step.stage for step in plan.steps][-1] == "deploy" and plan.name == "ticket-triage"


@pytest.mark.heavy
@table(
    ("change", "match"),
    [
        ({"kind": "magic"}, "kind is .magic.; leave it out"),
        ({"examples": []}, r"behaviour.yaml has 0 examples; give at least 3 \(prompt \+ answer\)$"),
        ({"rules": [{"says": "good", "type": "llm-rubric", "value": "is good"}]}, "asks a model"),
        ({"rules": [{"says": "odd", "type": "regex", "value": "("}]}, "regex .* is not valid"),
        (
            {"colour": "red"},
            "unknown field 'colour'; it takes say, when, what, never, examples, labels, fields, template,",
        ),
        ({"exampels": 1, "examples": []}, "behaviour.yaml: unknown field 'exampels'; did you mean 'examples'"),
        ({"examples": {"a": "b"}}, "examples is no list; write each as a line of its own"),
        (
            {"examples": [{"prompt": "a", "completion": "b"}] * 3},
            "item 1 of examples: examples take prompt and answer; `completion` is not one .*: did you mean answer.$",
        ),
        (
            {"examples": [{"response": "a", "question": "b"}] * 3},
            "item 1 of examples: examples take prompt and answer; `question` is not one .*: did you mean prompt.$",
        ),
        ({"examples": [{"question": "a", "answer": "b"}] * 3}, "`question` is not one of them: did you mean prompt.$"),
        ({"examples": [{"prompt": "a", "text": "b"}] * 3}, "`text` is not one of them: did you mean answer.$"),
        (
            {"examples": [{"prompt": "a", "answer": "b", "note": "c"}] * 3},
            "unknown field 'note' in item 1 of examples; it takes prompt, answer, system, conversation, tools$",
        ),
        ({"examples": [{"prompt": "a"}] * 3}, "answer in item 1 of examples is missing$"),
        ({"examples": [{"prompt": "a", "answer": 4}] * 3}, "answer in item 1 of examples is 4; .*put it in quotes$"),
        (
            {"attributes": [{"name": "x", "kind": "lable"}]},
            "kind in item 1 of attributes is 'lable'; did you mean 'label'",
        ),
    ],
)
def test_a_spec_that_was_broken_by_hand_is_refused_where_it_is_broken(
    change: dict[str, object], match: str, tmp_path: Path
) -> None:
    path = write_behaviour(COOKING, tmp_path) / SPEC_FILE
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(BadInput, match=match):
        load_behaviour(str(path))


@table(
    ("name", "text", "told"),
    [
        ("wish.txt", "please sort my emails by kind\nand answer with one word\n", ""),
        ("wish.txt", "Please sort: my emails\nby kind, and answer: one word\n", ""),
        ("wish.md", "Wanted: a sorter of emails\n", ""),
        ("wish.yaml", "please sort my emails\n", ""),
        ("wish.yaml", "Wanted: a sorter\n", "unknown field 'Wanted'"),
        ("wish.yaml", "say: sort\nwhat\nnever: x\n", "wish.yaml line 2: expected 'key: value'$"),
        ("wish.yaml", "- sort\n", "is not a behaviour: it holds no fields"),
        ("wish.txt", "say: sort my emails\n", "wish.txt has 0 examples"),
        ("wish.txt", "", ""),
    ],
)
def test_a_wish_in_plain_words_is_told_where_words_are_read(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    plain = rf"{name} is plain text\. For plain words start `tunesmith` and .*: `tunesmith teach --example` writes one$"
    with pytest.raises(BadInput, match=told or plain):
        words_in(tmp_path / name)
    with pytest.raises(BadInput, match=told or plain):
        load_behaviour(str(tmp_path / name))


def test_the_rival_prompt_shows_no_example_as_they_are_test_cases(tmp_path: Path) -> None:
    said = " ".join(message["content"] for message in prompt_of(COOKING).preamble)
    assert COOKING.what in said and "exactly 3 lines" in said
    assert not any(example.prompt in said or example.answer in said for example in COOKING.examples)


def test_the_whole_plan_has_a_price_before_its_first_step(tmp_path: Path) -> None:
    ws = Workspace(Store(tmp_path / "home"), "/bin/true", lambda event, **data: None)
    prices = forecast(ws, plan_for(write_behaviour(COOKING, tmp_path), "fast"))
    unpriced = [price.stage for price in prices if price.estimate is None]
    assert set(unpriced) <= {"deploy"} and len(prices) == 13
