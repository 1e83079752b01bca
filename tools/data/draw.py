"""Draw what a row is about before a word of it is written: so that its answer is right by construction.

A pure function of the spec, a seed and a row's number: a resumed step draws the same rows. Labels come in turn, by
their weights, so that any stretch of rows is balanced. Values of open attributes are dealt from pools that a model
filled (`Pools`); they are the only thing here that a model had a hand in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.row_attributes import Draw as Draw
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.arithmetic import Unanswerable
from tunesmith.tools.data.computed import with_computed
from tunesmith.tools.data.json_values import Values as Values
from tunesmith.tools.data.json_values import in_order
from tunesmith.tools.data.ranges import drawn_number
from tunesmith.tools.data.situations import Situation
from tunesmith.tools.data.spec import Attribute, Spec, without_places
from tunesmith.tools.data.typed_values import MONTHS, draw_value, said

T = TypeVar("T")
Pools = Callable[[Attribute, Values, int], str]
"""The value of an open attribute for the other values of a row and the row's number; empty: there is none."""
LINES = (1, 1, 2, 2, 3)
_LAP = 20
"""Draws of a label that its weights are dealt out over."""
_INLINE_SHARE, _REDRAWS = 0.35, 20
"""Draws of a record whose formulas have no value, as those that divide by zero."""


def draw(spec: Spec, seed: int, index: int, pools: Pools | None = None) -> Draw:
    """What row number `index` is about."""
    rng = random.Random(f"{seed}/{index}")
    if spec.seeded:
        return _seeded(spec, seed, index, rng)
    if not form_of(spec).of_records:
        return _drawn(spec, seed, index, [_record(spec, seed, index, rng, pools)], rng)
    empty = bool(spec.answer.otherwise) and in_turn([True, *[False] * _empties(spec)], f"{seed}/empty", index)
    count = 0 if empty else in_turn(LINES, f"{seed}/lines", index)
    records = [_record(spec, seed, index * len(LINES) + n, rng, pools) for n in range(count)]
    return _drawn(spec, seed, index, records, rng)


def _empties(spec: Spec) -> int:
    """Lists with something in them for each that is empty."""
    return max(1, round(1 / spec.answer.otherwise_share) - 1) if spec.answer.otherwise_share else 10**6


def _drawn(spec: Spec, seed: int, index: int, records: Sequence[Values], rng: random.Random) -> Draw:
    surfaces = [
        {
            path: surface
            for path, attribute in spec.leaves(record)
            if (value := record.get(path)) is not None and (surface := _surface(attribute, value, rng))
        }
        for record in records
    ]
    return Draw(f"w{index:05d}", tuple(records), tuple(surfaces), index)


def _surface(attribute: Attribute, value: str, rng: random.Random) -> str:
    """What of a value is to stand in the message letter for letter; empty: nothing."""
    if attribute.kind == "label":
        return drawn_number(attribute, value, rng)
    return said(attribute, value, rng) if attribute.typed else value if attribute.kind == "copied" else ""


def _record(spec: Spec, seed: int, index: int, rng: random.Random, pools: Pools | None) -> Values:
    why = ""
    for _ in range(_REDRAWS):
        try:
            return with_computed(spec, _values(spec, seed, index, rng, pools))
        except Unanswerable as error:
            why = str(error)
    raise StepFailed(f"{_REDRAWS} draws gave no answer: {why}; limit the `values` that it is computed from")


def _values(spec: Spec, seed: int, index: int, rng: random.Random, pools: Pools | None) -> Values:
    values: Values = {}
    for label in spec.labels:
        values[label.name] = in_turn(_dealt(label), f"{seed}/{label.name}", index)
    drawing = _Drawing(spec, seed, index, rng, pools, values)
    for attribute in spec.attributes:
        if attribute.kind == "label" and attribute.plain:
            if attribute.absent_share and rng.random() < attribute.absent_share:
                values[attribute.name] = None
        else:
            drawing.draw(attribute, attribute.name, index)
    if not form_of(spec).of_records and not any(v for path, v in values.items() if not _is_topic(spec, path)):
        return _at_least_one(spec, values, rng)
    return values


def _is_topic(spec: Spec, path: str) -> bool:
    return not spec.attribute(path).shown


