"""The six questions: what a person answers makes the same spec as a model's reading, and is held to the examples."""

from __future__ import annotations

from typing import Any

from tests.fixtures.tables import table
from tests.tools.data.test_read_words import DESK, PIRATE
from tunesmith.agent.commands.six_questions import answered
from tunesmith.tools.data.behaviour import words_of
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import spec_faults, verified

REVIEW = {
    **DESK, "examples": [{"prompt": "物流很快", "answer": "好评"}, {"prompt": "太差了", "answer": "差评"},
                         {"prompt": "一般般吧", "answer": "中评"}],
}  # fmt: skip
RSVP = {
    **DESK, "examples": [{"prompt": "We come, no nuts", "answer": '{"coming": "yes", "diet": "no nuts"}'},
                         {"prompt": "sorry, no", "answer": '{"coming": "no", "diet": null}'},
                         {"prompt": "Not sure", "answer": '{"coming": "maybe", "diet": null}'}],
}  # fmt: skip


def told(said: dict[str, Any], *answers: str) -> tuple[Spec, list[str], list[str]]:
    """The spec that these answers make, what was asked, and what was said of answers that do not do."""
    spec, stated = words_of(said, "x")
    left, asked, heard = list(answers), list[str](), list[str]()

    def ask(question: str) -> str:
        asked.append(question)
        return left.pop(0)

    made = verified(spec, answered(spec, stated, ask, heard.append))
    assert left == [], "every answer was asked for"
    assert spec_faults(made.spec) == () and made.left_out == ()
    return made.spec, asked, heard


def values(spec: Spec) -> dict[str, dict[str, str]]:
    return {label.name: {name: of.means for name, of in label.values.items()} for label in spec.labels}


def test_a_template_with_two_choices() -> None:
    levels = "P1 = it is broken for everybody; P2 = for one person; P3"
    spec, asked, heard = told(DESK, "some", "template", "{team}/{level}", "SALES, TECH, HR", levels, "sorry", "")
    assert spec.answer.template == "{team}/{level}" and heard == []
    assert values(spec) == {
        "team": {"SALES": "", "TECH": "", "HR": ""},
        "level": {"P1": "it is broken for everybody", "P2": "for one person", "P3": ""},
    }
    assert [rule.says for rule in spec.rules][-1] == "never says 'sorry'" and spec.language == "English"
    assert [question[:6] for question in asked] == [f"{n} of 6" for n in (1, 2, 3, 4, 4, 5, 6)]


def test_one_label_in_chinese() -> None:
    spec, _, _ = told(REVIEW, "some", "label", "好评 = 满意；差评 = 不满意；中评", "", "Chinese")
    assert values(spec) == {"label": {"好评": "满意", "差评": "不满意", "中评": ""}} and spec.language == "Chinese"


def test_free_text_for_every_message_is_asked_for_no_parts() -> None:
    spec, asked, _ = told(PIRATE, "every", "", "", "")
    assert spec.every_message and spec.answer.form == "written" and len(asked) == 4


def test_keys_of_json_are_known_and_their_kinds_are_asked_for() -> None:
    spec, asked, _ = told(RSVP, "some", "yes = they come; no; maybe", "copied", "", "")
    assert values(spec) == {"coming": {"yes": "they come", "no": "", "maybe": ""}}
    assert spec.attribute("diet").kind == "copied" and spec.attribute("diet").absent_share > 0 and len(asked) == 5


@table(
    ("said", "answers", "wrong"),
    [
        (PIRATE, ("sometimes", "every", "free", "", ""), "'sometimes' is none of every, some"),
        (
            DESK,
            ("some", "template", "{team}-{level}", "{team}/{level}", "", "", "", ""),
            "does not do: it does not give",
        ),
        (REVIEW, ("some", "label", "好评, 差评", "好评, 差评, 中评", "", ""), "your examples show 中评 too"),
        (REVIEW, ("some", "label", "", "好评, 差评, 中评", "", ""), "say the values"),
        (PIRATE, ("every", "free", "Arr", "landlord", ""), "never says 'Arr': not taken"),
    ],
)
def test_an_answer_that_the_examples_contradict_is_asked_for_again(
    said: dict[str, Any], answers: tuple[str, ...], wrong: str
) -> None:
    spec, _, heard = told(said, *answers)
    assert len(heard) == 1 and wrong in heard[0] and spec.examples
