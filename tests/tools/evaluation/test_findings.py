"""Findings from records say of rows only what is wrong with them."""

from __future__ import annotations

from typing import cast

import pytest

from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.evaluation.findings import rows_found
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
