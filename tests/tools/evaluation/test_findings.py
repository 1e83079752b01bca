"""Findings from records say of rows only what is wrong with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from tunesmith.memory.records import Step, TrainingRow, Verdict
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.findings import _more_rehearsal, _more_rows, rows_found
from tunesmith.tools.evaluation.run_records import RunRecords


class _Rows:
    """Records of 100 rows, some of them dropped for one reason."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.count = kind, count

    def rows(self) -> list[TrainingRow]:
        message, answer = [{"role": "user", "content": "m"}], [{"role": "assistant", "content": "a"}]
        verdicts = [Verdict(self.kind if n < self.count else "keep") for n in range(100)]
        return [TrainingRow(f"r{n}", "generated", message, answer, verdict=one) for n, one in enumerate(verdicts)]

    def number(self, stage: str, field: str, default: float) -> float:
        return default


@pytest.mark.parametrize(("kind", "found"), [
    ("held out", []), ("leak", []), ("balance", []), ("label", ["rows mislabelled"]), ("duplicate", ["rows narrow"]),
])  # fmt: skip
def test_only_rows_that_are_wrong_are_called_so(kind: str, found: list[str]) -> None:
    assert [one.kind for one in rows_found(cast(RunRecords, _Rows(kind, 40)))] == found


@pytest.mark.parametrize(
    ("generate", "more", "rehearsal"),
    [
        (None, {"source": "/mine.jsonl"}, {"rehearsal_rows": 360, "rows": 0, "near_miss_rows": 0}),
        ({"rows": 0, "rehearsal_rows": 50, "near_miss_rows": 4}, {"source": "/mine.jsonl"},
         {"rehearsal_rows": 100, "rows": 0, "near_miss_rows": 4}),
        ({"rows": 140, "rehearsal_rows": 50}, {"rows": 280}, {"rehearsal_rows": 100}),
    ],
)  # fmt: skip
def test_where_a_person_brought_the_rows_no_step_that_is_proposed_writes_others_in_their_place(
    generate: dict[str, object] | None, more: dict[str, object], rehearsal: dict[str, object]
) -> None:
    steps = {"import": step("import", {"source": "/mine.jsonl"})}
    steps |= {"generate": step("generate", generate)} if generate is not None else {}
    records = RunRecords(cast(Store, None), "r1", steps)
    assert _more_rows(records, "why").fields == more and _more_rehearsal(records) == rehearsal


def step(stage: str, request: dict[str, object]) -> Step:
    return cast(Step, SimpleNamespace(stage=stage, request=request))
