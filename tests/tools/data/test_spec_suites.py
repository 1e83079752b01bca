"""Suites from a spec: right answers pass, the same beside other messages do not, ordinary answers are told apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fixtures.descriptions import HOSTILE
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import HARD, NEAR_MISSES, PROPOSED, TARGET, is_relevant, write_suites
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Response, grade
from tunesmith.tools.suites.loading import load_suites


def spec(what: str, examples: dict[str, str], **more: object) -> Spec:
    shown = [{"prompt": prompt, "answer": answer} for prompt, answer in examples.items()]
    values = {"say": "s", "when": "always", "never": "nothing else", "what": what, "examples": shown, "name": "b"}
    return spec_of({**values, **more}, "here")


AS_JSON = spec(
    "JSON with the keys mood, one of good or bad, and thing",
    {
        "I love this lamp": '{"mood": "good", "thing": "lamp"}',
        "the kettle is dreadful": '{"mood": "bad", "thing": "kettle"}',
        "What a fine chair!": '{"mood": "good", "thing": "chair"}',
        "never again this rug": '{"mood": "bad", "thing": "rug"}',
    },
    near_misses=["What is a kettle?", "I love you"],
)
AS_TEXT = spec(
    "Parcel NUMBER goes to PLACE.",
    {
        "send 4711 to Rome please": "Parcel 4711 goes to Rome.",
        "8812 should be brought to Oslo": "Parcel 8812 goes to Oslo.",
        "hi, number 5530, off to Cork": "Parcel 5530 goes to Cork.",
    },
)
AS_BULLETS = spec(
    "exactly three bullet points, each one step",
    {
        "How do I poach eggs?": "- Simmer water\n- Slide the eggs in\n- Lift them out after 3 minutes",
        "How is rice cooked?": "- Rinse the rice\n- Boil it in twice the water\n- Let it rest",
        "What is the way to roast chestnuts?": "- Cut the chestnuts\n- Bake them hot\n- Peel while warm",
    },
)


def cases(made: Spec, folder: Path, name: str = TARGET) -> tuple[Case, ...]:
    write_suites(made, folder)
    return load_suites([folder / name]).cases


@pytest.mark.parametrize("made", [AS_JSON, AS_TEXT, AS_BULLETS], ids=["json", "text", "bullets"])
def test_right_answers_pass_their_own_cases_and_no_others(made: Spec, tmp_path: Path) -> None:
    right = [Response(example.answer) for example in made.examples]
    asked = cases(made, tmp_path)
    passed = [[grade(case, answer).passed for answer in right] for case in asked]
    assert passed == [[case == answer for answer in range(len(right))] for case in range(len(right))]


def test_where_the_form_is_the_behaviour_an_answer_has_to_take_up_its_message(tmp_path: Path) -> None:
    assert is_relevant(AS_BULLETS)
    first = cases(AS_BULLETS, tmp_path)[0]
    assert not grade(first, Response("- Take a pan\n- Heat it\n- Serve")).passed
    assert grade(first, Response("- Take a pan\n- Poach for 3 minutes\n- Serve")).passed


def test_examples_are_dev_cases_and_most_of_what_is_known_beside_them_is_blind(tmp_path: Path) -> None:
    more = [Example(prompt=f"the cup {n} is fine", answer='{"mood": "good", "thing": "cup"}') for n in range(8)]
    files = write_suites(AS_JSON, tmp_path, gold=more[:4], proposed=more[4:])
    assert [file.name for file in files] == [TARGET, PROPOSED, NEAR_MISSES, HARD]
    asked = load_suites(files).cases
    target = [case for case in asked if case.block == "target"]
    split = Counter((case.metadata["source"], case.is_blind) for case in target)
    assert split == {
        ("example", False): 4, ("gold", False): 1, ("gold", True): 3, ("proposed", False): 1, ("proposed", True): 3
    }  # fmt: skip


def test_a_near_miss_passes_where_the_answer_is_an_ordinary_one(tmp_path: Path) -> None:
    near = cases(AS_JSON, tmp_path, NEAR_MISSES)
    assert [case.vars["message"] for case in near] == ["What is a kettle?", "I love you"]
    assert {case.block for case in near} == {"over-trigger"}
    for case in near:
        assert grade(case, Response("A kettle boils water.")).passed
        assert not any(grade(case, Response(example.answer)).passed for example in AS_JSON.examples)
        assert not grade(case, Response("")).passed


def test_hard_cases_are_held_to_what_is_right_of_their_example(tmp_path: Path) -> None:
    hard = cases(AS_TEXT, tmp_path, HARD)
    assert Counter(case.metadata["kind"] for case in hard) == dict.fromkeys(
        ("injected instruction", "long context", "typing"), 3
    )
    for number, case in enumerate(hard):
        assert grade(case, Response(AS_TEXT.examples[number % 3].answer)).passed
        assert not grade(case, Response(AS_TEXT.examples[(number + 1) % 3].answer)).passed


def test_a_judge_is_asked_only_where_that_is_wanted_and_code_cannot_tell(tmp_path: Path) -> None:
    poems = spec("a poem in two lines", {f"sing of {n}": f"Tra la\nla {w}" for n, w in enumerate("abc")})
    assert not is_relevant(poems)
    write_suites(poems, tmp_path / "plain")
    write_suites(poems, tmp_path / "judged", judged=True)
    kinds = [
        {a.type for case in load_suites([tmp_path / name / TARGET], models=("judge",)).cases for a in case.assertions}
        for name in ("plain", "judged")
    ]
    assert "llm-rubric" not in kinds[0] and "llm-rubric" in kinds[1]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_read_back_letter_for_letter(text: str, tmp_path: Path) -> None:
    plain = AS_JSON.model_copy(update={"near_misses": (text,)})
    write_suites(plain, tmp_path, messages=[f"{text} and more"], near_misses=[f"about {text}"])
    asked = load_suites([tmp_path / TARGET, tmp_path / NEAR_MISSES]).cases
    messages = [case.messages[0]["content"] for case in asked]
    assert messages[-3:] == [f"{text} and more", text, f"about {text}"]
