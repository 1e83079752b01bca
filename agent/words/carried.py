"""What few words change of the question before: a value for a value, and what goes with what it belonged to."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.queries.settings import SettingQuery
from tunesmith.agent.words.lexicon import everyday
from tunesmith.agent.words.slots import Slot, Slots

_NEAR = 3
"""Words at most between `before` and what it stands before."""
_SCHEMES = {4: "W4A16", 8: "W8A8"}
_BITS = (4, 8, 16)


def is_before(slots: Slots, slot: Slot) -> bool:
    """Whether a word such as `before` stands shortly before something, and none such as `after`."""
    if slots.all("until"):
        return False
    ends = [slots.words[match.after - 1].end for match in everyday("before_that", slots.words)]
    return any(end <= slot.start and len(slots.between(end, slot.start)) <= _NEAR for end in ends)


def another_value(before: Query, value: float) -> dict[str, object]:
    """The one number of a question in another value; of a setting whether that is sensible. Empty: it has none, or
    several."""
    whole = int(value) if float(value).is_integer() else value
    if isinstance(before, SettingQuery):
        return {"about": "sensible", "value": value, "fields": before.fields[:1]}
    if isinstance(before, FitsQuery) and before.bits:
        return {"bits": whole} if whole in _BITS else {}
    if not isinstance(before, PriceQuery):
        return {}
    numeric = [
        name for name, one in before.values.items() if isinstance(one, int | float) and not isinstance(one, bool)
    ]
    if len(numeric) == 1:
        return {"values": {**before.values, numeric[0]: whole}}
    if before.stage == "quantize" and not numeric and whole in _SCHEMES:
        return {"values": {**before.values, "scheme": _SCHEMES[int(whole)]}}
    return {}


def with_values(before: Query, given: Mapping[str, object]) -> dict[str, object]:
    """What was given, its values beside those of the same step that the question had before."""
    new = given.get("values")
    same = given.get("stage", getattr(before, "stage", "")) == getattr(before, "stage", "")
    if not isinstance(before, PriceQuery) or not isinstance(new, dict) or not same:
        return dict(given)
    return {**given, "values": {**before.values, **new}}


def forgets(before: Query, given: Mapping[str, object]) -> tuple[str, ...]:
    """What of a question does not hold where so much of it is another: a step's values, a place in a list, one part of
    a price."""
    own = type(before).model_fields
    another_step = "values" in own and given.get("stage", getattr(before, "stage", "")) != getattr(before, "stage", "")
    left = ["values", "times"] if another_step else []
    left += ["skip"] if "skip" in own and "number" not in given else []
    return (*left, *(["only"] if "only" in own else []))
