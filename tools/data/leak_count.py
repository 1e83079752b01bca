"""How many rows repeat a case of a suite, counted before critique is priced: a person may then say what to do.

The gate itself judges every row again at work. What is counted here is what texts alone say; a paraphrase that only an
embedding model finds is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.memory.confined import Limits, OverLimits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.stage import Inputs
from tunesmith.tools.data.behaviour import behaviour_of_rows
from tunesmith.tools.data.faults import ORDINARY
from tunesmith.tools.data.held_out import text_of
from tunesmith.tools.data.leakage import LeakGate, row_texts
from tunesmith.tools.data.row_file import read_rows
from tunesmith.tools.data.spec_suites import HELD_OUT, HELD_OUT_NEAR
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

_HELD_OUT_SUITES = tuple(Path(name).stem for name in (HELD_OUT, HELD_OUT_NEAR))
_LIMITS = Limits(cpu_s=4.0, memory_bytes=1 << 30)
_MOST_COMPARISONS = 1_000_000
"""Rows times cases that are counted while a person waits for a price."""


class Leaks(NamedTuple):
    """Rows that give a case away, of so many."""

    rows: int
    of: int

    def __str__(self) -> str:
        return f"{self.rows} of {self.of} rows repeat{'s' if self.rows == 1 else ''} a test case"


def held_against(named: Iterable[Case], suite: Artifact | None) -> list[Case]:
    """Every case of the named suites and of the run's own, but for those that are rows: they are held out."""
    own = read_suite(suite.path).cases if suite else ()
    return [*named, *(case for case in own if case.suite not in _HELD_OUT_SUITES)]


def leaks_in(inputs: Inputs, named: Iterable[Case], threshold: float) -> Leaks | None:
    """The rows of a run that repeat a case of these or of its own suite; None where none does, or nobody counted."""
    rows = inputs.made("rows")
    if rows is None:
        return None
    cases = held_against(named, inputs.made("suite"))
    if not cases or len(cases) * int(rows.meta["rows"]) > _MOST_COMPARISONS:
        return None
    argument = {
        "rows": str(rows.path / "rows.jsonl"),
        "behaviour": str(rows.meta["behaviour"]),
        "threshold": threshold,
        "cases": [case.model_dump(mode="json", include={"case_id", "suite", "messages", "vars"}) for case in cases],
    }
    try:
        count, of = confined_answer(counted, argument, "the rows", _LIMITS)
    except (BadInput, OverLimits):  # critique itself says what is wrong with them
        return None
    return Leaks(count, of) if count else None


def counted(argument: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """The child's side: how many rows the gate stops by their texts, and of how many."""
    rows = read_rows(Path(argument["rows"]))
    spec = behaviour_of_rows(argument["behaviour"], rows)
    gate = LeakGate(map(Case.model_validate, argument["cases"]), spec.slot, argument["threshold"])
    stopped = (
        gate.check(row.row_id, row_texts(row, text_of(spec, row)), digits_count=row.origin in ORDINARY) for row in rows
    )
    yield sum(pair is not None for pair in stopped), len(rows)
