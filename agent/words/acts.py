"""What is to be done: a step with its fields, or changes of the proposed plan. Every word of an order counts: what no
argument took is told, so that nothing is begun on half of what was said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.agent.words.assignments import Assigned, Place, assigned, known_fields
from tunesmith.agent.words.requests import stages_of
from tunesmith.agent.words.slots import Slot, Slots
from tunesmith.tools.pipeline import catalog

_OWN_SLOTS = ("run", "not", "again", "only", "pronoun", "until", "which_run")
"""Slots that any order may hold and that are no argument of it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A step that is to be carried out, once it was priced and agreed to."""

    stage: str
    fields: Mapping[str, object] = field(default_factory=dict)
    run: str = ""
    again: bool = False
    """Whether it is to be as it was before, where nothing else was said."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Field → what its value so far is multiplied by: `twice the rank`."""
    foreign: tuple[str, str] = ("", "")
    """A field that was given a value and that this stage has not, and the stage that has it."""
    unvalued: str = ""
    """A field that is named without a value."""
    another: bool = False
    """Whether that field is to be another than before: `a higher rank`."""
    unread: tuple[str, ...] = ()
    """What no argument took, as it was typed."""


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes of a plan: values by field, the stages that were named with them, and stages to leave out."""

    values: tuple[Assigned, ...] = ()
    stages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    last: str = ""
    """The stage after which the plan is to end; empty: not said."""
    model: str = ""
    pace: str = ""
    unread: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is given another value, or left out."""
        return bool(self.values or self.without or self.model or self.last)


def order_of(stage: str, slots: Slots, known: Callable[[str], bool]) -> Order:
    """The step that a sentence orders; `known` tells the words by which such a step is ordered."""
    request = catalog.BY_NAME[stage].load().request.model_fields
    taken = assigned(slots, (stage,))
    fields = {one.field: one.value for one in taken}
    places = [place for one in taken for place in one.places]
    others: list[Place] = []
    factors, factor_places = _factors(slots, stage)
    if "arm" in request and (arms := slots.all("arm")):
        fields["arm"] = str(arms[0].value)
        places += [(slot.start, slot.end) for slot in arms if slot.value == arms[0].value]
        others = [(slot.start, slot.end) for slot in arms if slot.value != arms[0].value]
    if "model" in request:
        named = [slot for slot in slots.found if slot.kind in ("model", "path", "commit")]
        fields |= _model_fields(named)
        places += [(slot.start, slot.end) for slot in named]
    if "source" in request and (source := next((s for s in slots.found if s.kind in ("path", "model")), None)):
        fields["source"] = str(source.value)
        places.append((source.start, source.end))
    if "system_prompt" in request and (quote := slots.first("quote")):
        fields["system_prompt"] = quote
    fields = {name: value for name, value in fields.items() if name not in factors}
    places += [*factor_places, *_places(slots, (*_OWN_SLOTS, "stage" if _only_of(slots, stage) else ""))]
    if fields or factors:  # `longer, 5 epochs`; without a value it is an order that nothing took
        places += _places(slots, ("unspoken",))
    foreign = next((one for one in assigned(slots) if one.field not in request), None)
    unvalued, another, unvalued_places = _unvalued(slots, request, {*fields, *factors})
    unread = _unread(slots, [*places, *unvalued_places], known, others)
    return Order(
        stage, fields, slots.first("run"), bool(slots.all("again")), factors,
        (foreign.field, _owner(foreign.field)) if foreign else ("", ""), unvalued, another, unread,
    )  # fmt: skip


def _only_of(slots: Slots, stage: str) -> bool:
    return set(stages_of(slots)) <= {stage}


