"""Test cases are kept apart from rows: an order to learn from them is refused in words."""

from __future__ import annotations

from tunesmith.agent.driver.look_ups import GUESSED, turn_context
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.words.acts import Order
from tunesmith.agent.words.lexicon import everyday, lexicon
from tunesmith.agent.words.reading import read
from tunesmith.agent.words.slots import Slots

_LEARNS = ("import", "critique", "train")
"""The steps that take rows, or learn from them: rows that are like what fails may well be written."""
_CASES = ("suite", "cases", "case")
"""Kinds of questions that are about test cases."""


def refused(deps: TurnDeps, order: Order, slots: Slots) -> TurnAnswer | None:
    """The refusal, where the words of an order that are no argument of it are read as test cases, `train on the held
    out ones`; or where it points at several things and cases were told of last, `train on them`. None: neither."""
    if order.stage not in _LEARNS:
        return None
    context = turn_context(deps)
    named = [one for words in order.unread if (one := read(words, context)).probability >= GUESSED]
    told = deps.last_query is not None and deps.last_query.kind in _CASES and _points_at_several(slots)
    if not told and not any(one.kind in _CASES for one in named):
        return None
    return TurnAnswer(
        f"No test case is learned from, so nothing was begun: a model that has seen a case proves nothing by passing "
        f"it. What {order.stage} takes is rows, and one that is like a case is dropped. “What should I try next?” says "
        f"what would help with cases that fail."
    )


def _points_at_several(slots: Slots) -> bool:
    """`train on them`, `on those then`; in `with those settings` something is named."""
    for match in everyday("several", slots.words):
        behind = slots.words[match.after :]
        if match.name == "alone" or not behind or any(one.first == 0 for one in lexicon()["joints"].find(behind)):
            return True
    return False
