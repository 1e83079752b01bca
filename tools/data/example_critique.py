"""What critique asks of the rows of a behaviour by examples: a message that is one, an answer that keeps the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.data.example_behaviour import ExampleBehaviour, answer_problem, prompt_problem
from tunesmith.tools.data.similarity import loops, normal

Judge = Callable[[TrainingRow], Verdict | None]
"""Says why to drop a row; None: it knows no reason."""

_LONG_ANSWER_CHARS = 60
"""From here on two equal answers are no chance: the writer repeated itself."""
_DRAWN = ("typing",)
_REASONS_TOLD, _RULE_CHARACTERS = 3, 100


def described_judges(behaviour: ExampleBehaviour) -> list[Judge]:
    """In this order; rehearsal is left alone, for what the base answers anyway is no behaviour."""
    return [
        _of_behaviour(lambda row: prompt_problem(behaviour, row.prompt[-1]["content"])),
        _of_behaviour(_off_kind),
        _of_behaviour(lambda row: answer_problem(behaviour, row.completion[0]["content"])),
        _of_behaviour(_loop),
        _of_behaviour(_SameAnswer()),
    ]


def _of_behaviour(judge: Judge) -> Judge:
    return lambda row: judge(row) if row.origin != "rehearsal" else None


def _loop(row: TrainingRow) -> Verdict | None:
    return Verdict("loop", "the answer repeats itself") if loops(row.completion[0]["content"]) else None


def _off_kind(row: TrainingRow) -> Verdict | None:
    of_kind = row.attributes.get("of_kind", True)
    return None if of_kind else Verdict("kind", "its own writer does not take the message for one of the kind")


class _SameAnswer:
    """A long answer that a row before it has already: it answers no message in particular."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def __call__(self, row: TrainingRow) -> Verdict | None:
        answer = normal(row.completion[0]["content"], digits_count=True)
        if len(answer) < _LONG_ANSWER_CHARS:
            return None
        first = self.seen.setdefault(answer, row.row_id)
        return Verdict("copy", f"the answer is that of row {first}") if first != row.row_id else None


def why_dropped(judged: Sequence[TrainingRow], run: str) -> str:
    """The commonest reasons with their counts, a broken rule by its words, and what shows the rows themselves."""
    kinds = Counter(_named(row.verdict) for row in judged if row.verdict and not row.verdict.keeps)
    counted = "; ".join(f"{kind} ({count})" for kind, count in kinds.most_common(_REASONS_TOLD))
    told = f"{kinds.total()} of {len(judged)} rows were dropped" + (f", most for {counted}" if counted else "")
    return f"{told}. `tunesmith report {run}` shows rows with their reasons"


def _named(verdict: Verdict) -> str:
    return str(verdict)[:_RULE_CHARACTERS] if verdict.kind == "rule" else verdict.kind


def balance_examples(kept: Sequence[TrainingRow], told: str) -> dict[str, dict[str, int]]:
    """Kept rows by what was drawn for them. Raises StepFailed, with what is told of the others, where none is left."""
    rows = [row for row in kept if row.origin == "generated"]
    if not rows:
        raise StepFailed(
            f"no row of the behaviour is left: {told}; drop the rule that most answers break, or let a larger model "
            "write (writer=teacher)"
        )
    return {name: dict(Counter(str(row.attributes[name]) for row in rows).most_common()) for name in _DRAWN}
