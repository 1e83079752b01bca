"""A typed question from the label that a sentence was read as and what it names: only arguments that its kind has.

Nothing is guessed: an argument that is not named keeps its default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tunesmith.agent.queries.facts import MOST_SHOWN, Query
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.words.acts import assigned, factors, known_fields
from tunesmith.agent.words.lexicon import words_of
from tunesmith.agent.words.slots import Slot, Slots, place_in_list, stages_of
from tunesmith.agent.words.values import Span
from tunesmith.tools.pipeline import catalog

CHAIN = ("base", "prompted", "adapter", "merged", "quantized")
"""The arms in the order in which they are made."""
_BEFORE = {"quantized": "merged", "merged": "adapter", "adapter": "base"}
_CHOICES = ("about", "part", "figure", "metric", "decision", "outcome", "order", "examples")
"""Arguments that a label's second half may be."""
_MEANS = {"failures": "failed", "out_of_memory": "failed", "longest": "time", "before_and_after": "flipped",
          "examples": "sample"}  # fmt: skip
"""A label's second half → the choice that it is, of a kind that has none of its name."""
_NOW = {"figure": "step", "plan.compare": "settings", "plan.why": "setting", "trial.before_and_after": "cases"}
"""A label or its kind → the kind of question that answers it, where it has none of its own."""
_OF_NO_BASE = {"setting", "settings", "price", "findings.bigger_base"}
"""Labels and kinds of questions that may name a model which no run has; of any other it names the run."""
_NO_CARRY = ("kind", "number", "most", "skip", "only")
"""Arguments of a question that do not hold for the next one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is made from."""

    kind: str
    slots: Slots
    content: str = ""
    """The words of the sentence that neither name anything nor belong to how such a question is asked."""
    labels: tuple[str, ...] = ()
    """Those of the cases of the run that is talked about."""
    runs: tuple[str, ...] = ()
    """Those of the store, the newest first."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Those that the proposed plan gives a value to."""


def kind_asked(label: str, runs: int) -> str:
    """The kind of question that a label asks where there are so many runs; empty: it asks none. Of two runs the better
    one is told by a comparison."""
    kind = "compare_runs" if label == "runs.best" and runs == 2 else _NOW.get(label, label.partition(".")[0])
    return kind if kind in REQUESTS else ""


def request_of(label: str, asked: Asked, before: Query | None = None) -> Query | None:
    """The request; None where a required argument is not named. `It` is the model or file that was asked about before.

    One case by its place in a list is asked of that list.
    """
    slots, choice = asked.slots, label.partition(".")[2]
    kind = asked.kind
    if kind in ("case", "cases") and place_in_list(slots) and not (slots.all("case") or slots.all("quote")):
        kind = "cases"
    if kind == "case" and before is not None and before.kind == "cases" and not asked.content:  # the first shown
        return _valid(type(before), {**before.model_dump(exclude_defaults=True), "number": 1})
    kind = _of_several(kind, slots)
    asked = replace(asked, kind=kind)
    fields, given = REQUESTS[kind].model_fields, dict[str, object]()
    for name, info in fields.items():
        value = _value(name, info, asked)
        if name in _CHOICES and not value:
            value = next((one for one in (choice, _MEANS.get(choice)) if one in _options(info)), value)
        if value:
            given[name] = value
    if "run" in fields and "run" not in given and "model" not in fields and not _OF_NO_BASE & {label, kind}:
        given |= {"run": base} if (base := _model(asked)) else {}
    points = slots.all("pronoun") and not any(slots.all(one) for one in ("arm", "stage", "step", "model", "run"))
    for name in ("path", *(("arm", "stage", "model") if points else ())):
        if name in fields and name not in given and (had := getattr(before, name, "")):
            given[name] = had
    if any(info.is_required() and name not in given for name, info in fields.items()):
        return None
    return _valid(REQUESTS[kind], given)


def _of_several(kind: str, slots: Slots) -> str:
    """The kind that answers of several what another one answers of a single: two runs, two steps, a span of time."""
    if kind == "compare" and len(slots.values("run")) > 1 and len(slots.values("arm")) < 2:
        return "compare_runs"
    if (kind == "step" and len(stages_of(slots)) > 1) or (kind == "runs" and slots.all("span")):
        return "steps"
    return kind


def followed(before: Query, asked: Asked) -> Query | None:
    """The question before with what these words change of it; None where they change nothing that it has."""
    asked = replace(asked, kind=before.kind, content="")
    fields = type(before).model_fields
    names = [name for name in fields if name not in ("kind", "most", "case", "row", *_CHOICES[:2])]
    given = {name: value for name in names if (value := _value(name, fields[name], asked))}
    bare = [one.value for one in asked.slots.numbers if not (one.unit or one.weak)]
    values = getattr(before, "values", {})
    if not given and len(bare) == 1 and len(values) == 1:  # `and with 8?`
        given["values"] = dict.fromkeys(values, int(bare[0]) if bare[0].is_integer() else bare[0])
    others = [one for one in asked.runs if one != (getattr(before, "run", "") or asked.runs[0])]
    if not given and "run" in fields and len(others) == 1 and asked.slots.all("unspoken"):  # `and the other one?`
        given["run"] = others[0]
    if not given:
        return None
    another = "stage" in given and given["stage"] != getattr(before, "stage", "")
    gone = (*_NO_CARRY, *(("values", "times", "step") if another else ()))
    return _valid(type(before), {**before.model_dump(exclude={*gone}, exclude_defaults=True), **given})


