"""Harm to what an arm could do before: shown, not seen, or not to be told from so few cases.

A guarded block is *harmed* where the exact paired test shows a loss (cases of one seed row count once), where over a
fifth of it is lost, or, from `ENOUGH_CASES` on, where the net loss is over the margin: so many cases show it. *None
seen* takes an upper bound of the loss within `TOLD_SHARE`; between the two nobody can tell, which warns and refuses
nothing. Ordinary messages that are answered in the behaviour's form are harm where the exact lower bound of their share
is over the margin. How often it errs: `tests/bench/harm.py`, and its table in docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from tunesmith.tools.core.stats import ALPHA, clopper_pearson, paired_difference_interval
from tunesmith.tools.evaluation.controls import Triggers

HarmWord = Literal["none seen", "harmed", "cannot tell"]
NONE_SEEN: HarmWord = "none seen"
HARMED: HarmWord = "harmed"
CANNOT_TELL: HarmWord = "cannot tell"

ENOUGH_CASES = 250
"""Cases of a block from which a loss over the margin refuses without the test: docs/evidence.md has the table."""
LARGE_SHARE, _LARGE_CASES = 0.2, 3
"""A net loss of more than this share and of at least so many cases is harm, however few there are: flips that favour
neither side do not come to that."""
MARGIN = 0.05
"""Share of a block that may be lost where there are so many cases."""
TOLD_SHARE = 0.1
"""A loss of so large a share has to be excluded before it is said that none was seen."""


@dataclass(frozen=True, slots=True)
class Harm:
    """One guarded block, or the ordinary messages, of an arm against the base."""

    lost: int
    """Cases, net of those that were gained; of ordinary messages those in the behaviour's form."""
    cases: int
    excluded_above: float
    """Share of the cases: a larger loss is excluded at 95 %, one-sided."""
    word: HarmWord
    line: str
    """It in one clause: what was seen."""

    def to_json(self) -> dict[str, JsonValue]:
        """An entry of `harm` in `compare --json`."""
        return {
            "lost": self.lost, "cases": self.cases, "excluded_above": round(self.excluded_above, 4), "word": self.word,
        }  # fmt: skip


def of_counts(
    name: str,
    judged: int,
    base: int,
    arm: int,
    *,
    worse: bool,
    bound: float | None = None,
    p_value: float | None = None,
) -> Harm:
    """The harm to a block of which base and arm passed so many; `worse` is the exact test's word.

    `bound` is the lower end of the difference in pass rate; where it is not given, that of cases that flipped one way.
    """
    lost = base - arm
    low = bound if bound is not None else _one_way(judged, lost)
    excluded = max(0.0, -low)
    large = lost >= _LARGE_CASES and lost > LARGE_SHARE * judged
    harmed = worse or large or (judged >= ENOUGH_CASES and lost > MARGIN * judged)
    word = HARMED if harmed else NONE_SEEN if judged and excluded <= TOLD_SHARE else CANNOT_TELL
    passed = f"{base} → {arm} of {judged} passed"
    line = f"{name} got worse: {passed}" if harmed else f"{name}: {passed}, up to {excluded:.0%} cannot be excluded"
    if not harmed and lost > 0 and p_value is not None:
        line += f" (p = {p_value:.2g})"
    return Harm(max(0, lost), judged, excluded, word, line)


def of_triggers(triggers: Triggers) -> Harm:
    """The harm to ordinary messages: those that are answered in the behaviour's form where the base answers plainly."""
    seen = len(triggers.triggered)
    low, high = clopper_pearson(seen, triggers.cases, 1 - 2 * ALPHA)
    word = HARMED if low > MARGIN else NONE_SEEN if high <= TOLD_SHARE else CANNOT_TELL
    line = f"{seen} of {triggers.cases} ordinary messages are answered in the behaviour's form"
    return Harm(seen, triggers.cases, high, word, line)


def open_question(harms: Mapping[str, Harm]) -> str:
    """A sentence about the block of which least can be told; empty where a loss of every block is excluded."""
    unsure = [harm for harm in harms.values() if harm.word == CANNOT_TELL]
    if not unsure:
        return ""
    worst = max(unsure, key=lambda harm: (harm.lost, harm.excluded_above))
    more = "" if worst.cases >= ENOUGH_CASES else "; more cases of it would tell"
    return f"no harm is shown, but {worst.line}{more}" if worst.lost else f"no harm was seen; in {worst.line}{more}"


def _one_way(judged: int, lost: int) -> float:
    return paired_difference_interval(judged, max(0, -lost), max(0, lost), 1 - 2 * ALPHA)[0]
