"""Draw what a row is about before a word of it is written: so that its answer is right by construction.

A pure function of the spec, a seed and a row's number: a resumed step draws the same rows. Labels come in turn, by
their weights, so that any stretch of rows is balanced. Values of open attributes are dealt from pools that a model
fills (`fill_pools`); they are the only thing here that a model has a hand in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import product
from math import prod
from typing import TypeVar

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.core.arithmetic import Unanswerable
from tunesmith.tools.core.similarity import word_count
from tunesmith.tools.core.yaml_file import read_own
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.record_values import Values, drawn_number, excluded, in_order, with_computed
from tunesmith.tools.data.spec import Attribute, Spec, without_places
from tunesmith.tools.data.typed_values import draw_value, surface_of
from tunesmith.tools.data.writer_requests import (
    LISTED,
    TOPICS,
    distinct_texts,
    example_shots,
    listed_topics,
    listed_values,
    topics_request,
    values_of,
    values_request,
)
from tunesmith.tools.serving.client import ChatRequest
from tunesmith.tools.serving.requests import Asker


@lru_cache(maxsize=1)
def axes() -> dict[str, list[str]]:
    """Axis → what is dealt of it, each as often as its weight; empty: as the writer likes."""
    document = read_own(files("tunesmith.prompts") / "styles.yaml")
    return {name: [*[""] * int(axis["plain"]), *map(str, axis["values"])] for name, axis in document.items()}


def style(seed: int, turn: int) -> str:
    """The style of message number `turn`, as a writer is told it; empty: nothing is asked of it."""
    drawn = (in_turn(dealt, f"{seed}/style/{name}", turn) for name, dealt in axes().items())
    return "; ".join(filter(None, drawn))


T = TypeVar("T")
Pools = Callable[[Attribute, Values, int], str]
"""The value of an open attribute for the other values of a row and the row's number; empty: there is none."""
ITEMS = (1, 1, 2, 2, 3)
"""Records of a list, dealt in turn: lists of people are short."""
_LAP = 20
"""Draws of a label that its weights are dealt out over: a weight of a twentieth still comes up, and as early as in the
twentieth row."""
_REDRAWS = 20
"""Draws of a record whose formulas have no value, as those that divide by zero: where so many in a row have none, the
formula seldom has one."""


def draw(spec: Spec, seed: int, index: int, pools: Pools | None = None) -> Draw:
    """What row number `index` is about."""
    rng = random.Random(f"{seed}/{index}")
    if not form_of(spec).of_records:
        return _drawn(spec, seed, index, [_record(spec, seed, index, rng, pools)], rng)
    count = 0 if is_empty(spec, seed, index) else in_turn(ITEMS, f"{seed}/lines", index)
    records = [_record(spec, seed, index * len(ITEMS) + n, rng, pools) for n in range(count)]
    return _drawn(spec, seed, index, records, rng)


def is_empty(spec: Spec, seed: int, index: int) -> bool:
    """Whether row number `index` of a behaviour that answers with a list has none to answer with."""
    share = spec.answer.otherwise_share if spec.answer.otherwise else 0
    return bool(share) and in_turn([True, *[False] * max(1, round(1 / share) - 1)], f"{seed}/empty", index)


def _drawn(spec: Spec, seed: int, index: int, records: Sequence[Values], rng: random.Random) -> Draw:
    """The records of a row with what of them is to stand in its message letter for letter."""

    def surfaces(record: Values) -> dict[str, str]:
        stated = ((path, a, value) for path, a in spec.leaves(record) if (value := record.get(path)) is not None)
        return {path: surface for path, attribute, value in stated if (surface := _surface(attribute, value, rng))}

    return Draw(f"w{index:05d}", tuple(records), tuple(map(surfaces, records)), index)


def _surface(attribute: Attribute, value: str, rng: random.Random) -> str:
    """What of a value is to stand in the message letter for letter; empty: nothing."""
    if attribute.kind == "label":
        return drawn_number(attribute, value, rng)
    return surface_of(attribute, value, rng) if attribute.typed else value if attribute.kind == "copied" else ""


def _record(spec: Spec, seed: int, index: int, rng: random.Random, pools: Pools | None) -> Values:
    why = ""
    for _ in range(_REDRAWS):
        try:
            return with_computed(spec, _values(spec, seed, index, rng, pools))
        except Unanswerable as error:  # its formula takes no such values: others are drawn
            why = str(error)
    raise StepFailed(f"{_REDRAWS} draws gave no answer: {why}; limit the `values` that it is computed from")


def _values(spec: Spec, seed: int, index: int, rng: random.Random, pools: Pools | None) -> Values:
    """The values of one record: labels first, as others depend on them."""
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
    if not form_of(spec).of_records and not any(v for path, v in values.items() if spec.attribute(path).shown):
        return _at_least_one(spec, values, rng)
    return values


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
        """Whether a message says nothing of it: a label, its share, or the tool that is called decides."""
        if excluded(attribute, self.values):
            return True
        if attribute.absent_share and self.rng.random() < attribute.absent_share:
            return True
        if not form_of(self.spec).tells(attribute, self.values):
            return True
        return not attribute.shown and any(  # the message is about something already
            self.values.get(a.name) for a in self.spec.attributes if a.open and a.shown and a.plain
        )

    def _several(self, attribute: Attribute, path: str, many: tuple[int, int], turn: int) -> None:
        """The values of a list or set; their number comes in turn, so that each length is taught."""
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
        """One value, by its kind; of an object everything that it holds."""
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