def _valid(model: type[Query], given: Mapping[str, object]) -> Query | None:
    try:
        return model.model_validate(given)
    except ValidationError:  # an argument that this kind takes in another form
        return None


def _value(name: str, info: FieldInfo, asked: Asked) -> object:
    """What is named of an argument, as far as its kind allows it; nothing: it is not named."""
    if name == "kind":
        return None
    value = _FILL[name](asked) if name in _FILL else asked.slots.first(name)
    options = _options(info)
    return None if options and isinstance(value, str) and value not in options else value


def _options(info: FieldInfo) -> list[object]:
    parts = (info.annotation, *get_args(info.annotation))
    return [one for part in parts if get_origin(part) is Literal for one in get_args(part)]


# How each argument is read


def _stage(asked: Asked) -> str:
    """The stage that is named; of a run the one that makes the arm which is named: `has it been merged`."""
    if asked.kind == "price":
        return _priced(asked)
    if asked.kind == "steps" and len(stages_of(asked.slots)) > 1:
        return ""
    arms = asked.slots.values("arm") if asked.kind == "run" else []
    made = [entry.name for entry in catalog.STAGES if entry.makes in arms]
    return next(iter([*stages_of(asked.slots), *made]), "")


def _arms(asked: Asked) -> list[str]:
    """The arms that are named, the last made first; where none is, the one that a named step makes. `Without training`
    names what was there before it."""
    arms = asked.slots.values("arm")
    if not arms and "stage" not in REQUESTS[asked.kind].model_fields:
        arms = [one for stage in stages_of(asked.slots) if (one := str(catalog.BY_NAME[stage].makes)) in CHAIN]
        arms = arms or ["quantized"] * bool(asked.slots.first("choice.scheme") or asked.slots.first("bits"))
    named = [*asked.slots.all("arm"), *asked.slots.all("stage")]
    if len(arms) == 1 and any(asked.slots.negated(slot, most=1) for slot in named):
        arms = [_BEFORE.get(arms[0], "base")]
    two = arms[:2]
    failing = asked.kind == "cases" and "failed" in asked.slots.values("outcome")
    return two if failing else sorted(two, key=CHAIN.index, reverse=True)


def _arm(asked: Asked) -> str:
    arms, names = _arms(asked), REQUESTS[asked.kind].model_fields
    if len(arms) > 1 and "other_arm" not in names:  # one beside the other: all of them
        return ""
    return "" if arms == ["base"] and asked.kind in ("compare", "cases") else next(iter(arms), "")


def _other_arm(asked: Asked) -> str:
    arms = _arms(asked)
    if len(arms) < 2 and asked.kind == "compare" and stages_of(asked.slots):
        return _BEFORE.get(next(iter(arms), ""), "")  # what a step changed, against what it began with
    return arms[1] if len(arms) > 1 else "base" if arms == ["base"] and asked.kind in ("compare", "cases") else ""


def _outcome(asked: Asked) -> str:
    named = asked.slots.values("outcome")
    return next((one for one in ("lost", "gained", "flipped", "error", "any", "failed", "passed") if one in named), "")


def _window(asked: Asked, at: int) -> object:
    spans = [slot.value for slot in asked.slots.all("span") if isinstance(slot.value, Span)]
    window = spans[0].window() if spans else None
    return window[at] if window else None


def _fields(asked: Asked) -> tuple[str, ...]:
    """The settings that are named; a word that everybody says, such as rows, counts only where no other does."""
    named = [*asked.slots.values("field"), *asked.slots.values("pair")]
    named = [name for name in named if name in known_fields()]
    named += [slot.kind.removeprefix("choice.") for slot in asked.slots.named if slot.kind.startswith("choice.")]
    own = [name for name in named if name not in ("rows", "cases_per_block", "model")]
    alike = [name for name, value in asked.settings.items() if [value] == [one.value for one in asked.slots.numbers]]
    if not named and len(alike) == 1:  # `why 400?`
        return tuple(alike)
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
    """How many cards: `2x 3090`, or a number right before the card."""
    card, sentence = next(iter(asked.slots.all("card")), None), asked.slots.sentence
    counts = [n.value for n in asked.slots.numbers if card and not n.unit and not sentence[n.end : card.start].strip()]
    return int(asked.slots.first("cards") or next((n for n in counts if n > 1 and n.is_integer()), 0))


