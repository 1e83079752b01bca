"""What a judge's word is worth: its agreement with people's marks, which is asked for whenever it grades.

Cohen's kappa of the judge and the marks. Below 0.6, or on fewer than 20 marked answers, or on marks of one kind alone,
it grades nothing by itself: its verdicts are shown as advice, and the cases wait for people (`tunesmith rate`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.stats import cohen_kappa
from tunesmith.tools.suites.case import Case

MARKS_MIN, KAPPA_MIN = 20, 0.6
"""From 0.6 on agreement is called substantial (Landis and Koch); on fewer marks kappa jumps with each."""
_CALIBRATED = "judge.calibrated"


class JudgeAgreement(Frozen):
    """How a judge read answers that a person marked."""

    judge: str = ""
    marks: int = 0
    """Answers that a person found right or wrong, and the judge read."""
    wrong: int = 0
    """Of these, those that a person found wrong."""
    kappa: float = 0.0

    @property
    def grades_alone(self) -> bool:
        """Whether what it says of a case counts without a person."""
        return self.marks >= MARKS_MIN and 0 < self.wrong < self.marks and self.kappa >= KAPPA_MIN

    @property
    def sentence(self) -> str:
        """What it is worth, and what would make it worth more."""
        if not self.marks:
            return f"no judge was held against marks: mark {MARKS_MIN} rows, right and wrong ones, or rate answers"
        statement = f"{self.judge} agrees with {self.marks} marked answers with a kappa of {self.kappa:.2f}"
        if self.grades_alone:
            return statement
        return (
            f"{statement}; from {KAPPA_MIN} on {MARKS_MIN} marks of both kinds its word counts: until then rate answers"
        )

    def decides(self, case: Case) -> bool:
        """Whether a case's grade alone says that an answer is right: by value, or by a judge that can be trusted."""
        return case.tests_meaning and (self.grades_alone or not case.asks_judge)


def agreement_of(judge: str, known: Sequence[bool], verdicts: Sequence[bool]) -> JudgeAgreement:
    """A judge's worth by what people found right, and what it said of the same answers."""
    kappa = round(cohen_kappa(verdicts, known), 3)
    return JudgeAgreement(judge=judge, marks=len(known), wrong=sum(not right for right in known), kappa=kappa)


def record_agreement(store: Store, run: str, step: str, agreement: JudgeAgreement) -> None:
    """Keep it as an event of the run."""
    store.event(_CALIBRATED, run=run, step=step, **agreement.model_dump())


def judge_agreement(store: Store, run: str) -> JudgeAgreement:
    """What the judge of a run is worth by its newest calibration; nothing where it was never calibrated."""
    rows = store.read("SELECT data FROM events WHERE run = ? AND event = ? ORDER BY id DESC LIMIT 1", run, _CALIBRATED)
    return JudgeAgreement.model_validate(json.loads(rows[0]["data"])) if rows else JudgeAgreement()
