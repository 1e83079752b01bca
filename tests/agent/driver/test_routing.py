"""The choice of a tool: what a schema lets through, what was really said, and what follows where nothing was."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import yaml

from tests.driver.states import SETS
from tunesmith.agent.driver.argument_grounding import named_numbers, numbers, runs_named
from tunesmith.agent.driver.routing import CannotRoute, RoutingContext, _page, call_of, choice_schema
from tunesmith.agent.driver.tools import toolset
from tunesmith.memory.records import Run

TOOLS = [tool.tool_def for tool in toolset().tools.values()]
TOOLS_OF_A_RUN = [tool for tool in TOOLS if tool.name not in ("edit_plan", "start_plan")]
_AT = time.time()
RUNS = (Run("r2", "tickets", "", "done", {}, _AT, _AT), Run("r1", "mails", "", "done", {}, _AT - 7 * 86400, _AT))
NOW = RoutingContext("next is train", following="train", verbatim={"goal": "the user's words"}, runs=RUNS)


def call(chosen: dict[str, Any], words: str) -> dict[str, Any]:
    found = call_of(json.dumps(chosen), words, NOW, TOOLS)
    assert found is not None
    return found.args_as_dict()


@pytest.mark.heavy
def test_every_example_of_the_page_is_a_choice_that_the_schema_allows() -> None:
    _, turns = _page()
    said = [str(turn.parts[0].content) for turn in turns]  # type: ignore[union-attr]
    assert len(said) >= 120
    for words, answer in zip(said[::2], said[1::2], strict=True):
        jsonschema.validate(json.loads(answer), choice_schema(TOOLS, NOW, words.split("\n", 1)[1]))


def test_no_example_of_the_page_stands_in_the_examination() -> None:
    examined = {
        turn["say"].lower().strip(" .!?")
        for file in SETS.values()
        for scenario in yaml.safe_load(file.read_text())
        for turn in scenario["turns"]
    }
    _, turns = _page()
    shown = {str(turn.parts[0].content).split("\n", 1)[1].lower().strip(" .!?") for turn in turns[::2]}  # type: ignore[union-attr]
    assert not shown & examined


@pytest.mark.parametrize(
    "choice",
    [
        {"tool": "format_disk"},
        {"tool": "train", "lora_rank": "eight"},
        {"tool": "train", "output_dir": "/etc"},
        {"tool": "train", "lora_rank": 64},
        {"tool": "edit_plan", "step": "deploy", "field": "arm", "value": "none"},
        {"tool": "edit_plan", "step": "preflight", "field": "lora_rank", "value": "8"},
        {"tool": "plan_fine_tune", "pace": "fast", "quantize": True, "goal": "written by the model"},
        {"lora_rank": 8},
    ],
)
def test_the_schema_lets_nothing_else_through(choice: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(choice, choice_schema(TOOLS, NOW, "rank 8"))


def test_of_a_question_only_its_kind_is_chosen_and_its_arguments_are_read_from_the_words() -> None:
    schema = choice_schema(TOOLS, NOW, "rank 8")
    jsonschema.validate({"tool": "look_up", "kind": "cases"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tool": "look_up", "kind": "cases", "run": "r7"}, schema)
    told = call(
        {"tool": "look_up", "kind": "cases", "run": "r7"},
        "where does the merged one still stumble in r1, general I mean",
    )
    assert (told["run"], told["arm"], told["block"]) == ("r1", "merged", "general")


def test_a_number_that_nobody_said_is_left_out() -> None:
    assert call({"tool": "train", "lora_rank": 8, "epochs": 3}, "train it with rank 8")["epochs"] is None
    assert call({"tool": "train", "lora_rank": 8, "epochs": 3}, "train it with rank 8")["lora_rank"] == 8


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("2e-4 please", 2e-4),
        ("0.0002", 2e-4),
        ("1.5k rows", 1500),
        ("1,200 rows", 1200),
        ("three epochs", 3),
        (".05", 0.05),
    ],
)
def test_numbers_are_read_as_people_write_them(words: str, value: float) -> None:
    assert any(abs(number - value) < 1e-12 for number in numbers(words))


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("how did r2 go", ["r2"]),
        ("compare run 3 with r1", ["r3", "r1"]),
        ("train with rank 32", []),
        ("how did it go", []),
        ("how did last week's run do?", ["r1"]),
        ("what about Tickets, and r7?", ["r2", "r7"]),
        ("take /models/tickets/v2 as the base", []),
    ],
)
def test_the_runs_are_those_that_the_user_named(words: str, runs: list[str]) -> None:
    told = call({"tool": "look_up", "kind": "compare"}, words)
    assert [run for run in (told.get("run"), told.get("other_run")) if run] == runs


@pytest.mark.parametrize(
    "words",
    [
        "train again, but run 5 epochs this time",
        "run 200 rows",
        "run 2 epochs",
        "run 1 epoch",
        "run 5-epoch training",
        "run 3 more times",
        "run it, but run 3 more",
        "run 1,000 rows",
        "run 2.5 epochs",
        "run 5 to 10 epochs",
        "run 20 warm-up steps",
        "run 10% of them",
        "run 4 new test cases, 2 passes",
    ],
)
def test_a_number_that_counts_something_names_no_run(words: str) -> None:
    assert runs_named(words) == []
    assert not call({"tool": "train"}, words).get("run")


@pytest.mark.parametrize("words", ["did run 3 pass?", "go on in run 3 with 5 epochs", "run 3, 5 epochs", "r3 epochs"])
def test_a_run_is_named_beside_what_is_counted(words: str) -> None:
    assert runs_named(words) == ["r3"]


def test_a_step_goes_into_another_run_only_where_its_id_was_said() -> None:
    assert call({"tool": "train"}, "train on last week's tickets")["run"] is None
    assert call({"tool": "train"}, "train in r2")["run"] == "r2"


def test_words_that_only_say_go_on_call_what_comes_next_with_nothing_set_but_what_they_name() -> None:
    found = call_of('{"tool": "next"}', "go on, i have 99 problems", NOW, TOOLS)
    assert found is not None and found.tool_name == "train" and set(found.args_as_dict().values()) == {None}
    named = call_of('{"tool": "next"}', "go on with rank 99", NOW, TOOLS)
    assert named is not None and named.args_as_dict()["lora_rank"] == 99
    draft = RoutingContext("plan proposed", following="start_plan")
    started = call_of('{"tool": "next"}', "continue", draft, TOOLS)
    assert started is not None and started.args_as_dict() == {"confirm": "start"}


def test_the_goal_is_the_users_own_words() -> None:
    assert call({"tool": "plan_fine_tune", "pace": "fast", "quantize": True}, "x")["goal"] == "the user's words"


@pytest.mark.parametrize("text", ["", "no", "[]", '"chat"', '{"name": "train"}', '{"tool": "deploy_everything"}'])
def test_an_answer_that_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(CannotRoute):
        call_of(text, "words", NOW, TOOLS)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("train with 3 epochs and rank 32", {"lora_rank": 32, "epochs": 3}),
        ("lr=3e-4, two epochs", {"learning_rate": 3e-4, "epochs": 2}),
        ("set the learning rate to 0.001", {"learning_rate": 1e-3}),
        ("write 1.5k training rows", {"rows": 1500}),
        ("make it rank thirty-two", {"lora_rank": 32}),
        ("one and a half epochs", {"epochs": 1.5}),
        ("two hundred and fifty examples", {"rows": 250}),
        ("30 cases per block", {"cases_per_block": 30}),
        ("from rank to rank, it is what it is", {}),
        ("500 rows 2 epochs", {"rows": 500, "epochs": 2}),
        ("train 3 epochs 16 rank", {"epochs": 3, "lora_rank": 16}),
        ("not rank 8 but rank 16", {}),
        ("make that one rank 8", {"lora_rank": 8}),
        ("r12 had a good rank", {}),
    ],
)
def test_what_words_name_outright_is_read_from_them(words: str, named: dict[str, float]) -> None:
    assert named_numbers(words) == named


def test_a_named_number_goes_where_it_was_said_to_go_whatever_was_chosen() -> None:
    assert call({"tool": "train", "epochs": 3}, "3 epochs and rank 32")["lora_rank"] == 32
    edit = call({"tool": "edit_plan", "step": "generate", "field": "rows", "value": "32"}, "rank of 32 then")
    assert (edit["step"], edit["field"], edit["value"]) == ("train", "lora_rank", "32")
    assert call({"tool": "edit_plan", "step": "preflight"}, "no preflight, rank 8 is fine")["field"] is None


def test_why_a_setting_has_its_number_is_looked_up_and_what_it_means_is_talked_about() -> None:
    why = call_of('{"tool": "chat"}', "why rank 16?", NOW, TOOLS)
    assert why is not None and why.tool_name == "read_setting" and why.args_as_dict() == {"fields": ["lora_rank"]}
    assert call_of('{"tool": "chat"}', "why do people use rank at all?", NOW, TOOLS) is None


def test_words_that_hold_another_number_too_leave_the_choice_as_it_is() -> None:
    for words in ("rank 8 was too low, take 16", "not rank 8 but rank 16", "change the rank from 8 to 16"):
        edit = call({"tool": "edit_plan", "step": "train", "field": "lora_rank", "value": "16"}, words)
        assert edit["value"] == "16"
        assert call({"tool": "train", "lora_rank": 16}, words)["lora_rank"] == 16


def test_a_number_that_the_chosen_act_has_no_place_for_goes_to_the_one_that_has() -> None:
    step = call_of('{"tool": "next"}', "go on with 2 epochs", replace(NOW, following="preflight"), TOOLS_OF_A_RUN)
    assert step is not None and step.tool_name == "train" and step.args_as_dict()["epochs"] == 2
    draft = RoutingContext("plan proposed", following="start_plan")
    edit = call_of('{"tool": "start_plan", "confirm": "start"}', "start it, 200 rows", draft, TOOLS)
    assert edit is not None and edit.tool_name == "edit_plan" and edit.args_as_dict()["value"] == "200"
    anew = '{"tool": "plan_fine_tune", "pace": "fast", "quantize": true}'
    edit = call_of(anew, "use rank 4", draft, TOOLS)
    assert edit is not None and (edit.tool_name, edit.args_as_dict()["field"]) == ("edit_plan", "lora_rank")
    asked = call_of('{"tool": "look_up", "kind": "run"}', "how did the 3 epochs do?", NOW, TOOLS)
    assert asked is not None and asked.tool_name == "read_run"
