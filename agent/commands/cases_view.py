"""Cases on a terminal: what was asked, what the arm answered, what was wanted, and why that is not the same.

A blind case is counted and not quoted before it is opened: who reads its text may write rows or settings by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from tunesmith.agent.commands import theme
from tunesmith.agent.commands.layout import Prose
from tunesmith.agent.queries.texts import asked_by, given_by, reason_of, wanted_of
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, one_line
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

VISIBLE_CASES = 5  # on a screen, of a kind, unless all are asked for
_QUESTION, _ANSWER, _WANTED, _REASON = 90, 90, 70, 60
"""Characters: with its label each is a line of a wide terminal, and a case a few lines."""
_NO_CASE = Case(case_id="", suite="", messages=())


@dataclass(frozen=True, slots=True)
class CaseTexts:
    """What the cases of an evaluation ask and want, and what an arm answered."""

    cases: Mapping[str, Case]
    answers: Mapping[str, EvalResult]
    hidden: frozenset[str]
    """Blind cases that nobody opened."""

    @classmethod
    def of(cls, store: Store, run: str, step: str, arm: str) -> CaseTexts:
        """Of an arm's answers in a step; a suite that cannot be read any more leaves its questions out."""
        answers = {one.case_id: one for one in store.results(step, arm)}
        cases: dict[str, Case] = {}
        for suite in store.artifacts(run, "suite"):
            try:
                cases |= {case.case_id: case for case in read_suite(Path(suite.path)).cases}
            except (OSError, ValueError, BadInput):  # gone, or of another version: its cases are told by id alone
                continue
        return cls(cases, answers, hidden_cases(store, run))

    def view(self, case_ids: Sequence[str], *, all_of_them: bool, blind: int) -> Iterable[RenderableType]:
        """Some cases, or all; blind ones, and `blind` more that are not named, are counted alone."""
        open_ = [case_id for case_id in case_ids if case_id not in self.hidden]
        page = open_ if all_of_them else open_[:VISIBLE_CASES]
        for case_id in page:
            yield from (Prose(line, hang=6) for line in self._in_words(case_id))
        blind += len(case_ids) - len(open_)
        rest = [count(len(open_) - len(page), "more case")] if len(open_) > len(page) else []
        rest += [f"{count(blind, 'blind case')}, not shown before --open-blind"] if blind else []
        if rest:
            yield Prose(Text(f"  and {', '.join(rest)}", style=theme.LABEL))

    def _in_words(self, case_id: str) -> Iterable[Text]:
        case, answer = self.cases.get(case_id, _NO_CASE), self.answers.get(case_id)
        name = Text("  ") + Text(_clip(case_id, 40), style=theme.ID)
        yield name + Text(f"  “{_clip(question, _QUESTION)}”") if (question := asked_by(case)) else name
        arrow = Text("    → ", style=theme.LABEL)
        if answer is not None:
            yield arrow + Text(f"“{_clip(given_by(answer), _ANSWER)}”", style=theme.BAD)
        wanted = ", ".join(f"{key} {value}" for key, value in wanted_of(case))
        reason = _clip(reason_of(answer), _REASON) if answer else ""
        if wanted:
            why = Text(f" ({reason})" if reason else "", style=theme.LABEL)
            yield arrow + Text("wanted ") + Text(_clip(wanted, _WANTED), style=theme.GOOD) + why
        elif reason:
            yield arrow + Text(reason, style=theme.LABEL)


def _clip(text: object, most: int) -> str:
    flat = one_line(text)
    if len(flat) <= most:
        return flat
    # Between words, unless the last one is so long that most of the line would go.
    whole = flat[:most].rpartition(" ")[0]
    return f"{whole if len(whole) > most // 2 else flat[: most - 1]}…"
