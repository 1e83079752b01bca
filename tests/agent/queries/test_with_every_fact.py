"""An answer of the right kind has the fact that people need with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.driver.states import make_state
from tests.driver.stranger_states import home_of_state
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Answer, Context, shortened
from tunesmith.agent.queries.registry import REQUESTS, answer
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace

LESS = "r2 is tested and only partly learned"


def told(store: Store, kind: str, **given: Any) -> Answer:
    context = Context(Workspace(store, "/bin/true", lambda event, **data: None), store.newest_run())
    return answer(REQUESTS[kind].model_validate(given), context)


def text(store: Store, kind: str, **given: Any) -> str:
    return "\n".join(told(store, kind, **given).lines)


def in_state(home: Path, state: str, kind: str, **given: Any) -> str:
    with home_of_state(home, state):
        return text(Store(home), kind, **given)


@pytest.mark.heavy
def test_the_way_to_learned_is_told_with_the_difference(tmp_path: Path) -> None:
    assert "learned takes 48 of 60, 28 more" in in_state(tmp_path / "less", LESS, "result", run="r2")
    assert "Learned takes 48 of 60, 9 more are right." in in_state(tmp_path / "one", "one finished run", "result")


@pytest.mark.heavy
def test_a_diagnosis_begins_with_what_falls_short_and_is_not_cut_within_a_clause(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", LESS):
        lines = told(Store(tmp_path / "home"), "findings", about="why", run="r2").lines
    assert lines[0].startswith("r2: The adapter model: partly learned: 20 of 60")
    assert lines[1].startswith("Its adapter model fails 40 of 60 target cases;")
    assert any("may have forgotten" in line for line in lines[2:]) and not any("…" in line for line in lines)


def test_a_block_that_the_test_calls_worse_comes_before_what_was_partly_learned(tmp_path: Path) -> None:
    worse = "UPDATE eval_results SET passed = 0 WHERE run = 'r2' AND block = 'general' AND arm = ?"
    with home_of_state(tmp_path / "home", LESS):
        store = Store(tmp_path / "home")
        with store.write() as conn:
            conn.execute(worse, ("adapter",))
        first = told(store, "findings", about="next", run="r2").lines[0]
    assert "not learned: general got worse: 32 → 0 of 33" in first, first


def test_what_was_merged_and_not_tested_is_said_to_be_unknown(tmp_path: Path) -> None:
    store = make_state(tmp_path / "home", "merged")[0]
    reply = told(store, "compare", arm="merged", other_arm="adapter")
    assert "was not tested, so whether something broke on the way to it is not known" in reply.lines[0]
    assert "“Evaluate the merged model” tells: about " in reply.lines[0]
    assert [(one.stage, one.fields) for one in reply.proposals] == [("evaluate", {"arm": "merged"})]
    with pytest.raises(NotFound, match="cannot compare"):
        told(store, "compare", arm="quantized", other_arm="base")  # it is not there: nothing could be tested
    store.close()


def test_whether_something_is_there_is_answered_with_yes_or_no_first(tmp_path: Path) -> None:
    store = make_state(tmp_path / "home", "merged")[0]
    store.close()


def test_where_no_label_can_be_mixed_up_the_checks_that_fail_are_counted(tmp_path: Path) -> None:
    said = in_state(
        tmp_path / "home", "r1 is finished and its tuned model fails more than five open cases", "confusion"
    )
    assert "have no labels to mix up; by check:" in said and said.endswith("fail: 9 by is-json."), said


def test_a_block_without_results_is_named_in_a_whole_sentence(tmp_path: Path) -> None:
    said = in_state(tmp_path / "home", "one finished run", "result", block="adversarial")
    assert said.startswith("r1 has no results on the adversarial block; measured are")


def test_a_sentence_is_shortened_at_a_clause() -> None:
    assert shortened("One is so; two is so; three is longer than what there is room for", 40) == "One is so; two is so."
    assert shortened("short", 40) == "short"
    assert shortened("one word after another without any mark at all", 20).endswith("…")


@table(
    ("state", "kind", "given", "fact"),
    [
        (LESS, "result", {"run": "r2", "block": "target"}, "learned takes 48 of 60, 28 more"),
        (LESS, "findings", {"run": "r2"}, "Its adapter model fails 40 of 60 target cases; "),
    ],
)  # fmt: skip
def test_the_fact_that_people_ask_for_next_is_there(
    tmp_path: Path, state: str, kind: str, given: dict[str, str], fact: str
) -> None:
    assert fact in (said := in_state(tmp_path / "home", state, kind, **given)), said
