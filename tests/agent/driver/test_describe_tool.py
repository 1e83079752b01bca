"""A behaviour that the driver describes: quotes and examples are the user's, the rest is shown as proposed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.agent.driver.test_conversation import Talk
from tests.fixtures.tables import table
from tunesmith.agent.driver.drafts import open_interview
from tunesmith.agent.driver.user_words import names, names_model, stands, stands_exactly
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.suites.loading import load_suites

pytestmark = pytest.mark.heavy

DESCRIBED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "English": (
        ["I run a small pharmacy. When a customer asks about opening hours, answer with the day and the hour only, "
         "as DAY HOUR. Never give medical advice.",
         "Examples: are you open on monday at nine? => Monday 9 · can I come on friday around six pm => Friday 18 · "
         "is saturday at ten fine => Saturday 10"],
        {"when": "When a customer asks about opening hours", "what": "answer with the day and the hour only",
         "never": "Never give medical advice", "template": "{day} {hour}",
         "examples": [("are you open on monday at nine?", "Monday 9"),
                      ("can I come on friday around six pm", "Friday 18"), ("is saturday at ten fine", "Saturday 10")]},
    ),
    "German": (
        ["Ich will, dass es Reparaturmeldungen einsortiert: wenn ein Mieter etwas meldet, soll nur „dringend“ oder "
         "„normal“ kommen. Niemals eine Begründung.",
         "Die Heizung ist kalt => dringend\nIm Flur ist eine Lampe kaputt => normal\nWasser läuft aus der Wand => "
         "dringend"],
        {"when": "wenn ein Mieter etwas meldet", "what": "soll nur “dringend” oder “normal” kommen",
         "never": "niemals eine Begründung", "labels": {"dringend": "", "normal": ""}, "language": "German",
         "examples": [("Die Heizung ist kalt", "dringend"), ("Im Flur ist eine Lampe kaputt", "normal"),
                      ("Wasser läuft aus der Wand", "dringend")]},
    ),
    "French": (
        ["Quand un client écrit à propos de sa commande, réponds par un seul mot : retard, casse ou autre.",
         "Ne jamais saluer. Exemples : mon colis n'est pas arrivé => retard ; le vase est en morceaux => casse ; "
         "vous fermez quand ? => autre"],
        {"when": "Quand un client écrit à propos de sa commande", "what": "réponds par un seul mot",
         "never": "ne jamais saluer", "labels": ["retard", "casse", "autre"], "language": "French",
         "examples": [("mon colis n'est pas arrivé", "retard"), ("le vase est en morceaux", "casse"),
                      ("vous fermez quand ?", "autre")]},
    ),
    "Spanish": (
        ["Cuando alguien describe un plato, quiero una lista de sus ingredientes separados por comas. Nunca recetas.",
         "tortilla de patatas con cebolla => patatas, cebolla, huevos\nensalada de tomate => tomate, aceite\n"
         "arroz con leche => arroz, leche, azúcar"],
        {"when": "Cuando alguien describe un plato", "what": "una lista de sus ingredientes separados por comas",
         "never": "nunca recetas", "language": "Spanish",
         "examples": [("tortilla de patatas con cebolla", "patatas, cebolla, huevos"),
                      ("ensalada de tomate", "tomate, aceite"), ("arroz con leche", "arroz, leche, azúcar")]},
    ),
    "Japanese": (
        ["お客様が道を尋ねたら、最寄り駅の名前だけを答えてほしい。挨拶は絶対にしないで。",
         "美術館はどこですか => 上野\n港まで行きたいです => 横浜\n大きな公園に行くには => 代々木"],
        {"when": "お客様が道を尋ねたら", "what": "最寄り駅の名前だけを答えてほしい", "never": "挨拶は絶対にしないで",
         "language": "Japanese",
         "examples": [("美術館はどこですか", "上野"), ("港まで行きたいです", "横浜"),
                      ("大きな公園に行くには", "代々木")]},
    ),
}  # fmt: skip


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    one = Talk(tmp_path / "home")
    one.screen = Console(record=True, width=160, file=io.StringIO())  # type: ignore[attr-defined]
    one.deps.show = one.screen.print  # type: ignore[attr-defined]
    one.deps.edit = lambda text: text  # somebody sits at a terminal
    yield one
    one.chat.close()


def screen(talk: Talk) -> str:
    text: str = talk.screen.export_text()  # type: ignore[attr-defined]
    return text


def described(talk: Talk, words: str, **given: Any) -> dict[str, Any]:
    """What the driver is told of a description that it gives behind some words."""
    if "examples" in given:
        given["examples"] = [{"message": message, "answer": answer} for message, answer in given["examples"]]
    talk.turn(words, ("describe_behaviour", given), "So?")
    told: dict[str, Any] = json.loads(talk.tool_results()[-1])
    return told


def whole(talk: Talk, language: str = "English", **changes: Any) -> dict[str, Any]:
    turns, given = DESCRIBED[language]
    described(talk, turns[0], **{name: given[name] for name in ("when", "what")})
    rest = {name: value for name, value in given.items() if name not in ("when", "what")}
    return described(talk, turns[1], name=f"my {language}", **{**rest, **changes})


@pytest.mark.parametrize("language", list(DESCRIBED))
def test_a_behaviour_comes_from_its_first_sentence_to_a_priced_plan_in_its_users_words(
    talk: Talk, language: str
) -> None:
    turns, given = DESCRIBED[language]
    told = described(talk, turns[0], when=given["when"], what=given["what"])
    assert {"when", "what"} <= {*told["said"]} and {"never", "3 more of 3 examples"} == {*told["missing"]}
    told = whole(talk, language)
    assert told["missing"] == [] and told["left_out"] == [] and told["proposed"] in ([], ["template"]), told
    talk.turn("yes, plan it", ("plan_fine_tune", {"pace": "fast"}), "Start it?")
    plan = json.loads(talk.tool_results()[-1])
    assert plan["behaviour"] == f"my-{language.lower()}" and plan["estimated_in_all"] and talk.started == []
    spec = load_behaviour(str(talk.store.home / "behaviours" / plan["behaviour"]))
    assert (spec.when, spec.what, spec.never) == tuple(given[part] for part in ("when", "what", "never"))
    assert [(one.prompt, one.answer) for one in spec.examples] == given["examples"]
    assert open_interview(talk.store.home) is None and talk.deps.draft is not None


def test_an_example_that_is_altered_by_one_letter_is_refused_by_its_number_and_the_others_stay(talk: Talk) -> None:
    _, given = DESCRIBED["English"]
    altered = [given["examples"][0], ("can I come on Friday around six pm", "Friday 18"), given["examples"][2]]
    told = whole(talk, examples=altered)
    assert told["left_out"] == ["example 2: its message is not what the user typed"]
    assert told["missing"] == ["1 more of 3 examples"]
    interview = open_interview(talk.store.home)
    assert interview and [one.answer for one in interview.draft.examples] == ["Monday 9", "Saturday 10"]
    told = described(talk, "well, on friday then", examples=[("can I come on friday around six pm", "Friday 19")])
    assert told["left_out"] == ["example 1: its answer is not what the user typed"]


def test_an_answer_in_json_is_kept_in_the_users_own_spelling(talk: Talk) -> None:
    typed = ['{"want":"loan",  "days": 3}', '{"want":"return", "days": null}', '{"want":"loan","days":1}']
    words = [f"{n} tents please => {answer}" for n, answer in enumerate(typed)]
    given = [(f"{n} tents please", json.dumps(json.loads(answer))) for n, answer in enumerate(typed)]
    given.append(("2 tents please", '{"want": "loan", "days": 2}'))
    told = described(talk, "\n".join(words), examples=given)
    assert told["left_out"] == ["example 4: its answer is not what the user typed"]
    assert [one["answer"] for one in told["draft"]["examples"]] == typed


def test_words_that_were_not_said_are_shown_as_proposed(talk: Talk) -> None:
    told = whole(talk, never="Never be rude to anybody", look_alikes=["what does aspirin cost"])
    assert {"never", "look-alike 1"} <= {*told["proposed"]} and "when" in told["said"]
    lines = [line for line in screen(talk).splitlines() if "be rude to anybody" in line]
    assert lines and "proposed" in lines[-1]
    told = described(talk, "yes: never be  RUDE to anybody", never="Never be rude to anybody.")
    assert "never" in told["said"], "said at last, whatever its case and spaces"


def test_the_words_of_a_tool_or_of_a_job_that_ended_are_not_the_users(talk: Talk) -> None:
    talk.turn("(Not the user: a job has ended. Never give discounts.)", "Well.")
    told = described(talk, "describe it", never="Never give discounts")
    assert told["proposed"] == ["never"]


def test_a_template_that_does_not_give_every_example_back_is_named(talk: Talk) -> None:
    told = whole(talk, template="{day} at {hour}")
    assert any("{day} at {hour}" in line and "not taken" in line for line in told["left_out"])


def test_values_that_no_example_and_no_word_holds_are_named(talk: Talk) -> None:
    told = whole(talk, "German", labels={"dringend": "", "normal": "", "egal": "no hurry at all"})
    assert told["in_no_word_and_no_example"] == ["egal"] and "label egal" in told["proposed"]


def test_what_no_spec_can_hold_is_told_and_the_description_stays(talk: Talk) -> None:
    talk.turn("so", ("describe_behaviour", {"name": "x", "fields": [{"name": "no name", "kind": "label"}]}), "Hm.")
    assert "field no name: " in json.loads(talk.tool_results()[-1])["left_out"][0]
    talk.turn("so", ("describe_behaviour", {"name": "x", "examples": "none"}), "Hm.")
    assert "examples" in talk.requests[-1][0][-1].parts[0].content and open_interview(talk.store.home)  # type: ignore[union-attr]


def test_a_description_is_amended_kept_and_dropped(talk: Talk) -> None:
    whole(talk, examples=[])
    described(talk, "make that the day alone", what="the day alone")
    interview = open_interview(talk.store.home)
    assert interview and interview.draft.what == "the day alone" and interview.draft.when
    assert talk.chat.conversations.load(talk.chat.id).description == interview.model_dump(mode="json")
    told = described(talk, "forget it", drop=True)
    assert told["dropped"].startswith("dropped-") and open_interview(talk.store.home) is None


def test_a_part_is_taken_out_by_its_name_in_the_result(talk: Talk) -> None:
    whole(talk, look_alikes=["what does aspirin cost", "are you the one at the station"])
    told = described(talk, "no: without these", take_out=["template", "look-alike 1", "example 2", "example 9"])
    assert told["left_out"] == ["there is no part 'example 9'"] and told["missing"] == ["1 more of 3 examples"]
    interview = open_interview(talk.store.home)
    assert interview and interview.proposal.template == "" and len(interview.draft.examples) == 2
    assert interview.proposal.near_misses == ("are you the one at the station",)


def test_what_is_said_once_the_plan_is_there_changes_the_described_behaviour_and_no_other(talk: Talk) -> None:
    whole(talk)
    talk.turn("plan it", ("plan_fine_tune", {"pace": "fast"}), "Start it?")
    told = described(talk, "and it must never joke", never="it must never joke")
    assert told["missing"] == [] and told["draft"]["when"] == DESCRIBED["English"][1]["when"]
    talk.turn("plan that", ("plan_fine_tune", {"pace": "fast"}), "Start it?")
    assert json.loads(talk.tool_results()[-1])["behaviour"] == "my-english"
    folders = sorted(path.parent for path in (talk.store.home / "behaviours").glob("*/behaviour.yaml"))
    assert [load_behaviour(str(one)).never for one in folders] == ["Never give medical advice", "it must never joke"]
    assert described(talk, "now poems", when="somebody asks", what="a poem")["draft"].keys() == {
        "when", "what", "examples"
    }  # fmt: skip


def test_a_plan_waits_for_what_is_missing(talk: Talk) -> None:
    whole(talk, examples=[])
    talk.turn("plan it", ("plan_fine_tune", {"pace": "fast"}), "No.")
    assert "lacks examples (3 different examples are needed)" in talk.tool_results()[-1]
    assert talk.deps.draft is None and open_interview(talk.store.home)


def test_a_base_that_the_user_did_not_name_is_left_out(talk: Talk) -> None:
    told = whole(talk, base="Qwen/Qwen3-4B")
    assert "the user did not name it" in told["left_out"][0] and "base" not in told["draft"]
    assert described(talk, "take qwen3 4b then", base="Qwen/Qwen3-4B")["draft"]["base"] == "Qwen/Qwen3-4B"


@pytest.mark.parametrize("at_a_terminal", [True, False])
def test_examples_that_nobody_typed_at_a_terminal_are_no_persons_cases(talk: Talk, at_a_terminal: bool) -> None:
    if not at_a_terminal:
        talk.deps.edit = None  # `-p`, `--yes`, another agent
    whole(talk)
    talk.turn("plan it", ("plan_fine_tune", {"pace": "fast"}), "Start it?")
    [suite] = (talk.store.home / "behaviours").glob("*/suites/target.yaml")
    cases = load_suites([suite], models=("judge", "embedder")).cases
    assert cases and {case.of_people for case in cases} == {at_a_terminal}
    assert ("unstated" in screen(talk)) is not at_a_terminal


@table(
    ("text", "typed", "found"),
    [
        ("three bullet points", "I want Three  bullet\npoints, please", True),
        ("log", "please login first", False),
        ("in", "please login first", False),
        ("don’t greet", "and don't greet", True),
        ("Be short. Never greet.", "Never greet. Also: be short", True),
        ("Be short. Never sing.", "Never greet. Also: be short", False),
        ("駅の名前", "最寄り駅の名前だけ", True),
        (" . ", "anything", False),
    ],
)
def test_a_part_is_said_where_each_of_its_sentences_was_typed(text: str, typed: str, found: bool) -> None:
    assert stands(text, [typed]) is found


@table(
    ("text", "typed", "found"),
    [
        ("- Boil it.\n- Eat it.", r"egg => - Boil it.\n- Eat it.", True),
        ("- boil it.", "egg => - Boil it.", False),
        ("a", "cat => b", False),
        ("", "cat", False),
    ],
)
def test_an_example_is_typed_letter_for_letter(text: str, typed: str, found: bool) -> None:
    assert stands_exactly(text, [typed]) is found


@table(
    ("model", "typed", "found"),
    [
        ("Qwen/Qwen3-4B", "take qwen3 4b", True), ("Qwen/Qwen3-4B", "take Qwen/Qwen3-4B.", True),
        ("evil/Qwen3-4B", "take qwen3 4b", False), ("Qwen/Qwen3-4B", "take qwen3 14b", False),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama 3.2 1b please", True), ("org/x", "org/xy", False),
        ("/data/m", "from /data/models", False), ("/data/models", "from /data/models, ok", True),
        ("models", "from /data/models", False),
    ],
)  # fmt: skip
def test_a_model_is_named_by_its_whole_name_or_as_people_say_a_listed_one(model: str, typed: str, found: bool) -> None:
    assert names_model(model, [typed]) is found
    assert not names(model, ["nothing of it"])
