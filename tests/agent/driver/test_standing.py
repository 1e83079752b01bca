"""Who was not understood is told in at most five lines what people then need, by what the home holds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.agent.driver.test_conversation import Talk
from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tunesmith.agent.driver.by_code import decide
from tunesmith.agent.driver.standing import standing
from tunesmith.agent.driver.turn_deps import TurnAnswer
from tunesmith.agent.driver.unsure import did_you_mean
from tunesmith.agent.queries.registry import REQUESTS, answer
from tunesmith.memory.store import Store
from tunesmith.tools.serving import eviction
from tunesmith.tools.serving.eviction import machine_for_a_step

pytestmark = pytest.mark.heavy

TWO = "at least two finished runs r1 and r2 with different settings, both tested"
SERVED = "at least two finished runs; a model of one of them is served now, and another was served before it"
RUNNING = "a training step is running now, partly done"


def told(home: Path, state: str) -> str:
    """What is said to who was not understood in a home of a state."""
    with home_of_state(home, state), pytest.MonkeyPatch.context() as patch:
        free = shutil.disk_usage(home)
        patch.setattr(shutil, "disk_usage", lambda path: free)  # what others write meanwhile is no difference
        seen = machine_for_a_step(home)
        patch.setattr(eviction, "machine_for_a_step", lambda *_: seen)  # nor what they hold of the memory
        talk = Talk(home)
        try:
            said = standing(talk.deps)
            assert 0 < len(said.splitlines()) <= 5 and all(len(line) < 400 for line in said.splitlines()), said
            assert did_you_mean(talk.deps).startswith(
                f"I did not understand that; nothing was changed or begun.\n{said}"
            )
            return said
        finally:
            talk.chat.close()


STATES: list[tuple[str, list[str]]] = [
    ("no run yet, an empty home", ["such as “", "starts only after your yes", "stays on this computer"]),
    (
        TWO,
        [
            "r2 (release-notes): quantized, 112 MiB, learned: target 57 of 60 (base 2)",
            "r1 (ticket-triage): ",
            "r1 and r2 differ in train.epochs 3.0 / 2.0; train.lora_rank 16 / 8",
            "all its files",
            "disk is free",
        ],
    ),
    (
        SERVED,
        [
            "release-notes is served at",
            "Of r2 quantized",
            "Before it: the quantized model a10 of r1",
            "target 57 of 60",
            "“roll back” prices serving it again",
            "r1 and r2 differ in train.epochs",
        ],
    ),
    (
        RUNNING,
        [
            "train (s6 of r1) is running",
            "left.",
            "last recorded training loss is 0.161",
            "sleeps or is switched off halts it",
            "terminal closed",
            "`/stop s6` ends it and keeps what is written to disk",
        ],
    ),
    ("a run whose training step failed", ["failed: the worker was killed", "“Go on” tries it again", "price: about "]),
    ("several runs or steps, at least one of which failed", ["train (s18 of r2) failed", "r1 (ticket-triage): "]),
    (
        "some steps were approved and one declined",
        ["You said no to generate (s3 of r1), which writes rows to train on"],
    ),
    ("r1 was released as GGUF in an earlier step", ["runs/r1/s14/release", "copy the whole folder", "ollama create"]),
    ("r2 is tested and only partly learned", ["learned takes 48 of 60, 28 more", "To try next: generate"]),
    (
        "r1 is finished and its tuned model fails",
        ["fails 9 of 60 target cases", "31 of 33 pass, 32 with the base", "/ask"],
    ),
    (
        "r1 is trained and merged, not quantized",
        [
            "Next in r1 is quantize, which makes the model smaller to about ",
            " at 4 bits",
            "It takes about ",
            "of disk",
        ],
    ),
    ("r1 is merged, nothing tested after the merge", ["the merged model, which was not tested yet"]),
    ("a run is planned or begun with its expensive steps", ["The 8 steps ahead take about", " of memory (", "tight"]),
]


@pytest.mark.parametrize(("state", "words"), STATES)
def test_each_state_is_told_with_what_people_then_need(tmp_path: Path, state: str, words: list[str]) -> None:
    said = told(tmp_path / "home", state)
    assert [one for one in words if one not in said] == [], said


def test_what_was_refused_and_done_since_is_not_told_as_refused(tmp_path: Path) -> None:
    build = stored_runs.Builder(stored_runs.baseline_run(tmp_path / "home")[0], "r1")
    build.end(build.step("generate"), 3.0, 1, {})
    talk = Talk(tmp_path / "home")
    assert "You said no" not in standing(talk.deps)
    talk.chat.close()
    build.store.close()


def test_a_run_that_is_alone_is_not_set_against_another(tmp_path: Path) -> None:
    said = told(tmp_path / "home", "one finished run r1")
    assert "differ" not in said and "Compare" not in said and "You said no" not in said and "GGUF" not in said


def test_an_open_plan_is_told_with_its_price_and_its_training(tmp_path: Path) -> None:
    talk = Talk(tmp_path / "home")
    talk.turn("demo", "Start it?")
    if talk.deps.draft is None:
        from tunesmith.agent.commands.run_steps import demo_plan

        talk.deps.draft = demo_plan(fast=False)
    said = standing(talk.deps)
    assert "“start it” begins it, “drop it” gives it up" in said and "All of it takes about " in said, said
    assert re.search(r", at most [\d.]+ \w+ of [\d.]+ \w+ free V?RAM \(in ", said), said
    assert "of disk; each expensive step asks again" in said
    assert "train with lora_rank " in said and "batch_size " in said and "learning_rate " in said
    talk.chat.close()


def test_what_was_served_before_is_told_with_both_results_and_what_comes_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with home_of_state(home, SERVED):
        talk = Talk(home)
        history = answer(REQUESTS["served"].model_validate({"about": "history"}), talk.deps.records()).lines
        first = answer(REQUESTS["served"].model_validate({"about": "history", "run": "r1"}), talk.deps.records()).lines
        talk.chat.close()
    assert history[0].startswith("Served now, since ") and "Of r2 quantized, 112 MiB, learned" in history[0]
    assert history[-1] == "“Roll back” prices serving the quantized model a10 of r1 again."
    assert first[0].startswith("Served now: the quantized model of r2") and "a10 of r1 was deployed" in first[1]


def test_nothing_is_offered_to_go_back_to_where_nothing_was_served_before(tmp_path: Path) -> None:
    said = told(tmp_path / "home", "r1's model is served now")
    assert "Before it" not in said and "roll back" not in said.lower()


def test_a_home_that_was_never_written_is_told_too(tmp_path: Path) -> None:
    Store(tmp_path / "home").close()
    talk = Talk(tmp_path / "home")
    assert "There is no run yet" in standing(talk.deps)
    talk.chat.close()


def test_results_of_a_run_are_told_with_that_its_newest_model_was_not_tested(tmp_path: Path) -> None:
    merged, done = "r1 is trained and merged, nothing tested after the merge", "one finished run r1"
    for state, untested in ((merged, True), (done, False)):
        home = tmp_path / str(untested)
        with home_of_state(home, state):
            talk = Talk(home)
            talk.deps.begin_turn("how good is it?")
            answer = decide(talk.deps)
            talk.chat.close()
        assert isinstance(answer, TurnAnswer) and ("merged model of r1 was not tested" in answer.text) is untested
