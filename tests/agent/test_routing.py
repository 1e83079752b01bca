"""The choice of a tool: what a schema lets through, what was really said, and what follows where nothing was."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.driver.states import SETS
from tunesmith.agent.driver.routing import CannotRoute, Moment, _page, call_of, choice_schema
from tunesmith.agent.driver.said import numbers, runs_said
from tunesmith.agent.driver.tools import toolset

TOOLS = [tool.tool_def for tool in toolset().tools.values()]
NOW = Moment("next is train", following="train", verbatim={"goal": "the user's words"}, known_runs=("tickets",))


def call(chosen: dict[str, Any], words: str) -> dict[str, Any]:
    found = call_of(json.dumps(chosen), words, NOW, TOOLS)
    assert found is not None
    return found.args_as_dict()


def test_every_example_of_the_page_is_a_choice_that_the_schema_allows() -> None:
    schema = choice_schema(TOOLS, NOW)
    _, turns = _page()
    answers = [str(turn.parts[0].content) for turn in turns[1::2]]  # type: ignore[union-attr]
    assert len(answers) >= 60
    for answer in answers:
        jsonschema.validate(json.loads(answer), schema)


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
        {"tool": "plan_fine_tune", "pace": "fast", "quantize": True, "goal": "written by the model"},
        {"lora_rank": 8},
    ],
)
def test_the_schema_lets_nothing_else_through(choice: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(choice, choice_schema(TOOLS, NOW))


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
        ("how did last week's run do?", ["last week"]),
        ("what about Tickets, and r7?", ["tickets", "r7"]),
        ("take /models/tickets/v2 as the base", []),
    ],
)
def test_the_runs_are_those_that_the_user_named(words: str, runs: list[str]) -> None:
    assert runs_said(words, ("tickets",)) == runs
    told = call({"tool": "look_up", "topic": "compare_runs"}, words)
    assert [run for run in (told["run"], told["other_run"]) if run] == runs


def test_a_step_goes_into_another_run_only_where_its_id_was_said() -> None:
    assert call({"tool": "train"}, "train on last week's tickets")["run"] is None
    assert call({"tool": "train"}, "train in r2")["run"] == "r2"


def test_words_that_only_say_go_on_call_what_comes_next_with_nothing_set() -> None:
    found = call_of('{"tool": "next"}', "go on with rank 99", NOW, TOOLS)
    assert found is not None and found.tool_name == "train" and set(found.args_as_dict().values()) == {None}
    draft = Moment("plan proposed", following="start_plan")
    started = call_of('{"tool": "next"}', "continue", draft, TOOLS)
    assert started is not None and started.args_as_dict() == {"confirm": "start"}


def test_the_goal_is_the_users_own_words() -> None:
    assert call({"tool": "plan_fine_tune", "pace": "fast", "quantize": True}, "x")["goal"] == "the user's words"


@pytest.mark.parametrize("text", ["", "no", "[]", '"chat"', '{"name": "train"}', '{"tool": "deploy_everything"}'])
def test_an_answer_that_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(CannotRoute):
        call_of(text, "words", NOW, TOOLS)