def _model_fields(named: Sequence[Slot]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for slot in named:
        fields.setdefault("revision" if slot.kind == "commit" else "model", str(slot.value))
    return fields


def _owner(name: str) -> str:
    stages = known_fields()[name]
    return "train" if "train" in stages else stages[0]


def _places(slots: Slots, kinds: Sequence[str]) -> list[Place]:
    return [(slot.start, slot.end) for slot in slots.found if slot.kind in kinds]


def _factors(slots: Slots, stage: str) -> tuple[dict[str, float], list[Place]]:
    found: dict[str, float] = {}
    places: list[Place] = []
    request = catalog.BY_NAME[stage].load().request.model_fields
    for factor in slots.all("factor"):
        behind = [slot for slot in slots.all("field") if slot.start >= factor.end and slot.value in request]
        if behind and len(slots.between(factor.end, behind[0].start)) <= 4:
            found[str(behind[0].value)] = float(str(factor.value))
            places.append((factor.start, behind[0].end))
    return found, places


def _unvalued(slots: Slots, request: Mapping[str, object], have: set[str]) -> tuple[str, bool, list[Place]]:
    """A field that is named and gets no value, whether words want it to be another, and where all of them stand."""
    for slot in slots.all("field"):
        if slot.value in request and slot.value not in have:
            wants = [
                s for s in slots.all("unspoken") if s.end <= slot.start and len(slots.between(s.end, slot.start)) < 2
            ]
            if wants or slot.value != "rows":
                return str(slot.value), bool(wants), [(slot.start, slot.end), *((s.start, s.end) for s in wants)]
    return "", False, []


def _unread(
    slots: Slots, taken: Sequence[Place], known: Callable[[str], bool], others: Sequence[Place] = ()
) -> tuple[str, ...]:
    """What no argument took, neighbouring words together, as it was typed: words with a content, numbers, paths, and
    the `others` that there was no second argument for."""
    loose = [*others, *((word.start, word.end) for word in slots.unread(taken, known))]
    hard = [(number.start, number.end) for number in slots.numbers if not number.weak]
    hard += [(slot.start, slot.end) for slot in slots.found if slot.kind in _HARD]
    loose += [one for one in hard if not any(start <= one[0] and one[1] <= end for start, end in taken)]
    groups: list[Place] = []
    for start, end in sorted(set(loose)):
        if (
            groups
            and slots.said[groups[-1][1] : start].count(" ") <= 2
            and len(slots.said[groups[-1][1] : start]) <= 12
        ):
            groups[-1] = (groups[-1][0], max(end, groups[-1][1]))
        else:
            groups.append((start, end))
    return tuple(" ".join(_with_article(slots.said, start, end).split()) for start, end in groups)


_HARD = ("path", "model", "card", "quote", "commit", "case", "row", "artifact", "step", "pair", "span")


def _with_article(said: str, start: int, end: int) -> str:
    """The words with the `my` or `the` before them, so that they are told as they were said."""
    before = said[:start].rstrip().rsplit(" ", 1)[-1]
    return (
        said[start - len(before) - 1 : end]
        if before.lower() in ("my", "the", "our", "meine", "mis")
        else said[start:end]
    )


def edits_of(slots: Slots, planned: Sequence[str], known: Callable[[str], bool], *, leaves_out: bool) -> Edits:
    """What a sentence changes of a plan of these stages; `leaves_out`: it is about steps to leave out."""
    stages = [slot for slot in slots.all("stage") if slot.value in planned]
    until = [slot for slot in stages if any(u.end <= slot.start and len(slots.between(u.end, slot.start)) <= 2
                                            for u in (*slots.all("until"), *slots.all("only")))]  # fmt: skip
    negated = [slot for slot in stages if slots.negated(slot)]
    taken = assigned(slots, tuple(planned))
    last = str(until[0].value) if until and leaves_out else ""
    without = negated or (stages if leaves_out and not last else [])
    model = next((slot for slot in slots.found if slot.kind in ("model", "path")), None)
    pace = next(iter(slots.all("pace")), None)
    places = [place for one in taken for place in one.places]
    places += _places(slots, (*_OWN_SLOTS, "stage", "commit", "unspoken"))
    places += [(slot.start, slot.end) for slot in (model, pace) if slot is not None]
    names = list(dict.fromkeys(str(slot.value) for slot in stages if slot not in negated))
    return Edits(
        tuple(taken), tuple(names), tuple(dict.fromkeys(str(slot.value) for slot in without)), last,
        str(model.value) if model else "", str(pace.value) if pace else "", _unread(slots, places, known),
    )  # fmt: skip
