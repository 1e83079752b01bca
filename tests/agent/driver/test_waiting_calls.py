"""A call that costs something waits for the user: before it is asked, while it is, and after the process has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.agent.driver.test_conversation import BASE, NO, YES, Talk
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.errors import ApprovalPending
from tunesmith.memory.records import DECLINED, PLANNED
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Edited

pytestmark = pytest.mark.heavy
LOOK = ("read_runs", {"show": False})


def gone_on(home: Path, *answers: Any, acts: tuple[Any, ...] = ("It runs.",)) -> Talk:
    """The conversation that waits, taken up by a new process."""
    again = Talk(home, list(answers))
    again.chat.switch(again.chat.conversations.waiting())
    try:
        again.go_on(*acts)
    finally:
        again.chat.close()
    return again


def left(talk: Talk, *acts: Any) -> None:
    """A turn whose call nobody decided on."""
    with pytest.raises(ApprovalPending):
        talk.turn("get the base model", *acts)
    talk.chat.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_call_that_nobody_decided_on_is_asked_about_again_at_the_same_price(home: Path) -> None:
    one = Talk(home, [ApprovalPending("nobody is there")])
    left(one, LOOK, BASE)
    [waiting] = one.store.priced_steps()
    again = gone_on(home, NO)
    assert [plan.hash for plan in again.asked] == [one.asked[0].hash] and again.store.step(
        waiting.id
    ).status == DECLINED
    assert "too slow for tonight" in again.tool_results()[-1]
    assert '"runs": 0' in " ".join(again.tool_results()), "what the turn had read is still there"
    assert again.chat.conversations.waiting() == "" and again.said == ["It runs."]
    assert len(again.chat.conversations.load(again.chat.id).turns) == 1


def test_a_yes_after_the_restart_starts_that_step_and_the_turn_goes_on(home: Path, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    one = Talk(home, [ApprovalPending("nobody is there")])
    with pytest.raises(ApprovalPending):
        one.turn(f"take {folder} as the base", ("base", {"model": str(folder), "run": None}))
    one.chat.close()
    again = gone_on(home, YES)
    assert again.ran() == ["base"] and again.store.steps()[0].id == one.store.priced_steps()[0].id
    assert "ran_with" in again.tool_results()[-1]


def test_a_call_that_would_be_planned_otherwise_today_is_asked_about_as_it_is_today(home: Path, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    one = Talk(home, [ApprovalPending("nobody is there")])
    with pytest.raises(ApprovalPending):
        one.turn(f"take {folder} as the base", ("base", {"model": str(folder), "run": None}))
    one.chat.close()
    folder.rename(tmp_path / "before")
    make_tiny_model(folder, weight_bytes=8192)
    again = gone_on(home, NO)
    assert len(again.asked) == 1 and again.asked[0].hash != one.asked[0].hash
    assert [step.status for step in again.store.priced_steps()] == [DECLINED, DECLINED]


def test_an_edit_at_the_question_starts_the_edited_step_alone(home: Path) -> None:
    one = Talk(home, [Edited({"role": "teacher"}), NO])
    try:
        one.turn("get the base model", BASE, "No.")
    finally:
        one.chat.close()
    assert [step.status for step in one.store.priced_steps()] == [DECLINED, DECLINED]
    assert [plan.request["role"] for plan in one.asked] == ["base", "teacher"]


def test_a_step_that_was_decided_meanwhile_is_not_asked_about(home: Path) -> None:
    one = Talk(home, [ApprovalPending("nobody is there")])
    left(one, BASE)
    [step] = one.store.priced_steps()
    one.store.decide(step.id, "no", by="--approve", reason="elsewhere", price={})
    again = gone_on(home, acts=("It was declined.",))
    assert again.asked == [] and "declined meanwhile" in again.tool_results()[-1]


@pytest.mark.parametrize("answered", [True, False])
def test_other_words_give_up_what_waited(home: Path, answered: bool) -> None:
    """Even those that a killed process left without an answer."""
    one = Talk(home, [ApprovalPending("nobody is there")])
    with pytest.raises(ApprovalPending):
        one.turn("get the base model", BASE)
    if answered:
        one.turn("never mind", "Fine.")
    else:
        one.chat.conversations.begin(one.chat.id, "never mind")
    one.chat.close()
    assert Conversations(Store(home)).waiting() == "" and one.store.priced_steps()[0].status == PLANNED


def test_words_that_a_model_writes_decide_nothing(home: Path) -> None:
    """The answer is the approver's alone, whatever a call or its arguments say."""
    one = Talk(home, [NO])
    one.turn("get it", ("base", {"model": "bundled", "run": None, "approved": True}), BASE, "Done.")
    one.chat.close()
    assert one.ran() == [] and len(one.asked) == 1


KILLED = """
    import sys
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from tests.agent.driver.test_conversation import BASE, Talk
    class Asked(Exception): ...
    talk = Talk(Path({home!r}))
    def ask(plan, step):
        print("asked", step, flush=True)
        import time; time.sleep(600)
    talk.deps.approver = ask
    talk.turn("get the base model", ("read_runs", {{"show": False}}), BASE)
"""


def test_a_process_that_is_killed_at_the_question_leaves_a_call_that_is_asked_about_again(home: Path) -> None:
    root = str(Path(__file__).resolve().parents[3])
    program = textwrap.dedent(KILLED.format(root=root, home=str(home)))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        asked = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGKILL)
    assert asked[:1] == ["asked"]
    again = gone_on(home, NO)
    assert again.store.step(asked[1]).status == DECLINED
    assert '"runs": 0' in " ".join(again.tool_results())


def test_what_broke_off_goes_on_as_itself_and_with_another_value_is_a_step_of_its_own(
    home: Path, tmp_path: Path
) -> None:
    folder, other = make_tiny_model(tmp_path / "tiny"), make_tiny_model(tmp_path / "other")
    one = Talk(home, [YES, NO, NO, NO])
    one.deps.follow = True
    call: tuple[Any, ...] = ("base", {"settings": f"model={folder}"})
    one.turn(f"take {folder} as the base", call, "It runs.")
    with one.store.write() as conn:
        conn.execute("UPDATE steps SET status = 'failed', error = 'the worker was killed'")
    call[1]["run"] = "r1"
    one.turn("go on with it", call, "You said no.")
    assert [step.status for step in one.store.priced_steps()] == ["failed"], "the no leaves it as it was"
    one.turn(f"then take {other}", ("base", {"settings": f"model={other}", "run": "r1"}), "You said no.")
    assert [step.status for step in one.store.priced_steps()] == ["failed", DECLINED]
    assert [plan.request["model"] for plan in one.asked] == [str(folder), str(folder), str(other)]
    with one.store.write() as conn:
        conn.execute("DELETE FROM steps WHERE step <> (SELECT min(step) FROM steps)")
        conn.execute('UPDATE steps SET plan = \'{"of": "another version"}\'')
    one.turn("go on with it", call, "You said no.")
    assert [plan.request["model"] for plan in one.asked][3:] == [str(folder)], "planned anew, as it cannot be read"
    one.chat.close()
