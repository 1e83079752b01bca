"""A question read by code: the kind of fact that it asks for, and its arguments. None where the words do not say.

Readers are tried in order, the most particular first; each knows one kind. What none of them reads is the driver's to
choose.
"""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.agent.driver.understanding import (
    case_questions,
    machine_questions,
    record_questions,
    result_questions,
    row_questions,
    run_questions,
    step_questions,
    trial_questions,
)
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Query

_READERS: tuple[Callable[[Sentence], Query | None], ...] = (
    trial_questions.trial,
    machine_questions.fits,
    case_questions.one_case,
    run_questions.price,
    record_questions.used_up,
    machine_questions.hardware,
    case_questions.mixed_up,
    run_questions.across,
    step_questions.why_stopped,
    record_questions.described,
    result_questions.advice,
    record_questions.approvals,
    result_questions.compare,
    step_questions.figure,
    record_questions.curve,
    case_questions.cases,
    row_questions.rows,
    record_questions.setting,
    case_questions.suite,
    record_questions.artifact,
    machine_questions.served,
    machine_questions.jobs,
    step_questions.step,
    machine_questions.machine,
    result_questions.result,
    run_questions.runs,
    run_questions.within,
    run_questions.run,
)


_LONGEST_UNASKED = 24


def query_of(s: Sentence) -> Query | None:
    """The question that a sentence asks, as far as code can tell."""
    if not s.asks and len(s.text.split()) > _LONGEST_UNASKED:
        return None  # a long statement is told to us, whatever words it holds
    return next((query for reader in _READERS if (query := reader(s)) is not None), None)
