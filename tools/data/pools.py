"""What rows are made of that only a model can think up: values of open attributes.

Filled once, in rounds, and dealt out by `Draw`. A pool that stays small is no error: its values come again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

from tunesmith.tools.data.answer_log import Asker
from tunesmith.tools.data.draw import Pools, Values, in_turn
from tunesmith.tools.data.example_values import shown_examples, values_of
from tunesmith.tools.data.similarity import word_count
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.writer_requests import (
    LISTED,
    TOPICS,
    distinct,
    listed_topics,
    listed_values,
    topics_request,
    values_request,
)
from tunesmith.tools.serving.client import ChatRequest

_TAKEN = 0.6
"""Of a list's lines, the share that is new and usable: small models repeat themselves."""
_SHORT_WORDS, _USES_OF_SHORT, _USES = 2, 6, 2
"""Values of so few words are used so often, others so often."""
_REQUESTS_MAX = 40
_COMBINATIONS_MAX = 12


def fill_pools(spec: Spec, asker: Asker, rows: int, seed: int) -> Pools:
    """The values of every open attribute, by the labels that they go with."""
    pools: dict[tuple[str, str], list[str]] = {}
    requests: list[ChatRequest] = []
    owners: dict[str, tuple[Attribute, Values, list[str]]] = {}
    for attribute in spec.parts():
        if not attribute.open:
            continue
        cases = _conditions(spec, attribute)
        for place, given in enumerate(cases):
            shown = _examples_of(spec, attribute, given)
            for number in range(_requests(attribute, shown, rows, len(cases))):
                identity = f"v/{attribute.name}/{place}/{number}"
                owners[identity] = (attribute, given, shown)
                if attribute.shown:
                    request = values_request(spec, attribute, given, shown, asker.model, identity, seed)
                else:
                    request = topics_request(spec, given, shown, asker.model, identity, seed)
                requests.append(request)
    for identity, response in asker.ask(requests, "thinking up values").items():
        attribute, given, shown = owners[identity]
        key = (attribute.name, _key(given))
        listed = listed_values(attribute, response.text, shown) if attribute.shown else listed_topics(response.text)
        pools[key] = distinct([*pools.get(key, ()), *listed])
    return _dealer(spec, pools, seed)


def _dealer(spec: Spec, pools: dict[tuple[str, str], list[str]], seed: int) -> Pools:
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
    labels = _labels_of(spec)
    names = [label.name for label in labels]
    cases: list[Values] = [dict(zip(names, values, strict=True)) for values in product(*(a.values for a in labels))]
    return [c for c in cases if not any(c.get(n) in absent for n, absent in attribute.absent_where.items())]


def _examples_of(spec: Spec, attribute: Attribute, given: Values) -> list[str]:
    """Of a value that answers show the examples' own; else whole messages, those of the labels first."""
    if attribute.shown:
        return values_of(spec, attribute.name, given) or values_of(spec, attribute.name, {})
    shown = shown_examples(spec)
    like = [one.message for one in shown if all(one.values.get(name) == value for name, value in given.items())]
    return like or [one.message for one in shown]


def _requests(attribute: Attribute, shown: Sequence[str], rows: int, cases: int) -> int:
    """Requests for as many values as rows need: of names and days some come again, of what a message says few."""
    short = bool(shown) and sum(map(word_count, shown)) / len(shown) <= _SHORT_WORDS
    wanted = rows / (_USES_OF_SHORT if short else _USES) / cases
    listed = LISTED if attribute.shown else TOPICS
    return max(1 if cases > 1 else 2, min(_REQUESTS_MAX, round(wanted / (listed * _TAKEN))))


def _key(given: Values) -> str:
    return "/".join(f"{name}={value}" for name, value in sorted(given.items()))
