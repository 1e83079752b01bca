"""Where the user stands is told by the records, and weighs what the same words mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.driver.test_conversation import Talk
from tests.agent.driver.test_planning import GOAL
from tests.fixtures import stored_runs
from tunesmith.agent.driver.look_ups import moment
from tunesmith.agent.driver.standing import standing
from tunesmith.agent.words.reading import Context, read
from tunesmith.memory.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"


def told(home: Path, *stands: str) -> str:
    """The moment; where it is said to somebody who was not understood, what it says has to be in it."""
    talk = Talk(home)
    try:
        said = standing(talk.deps)
        assert all(words in said for words in stands) and len(said.splitlines()) <= 5, said
        return moment(talk.deps)
    finally:
        talk.chat.close()


def test_a_home_without_a_run_is_empty(home: Path) -> None:
    Store(home).close()
    assert told(home, "no run yet", "say what a model should learn") == "empty"


def test_a_run_is_midway_until_its_last_step_and_finished_then(home: Path, tmp_path: Path) -> None:
    stored_runs.baseline_run(home)[0].close()
    assert told(home, "Next in r1 is", "“go on” shows its price") == "midway"
    stored_runs.finished_run(tmp_path / "other")[0].close()
    assert told(tmp_path / "other", "of all target cases pass", "“deploy” prices serving it") == "finished"


def test_a_step_at_work_comes_before_one_that_broke_off(home: Path) -> None:
    stored_runs.failed_run(home)[0].close()
    assert told(home, "train (s", "failed: ", "“Go on” tries it again", "Its price: ") == "broken_off"
    build = stored_runs.new_builder(home)
    stored_runs.start_training(build, 3)
    build.store.close()
    assert told(home, "train (s", "is running") == "running"


@pytest.mark.heavy
def test_a_served_model_is_told_and_a_plan_comes_before_everything(home: Path) -> None:
    store, _ = stored_runs.finished_run(home)
    served = store.artifacts("r1", "quantized")[-1].id
    store.close()
    (home / "servers").mkdir(exist_ok=True)
    (home / "servers" / "1-x.json").write_text(json.dumps(stored_runs.server_record(served)), encoding="utf-8")
    assert told(home, "is served at http") == "served"
    talk = Talk(home)
    talk.turn("make it answer support tickets as JSON", GOAL, "Start it?")
    assert moment(talk.deps) == "planned" and "is open and not started" in standing(talk.deps)
    talk.chat.close()


def test_the_same_words_are_likelier_of_the_moment_that_they_are_said_at() -> None:
    def likelihood(said: str, at: str, kind: str) -> float:
        reading = read(said, Context(moment=at))  # type: ignore[arg-type]
        return reading.probability if reading.kind == kind else 0.0

    coming = "and how is it coming along?"
    assert likelihood(coming, "running", "jobs") > likelihood(coming, "finished", "jobs")
    matter = "so what on earth is the matter with it now"
    told = (read(matter, Context(moment=at)).likely for at in ("broken_off", "empty"))  # type: ignore[arg-type]
    assert ["step.failure" in labels for labels in told] == [True, False]
