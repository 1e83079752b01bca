"""A typed request from the kind that a sentence asks for and what it names: each argument by its name, one way for all
kinds. Nothing is guessed: an argument that is not named keeps its default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args, get_origin

from tunesmith.agent.queries.arguments import MOST_SHOWN, Query
from tunesmith.agent.queries.cases import FLIPS, CasesQuery
from tunesmith.agent.queries.comparisons import CompareRunsQuery
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.prices import ApprovalsQuery
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.queries.runs import RunsQuery
from tunesmith.agent.words.acts import assigned, known_fields
from tunesmith.agent.words.carried import BEFORE, MAKES, WITHOUT, another_value, forgets, is_before, with_values
from tunesmith.agent.words.lexicon import lexicon, words_in, words_of
from tunesmith.agent.words.slots import Slot, Slots, forgetting_of_two, place_in_list, stages_of
from tunesmith.agent.words.unmeant import factors
from tunesmith.agent.words.values import Span
from tunesmith.tools.pipeline import catalog

CHAIN = ("base", "prompted", "adapter", "merged", "quantized")
"""The arms in the order in which they are made."""
_CHOICES = ("about", "part", "figure", "metric", "decision", "order", "show")
"""Arguments that a label's second half may be."""
_NOT_PRICED = ("inspect",)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is made from."""

    kind: str
    choice: str
    """The label's second half; empty: none."""
    slots: Slots
    content: str
    """The words of the sentence that neither name anything nor belong to how such a question is asked."""
    labels: tuple[str, ...] = ()
    """Those of the cases of the run that is talked about."""


def request_of(asked: Asked, before: Query | None = None) -> Query | None:
    """The request; None where a required argument is not named. Of one case by its place in a list, `the third one`,
    it is the list that was answered `before`, else that of the failed ones."""
    asked = _of_two(asked)
    if asked.kind in ("case", "cases") and _number(asked) and not (asked.slots.all("case") or asked.slots.all("quote")):
        asked = _without_run_of_place(asked)
        if isinstance(before, CasesQuery) and not asked.slots.all("outcome"):
            return followed(before, asked, ())
        asked = replace(asked, kind="cases", choice=asked.choice if asked.kind == "cases" else "")
    model = REQUESTS["step" if asked.kind == "figure" else asked.kind]
    given: dict[str, object] = {}
    for name, info in model.model_fields.items():
        if name == "kind":
            continue
        value = _fill(name, asked)
        if asked.choice and name in _CHOICES and asked.choice in _options(info.annotation):
            value = asked.choice
        value = value or asked.choice == name  # `log` of a step
        if value not in (None, "", (), 0, {}) and _allowed(value, info.annotation):
            given[name] = value
        elif info.is_required():
            return None
    return model.model_validate(given)


