"""What few words change of the question before: a value for a value, and what goes with what it belonged to; and what
they mean behind a question of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.cases import FLIPS, CasesQuery
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.queries.settings import SettingQuery
from tunesmith.agent.words.head import kind_of
from tunesmith.agent.words.lexicon import everyday
from tunesmith.agent.words.slots import Slot, Slots

_NEAR = 3
"""Words at most between `before` and what it stands before."""
_SCHEMES = {4: "W4A16", 8: "W8A8"}
_BITS = (4, 8, 16)
MAKES = {"quantize": "quantized", "merge": "merged"}
"""Step → the model that it makes."""
BEFORE = {"quantized": "merged", "merged": "adapter"}
WITHOUT = {"quantize": "merged", "merge": "adapter", "train": "base"}
"""A model → what it is made from; a step → the model that there is before it, or without it."""
PARTS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "price": ("only", "asked_of", {"time": "time", "disk": "disk", "memory": "memory"}),
    "machine": ("part", "asked_of", {"disk": "disk", "memory": "ram"}),
    "run": ("about", "longest", {"longest": "longest_left"}),
}
"""Kind of a question → the argument that says what of it is told, the table of its words, and what each means."""
REASONS = ("why", "findings.why", "rows.reasons", "step.failure")
"""What is read from words that ask for a reason and do not say of what."""
_GOOD, _HELP = ("result.passed", "talk.how_good", "setting.sensible"), ("talk.help", "findings.deploy")
_LEFT = ("run.remaining", "talk.licence")  # `how much is left?`, `how much is free?`
_MEANT: Mapping[str, Mapping[str, str]] = {
    "curve": dict.fromkeys(_GOOD, "findings.overfitting"), "price": dict.fromkeys(_GOOD, "price"),
    "cases": dict.fromkeys(_HELP, "findings.next"), "confusion": dict.fromkeys(_HELP, "findings.next"),
    "artifact": dict.fromkeys((*_HELP, "findings.next"), "trial.how"), "disk_use": dict.fromkeys(_LEFT, "machine.disk"),
    "artifact.size": dict.fromkeys(_LEFT, "machine.disk"), "step.time": dict.fromkeys(_GOOD, "step.estimate"),
    "step.memory": dict.fromkeys(_LEFT, "machine.ram") | dict.fromkeys(_GOOD, "step.estimate"),
    "jobs": {"run.remaining": "run.remaining"},
}  # fmt: skip
"""Kind of a question, with what was asked of it or without → what is read from words that suit everything → what they
ask behind it."""


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
        return {"value": value, "fields": before.fields[:1]}
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


def flips_of(before: Query, asked: object, run: str) -> Query | None:
    """Cases that flipped, of the block and between the models of the question before, else since the base; or None."""
    if not isinstance(asked, CasesQuery) or asked.outcome not in FLIPS:
        return None
    arms = [one for name in ("arm", "other_arm") if (one := getattr(before, name, "")) not in ("", "base")]
    held = {"run": getattr(before, "run", "") or run, "block": getattr(before, "block", "")}
    return asked.model_copy(update={**held, "arm": "".join(arms[:1]), "other_arm": (*arms[1:], "base")[0]})


def alike(before: Query, label: str) -> bool:
    """Whether a label asks for what the question before did: what passed is what two are compared by."""
    kind = kind_of(label)
    return kind == before.kind or (kind in ("result", "compare") and before.kind.startswith("compare"))


def meant(before: Query, labels: Sequence[str]) -> str:
    """What words that suit everything ask behind a question, as a label, by what they are read as; empty: nothing."""
    means = _MEANT.get(f"{before.kind}.{getattr(before, 'about', '')}") or _MEANT.get(before.kind, {})
    return next((means[label] for label in labels if label in means), "")
