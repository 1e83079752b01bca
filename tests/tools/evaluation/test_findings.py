"""Findings say of rows only what is wrong with them, and of a training what held-out rows bear out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tests.fixtures.tables import table
from tunesmith.memory.records import Step, TrainingRow, Verdict
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.findings import _more_rehearsal, _more_rows, _next_step, row_findings
from tunesmith.tools.evaluation.run_records import RunRecords
from tunesmith.tools.evaluation.verdict import FORM_ONLY, LEARNED, NOT_LEARNED, PARTLY


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


@table(("kind", "found"), [
    ("held out", []), ("leak", []), ("balance", []), ("label", ["rows mislabelled"]), ("duplicate", ["rows narrow"]),
])  # fmt: skip
def test_only_rows_that_are_wrong_are_called_so(kind: str, found: list[str]) -> None:
    assert [one.kind for one in row_findings(cast(RunRecords, _Rows(kind, 40)))] == found


@table(
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


FALLING, AT_THE_END = [2.0, 0.5, 0.3, 0.2], {"best_step": 60, "steps": 60, "validation_kl": 0.02}


class _Trained:
    """Records of a training: its validation losses and what it reported. There is no training loss to ask."""

    brought = ""

    def __init__(self, curve: list[float], report: dict[str, Any], max_kl: float) -> None:
        self.curve, self.max_kl = curve, max_kl
        self.steps = {"train": SimpleNamespace(report=report)}

    def validation(self) -> list[float]:
        return self.curve

    def number(self, stage: str, field: str, default: float) -> float:
        return self.max_kl if field == "max_kl" else default


@table(
    ("word", "curve", "changed", "max_kl", "stage"),
    [
        (PARTLY, FALLING, {}, 0.05, "train"),
        (NOT_LEARNED, FALLING, {}, 0.05, "train"),
        (NOT_LEARNED, FALLING, {}, 0.0, "train"),
        (PARTLY, FALLING, {"validation_kl": None}, 0.05, "train"),
        (PARTLY, FALLING, {"validation_kl": 0.05}, 0.05, "generate"),  # at the bound: more steps would pass it
        (PARTLY, FALLING, {"best_step": 40}, 0.05, "generate"),
        (PARTLY, [2.0, 0.5, 0.3, 0.3], {}, 0.05, "generate"),
        (PARTLY, [2.0, 0.3, 0.4, 0.3], {}, 0.05, "generate"),
        (PARTLY, [2.0, 0.3], {}, 0.05, "generate"),  # before and after alone
        (NOT_LEARNED, [], {}, 0.05, "generate"),
        (FORM_ONLY, FALLING, {}, 0.05, "generate"),
        (LEARNED, FALLING, {}, 0.05, None),
    ],
)
def test_a_longer_training_is_proposed_where_held_out_rows_say_so_and_nowhere_else(
    word: str, curve: list[float], changed: dict[str, Any], max_kl: float, stage: str | None
) -> None:
    records = cast(RunRecords, _Trained(curve, AT_THE_END | changed, max_kl))
    proposal = _next_step(records, cast(Any, SimpleNamespace(word=word, worse=(), people=None)))
    assert (proposal.stage if proposal else None) == stage
