"""Messages that a person is to judge answers to: from rows that were held out, and whether they count.

A message that was trained on, or is a test case already, would be counted for what was learned by heart, or twice: it
is refused with the reason. One that a model wrote is generated, whoever pastes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.memory.errors import BadInput
from tunesmith.memory.ratings import Pair, Source
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import clip
from tunesmith.tools.core.similarity import normal
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.held_out import KIND
from tunesmith.tools.data.rows import is_persons
from tunesmith.tools.evaluation.ask_message import Frame, frame_of_run, read_message
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.leakage import LeakGate
from tunesmith.tools.suites.loading import newest_cases

MOST = 20
"""Messages in one sitting: two minutes."""
_LEAK = float(CritiqueRequest.model_fields["leak"].default)


class Admission:
    """What a run was trained and measured on, asked of one message after another."""

    def __init__(self, store: Store, pair: Pair) -> None:
        self.frame = frame_of_run(store, pair.run)
        rows = _rows_behind(store, pair)
        trained = [row for row in rows if not row.dropped]
        self._trained = LeakGate([_case(row, self.frame) for row in trained], "", _LEAK)
        self._written = {normal(_text_of(row, self.frame), digits_count=True) for row in rows if _by_a_model(row)}
        self._asked = {normal(text, digits_count=True): case.case_id for case, text in _cases(store, pair.run)}
        self.held_out = [_text_of(row, self.frame) for row in rows if row.verdict and row.verdict.kind == KIND]
        """Messages of rows that a model wrote and nothing was trained on, since they became test cases."""

    def text_of(self, given: str | bytes) -> str:
        """The message as it will be asked. Raises BadInput with why it is none, or does not count."""
        text = self.frame.own(read_message(given))
        if pair := self._trained.check("", [text]):
            like = "is" if pair.how in ("exact", "normalised") else "is like"
            raise BadInput(
                f"“{clip(text, 40)}” {like} the training row {pair.case_id} ({pair.how}), so it does not count; write "
                "one that the model has not seen"
            )
        return text

    def refuse_case(self, text: str) -> None:
        """Raises BadInput for a message that is a test case of the run already."""
        if case_id := self._asked.get(normal(text, digits_count=True)):
            raise BadInput(
                f"“{clip(text, 40)}” is the test case {case_id} already, so it does not count; write another"
            )

    def source_of(self, text: str, given: Source) -> Source:
        """Where a message comes from: generated where a row has it, whoever brings it."""
        return "generated" if normal(text, digits_count=True) in self._written else given


def _rows_behind(store: Store, pair: Pair) -> list[TrainingRow]:
    """Every row of the run, and of the steps that the model was made from."""
    steps = store.read(
        "SELECT DISTINCT step FROM rows WHERE run = ?1 UNION SELECT made_by_step FROM v_lineage"
        " WHERE artifact = ?2 AND ancestor_kind = 'rows'",
        pair.run,
        pair.last_artifact,
    )
    return [row for step in steps for row in store.rows(step["step"])]


def _by_a_model(row: TrainingRow) -> bool:
    return not is_persons(row)


def _text_of(row: TrainingRow, frame: Frame) -> str:
    return row.attributes.text or frame.own(str(row.prompt[-1].get("content") or ""))


def _case(row: TrainingRow, frame: Frame) -> Case:
    text = _text_of(row, frame)
    return Case(case_id=row.row_id, suite="rows", messages=({"role": "user", "content": text},))


def _cases(store: Store, run: str) -> Iterator[tuple[Case, str]]:
    """The cases of the run's newest suite, each with the texts that it may be known by."""
    for case in newest_cases(store, run):
        asked = [str(turn["content"]) for turn in case.messages if turn.get("role") == "user" and turn.get("content")]
        for text in (*asked[-1:], *(value for value in case.vars.values() if isinstance(value, str) and value)):
            yield case, text
