"""Two arms and two runs set against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.driver.exam_home import make_exam_home
from tests.driver.states import make_state
from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.agent.queries.facts import Fact
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.suites.case import BLOCKS, Suite

R1 = {"run": "r1"}


@pytest.fixture
def home(tmp_path: Path) -> Store:
    """The two runs, to be changed."""
    return Store(make_exam_home(tmp_path / "home"))


def worse(store: Store, run: str, block: str, arm: str = "quantized") -> None:
    """An arm of a run fails every case of a block."""
    with store.write() as conn:
        conn.execute("UPDATE eval_results SET passed = 0 WHERE run = ? AND block = ? AND arm = ?", (run, block, arm))


def of_runs(store: Store, **given: Any) -> dict[str, Fact]:
    """The facts about two runs, by what they are about."""
    facts = asked(store, "compare_runs", **given).facts
    names = ("block", "setting", "stage", "case", "forgotten_of")
    return {str(one[name]): one for one in facts for name in names if name in one}


def test_two_arms_are_told_block_by_block_with_lost_cases_sizes_and_the_margin(two_runs: Store) -> None:
    result = asked(two_runs, "compare", **R1, arm="quantized", other_arm="merged")
    assert {"arm": "quantized", "other_arm": "merged", "margin_share": 0.05}.items() <= result.of.items()
    assert result.of["merged_bytes"] == 269 << 20 and result.of["quantized_bytes"] == 112 << 20
    target = {"block": "target", "judged": 60, "merged_passed": 59, "quantized_passed": 57, "gained": 0, "lost": 2,
              "lost_cases": ["target-030", "target-044"]}  # fmt: skip
    assert target.items() <= result.facts[0].items()
    assert (result.facts[0]["merged_answer_seconds"], result.facts[0]["quantized_answer_seconds"]) == (0.21, 0.21)
    assert any(one.startswith("quantized keeps 55 of the 57") for one in result.says)


@table("block", BLOCKS)
def test_a_block_that_nobody_was_asked_is_refused_with_those_that_were(two_runs: Store, block: str) -> None:
    if block in ("target", "general", "tools"):
        assert [one["block"] for one in asked(two_runs, "compare", **R1, block=block).facts] == [block]
    else:
        with pytest.raises(NotFound, match="measured blocks: target, general and tools"):
            asked(two_runs, "compare", **R1, block=block)


def test_lost_blind_cases_are_counted(tickets: Store) -> None:
    with tickets.write() as conn:
        conn.execute("UPDATE eval_results SET passed = 1 WHERE arm = 'base'")
    result = asked(tickets, "compare")
    assert result.facts[0]["lost"] == 4 and result.left_out == {"lost blind cases": 1}
    assert result.facts[0]["lost_cases"] == ["ticket-b1", "ticket-b2", "ticket-r1"]


def test_a_model_that_was_not_tested_is_said_to_be_unknown_with_the_price_of_its_test(tmp_path: Path) -> None:
    store = make_state(tmp_path / "home", "merged")[0]
    result = asked(store, "compare", arm="merged", other_arm="adapter")
    [fact] = result.facts
    assert fact["not_measured"] == "merged" and fact["estimated_seconds"]
    assert [(one.stage, one.fields) for one in result.proposals] == [("evaluate", {"arm": "merged"})]
    with pytest.raises(NotFound, match="no answers of the quantized arm"):
        asked(store, "compare", arm="quantized", other_arm="base")  # it is not there: nothing could be tested


def test_two_runs_are_told_by_what_both_were_asked_with_their_times(two_runs: Store) -> None:
    facts = of_runs(two_runs, run="r1", other_run="r2")
    of = asked(two_runs, "compare_runs", run="r1", other_run="r2").of
    assert {"in_common": 60, "r1_quantized": "57 of 60", "better": "not shown"}.items() <= facts["target"].items()
    assert facts["train"] == {"stage": "train", "r1_took_seconds": 152.0, "r2_took_seconds": 148.0}
    assert of["r1_took_seconds"] > of["r2_took_seconds"] and of["same_settings"] is True  # type: ignore[operator]


def test_of_one_block_no_times_of_stages_are_told(two_runs: Store) -> None:
    facts = asked(two_runs, "compare_runs", run="r1", other_run="r2", block="target").facts
    assert facts[0]["block"] == "target" and not any("stage" in fact for fact in facts)


def test_which_of_two_forgot_more_is_told_by_a_paired_test_of_what_each_base_passes(home: Store) -> None:
    alike = of_runs(home)["general and tools"]
    assert alike["in_common"] == 45 and alike["forgot_more"] == "not shown" and alike["p_value"] == 1.0
    worse(home, "r2", "general")
    more = of_runs(home, run="r1", other_run="r2")
    assert more["general"]["better"] == "r1" and more["general and tools"]["forgot_more"] == "r2"
    assert more["general and tools"]["r2_lost"] == "32 of 32 that its base passes"
    assert more["general-000"] == {"case": "general-000", "passed_by": "r1", "failed_by": "r2"}
    worse(home, "r2", "general", "base")  # what its own base fails too was not forgotten
    assert of_runs(home)["general and tools"]["forgot_more"] == "not shown"


def test_cases_of_the_same_name_that_ask_something_else_are_not_in_common(home: Store) -> None:
    (made,) = home.artifacts("r2", "suite")
    suite = stored_runs.suite()
    other = suite.cases[0].model_copy(update={"messages": ({"role": "user", "content": "Another question"},)})
    Path(made.path).write_text(Suite(cases=(other, *suite.cases[1:])).to_json())
    assert of_runs(home)["target"]["in_common"] == 59
    Path(made.path).unlink()
    result = asked(home, "compare_runs")
    assert result.of["matched_by"] == "id" and of_runs(home)["target"]["better"] == "no case in common"


def test_settings_that_differ_are_told_with_both_values(home: Store) -> None:
    with home.write() as conn:
        conn.execute("UPDATE steps SET request = json_set(request, '$.lora_rank', 8) WHERE run = 'r2'"
                     " AND stage = 'train'")  # fmt: skip
    assert of_runs(home)["train.lora_rank"] == {"setting": "train.lora_rank", "r1": "16", "r2": "8"}


@table(
    ("given", "error"),
    [({"run": "r1", "other_run": "r1"}, "r1 and r1 are the same run"), ({"run": "r9"}, "There is no run r9")],
)
def test_two_runs_have_to_be_there(two_runs: Store, given: dict[str, str], error: str) -> None:
    with pytest.raises(NotFound, match=error):
        asked(two_runs, "compare_runs", **given)
