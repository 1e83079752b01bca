"""What another agent describes and plans: proposed, priced, and nothing of it looked at or begun without the person."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="pip install 'tunesmith[mcp]'")

from tests.agent.test_mcp import Person, called, talk
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.mcp_plans import planned
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.plan_edits import Changes
from tunesmith.tools.pipeline.plan_file import load_pipeline
from tunesmith.tools.suites.loading import load_suites

pytestmark = pytest.mark.heavy

TOLD: dict[str, Any] = {
    "name": "roof mail", "when": "a tenant writes about the roof", "what": "one word: urgent or later",
    "never": "greet anybody", "labels": {"urgent": "water comes in", "later": "everything else"},
    "examples": [
        {"message": "water drips on my bed", "answer": "urgent"}, {"message": "a tile looks odd", "answer": "later"},
        {"message": "the ceiling came down", "answer": "urgent"},
    ],
}  # fmt: skip


def test_a_behaviour_that_an_agent_tells_is_written_whole_and_no_case_of_it_is_a_persons(tmp_path: Path) -> None:
    async def calls(client: Any) -> Any:
        part = {name: value for name, value in TOLD.items() if name != "examples"}
        assert (await called(client, "describe_behaviour", behaviour=part))["missing"] == ["examples"]
        written = await called(client, "describe_behaviour", behaviour=TOLD)
        return written, await called(client, "plan_fine_tune", behaviour=written["behaviour"], pace="fast")

    written, plan = talk(tmp_path / "home", calls)
    assert written["behaviour"] == "roof-mail" and {"when", "what", "never"} <= {*written["proposed"]}
    cases = load_suites([tmp_path / "home/behaviours/roof-mail/suites/target.yaml"], models=("judge", "embedder")).cases
    assert cases and not any(case.of_people for case in cases)
    typed = shlex.split(plan["a_person_types_for_all_of_it"])
    assert typed[:2] == ["tunesmith", "run"] and load_pipeline(Path(typed[2])).name == "roof-mail"
    assert plan["estimated_seconds"] > 0 and [one["stage"] for one in plan["plan"]][:2] == ["inspect", "base"]
    assert Store(tmp_path / "home").steps() == [], "nothing is priced to be agreed to, and nothing begun"


@table(
    "changes",
    [
        {"base": "Qwen/Qwen3-4B"}, {"base": "somebody/private-7b"}, {"rows_from": "/etc/passwd"},
        {"settings": "baseline.suites=/etc/passwd"}, {"settings": "model_name_or_path=/etc"},
        {"settings": 'baseline."suites"=/etc'}, {"settings": "lora_rank=8 suites="},
    ],
)  # fmt: skip
def test_what_a_plan_would_look_at_is_asked_about_and_without_leave_nothing_is_planned(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    person = Person(allow=False)

    async def calls(client: Any) -> Any:
        return await client.call_tool("plan_fine_tune", {"behaviour": "demo", "changes": changes})

    refused = talk(tmp_path / "home", calls, person=person)
    assert len(person.shown) == 1 and refused.is_error and "nobody allowed to look" in str(refused.content)


def test_only_what_was_allowed_is_looked_at(tmp_path: Path) -> None:
    ws = Settings(home=tmp_path).workspace(Store(tmp_path), lambda event, **data: None)
    told = planned(ws, "demo", "fast", Changes(base="somebody/private-7b", rows=20), ())
    assert "nobody allowed to look at 'somebody/private-7b'" in told["not_taken"]["base"]  # type: ignore[index]


def test_what_our_records_and_tables_hold_is_taken_without_a_question(tmp_path: Path) -> None:
    finished_run(tmp_path / "home")
    person = Person(allow=False)
    changes = {"base": "bundled-0.5b", "rows_from": "r1", "settings": "train.lora_rank=8", "leave_out": ["preflight"]}

    async def calls(client: Any) -> Any:
        return await called(client, "plan_fine_tune", behaviour="demo", changes=changes)

    told = talk(tmp_path / "home", calls, person=person)
    assert person.shown == [] and {*changes} == {*told["taken"]}


def test_the_manual_is_read_and_what_only_a_person_does_is_a_command_that_no_shell_can_take_otherwise(
    tmp_path: Path,
) -> None:
    finished_run(tmp_path / "home")
    hostile = "--yes; rm -rf ~ $(id)"

    async def calls(client: Any) -> Any:
        told = await called(client, "manual", about="roll back a deployment")
        asked = await called(client, "by_hand", what="ask_model", run="r1", message=hostile)
        return told, asked, await called(client, "by_hand", what="stop_serving")

    told, asked, stopped = talk(tmp_path / "home", calls)
    assert "roll_back_how" in told["manual"] and stopped == {"type_this": "tunesmith serve stop"}
    assert shlex.split(asked["type_this"]) == ["tunesmith", "ask", "--run=r1", "--", hostile]