# Values of open attributes

_USABLE_SHARE = 0.6
"""Of a list's lines, the share that is new and usable: small models repeat themselves."""
_SHORT_WORDS, _USES_OF_SHORT, _USES = 2, 6, 2
"""Values of so few words are used so often, others so often: names come again among people, what somebody says does
not."""
_REQUESTS_MAX = 40
"""For one attribute: later lists repeat the earlier ones."""
_COMBINATIONS_MAX = 12
"""Of labels' values: open values are thought up for each, with requests of their own."""


def fill_pools(spec: Spec, asker: Asker, rows: int, seed: int) -> Pools:
    """The values of every open attribute, by the labels that they go with."""
    pools: dict[tuple[str, str], list[str]] = {}
    requests: list[ChatRequest] = []
    owners: dict[str, tuple[Attribute, Values, list[str]]] = {}
    for attribute in spec.value_attributes():
        if not attribute.open:
            continue
        cases = _conditions(spec, attribute)
        for place, given in enumerate(cases):
            examples = _examples_of(spec, attribute, given)
            for number in range(_requests(attribute, examples, rows, len(cases))):
                identity = f"v/{attribute.name}/{place}/{number}"
                owners[identity] = (attribute, given, examples)
                if attribute.shown:
                    request = values_request(spec, attribute, given, examples, asker.model, identity, seed)
                else:
                    request = topics_request(spec, given, examples, asker.model, identity, seed)
                requests.append(request)
    for identity, response in asker.ask(requests, "thinking up values").items():
        attribute, given, examples = owners[identity]
        key = (attribute.name, _key(given))
        listed = listed_values(attribute, response.text, examples) if attribute.shown else listed_topics(response.text)
        pools[key] = distinct_texts([*pools.get(key, ()), *listed])
    return _dealer(spec, pools, seed)


def _dealer(spec: Spec, pools: dict[tuple[str, str], list[str]], seed: int) -> Pools:
    """Deals the values of a pool in turn; of an empty one the examples' own, so that no row lacks its value."""

    def deal(attribute: Attribute, values: Values, index: int) -> str:
        given = {a.name: values.get(a.name) for a in _labels_of(spec)}
        pool = pools.get((attribute.name, _key(given))) or (
            _examples_of(spec, attribute, given) if attribute.shown else []
        )
        return in_turn(pool, f"{seed}/{attribute.name}/{_key(given)}", index) if pool else ""

    return deal


def _labels_of(spec: Spec) -> list[Attribute]:
    """The labels that open values depend on: those that the answer shows, as far as their values can be combined."""
    chosen: list[Attribute] = []
    for label in spec.labels:
        if label.shown and prod(len(a.values) for a in (*chosen, label)) <= _COMBINATIONS_MAX:
            chosen.append(label)
    return chosen


def _conditions(spec: Spec, attribute: Attribute) -> list[Values]:
    """The combinations of labels under which an attribute has values."""
    labels = _labels_of(spec)
    names = [label.name for label in labels]
    cases: list[Values] = [dict(zip(names, values, strict=True)) for values in product(*(a.values for a in labels))]
    return [case for case in cases if not excluded(attribute, case)]


_SHOWN_LEAST = 4
"""Of a copied value's examples: of fewer, those of other labels are shown too, or the writer repeats these."""


def _examples_of(spec: Spec, attribute: Attribute, given: Values) -> list[str]:
    """Of a value that answers show the examples' own; else whole messages, those of the labels first.

    Behind one or two names alone a small writer goes astray: the examples of other labels stand beside them.
    """
    if attribute.shown:
        own, of_all = values_of(spec, attribute.name, given), values_of(spec, attribute.name, {})
        few = attribute.kind == "copied" and len(own) < _SHOWN_LEAST
        return distinct_texts([*own, *of_all]) if few or not own else own
    shots = example_shots(spec)
    like = [one.message for one in shots if all(one.values.get(name) == value for name, value in given.items())]
    return like or [one.message for one in shots]


def _requests(attribute: Attribute, examples: Sequence[str], rows: int, cases: int) -> int:
    """Requests for as many values as rows need: of names and days some come again, of what a message says few."""
    short = bool(examples) and sum(map(word_count, examples)) / len(examples) <= _SHORT_WORDS
    wanted = rows / (_USES_OF_SHORT if short else _USES) / cases
    listed = LISTED if attribute.shown else TOPICS
    return max(1 if cases > 1 and attribute.shown else 2, min(_REQUESTS_MAX, round(wanted / (listed * _USABLE_SHARE))))


def _key(given: Values) -> str:
    return "/".join(f"{name}={value}" for name, value in sorted(given.items()))
