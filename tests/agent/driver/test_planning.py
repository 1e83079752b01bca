"""A plan that is talked about: which behaviour it is for, what a change in words does, and what a refusal leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.driver.test_conversation import Talk
from tests.fixtures.hub_stand_in import COMMIT, MODEL, hub_of
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.driver.voice import sentences
from tunesmith.agent.words.reading import read
from tunesmith.memory.errors import BadInput
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.pipeline import base_choice
from tunesmith.tools.pipeline.fits import with_card
from tunesmith.tools.pipeline.plan_edits import model_named

GOAL = ("plan_fine_tune", {"behaviour": "demo", "goal": "answer tickets as JSON", "pace": "full"})


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    one = Talk(tmp_path / "home")
    yield one
    one.chat.close()


@pytest.fixture
def planned(talk: Talk) -> Talk:
    talk.turn("make it answer support tickets as JSON", GOAL, "Start it?")
    assert talk.deps.draft is not None
    return talk


def edit(**given: Any) -> tuple[str, dict[str, Any]]:
    return "edit_plan", given


def steps(talk: Talk) -> list[str]:
    assert talk.deps.draft is not None
    return [
        f"{spec.stage} {spec.fields['arm']}" if "arm" in spec.fields else spec.stage for spec in talk.deps.draft.steps
    ]


def fields(talk: Talk, stage: str) -> dict[str, Any]:
    assert talk.deps.draft is not None
    return next(spec.fields for spec in talk.deps.draft.steps if spec.stage == stage)


@table(
    ("words", "bundled"),
    [
        ("make this model answer support tickets as strict JSON", True),
        ("triage our helpdesk mail", False),  # their own, which is asked about
        ("another one for tickets, all of it", True),
        ("my custmers' tikets in json pls", True),
        ("teach it to write polite replies to customer emails in French", False),
        ("teach it to support Spanish", False),
        ("turn customer reviews into JSON", False),
        ("write replies for support tickets", False),
    ],
)
def test_only_tickets_that_are_to_be_sorted_are_the_bundled_behaviour(words: str, bundled: bool) -> None:
    assert (read(words).label == "want.bundled") is bundled


def test_an_edit_that_changes_nothing_is_said_with_the_steps_that_there_are(planned: Talk) -> None:
    before = planned.deps.draft
    planned.turn("without the quantizing", edit(leave_out=["quantize"]), "Changed.")
    planned.turn("and once more", edit(leave_out=["quantize"]), "No.")
    assert "the plan has no step 'quantize'; its steps are inspect, base" in planned.tool_results()[-1]
    assert planned.deps.draft != before


@pytest.mark.heavy
def test_another_base_is_pinned_at_its_newest_commit_and_the_one_before_leaves_none(
    planned: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with hub_of(make_tiny_model(tmp_path / "on-the-hub")) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        planned.turn(f"take {MODEL} as the base", edit(base=MODEL), "Changed.")
        assert fields(planned, "base") == {"model": MODEL, "revision": COMMIT}
        planned.turn("no, bundled after all", edit(base="bundled"), "Changed.")
    assert fields(planned, "base") == {"model": "bundled"}


def test_another_base_decides_again_what_the_plan_deploys_unless_somebody_said_it(
    planned: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = with_card(measure_machine(planned.store.home), 24)
    monkeypatch.setattr(base_choice, "facts_now", lambda ws: facts)
    demo, other = steps(planned), edit(base="bundled-0.5b")
    planned.turn("take bundled-0.5b as the base", other, "Changed.")
    assert steps(planned) == demo, "the demo's own plan goes the whole arc"
    assert planned.deps.draft is not None
    planned.deps.draft = planned.deps.draft.model_copy(update={"arm_by_base": True})
    planned.turn("no, bundled-1.5b as the base", edit(base="bundled-1.5b"), "Changed.")
    assert steps(planned)[-2:] == ["evaluate adapter", "deploy adapter"] and "merge" not in steps(planned)
    assert "deploy the adapter on its base: both need" in planned.tool_results()[-1]


@table(
    ("said", "model"),
    [
        ("SmolLM2", "bundled"), ("Qwen2.5 Coder 0.5B", "bundled-0.5b"), ("Qwen2.5-3B", "Qwen/Qwen2.5-3B-Instruct"),
        ("qwen3 4b", "Qwen/Qwen3-4B"), ("llama 3.2 1b", "meta-llama/Llama-3.2-1B-Instruct"),
        ("phi-4", "microsoft/phi-4"),
    ],
)  # fmt: skip
def test_a_base_is_known_by_a_spoken_name_that_is_its_alone_a_bundled_one_first(said: str, model: str) -> None:
    assert model_named(said) == model


@table(
    ("said", "error"), [("qwen2.5", "which qwen2.5"), ("deepseek 7b", "no model that can be had"), ("7b", "no model")]
)
def test_a_family_or_a_size_alone_is_no_base(said: str, error: str) -> None:
    with pytest.raises(BadInput, match=error):
        model_named(said)


def test_leaving_an_evaluation_out_asks_which_and_never_takes_the_one_that_deploy_needs(planned: Talk) -> None:
    before = steps(planned)
    planned.turn("skip the evaluation", edit(leave_out=["evaluate"]), "Which?")
    told = planned.tool_results()[-1]
    assert steps(planned) == before and "evaluate adapter or evaluate merged or evaluate quantized" in told
    planned.turn("the merge evaluation is not needed", edit(leave_out=["evaluate merged"]), "Changed.")
    assert steps(planned) == [step for step in before if step != "evaluate merged"]
    planned.turn("skip evaluating the quantized one", edit(leave_out=["evaluate quantized"]), "Hm.")
    assert "deploy serves only what was evaluated" in planned.tool_results()[-1]
    assert "evaluate quantized" in steps(planned)


def test_a_plan_that_cannot_begin_stays_proposed_and_nothing_says_that_it_began(planned: Talk) -> None:
    def refuse(plan: Any) -> str:
        raise BadInput("a plan is being carried out already")

    planned.deps.start_pipeline = refuse
    reply = planned.turn("ok start", ("start_plan", {"confirm": "start"}), "It cannot start now.")
    assert planned.deps.draft is not None and "It begins" not in reply.text and not planned.deps.say_next


@pytest.mark.heavy
def test_a_question_without_a_run_is_about_the_run_that_was_asked_about_and_steps_are_not(
    talk: Talk,
) -> None:
    for _ in range(3):
        finished_run(talk.store.home)[0].close()
    talk.turn("how did r1 go?", ("read_run", {"run": "r1"}), "Fine.")
    talk.turn("why rank 16?", ("read_setting", {"fields": ["lora_rank"]}), "So.")
    assert json.loads(talk.tool_results()[-1])["of"]["run"] == "r1"
    talk.turn("compare it with r2", ("read_compare_runs", {"run": "r2"}), "So.")
    assert "r1" in talk.tool_results()[-1] and "r2" in talk.tool_results()[-1]
    assert talk.deps.current_run() == talk.store.newest_run()


def test_the_mark_of_a_list_is_no_sentence_of_its_own() -> None:
    assert sentences("So:\n1. Get the base.\n2. Train it. Then rest.") == [
        "So:", "1. Get the base.", "2. Train it.", "Then rest."
    ]  # fmt: skip
