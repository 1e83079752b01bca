"""What passed, and the verdict on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver.exam_home import make_exam_home
from tests.driver.stranger_states import home_of_state
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store

R1 = {"run": "r1"}


def test_every_arm_has_its_score_on_every_block_beside_what_it_gained_and_lost(two_runs: Store) -> None:
    facts = {(one["block"], one["arm"]): one for one in asked(two_runs, "result", **R1).facts}
    assert len(facts) == 12
    quantized = {"passed": 57, "judged": 60, "share": 0.95, "answers_cut_off": 2, "gained": 55, "lost": 0,
                 "verdict": "better", "answer_seconds": 0.21, "answer_tokens": 40}  # fmt: skip
    assert quantized.items() <= facts["target", "quantized"].items()
    assert facts["target", "base"]["gained"] is None and facts["tools", "merged"]["passed"] == 0


def test_an_arm_and_a_block_select_and_the_verdict_is_that_arms(two_runs: Store) -> None:
    result = asked(two_runs, "result", **R1, arm="adapter", block="general")
    assert [(one["block"], one["arm"]) for one in result.facts] == [("general", "adapter")]
    assert result.of["verdict_on"] == "adapter" and result.says[0].startswith("learned: 59 of 60 people's cases")


@pytest.mark.heavy
@table(("state", "right", "takes"), [("r2 is tested and only partly learned", 20, 48), ("one finished run", 57, 48)])
def test_the_way_to_learned_is_told_in_cases(tmp_path: Path, state: str, right: int, takes: int) -> None:
    with home_of_state(tmp_path / "home", state):
        of = asked(Store(tmp_path / "home"), "result").of
    assert (of["cases_of_people"], of["right"], of["learned_takes"]) == (60, right, takes)


def test_a_block_that_the_verdict_calls_worse_is_worse_wherever_it_is_told(tmp_path: Path) -> None:
    store = Store(make_exam_home(tmp_path / "home"))
    with store.write() as conn:
        conn.execute(
            "UPDATE eval_results SET passed = 0 WHERE run = 'r1' AND arm = 'quantized' AND case_id IN"
            " ('general-000', 'general-001', 'general-002', 'general-003', 'general-005', 'general-006', 'general-007')"
        )
    told = [
        one
        for kind in ("result", "compare")
        for one in asked(store, kind, **R1, arm="quantized", block="general").facts
    ]
    assert [(one["verdict"], one["lost"], round(float(str(one["p_value"])), 3)) for one in told] == [
        ("worse", 8, 0.008)
    ] * 2
    findings = asked(store, "findings", **R1)
    assert findings.of["verdict"] == "not learned" and any("general got worse" in one for one in findings.says)


def test_a_run_without_a_tuned_model_has_no_verdict_and_one_without_answers_no_result(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "rows are being written"):
        result = asked(Store(tmp_path / "home"), "result")
        assert "verdict" not in result.of and {one["arm"] for one in result.facts} == {"base"}
    with pytest.raises(NotFound, match="Nothing was measured yet"):
        asked(Store(tmp_path / "empty"), "result")


def test_a_run_that_is_not_there_is_said_with_those_that_are(two_runs: Store) -> None:
    for kind in ("result", "cases", "findings", "confusion", "compare", "suite", "described"):
        with pytest.raises(NotFound, match=r"There is no run r77; the runs are r2 .*, r1"):
            asked(two_runs, kind, run="r77")