def _bits(asked: Asked) -> int:
    scheme = asked.slots.first("choice.scheme")
    of_scheme = 4 if scheme.endswith("4A16") or asked.slots.first("choice.load_in_4bit") else 8 if scheme else 0
    return int(asked.slots.first("bits") or 0) or of_scheme


def _values(asked: Asked) -> dict[str, object]:
    stage = _priced(asked)
    arm = asked.slots.first("arm") if stage in known_fields()["arm"] else ""
    given = assigned(asked.slots, (stage,)) if stage else []
    times = factors(asked.slots)
    plain = {one.field: one.value for one in given if isinstance(one.value, bool | int | float | str)}
    return {**({"arm": arm} if arm else {}), **{name: value for name, value in plain.items() if name not in times}}


def _priced(asked: Asked) -> str:
    """The stage whose price is asked for: the one that is named, else one that has the field which gets a value."""
    named = [stage for stage in stages_of(asked.slots) if stage != "inspect"]
    fields = [*(one.field for one in assigned(asked.slots)), *factors(asked.slots)]
    having = [stage for name in fields for stage in known_fields().get(name, ())]
    if having and not {*named} & {*having}:
        return next((stage for stage in ("train", "generate") if stage in having), having[0])
    return next(iter(named), "")


def _text(kind: str) -> Callable[[Asked], str]:
    """A case or a row: by its id, in quotation marks, else by the words that are left of the sentence."""

    def text(asked: Asked) -> str:
        return asked.slots.first(kind).removeprefix("row ").lstrip("#") or asked.slots.first("quote") or asked.content

    return text


def _label(asked: Asked) -> str:
    """The label in quotation marks, else the longest whose words stand there, name nothing else and are not denied."""
    slots, quote = asked.slots, asked.slots.first("quote")
    others = [(slot.start, slot.end) for slot in slots.named if slot.kind != "not"]
    said = {word.text: word for word in slots.unread(others, lambda word: False)}
    nots = {word.text for slot in slots.all("not") for word in slots.between(slot.start, slot.end)}
    there = {label: [one.text for one in words_of(label)] for label in asked.labels}
    label = max((one for one, own in there.items() if {*own} <= {*said} and {*own} - nots), key=len, default="")
    at = said[there[label][0]] if label else None
    denied = at and slots.negated(Slot("label", label, at.start, at.end), most=1)
    return quote if quote in asked.labels else "" if denied else label


def _run(asked: Asked, at: int) -> str:
    """The run and the other one; one alone is what the run talked about is set against."""
    runs = asked.slots.values("run")
    runs = ["", *runs] if asked.kind == "compare_runs" and len(runs) < 2 else runs
    return runs[at] if at < len(runs) else ""


def _made(asked: Asked) -> str:
    """What was made: of several arms the last in the chain; else what is named, or what a named step makes."""
    arms = [arm for arm in _arms(asked) if arm != "prompted"]
    makes = [catalog.BY_NAME[stage].makes or stage for stage in stages_of(asked.slots)]
    return max(arms, key=CHAIN.index) if arms else asked.slots.first("made") or next(iter(makes), "")


def _most(asked: Asked) -> int:
    """How many cases or rows are to be shown: a bare number that is no value and no place."""
    own = (one for one in assigned(asked.slots) if one.field not in ("rows", "limit", "cases_per_block"))
    places = [place for one in own for place in one.places]
    bare = (one for one in asked.slots.numbers if not (one.unit or one.weak) and 0 < one.value <= MOST_SHOWN)
    counts = [int(one.value) for one in bare if (one.start, one.end) not in places]
    return counts[0] if counts and not place_in_list(asked.slots) else 0


_FILL: Mapping[str, Callable[[Asked], object]] = {
    "run": lambda a: _run(a, 0),
    "other_run": lambda a: _run(a, 1),
    "stage": _stage,
    "other_stage": lambda a: next(iter(stages_of(a.slots)[1:]), ""),
    "arm": _arm,
    "other_arm": _other_arm,
    "outcome": _outcome,
    "since": lambda a: _window(a, 0),
    "until": lambda a: _window(a, 1),
    "fields": _fields,
    "field": lambda a: next(iter(_fields(a)), ""),
    "value": lambda a: next((n.value for n in a.slots.numbers if not n.weak and a.slots.named), None),
    "model": _model,
    "bits": _bits,
    "card": _card,
    "cards": _cards,
    "ram_gib": lambda a: float(a.slots.first("ram_gib") or 0) if not _card(a) else 0,
    "values": _values,
    "times": lambda a: factors(a.slots),
    "verdict": lambda a: a.slots.first("verdict") or ("drop" if a.slots.first("reason") else ""),
    "made": _made,
    "case": _text("case"),
    "row": _text("row"),
    "label": _label,
    "most": _most,
    "number": lambda a: place_in_list(a.slots),
}
"""Argument → how it is read from what a sentence names, where it is not simply a slot of its name."""
