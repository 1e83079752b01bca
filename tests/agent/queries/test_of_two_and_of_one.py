"""Which of two runs forgot more, one case by its place, the steps ahead with their times, rows for another plan."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.driver.exam_home import make_exam_home
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Answer, Context
from tunesmith.agent.queries.registry import REQUESTS, answer
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace


def told(store: Store, kind: str, draft: PipelinePlan | None = None, **given: Any) -> Answer:
    context = Context(Workspace(store, "/bin/true", lambda event, **data: None), store.newest_run(), draft)
    return answer(REQUESTS[kind].model_validate(given), context)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(make_exam_home(tmp_path_factory.mktemp("two") / "home"))


def worse(store: Store, run: str, block: str, arm: str = "quantized") -> None:
    """An arm of a run fails every case of a block."""
    with store.write() as conn:
        conn.execute("UPDATE eval_results SET passed = 0 WHERE run = ? AND block = ? AND arm = ?", (run, block, arm))


def test_which_of_two_forgot_more_is_told_by_a_paired_test_of_what_each_base_passes(tmp_path: Path) -> None:
    home = Store(make_exam_home(tmp_path / "home"))
    alike = told(home, "compare_runs", about="forgotten").lines[0]
    assert "of 45 general and tools cases that both were asked r1 lost 1 that its base passes and r2 1" in alike
    assert "no difference is shown (p = 1.00)" in alike
    worse(home, "r2", "general")
    reply = told(home, "compare_runs", run="r1", other_run="r2", about="forgotten")
    assert "r1 lost 1 that its base passes and r2 32: r2 forgot more (p < 0.001)" in reply.lines[0]
    assert reply.lines[1].strip().startswith("general: r1 quantized lost 1 of the 32 that its base passes; r2")
    worse(home, "r2", "general", "base")  # what its own base fails too was not forgotten
    assert "and r2 0: no difference" in told(home, "compare_runs", about="forgotten").lines[0]


@table(("given", "case"), [({"number": 1}, "target-017"), ({"number": 3}, "target-044"), ({"number": -1}, "tools-011")])
def test_a_case_is_shown_by_its_place_in_the_list(store: Store, given: dict[str, int], case: str) -> None:
    reply = told(store, "cases", **given)
    place = given["number"] if given["number"] > 0 else 17
    assert reply.lines[0].startswith(f"{place} of 17: r2, case {case}") and reply.private
    quoted = re.findall("“([^”]{6,})", " ".join(reply.lines))
    assert quoted and not any(text[:20] in reply.for_model + json.dumps(reply.as_json()) for text in quoted)


def test_a_place_behind_the_last_case_is_said_with_how_many_there_are(store: Store) -> None:
    assert told(store, "cases", number=99).lines[0].startswith("There is no number 99 among 17 cases that can be shown")


def test_the_case_lost_between_two_arms_is_shown_with_the_answers_of_all(store: Store) -> None:
    lines = told(store, "cases", outcome="lost", number=2).lines
    assert lines[0].startswith("2 of 2: r2, case target-044") and any(
        line.startswith("merged (passes)") for line in lines
    )


def test_a_blind_case_has_no_place_in_the_list(tmp_path: Path) -> None:
    home = Store(make_exam_home(tmp_path / "home"))
    with home.write() as conn:
        blind = "UPDATE artifacts SET meta = json_set(meta, '$.blind', json(?)) WHERE kind = 'suite'"
        conn.execute(blind, (json.dumps(["target-017", "tools-011"]),))
    assert told(home, "cases", number=1).lines[0].startswith("1 of 15: r2, case target-030")
    assert "target-017" not in " ".join(told(home, "cases", number=16).lines)
