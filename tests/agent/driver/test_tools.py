"""The driver's tools beside plan and description: what is shown, what is asked, and what no driver reads."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.agent.driver.test_conversation import Talk
from tests.fixtures.stored_runs import finished_run, new_builder
from tests.fixtures.tables import table
from tunesmith.agent.commands.lean_schema import lean_schema
from tunesmith.agent.driver import tools
from tunesmith.agent.driver.agent import instructions
from tunesmith.agent.driver.history import Window, that_fit, tool_characters
from tunesmith.agent.driver.tools import ACTS, toolset
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.memory.records import RUNNING
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.ask_models import Answer, Answered

PAGE = Path(__file__).parents[3] / "docs" / "driver.md"
SECRET = "the parcel is on the roof"


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    finished_run(tmp_path / "home")[0].close()
    one = Talk(tmp_path / "home")
    one.deps.window = Window(64_000)  # all tools are shown
    one.screen = Console(record=True, width=160, file=io.StringIO())  # type: ignore[attr-defined]
    one.deps.show = one.screen.print  # type: ignore[attr-defined]
    yield one
    one.chat.close()


def screen(talk: Talk) -> str:
    text: str = talk.screen.export_text()  # type: ignore[attr-defined]
    return text


def test_a_read_is_a_line_on_the_screen_and_the_whole_answer_where_it_is_to_be_shown(talk: Talk) -> None:
    talk.turn("which runs are there?", ("read_runs", {"show": False}), "One.")
    line = screen(talk)
    assert "· reads" in line and len(line.strip().splitlines()) == 1
    talk.turn("list them", ("read_runs", {"show": True}), "There.")
    assert "ticket-triage" in screen(talk)


def test_a_driver_has_the_user_asked_and_ends_nothing_itself(tmp_path: Path) -> None:
    build = new_builder(tmp_path / "home")
    step = build.step("train")
    talk, asked = Talk(tmp_path / "home"), list[str]()
    talk.deps.window = Window(64_000)
    try:
        talk.turn("stop it", ("stop_step", {"step": step}), "I cannot.")
        assert "nobody sits at a terminal" in talk.tool_results()[-1]
        talk.deps.end = asked.append
        talk.turn("stop it", ("stop_step", {"step": step}), "You are asked.")
        talk.turn("and what is served", ("stop_serving", {"confirm": "ask"}), "You are asked.")
        assert asked == [step, ""] and talk.store.step(step).status == RUNNING
        assert "nothing has ended yet" in talk.tool_results()[-1]
    finally:
        talk.chat.close()


def test_what_a_model_answers_is_the_users_to_read_and_reaches_no_driver(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(ws: Any, question: Any, approver: Any) -> Answered:
        assert approver is talk.deps.approver, "what has to be started is priced, and the user asked"
        return Answered("r1", (Answer("adapter", "a7", SECRET, 0.5, 9),))

    monkeypatch.setattr(tools, "ask_models", answers)
    talk.turn("where is my parcel? ask the adapter", ("ask_model", {"message": "where is my parcel?"}), "Asked.")
    sent = "".join(str(message) for messages, _ in talk.requests for message in messages)
    assert SECRET in screen(talk) and SECRET not in sent and "adapter" in talk.tool_results()[-1]


@table(
    ("about", "topic"),
    [("roll back a deployment", "roll_back_how"), ("what is lora", "lora"), ("exit codes of scripts", "exit_codes")],
)
def test_the_manual_has_the_section_that_the_words_are_nearest_to(talk: Talk, about: str, topic: str) -> None:
    talk.turn(about, ("read_manual", {"about": about}), "So.")
    assert next(iter(json.loads(talk.tool_results()[-1])["manual"])) == topic


@table(
    ("about", "topic"),
    [
        ("how many examples of my own are enough", "first_rows"),
        ("close the laptop lid while it trains", "unattended"),
        ("does it run on a MacBook", "platform"),
        ("which base model to choose", "choosing_base"),
    ],
)
def test_words_that_most_sections_hold_lead_to_none_and_what_was_looked_up_is_said(
    talk: Talk, about: str, topic: str
) -> None:
    talk.turn(about, ("read_manual", {"about": about}), "So.")
    found = json.loads(talk.tool_results()[-1])
    assert topic in found["manual"] and "how_are_you" not in found["manual"]
    assert f"· reads the manual on {about}" in screen(talk)


def test_words_that_are_near_no_section_get_the_topics(talk: Talk) -> None:
    talk.turn("zzz", ("read_manual", {"about": "zzz"}), "Hm.")
    assert "no section is near 'zzz'; there are:" in talk.tool_results()[-1]


@table("stage", [entry.name for entry in catalog.STAGES])
def test_a_stage_names_every_field_in_one_line_of_its_settings(stage: str) -> None:
    tool = toolset().tools[stage].tool_def
    given: dict[str, Any] = tool.parameters_json_schema["properties"]
    request = catalog.BY_NAME[stage].load().request
    fields = {*request.model_fields} - {"run", "arm", "on"}
    listed = given["settings"].get("description", "").split(", ")
    assert {*given} <= {"settings", "run", "arm"} and {one.partition("=")[0] for one in listed if one} == fields
    assert "on=ray" in instructions(), "what every stage takes, the instructions name once"


def test_all_tools_together_leave_a_driver_of_8192_tokens_room_for_its_words() -> None:
    assert tool_characters(tool.tool_def for tool in toolset().tools.values()) <= 18_000


def test_a_schema_holds_no_titles_no_defaults_no_nulls_and_no_references() -> None:
    for args in (*(args for args, _ in ACTS.values()), *REQUESTS.values()):
        text = json.dumps(lean_schema(args))
        assert not [word for word in ('"title":', '"default":', '"null"', "$ref", "$defs") if word in text], args


@table(
    ("given", "told"),
    [
        ({"settings": "lora_rnk=8"}, "did you mean 'lora_rank'?"),
        ({"settings": "lora_rank=999999"}, "256"),
        ({"settings": "lora_rank='8"}, "cannot read"),
    ],
)
def test_a_setting_that_is_wrong_is_told_and_nothing_is_priced(talk: Talk, given: dict[str, Any], told: str) -> None:
    talk.turn("train", ("train", given), "No.")
    assert told in talk.tool_results()[-1] and talk.asked == []


def test_a_small_context_sees_what_acts_and_the_reads_that_the_page_names() -> None:
    every = [tool.tool_def for tool in toolset().tools.values()]
    seen = {tool.name for tool in that_fit(every, Window(8192))}
    named = re.findall(r"`(read_\w+)`", PAGE.read_text().partition("these are there at least:")[2].partition("\n- ")[0])
    assert len(named) == 10 and {*named} <= seen and {*ACTS, *catalog.BY_NAME, "query_records"} <= seen
    assert that_fit(every, Window(12_000)) == every