def _at_least_one(spec: Spec, values: Values, rng: random.Random) -> Values:
    """A message that says nothing of anything is none of the kind: one typed value is drawn after all."""
    form = form_of(spec)
    typed = [a for a in spec.attributes if a.typed and a.shown and a.plain and form.tells(a, values)]
    if not typed:
        return values
    chosen = rng.choice(typed)
    return {**values, chosen.name: draw_value(chosen, rng)}


@dataclass(frozen=True, slots=True)
class _Drawing:
    """The values of one record, as they are drawn one after another into `values`."""

    spec: Spec
    seed: int
    index: int
    rng: random.Random
    pools: Pools | None
    values: Values

    def draw(self, attribute: Attribute, path: str, turn: int) -> None:
        """Everything of one attribute: its value, those of its list, or of what it holds; `turn` deals its values."""
        if attribute.kind == "computed":
            return
        if self._absent(attribute):
            self.values[path] = None
        elif attribute.many is None:
            self._one(attribute, path, turn)
        else:
            self._several(attribute, path, attribute.many, turn)

    def _absent(self, attribute: Attribute) -> bool:
        if any(self.values.get(label) in absent for label, absent in attribute.absent_where.items()):
            return True
        if attribute.absent_share and self.rng.random() < attribute.absent_share:
            return True
        if not form_of(self.spec).tells(attribute, self.values):
            return True
        return not attribute.shown and any(  # the message is about something already
            self.values.get(a.name) for a in self.spec.attributes if a.open and a.shown and a.plain
        )

    def _several(self, attribute: Attribute, path: str, many: tuple[int, int], turn: int) -> None:
        least, most = many
        count = in_turn(range(least, most + 1), f"{self.seed}/{path}/many", turn)
        if not count and attribute.absent_as is not None:
            self.values[path] = None
        if attribute.kind == "label":
            for number, value in enumerate(self._set(attribute, path, count, turn * most)):
                self.values[f"{path}[{number}]"] = value
            return
        for number in range(count):
            self._one(attribute, f"{path}[{number}]", turn * most + number)

    def _set(self, attribute: Attribute, path: str, count: int, turn: int) -> list[str]:
        """So many values of a label, by their weights in turn, in the order in which the label names them."""
        chosen: dict[str, None] = {}
        while len(chosen) < count:
            chosen[in_turn(_dealt(attribute), f"{self.seed}/{path}", turn)] = None
            turn += 1
        return in_order(attribute, list(chosen))

    def _one(self, attribute: Attribute, path: str, turn: int) -> None:
        if attribute.kind == "object":
            for inner in attribute.attributes:
                self.draw(inner, f"{path}.{inner.name}", turn)
        elif attribute.kind == "label":
            self.values[path] = in_turn(_dealt(attribute), f"{self.seed}/{path}", turn)
        elif attribute.values or attribute.typed:
            self.values[path] = draw_value(attribute, self.rng)
        else:
            part = attribute.model_copy(update={"name": without_places(path)})
            self.values[path] = (self.pools(part, self.values, turn) if self.pools else "") or None


def _dealt(label: Attribute) -> list[str]:
    """The label's values, each as often as its weight has it in one lap."""
    total = sum(value.weight for value in label.values.values())
    lap = max(_LAP, len(label.values))
    return [name for name, value in label.values.items() for _ in range(max(1, round(lap * value.weight / total)))]


def in_turn(choices: Sequence[T], seed: str, turn: int) -> T:
    """The `turn`-th of endless shuffles of `choices`: each comes once before any comes again."""
    lap, place = divmod(turn, len(choices))
    return random.Random(f"{seed}/{lap}").sample(list(choices), len(choices))[place]


# The answer


def answer_of(spec: Spec, drawn: Draw) -> str:
    """The answer that the drawn values make; empty where a model has to write it."""
    return form_of(spec).compose(drawn.records)


# Messages that begin with a fact


