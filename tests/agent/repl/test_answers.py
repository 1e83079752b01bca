"""What the screen shows: a part of the examination of answers, on a small stored home and without any model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.bench.strangers import shell_in
from tests.driver.exam_home import make_exam_home
from tests.driver.run_answers import Exam, figures, load
from tests.driver.stranger_states import home_of_state
from tests.fixtures.waiting import HANG_S

pytestmark = pytest.mark.heavy

NO_DRIVER = {"TUNESMITH_DRIVER": "http://127.0.0.1:9/v1", "TUNESMITH_DRIVER_NAME": "none"}
EVERY = 4
"""`make eval-driver` asks them all."""


@pytest.mark.parametrize("part", range(2))
def test_what_people_ask_is_answered_by_the_records(tmp_path: Path, part: int) -> None:
    """Half of a quarter: the fact within 15 lines, nothing false, nothing begun, no dead end."""
    items = load(no_model=True)[part * 2 :: EVERY * 2]
    items = [item for item in items if len(item.get("turns", [])) < 8]
    exam = Exam(make_exam_home(tmp_path / "home"), NO_DRIVER, HANG_S)
    try:
        verdicts = [exam.item(item) for item in items]
    finally:
        exam.close()
    wrong = [f"{one.id}: {one.wrong + one.false + one.dead_ends + one.unasked}" for one in verdicts if not one.right]
    found = figures(verdicts)
    assert found["items"] >= 15
    assert not found["false"] and not found["dead_ends"] and not found["started_unasked"], wrong
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize("name", ["describe-commit", "describe-units-corrected"])
def test_a_description_is_kept_letter_for_letter_through_corrections_and_questions(tmp_path: Path, name: str) -> None:
    item = next(item for item in load(no_model=True) if item["id"] == name)
    exam = Exam(make_exam_home(tmp_path / "home"), NO_DRIVER, HANG_S)
    try:
        verdict = exam.item(item)
    finally:
        exam.close()
    assert verdict.right, (verdict.wrong, verdict.dead_ends, verdict.shown)


def test_the_examination_is_large_enough_and_names_every_item_once() -> None:
    items = load(no_model=False)
    assert len({item["id"] for item in items}) == len(items)
    assert sum("turns" not in item for item in items) >= 120
    assert sum("turns" in item for item in items) >= 15


def test_whether_a_step_is_to_end_is_asked_once_the_turn_that_ordered_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    with (
        home_of_state(tmp_path / "home", "a training step is running now"),
        shell_in(tmp_path / "home", [], None) as on,
    ):
        say, prompt = on.say, on.answers.prompt

        def say_late(text: str) -> None:
            asked.wait(0.5)  # of a question that came too early, which would be before it on the screen
            say(text)

        def ask(*args: Any, **more: Any) -> str:
            asked.set()
            return prompt(*args, **more)

        monkeypatch.setattr(on, "say", say_late)
        monkeypatch.setattr(on.answers, "prompt", ask)
        on.type("stop the training")
        screen = on.screen.getvalue()
    assert 0 < screen.index("status running") < screen.index("?? End train")
