"""Test cases are kept apart from rows: an order to learn from them is refused in words."""

from __future__ import annotations

from tunesmith.agent.words.acts import Order
from tunesmith.agent.words.lexicon import as_written
from tunesmith.agent.words.reading import Context, read
from tunesmith.agent.words.slots import Slots

_LEARNS, _CASES = ("import", "critique", "train"), ("suite", "cases", "case")
"""The steps that take rows, or learn from them; the kinds of questions that are about test cases."""
_MAY_BE = 0.4
"""From which probability words are read as test cases: a refusal begins nothing."""


def refused(order: Order, slots: Slots, context: Context) -> str:
    """The refusal, where an order's other words are read as test cases, `train on the held out ones`, or it points at
    several things and cases were told of last, `train on them`; empty: neither."""
    points = context.before is not None and context.before.kind in _CASES and as_written("several", slots.words)
    likely = read(" ".join(order.loose), context) if order.loose else None
    meant = likely is not None and likely.probability >= _MAY_BE and likely.kind in _CASES
    if order.stage not in _LEARNS or not (points or meant):
        return ""
    return (
        f"No test case is learned from, so nothing was begun: a model that has seen a case proves nothing by passing "
        f"it. What {order.stage} takes is rows; “what should I try next?” says what would help with cases that fail."
    )
