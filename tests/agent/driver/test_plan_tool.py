"""The plan by typed arguments: each is taken or told with its reason, and nothing names what the user did not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.driver.test_conversation import Talk
from tests.fixtures.descriptions import COOKING
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.driver.plan import Changes
from tunesmith.tools.core.local_paths import bundled_behaviour
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.suites.loading import load_suites

DEMO = {"behaviour": "demo", "goal": "answer tickets as JSON", "pace": "full"}


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    finished_run(tmp_path / "home")[0].close()
    one = Talk(tmp_path / "home")
    yield one
    one.chat.close()


def planned(talk: Talk, words: str, **given: Any) -> dict[str, Any]:
    """What the driver is told of a plan that it proposes with these arguments."""
    talk.turn(words, ("plan_fine_tune", {**DEMO, **given}), "Start it?")
    told: dict[str, Any] = json.loads(talk.tool_results()[-1])
    return told


def edited(talk: Talk, words: str, **given: Any) -> str:
    talk.turn(words, ("edit_plan", given), "Changed.")
    return talk.tool_results()[-1]


def steps(talk: Talk) -> list[str]:
    assert talk.deps.draft is not None
    return [f"{one.stage} {one.fields['arm']}" if "arm" in one.fields else one.stage for one in talk.deps.draft.steps]


def fields(talk: Talk, stage: str) -> dict[str, Any]:
    assert talk.deps.draft is not None
    return next(dict(one.fields) for one in talk.deps.draft.steps if one.stage == stage)


def jsonl(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in pairs))
    return path


EVERY: dict[str, Any] = {
    "base": "bundled-0.5b", "rows": 200, "rows_from": "r1", "quantize": "no", "card": "4090", "max_hours": 2,
    "max_disk_gib": 1, "leave_out": ["evaluate prompted", "preflight"], "add": ["release"],
    "settings": "train.lora_rank=8 epochs=2", "settings_from_run": "r1",
}  # fmt: skip


def test_every_argument_that_is_given_is_taken_or_told_with_its_reason(talk: Talk) -> None:
    assert {*EVERY} == {*Changes.model_fields}
    told = planned(talk, "tickets as JSON, on a 4090 too, at most two hours", **EVERY)
    assert {*EVERY, "behaviour", "goal", "pace"} == {*told["taken"]} | {*told["not_taken"]}
    assert all(told["not_taken"].values())


def test_what_was_taken_stands_in_the_plan_and_its_steps_are_priced(talk: Talk) -> None:
    told = planned(
        talk, "tickets as JSON, rank 8", quantize="no", settings="train.lora_rank=8 epochs=2", rows=200, max_hours=0.01
    )
    assert told["not_taken"] == {} and told["within"]["max_hours"]["kept"] is False
    train = next(one for one in told["plan"] if one["stage"] == "train")
    assert (train["fields"]["lora_rank"], train["fields"]["epochs"]) == (8, 2.0) and train["seconds"] > 0
    assert fields(talk, "generate")["rows"] == 200 and "quantize" not in steps(talk)
    assert told["estimated_in_all"] and talk.started == [], "a plan is shown, and nothing begins"


@table(
    ("given", "why"),
    [
        ({"settings": "train.lora_rnk=8"}, "did you mean 'lora_rank'?"),
        ({"settings": "nonsense=3"}, "no step of the plan has one; write STAGE.FIELD, of inspect"),
        ({"settings": "trian.lora_rank=8"}, "the plan has no step 'trian'; its steps are inspect"),
        ({"settings": "lora_rank=999999"}, "256"),
        ({"settings": "lora_rank"}, "write lora_rank=VALUE"),
        ({"settings": "evaluate.arm=base"}, "evaluate"),
        ({"leave_out": ["evaluate"]}, "which step evaluate is left out"),
        ({"leave_out": ["release"]}, "the plan has no step 'release'"),
        ({"add": ["relase"]}, "no stage 'relase'; there is release"),
        ({"add": ["evaluate adapter"]}, "the plan has evaluate adapter already"),
        ({"card": "5000 geese"}, "no card is known as '5000 geese'"),
        ({"settings_from_run": "r77"}, "r77"),
        ({"rows_from": "r77"}, "the user did not name it"),
        ({"base": "deepseek 7b"}, "the user did not name it"),
    ],
)
def test_what_cannot_be_taken_is_told_with_what_there_is_and_the_plan_stays(
    talk: Talk, given: dict[str, Any], why: str
) -> None:
    told = planned(talk, "tickets as JSON", **given)
    [(name, reason)] = told["not_taken"].items()
    assert name in given and why in reason, reason
    before = talk.deps.draft
    assert "nothing of the plan is changed" in (refused := edited(talk, "and so", **given)) or "card" in given
    assert why.replace("'", "") in refused.replace("'", "").replace("\\", "") and talk.deps.draft == before


def test_what_is_left_out_together_is_taken_in_whichever_order_it_was_named(talk: Talk) -> None:
    after = ["merge", "quantize", "evaluate quantized", "evaluate merged", "deploy"]
    told = planned(talk, "tickets as JSON, and nothing after the test of the adapter", leave_out=after)
    assert told["not_taken"] == {} and steps(talk)[-2:] == ["train", "evaluate adapter"]


def test_of_several_values_those_that_are_right_are_taken_and_the_others_told_each(talk: Talk) -> None:
    told = planned(talk, "tickets as JSON", settings="train.lora_rank=8 train.nonsense=1")
    assert told["taken"]["settings"] == "train.lora_rank=8" and "train.nonsense=1: " in told["not_taken"]["settings"]


def test_a_base_is_the_users_word_and_no_drivers(talk: Talk) -> None:
    told = planned(talk, "tickets as JSON", base="evil/Qwen3-4B")
    assert "the user did not name it" in told["not_taken"]["base"] and fields(talk, "base") == {"model": "bundled"}
    assert told["not_taken"]["base"].endswith("the plan and its prices are of bundled in its place")
    told = json.loads(edited(talk, "take SmolLM2 for it after all", base="bundled-0.5b"))
    assert told["taken"]["base"] == "bundled-0.5b"


def test_what_the_user_named_some_turns_ago_is_still_named(talk: Talk, tmp_path: Path) -> None:
    mine = jsonl(tmp_path / "mine.jsonl", [(f"is part {n} of the roof done", f"part {n}") for n in range(24)])
    talk.turn(f"my own rows lie in {mine}", "Good.")
    told = planned(talk, "tickets as JSON, with my rows", rows_from=str(mine))
    assert told["not_taken"] == {} and fields(talk, "import")["source"] == str(mine)
    assert fields(talk, "generate")["rows"] == 0, "none is written beside them"


def test_no_file_is_taken_that_only_a_longer_path_of_the_users_holds(talk: Talk, tmp_path: Path) -> None:
    told = planned(talk, f"tickets as JSON, I keep {tmp_path}/mine.jsonl.bak aside", rows_from=f"{tmp_path}/mine.jsonl")
    assert "the user did not name it" in told["not_taken"]["rows_from"]


def test_rows_that_hold_a_test_case_are_refused_however_they_come(talk: Talk, tmp_path: Path) -> None:
    suites = sorted((bundled_behaviour() / "suites").glob("*.yaml"))
    case = next(one for one in load_suites(suites[-1:], models=("judge", "embedder")).cases if one.messages)
    asked = str(case.messages[-1]["content"])
    pairs = [(f"is part {n} of the roof done", f"part {n}") for n in range(24)]
    mine = jsonl(tmp_path / "mine.jsonl", [*pairs, (asked.upper(), "{}")])
    told = planned(talk, f"tickets as JSON, with the rows of {mine}", rows_from=str(mine))
    assert "1 row of" in told["not_taken"]["rows_from"] and fields(talk, "import")["source"] != str(mine)
    talk.turn(f"then import {mine}", ("import", {"settings": f"source={mine}"}), "No.")
    assert "seen a case proves nothing" in talk.tool_results()[-1]


def test_a_file_that_the_user_did_not_name_is_not_imported(talk: Talk) -> None:
    talk.turn("get me more rows", ("import", {"settings": "source=/etc/passwd"}), "No.")
    assert "the user did not name it" in talk.tool_results()[-1]


def test_a_behaviour_described_earlier_is_planned_by_its_name_and_no_other_is_guessed(talk: Talk) -> None:
    folder = write_behaviour(COOKING, talk.store.home / "behaviours", judged=False)
    told = planned(talk, "plan my cooking again", behaviour=folder.name, pace="fast", quantize="no")
    assert told["behaviour"] == folder.name and told["taken"]["quantize"] == "no"
    talk.turn("and poems", ("plan_fine_tune", {**DEMO, "behaviour": "poems"}), "No.")
    assert f"described before are {folder.name}" in talk.tool_results()[-1]


def test_the_settings_of_a_run_and_a_step_more_find_their_place(talk: Talk) -> None:
    planned(talk, "tickets as JSON", settings_from_run="r1", leave_out=["evaluate merged"])
    trained = next(one for one in talk.store.steps("r1") if one.stage == "train").request
    had = {name: value for name, value in trained.items() if name in ("lora_rank", "learning_rate", "epochs")}
    assert had and had.items() <= fields(talk, "train").items()
    edited(talk, "test the merged one after all", add=["evaluate merged"])
    assert steps(talk).index("evaluate merged") == steps(talk).index("merge") + 1
