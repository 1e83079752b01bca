"""Calibration is counted in tokens, as many as the widest layer asks for and the rows have, and is priced by them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.tools.export.test_deploying import known
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.stage import Plan, expected
from tunesmith.tools.data.rows import write_rows
from tunesmith.tools.export.calibration import chosen_rows
from tunesmith.tools.export.quantize import STAGE, QuantizeRequest


def planned(rows: int, tokens_a_row: int = 100, **fields: Any) -> Plan:
    facts = known("qwen3-8b", "24", capability="8.6")
    dataset = expected("dataset", train_rows=rows, tokens_per_row=tokens_a_row)
    facts = replace(facts, artifacts={**facts.artifacts, "dataset": dataset})
    return STAGE.plan(QuantizeRequest(**fields), facts, STAGE.usual_context(facts))


def test_a_plan_takes_four_tokens_for_each_input_of_the_widest_layer() -> None:
    plan = planned(1000, scheme="W4A16")
    assert plan.request["calibration_tokens"] == 4 * 12_288 and "12,288 inputs" in plan.reasons["calibration_tokens"]
    assert any("calibrate on 49,152 tokens;" in step for step in plan.steps)


def test_a_plan_says_how_much_of_what_is_wanted_the_rows_have() -> None:
    assert any("calibrate on 20,000 tokens, 41% of the 49,152 wanted" in step for step in planned(200).steps)


@table(
    ("typed", "tokens"),
    [({"calibration_tokens": 5000}, 5000), ({"calibration_samples": 20}, 2000),
     ({"calibration_samples": 20, "calibration_tokens": 5000}, 2000)],
)  # fmt: skip
def test_what_is_typed_of_calibration_stands(typed: dict[str, Any], tokens: int) -> None:
    plan = planned(1000, **typed)
    assert typed.items() <= plan.request.items() and "calibration_tokens" not in plan.reasons
    assert any(f"calibrate on {tokens:,} tokens" in step for step in plan.steps)


def test_more_tokens_cost_more_time_and_disk_until_the_rows_have_no_more() -> None:
    few, many, more = (planned(1000, calibration_tokens=count).estimate for count in (10_000, 100_000, 1_000_000))
    assert few.seconds < many.seconds == more.seconds and few.disk_bytes < many.disk_bytes == more.disk_bytes
    search = (planned(1000, rounding="autoround", calibration_tokens=n).estimate.peak_ram_bytes for n in (9999, 99_999))
    assert next(search) < next(search), "a search keeps something of all tokens"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    draw = random.Random(3)
    origins = ["generated"] * 40 + ["rehearsal"] * 40
    draw.shuffle(origins)
    texts = ["word " * draw.randint(5, 50) for _ in origins]
    ask, path = {"role": "user", "content": "say it"}, tmp_path / "rows.jsonl"
    answers = [{"role": "assistant", "content": text} for text in texts]
    listed = zip(origins, answers, strict=True)
    write_rows(path, [TrainingRow(f"w{n}", origin, [ask], [one]) for n, (origin, one) in enumerate(listed)])
    return path


def length(row: TrainingRow) -> int:
    return len(row.answer.split())


@table("tokens", [1, 100, 500, 1200])
def test_rows_are_taken_until_so_many_tokens_are_there_and_half_of_them_are_rehearsal(tokens: int, rows: Path) -> None:
    chosen = chosen_rows(rows, 0, 17, tokens=tokens, length=length)
    have = sum(map(length, chosen))
    assert tokens <= have < tokens + 60 and chosen == chosen_rows(rows, 0, 17, tokens=tokens, length=length)
    rehearsal = sum(length(one) for one in chosen if one.origin == "rehearsal")
    assert rehearsal >= tokens // 2
    assert len(chosen_rows(rows, 3, 17, tokens=tokens, length=length)) <= 3
    assert len({one.row_id for one in chosen}) == len(chosen)
