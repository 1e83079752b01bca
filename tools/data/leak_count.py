"""What a person has to decide about a run's rows, counted before critique is priced: rows that repeat a case of a
suite, and rows of a person's that contradict each other.

Critique judges every row again at work. What is counted here is what texts alone say; a paraphrase that only an
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
from tunesmith.tools.data.own_rows import repeats_in
from tunesmith.tools.data.row_file import read_rows
from tunesmith.tools.data.similarity import LeakGate, row_texts
from tunesmith.tools.data.spec_suites import HELD_OUT, HELD_OUT_NEAR
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

_HELD_OUT_SUITES = tuple(Path(name).stem for name in (HELD_OUT, HELD_OUT_NEAR))
_LIMITS = Limits(cpu_s=4.0, memory_bytes=1 << 30)
"""A plan waits for this child; what takes longer is left to critique."""
_MOST_COMPARISONS = 1_000_000
"""Rows times cases that are counted while a person waits for a price."""


class Undecided(NamedTuple):
    """Rows of a run that somebody has to decide about."""

    leaks: int = 0
    """Give a case of a suite away."""
    contradicted: int = 0
    """Answer a message that another row of the person's answers otherwise."""
    of: int = 0

    @property
    def leaking(self) -> str:
        """The rows that leak in words; empty where none does."""
        repeat = "repeats" if self.leaks == 1 else "repeat"
        return f"{self.leaks} of {self.of} rows {repeat} a test case" if self.leaks else ""

    @property
    def contradicting(self) -> str:
        """The same of rows that contradict each other."""
        if not self.contradicted:
            return ""
        return f"{self.contradicted} of {self.of} rows answer a message that another row answers otherwise"


NOTHING = Undecided()


def gate_cases(named: Iterable[Case], suite: Artifact | None) -> list[Case]:
    """Every case of the named suites and of the run's own, but for those that are rows: they are held out."""
    own = read_suite(suite.path).cases if suite else ()
    return [*named, *(case for case in own if case.suite not in _HELD_OUT_SUITES)]


def undecided_in(inputs: Inputs, named: Iterable[Case], threshold: float) -> Undecided:
    """The rows of a run that repeat a case of these or of its own suite, and that contradict each other; as far as
    they can be counted while a person waits."""
    rows = inputs.made("rows")
    if rows is None:
        return NOTHING
    cases = gate_cases(named, inputs.made("suite"))
    if len(cases) * int(rows.meta["rows"]) > _MOST_COMPARISONS:
        cases = []
    argument = {
        "rows": str(rows.path / "rows.jsonl"),
        "behaviour": str(rows.meta["behaviour"]),
        "threshold": threshold,
        "cases": [case.model_dump(mode="json", include={"case_id", "suite", "messages", "vars"}) for case in cases],
    }
    try:
        return Undecided(*confined_answer(count_undecided, argument, "the rows", _LIMITS))
    except (BadInput, OverLimits):  # critique itself says what is wrong with them
        return NOTHING


def count_undecided(argument: Mapping[str, Any]) -> Iterator[Undecided]:
    """The child's side."""
    rows = read_rows(Path(argument["rows"]))
    spec = behaviour_of_rows(argument["behaviour"], rows)
    gate = LeakGate(map(Case.model_validate, argument["cases"]), spec.slot, argument["threshold"])
    texts = ((row, row_texts(row, spec.text_of(row.prompt))) for row in rows)
    leaks = sum(gate.check(row.row_id, own, digits_count=row.origin in ORDINARY) is not None for row, own in texts)
    yield Undecided(leaks, len(repeats_in(rows).contradicted), len(rows))