def _options(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _allowed(value: object, annotation: object) -> bool:
    """Whether a choice is among those of its argument; anything else is checked by the request itself."""
    options = [option for part in (annotation, *get_args(annotation)) for option in _options(part)]
    return not options or not isinstance(value, str) or value in options


def _stage(asked: Asked) -> str:
    """The stage that is named; of a run the one that makes the arm which is named: `has it been merged`."""
    if asked.kind == "price":
        return _priced(asked)
    makes = [stage for stage, arm in MAKES.items() if asked.kind == "run" and arm in asked.slots.values("arm")]
    return next(iter([*stages_of(asked.slots), *makes]), "")


def _arms(asked: Asked) -> list[str]:
    """The arms that are named; where none is, the one that a step makes which is named: `after quantizing`."""
    arms = asked.slots.values("arm")
    if asked.kind == "compare" and len(arms) == 1:  # `quantized against merge`
        return [*dict.fromkeys((*arms, *(MAKES[work] for work in asked.slots.values("work") if work in MAKES)))]
    if arms or "stage" in REQUESTS[asked.kind].model_fields:
        return arms
    of_stages = [MAKES[str(slot.value)] for slot in asked.slots.all("stage") if slot.value in MAKES]
    undone = [s for s in asked.slots.all("stage") if is_before(asked.slots, s) or asked.slots.negated(s)]
    if asked.kind == "result" and undone:  # `and before it was shrunk?`, `without training?`
        of_stages = [WITHOUT[str(slot.value)] for slot in undone if slot.value in WITHOUT]
    bits = ["quantized"] if asked.slots.first("choice.scheme") or asked.slots.first("bits") else []
    return of_stages or bits


def _arm(asked: Asked) -> str:
    arms = _arms(asked)
    if asked.kind in ("compare", "cases") and len(arms) > 1 and _outcome(asked) != "failed":
        return max(arms[:2], key=CHAIN.index)
    if arms == ["base"] and (asked.kind == "compare" or (asked.kind == "cases" and _outcome(asked) in FLIPS)):
        return ""
    return next(iter(arms), "")


def _other_arm(asked: Asked) -> str:
    arms = _arms(asked)
    if len(arms) > 1:
        return arms[1] if asked.kind == "cases" and _outcome(asked) == "failed" else min(arms[:2], key=CHAIN.index)
    if asked.kind == "compare" and arms and not asked.slots.values("arm"):
        # What a step changed, against what it began with.
        return BEFORE[arms[0]]
    return "base" if arms == ["base"] and (asked.kind == "compare" or _outcome(asked) in ("lost", "gained")) else ""


def _outcome(asked: Asked) -> str:
    """What became of the cases; of two arms of which one passes and the other fails, who gained or lost."""
    outcomes = asked.slots.values("outcome")
    arms = asked.slots.all("arm")
    if {"passed", "failed"} <= set(outcomes) and len(arms) > 1:
        to = next(s for s in asked.slots.all("outcome") if s.value == "failed")
        failing = min(arms, key=lambda slot: abs(slot.start - to.start)).value
        first, second = asked.slots.values("arm")[:2]
        return "lost" if failing == max((first, second), key=CHAIN.index) else "gained"
    for outcome in ("lost", "gained", "flipped", "error", "any", "failed", "passed"):
        if outcome in outcomes:
            return outcome
    return asked.choice if asked.kind == "cases" else ""


def _window(asked: Asked) -> tuple[datetime | None, datetime | None]:
    spans = [slot.value for slot in asked.slots.all("span") if isinstance(slot.value, Span)]
    window = spans[0].window() if spans else None
    return window or (None, None)


def _fields(asked: Asked) -> tuple[str, ...]:
    """The settings that are named; a word that everybody says, such as rows, counts only where no other does."""
    named = [*asked.slots.values("field"), *asked.slots.values("pair")]
    named = [name for name in named if name in known_fields()]
    named += [slot.kind.removeprefix("choice.") for slot in asked.slots.named if slot.kind.startswith("choice.")]
    own = [name for name in named if name not in ("rows", "cases_per_block", "model")]
    return tuple(dict.fromkeys(own or named))


def _model(asked: Asked) -> str:
    """A model by name, by size, or a family with the size that stands apart from it."""
    models = asked.slots.values("model")
    name = next((one for one in models if re.search(r"[a-zA-Z]{2}", one)), "")
    size = next((one for one in models if re.fullmatch(r"[\d.]+[bm]", one)), "")
    if name and size and not re.search(r"\d+(?:\.\d+)?\s?[bm]\b", name, re.IGNORECASE):
        return f"{name}-{size}"
    return name or size


def _card(asked: Asked) -> str:
    return asked.slots.first("card") or asked.slots.first("card_gib")


def _cards(asked: Asked) -> int:
    if count := asked.slots.first("cards"):
        return int(count)
    card = next((slot for slot in asked.slots.named if slot.kind in ("card", "card_gib")), None)
    before = [n for n in asked.slots.numbers if card and n.end <= card.start and not n.unit and not n.weak]
    near = before and card and len(asked.slots.between(before[-1].end, card.start)) <= 1
    # cards of one machine; beyond it is another number
    return int(before[-1].value) if near and 2 <= before[-1].value <= 16 else 0


def _bits(asked: Asked) -> int:
    if bits := asked.slots.first("bits"):
        return int(bits)
    scheme = asked.slots.first("choice.scheme")
    # the schemes have four or eight
    return 4 if scheme.endswith("4A16") or asked.slots.first("choice.load_in_4bit") else 8 if scheme else 0


def _values(asked: Asked) -> dict[str, object]:
    if not (stage := _priced(asked)):
        return {}
    multiples = _times(asked)
    arm = asked.slots.first("arm") if stage in known_fields()["arm"] else ""  # a price of another arm is no answer
    named: dict[str, object] = {"arm": arm} if arm else {}
    return named | {
        one.field: one.value
        for one in assigned(asked.slots, (stage,))
        if one.field not in multiples and isinstance(one.value, bool | int | float | str)
    }


def _times(asked: Asked) -> dict[str, float]:
    return {name: factor for name, (factor, _) in factors(asked.slots).items()}


def _priced(asked: Asked) -> str:
    """The stage whose price is asked for: the one that is named, else one that has the field which gets a value."""
    named = [stage for stage in stages_of(asked.slots) if stage not in _NOT_PRICED]
    if not named and "base" in asked.slots.values("arm"):
        named = ["baseline"]
    fields = [*(one.field for one in assigned(asked.slots)), *_times(asked)]
    having = [stage for field in fields for stage in known_fields().get(field, ()) if stage not in _NOT_PRICED]
    if named and (not having or named[0] in having):
        return named[0]
    if having:
        return next((stage for stage in ("train", "generate") if stage in having), having[0])
    return named[0] if named else ""


def _text(kind: str) -> Callable[[Asked], str]:
    """A case or a row: by its id, in quotation marks, else by the words that are left of the sentence."""

    def text(asked: Asked) -> str:
        return asked.slots.first(kind).removeprefix("row ").lstrip("#") or asked.slots.first("quote") or asked.content

    return text


def _label(asked: Asked) -> str:
    """The label that is named: in quotation marks, else the longest that stands there, not denied, and whose words do
    not all name something else: `which cases have no error` is about no label `no`."""
    if (quote := asked.slots.first("quote")) in asked.labels:
        return quote
    return max((label for label in asked.labels if _names_label(asked.slots, label)), key=len, default="")


def _names_label(slots: Slots, label: str) -> bool:
    own = [word.text for word in words_of(label)]
    loose = slots.unread([(slot.start, slot.end) for slot in slots.named], lambda word: False)
    for at in range(len(slots.words) - len(own) + 1 if own else 0):
        there = slots.words[at : at + len(own)]
        place = Slot("label", label, there[0].start, there[-1].end)
        if [word.text for word in there] == own and any(word in loose for word in there):
            return not slots.negated(place, most=1)
    return False


def _runs(asked: Asked) -> tuple[str, str]:
    """The run and the other one; one alone is what the run talked about is set against."""
    runs = asked.slots.values("run")
    if asked.kind == "compare_runs" and len(runs) < 2:
        return "", runs[0] if runs else ""
    failing = [slot for slot in asked.slots.all("outcome") if slot.value in ("failed", "lost")]
    if asked.kind == "compare_runs" and asked.choice == "cases" and failing:  # the one that passes them comes first
        worse = _failing(asked.slots, failing[-1]) or runs[1]
        return next(run for run in runs if run != worse), worse
    return runs[0] if runs else "", runs[1] if len(runs) > 1 else ""


def _failing(slots: Slots, failing: Slot) -> str:
    """The run that fails, as in `fails in r3` and `r3 fails`; empty where both stand behind, as in `from r2 to r3`."""
    behind = [run for run in slots.all("run") if run.start >= failing.end]
    if failing.value == "failed" and behind and len(slots.between(failing.end, behind[0].start)) <= 1:
        return str(behind[0].value)
    before = [run for run in slots.all("run") if run.end <= failing.start]
    return str(before[-1].value) if before else ""


def _artifact_kind(asked: Asked) -> str:
    """What was made: of several arms the last in the chain; else what is named, or what a step makes that is named."""
    arms = [arm for arm in _arms(asked) if arm != "prompted"]
    makes = [catalog.BY_NAME[stage].makes or stage for stage in stages_of(asked.slots) if stage in catalog.BY_NAME]
    return max(arms, key=CHAIN.index) if arms else asked.slots.first("made") or next(iter(makes), "")


def _of_two(asked: Asked) -> Asked:
    """Two runs that are named, and no arms, are what is compared; what runs have forgotten is a figure of its own."""
    if asked.kind == "compare" and len(asked.slots.values("run")) == 2 and not asked.slots.all("arm"):
        return replace(asked, kind="compare_runs", choice="results")
    if not lexicon()["forgotten"].find(asked.slots.words):
        return asked
    if asked.kind == "across" or (asked.kind, asked.choice) in (("compare_runs", "results"), ("compare_runs", "time")):
        return replace(asked, choice="forgotten")
    two = len(asked.slots.values("run")) > 1 and forgetting_of_two(asked.slots)
    return replace(asked, kind="compare_runs", choice="forgotten") if asked.kind == "cases" and two else asked


def _number(asked: Asked) -> int:
    return place_in_list(asked.slots).number


def _without_run_of_place(asked: Asked) -> Asked:
    """`the last one that failed` names a place among the cases, and not the last run."""
    at = place_in_list(asked.slots).start
    named = tuple(s for s in asked.slots.named if s.kind not in ("run", "which_run") or not s.start <= at < s.end)
    return replace(asked, slots=replace(asked.slots, named=named))


def _most(asked: Asked) -> int:
    """How many cases or rows are to be shown: a bare number that counts these, or stands for itself."""
    if asked.kind in ("case", "cases") and _number(asked):
        return 0
    counted = ("rows", "rehearsal_rows", "near_miss_rows", "cases_per_block", "limit")
    others = [one for one in assigned(asked.slots) if one.field not in counted]
    places = [*(place for one in others for place in one.places), *((s.start, s.end) for s in asked.slots.all("span"))]
    numbers = (n for n in asked.slots.numbers if not (n.unit or n.weak) and n.value in range(1, MOST_SHOWN + 1))
    return next((int(n.value) for n in numbers if not any(a <= n.start and n.end <= b for a, b in places)), 0)


_FILL: Mapping[str, Callable[[Asked], object]] = {
    "run": lambda a: _runs(a)[0],
    "other_run": lambda a: _runs(a)[1],
    "stage": _stage,
    "other_stage": lambda a: next(iter(stages_of(a.slots)[1:]), ""),
    "arm": _arm,
    "other_arm": _other_arm,
    "outcome": _outcome,
    "since": lambda a: _window(a)[0],
    "until": lambda a: _window(a)[1],
    "fields": _fields,
    "field": lambda a: next(iter(_fields(a)), ""),
    "value": lambda a: next((n.value for n in a.slots.numbers if not n.weak), None),
    "model": _model,
    "bits": _bits,
    "card": _card,
    "cards": _cards,
    "ram_gib": lambda a: float(a.slots.first("ram_gib") or 0) if not _card(a) else 0,
    "values": _values,
    "times": _times,
    "verdict": lambda a: a.slots.first("verdict") or ("drop" if a.slots.first("reason") else ""),
    "made": _artifact_kind,
    "case": _text("case"),
    "row": _text("row"),
    "label": _label,
    "most": _most,
    "number": _number,
    "as_table": lambda a: bool(lexicon()["table"].find(a.slots.words)),
}
"""Argument → how it is read from what a sentence names, where it is not simply a slot of its name."""


def _fill(name: str, asked: Asked) -> object:
    return _FILL[name](asked) if name in _FILL else asked.slots.first(name)


def followed(before: Query, asked: Asked, runs: Sequence[str]) -> Query | None:
    """The question before with what these words change of it; None where they change nothing that it has.

    `runs` are those of the store, the newest first, for `the other one` of two.
    """
    own = {name for name in type(before).model_fields if name != "kind"}
    asked = replace(asked, kind=before.kind, choice="")
    if "number" in own and _number(asked):
        asked = _without_run_of_place(asked)
    given = {}
    for name in own & set(_CARRIED):
        value = _fill(name, asked)
        if value not in (None, "", (), 0, {}) and _allowed(value, type(before).model_fields[name].annotation):
            given[name] = value
    given = with_values(before, given)
    beside = asked.slots.unread([(slot.start, slot.end) for slot in asked.slots.named], lambda word: False)
    other = asked.slots.all("unspoken") and {word.text for word in beside if len(word.text) > 1} <= words_in("unspoken")
    if not given and other and "run" in own and len(runs) == 2:
        given["run"] = next(run for run in runs if run != (getattr(before, "run", "") or runs[0]))
    if before.kind == "step" and "stage" in given:
        given |= {"step": "", "arm": given.get("arm", "")}
    if not given:
        given = _of_its_kind(before, asked)
        if before.kind in ("step", "price") and _card(asked):  # how long it took here, and on another card?
            return FitsQuery(work="train", card=_card(asked), cards=_cards(asked) or 1)
    if not given:
        return None
    data = {**before.model_dump(exclude={"kind", "number", "as_table", *forgets(before, given)}), **given}
    return type(before).model_validate(data)


def _of_its_kind(before: Query, asked: Asked) -> dict[str, object]:
    """What words say that name nothing by itself: `and 24?` after a card of 16 GB, `only the failed ones` of runs."""
    if isinstance(before, RunsQuery) and _outcome(asked) == "failed":
        return {"outcome": "failed"}
    if isinstance(before, ApprovalsQuery) and before.decision and asked.slots.all("not"):
        return {"decision": {"yes": "no", "no": "yes"}.get(before.decision, before.decision)}  # `and which not?`
    if isinstance(before, CompareRunsQuery) and lexicon()["forgotten"].find(asked.slots.words):
        return {"about": "forgotten"}
    bare = [number for number in asked.slots.numbers if not number.unit and not number.weak]
    if len(bare) == 1 and (other := another_value(before, bare[0].value)):  # `and with 8?`
        return other
    if isinstance(before, FitsQuery) and len(bare) == 1 and (before.ram_gib or re.fullmatch(r"[\d.]+", before.card)):
        return {"ram_gib": bare[0].value} if before.ram_gib else {"card": f"{bare[0].value:g}"}
    return {}


_CARRIED = (
    "run", "step", "stage", "arm", "block", "outcome", "fields", "field", "model", "work", "bits", "card", "cards",
    "ram_gib", "verdict", "origin", "decision", "metric", "figure", "made", "since", "until", "label",
    "number", "as_table", "values",
)  # fmt: skip
"""Arguments that a few words can change in the question before."""