def _seeded(spec: Spec, seed: int, index: int, rng: random.Random) -> Draw:
    assert spec.writing is not None
    groups: dict[str, list[Situation]] = {}
    for situation in spec.situations:
        groups.setdefault(json.dumps(situation.sets, sort_keys=True), []).append(situation)
    names = sorted(groups)
    situation = in_turn(groups[names[index % len(names)]], f"{seed}/{names[index % len(names)]}", index // len(names))
    writing = spec.writing
    template = rng.choice(situation.facts)
    thing = rng.choice(situation.things or writing.things) if "{thing}" in template else ""
    fact = template.replace("{thing}", thing)
    voice = rng.choices(writing.voices, [v.weight for v in writing.voices])[0]
    frame = rng.choices(writing.frames, [f.weight for f in writing.frames])[0]
    parts = {
        "situation": situation.id, "thing": thing, "fact": fact, "joiner": rng.choice(writing.joiners),
        "opener": rng.choice(voice.openers), "typing": rng.choice(voice.typing),
        "before": frame.before, "after": frame.after, "distractor": "",
    }  # fmt: skip
    if writing.distractors and rng.random() < writing.distractor_share:
        parts["distractor"] = distractor(rng.choice(writing.distractors), rng)
    values: Values = {}
    surfaces: dict[str, str] = {}
    for attribute in spec.attributes:
        _tell(spec, attribute, situation, rng, values, surfaces, parts)
    return Draw(f"w{index:05d}", (values,), (surfaces,), index, parts)


def _tell(
    spec: Spec, attribute: Attribute, situation: Situation, rng: random.Random,
    values: Values, surfaces: dict[str, str], parts: dict[str, str],
) -> None:  # fmt: skip
    """Draw one attribute of a message that begins with a fact, and what the message is to say of it."""
    name = attribute.name
    if attribute.kind == "label":
        allowed = [v for v in attribute.values if v in situation.allows.get(name, tuple(attribute.values))]
        weights = [attribute.values[value].weight for value in allowed]
        chosen = situation.sets.get(name) or rng.choices(allowed, weights)[0]
        values[name] = chosen
        if phrases := attribute.values[chosen].phrases:
            surfaces[name] = capital(rng.choice(phrases))
    elif attribute.kind in ("text", "copied"):
        wordings = [w for w in situation.answers.get(name, ()) if parts["thing"] or "{thing}" not in w]
        values[name] = capital(rng.choice(wordings).replace("{thing}", parts["thing"])) if wordings else None
    elif rng.random() < attribute.absent_share:
        values[name] = None
    else:
        values[name] = draw_value(attribute, rng)
        form = said(attribute, str(values[name]), rng)
        surfaces[name] = str(values[name])
        inline = parts["thing"] and attribute.inline and rng.random() < _INLINE_SHARE
        if inline:
            parts[f"inline {name}"] = rng.choice(attribute.inline).replace("{ref}", form)
        parts[f"sentence {name}"] = capital(rng.choice(attribute.sentences or ("{ref}.",)).replace("{ref}", form))


def situation_of(spec: Spec, drawn: Draw) -> Situation:
    """The situation that a row was drawn from."""
    return next(s for s in spec.situations if s.id == drawn.told["situation"])


def distractor(phrase: str, rng: random.Random) -> str:
    """A sentence with numbers that are nothing of what is asked for."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2015, 2026)
    named = MONTHS[month - 1]
    amounts = (
        f"${rng.randint(4, 900)}", f"{rng.randint(4, 2400)}.{rng.randint(0, 99):02d} euros",
        f"£{rng.randint(5, 300)}.99", f"{rng.randint(1000, 4000)} dollars",
    )  # fmt: skip
    dates = (
        f"{day:02d}.{month:02d}.{year}",
        f"{day} {named}",
        f"{named} {day}, {year}",
        f"{year}-{month:02d}-{day:02d}",
    )
    codes = f"E{rng.randint(1, 99)}", str(rng.randint(400, 599)), str(rng.randint(1000, 9999))
    return phrase.format(
        amount=rng.choice(amounts),
        date=rng.choice(dates),
        count=rng.randint(2, 40),
        small=rng.randint(2, 19),
        year=rng.randint(2009, 2026),
        phone=f"0{rng.randint(100, 999)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}",
        postcode=rng.randint(10000, 99999),
        card=rng.randint(1000, 9999),
        model=f"{rng.choice('ABKTX')}{rng.choice('RSZ')}-{rng.randint(100, 9999)}",
        code=rng.choice(codes),
    )


def capital(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]
