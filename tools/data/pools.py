"""What rows are made of that only a model can think up: values of open attributes, sentences, near misses.

Filled once, in rounds, and dealt out by `Draw`. A pool that stays small is no error: its values come again.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product

from tunesmith.tools.data.answer_log import Asker
from tunesmith.tools.data.draw import Pools, Values, in_turn
from tunesmith.tools.data.example_values import STOP, shown_examples, values_of
from tunesmith.tools.data.similarity import Similarity, normal
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import draw_value, said
from tunesmith.tools.data.writer_requests import (
    LISTED,
    distinct,
    listed_lines,
    listed_values,
    near_miss_request,
    values_request,
)

_TAKEN = 0.6
"""Of a list's lines, the share that is new and usable: small models repeat themselves."""
_SHORT_WORDS = 2
_REQUESTS_MAX = 40
_COMBINATIONS_MAX = 12
_ALIKE = 88.0
_NEAR_MISS_WORDS = 24


def fill_pools(spec: Spec, asker: Asker, rows: int, seed: int) -> Pools:
    """The values of every open attribute, by the labels that they go with."""
    pools: dict[tuple[str, str], list[str]] = {}
    requests, owners = [], {}
    for attribute in spec.parts():
        if not attribute.open:
            continue
        cases = _conditions(spec, attribute)
        for place, given in enumerate(cases):
            shown = _examples_of(spec, attribute, given)
            for number in range(_requests(shown, rows, len(cases))):
                identity = f"v/{attribute.name}/{place}/{number}"
                owners[identity] = (attribute, given, shown)
                requests.append(values_request(spec, attribute, given, shown, asker.model, identity, seed))
    for identity, response in asker.ask(requests, "thinking up values").items():
        attribute, given, shown = owners[identity]
        key = (attribute.name, _key(given))
        pools[key] = distinct([*pools.get(key, ()), *listed_values(attribute, response.text, shown)])
    return _dealer(spec, pools, seed)


def _dealer(spec: Spec, pools: dict[tuple[str, str], list[str]], seed: int) -> Pools:
    def deal(attribute: Attribute, values: Values, index: int) -> str:
        given = {a.name: values.get(a.name) for a in _labels_of(spec, attribute)}
        pool = pools.get((attribute.name, _key(given))) or _examples_of(spec, attribute, given)
        return in_turn(pool, f"{seed}/{attribute.name}/{_key(given)}", index) if pool else ""

    return deal


def _labels_of(spec: Spec, attribute: Attribute) -> list[Attribute]:
    """The labels that the values of an attribute depend on: all there are, for what the answer shows."""
    return [a for a in spec.labels if a.shown] if attribute.shown else []


def _conditions(spec: Spec, attribute: Attribute) -> list[Values]:
    labels = _labels_of(spec, attribute)
    names = [label.name for label in labels]
    cases: list[Values] = [dict(zip(names, values, strict=True)) for values in product(*(a.values for a in labels))]
    possible = [c for c in cases if not any(c.get(n) in absent for n, absent in attribute.absent_where.items())]
    return possible[:_COMBINATIONS_MAX]


def _examples_of(spec: Spec, attribute: Attribute, given: Values) -> list[str]:
    if attribute.shown:
        return values_of(spec, attribute.name, given) or values_of(spec, attribute.name, {})
    return [value for shown in shown_examples(spec) if (value := shown.values.get(attribute.name))]


def _requests(shown: Sequence[str], rows: int, cases: int) -> int:
    """Requests for as many values as rows need: of names and days some come again, of what a message says few."""
    short = bool(shown) and sum(len(value.split()) for value in shown) / len(shown) <= _SHORT_WORDS
    wanted = rows / (6 if short else 2) / cases
    return max(1 if cases > 1 else 2, min(_REQUESTS_MAX, round(wanted / (LISTED * _TAKEN))))


def _key(given: Values) -> str:
    return "/".join(f"{name}={value}" for name, value in sorted(given.items()))


# Near misses


def near_misses(
    spec: Spec, asker: Asker, count: int, seed: int, fit: Callable[[Sequence[str]], list[str]]
) -> list[str]:
    """Messages that look alike and want an ordinary answer: the user's own, then proposed ones that `fit` lets pass."""
    words = domain_words(spec)[:_NEAR_MISS_WORDS]
    wanted = max(0, count - len(spec.near_misses))
    number = min(len(words) * 3, -(-wanted * 2 // (LISTED // 2)) + 1) if wanted else 0
    seeded = spec.model_copy(update={"near_misses": (*spec.near_misses, *plain_near_misses(spec, seed)[:6])})
    requests = [
        near_miss_request(seeded, words[n % len(words)], asker.model, f"near/{n}", seed)
        for n in range(number if words else 0)
    ]
    messages: list[str] = list(spec.near_misses)
    seen = Similarity([*(example.prompt for example in spec.examples), *messages])
    proposed = []
    answers = asker.ask(requests, "thinking up near misses")
    for response in (answers[identity] for identity in sorted(answers)):
        for line in listed_lines(response.text):
            usable = 2 <= len(line.split()) <= 30 and not re.search(r"[\[\]{}<>|`]|^\(", line) and line[-1:] != ":"
            if usable and seen.nearest(line, digits_count=True)[1] < _ALIKE:
                seen.add(line)
                proposed.append(line)
    random.Random(seed).shuffle(proposed)
    messages += fit(proposed)
    plain = [text for text in plain_near_misses(spec, seed) if seen.nearest(text)[1] < _ALIKE]
    own = [text for n, text in enumerate(plain) if n < max(count - len(messages), min(count // 2, wanted))]
    return (messages[: count - len(own)] + own)[:count]


def domain_words(spec: Spec) -> list[str]:
    """The words that give a behaviour away: of its labels, its fields and the user's messages; the commonest first."""
    text = " ".join([spec.when, *(e.prompt for e in spec.examples), *(e.prompt for e in spec.examples)])
    named = [name for a in spec.attributes if a.shown for name in (a.name, *(a.values if a.kind == "label" else ()))]
    plain = STOP | _PLAIN_WORDS
    words = (word.lower() for word in re.findall(r"[^\W\d_]{4,}", text))
    counts = Counter(word for word in words if word not in plain)
    counted = [word for word, _ in counts.most_common()]
    return distinct([*(name.lower() for name in named if re.fullmatch(r"[^\W\d_]{3,}", name)), *counted])


_COMMON = (
    "message messages user users sends send sent says said writes write wrote asks ask what which when where while "
    "about something somebody someone anything again after before until every past first also just only other more "
    "most into over under them were your ours like want wants need needs"
)
_PLAIN_WORDS = frozenset(_COMMON.split())
_OF_WORDS_ROWS = (
    "What does the word '{0}' mean?", "Translate '{0}' into Spanish.", "Write one sentence with the word {0} in it.",
    "Tell me a joke about {0}.", "Is there a difference between {0} and {1}?", "Why do people care about {0}?",
    "How would you explain {0} to a child?", "What should I know about {0}?", "How many letters does {0} have?",
    "Use {0} in a question.", "Would {0} be a good name for a cat?", "Make up a riddle about {0}.",
    "List two facts about {0}.", "Is {0} more important than {1}?", "What would my grandmother say about {0}?",
    "Name a film that has to do with {0}.", "Please say something nice about {0}.", "What is the plural of {0}?",
)  # fmt: skip
_OF_WORDS_TESTS = (
    "How do you spell {0}?", "What rhymes with {0}?", "Where does the word '{0}' come from?",
    "What is the opposite of {0}?", "What do {0} and {1} have in common?",
    "Give me three words that have to do with {0}.", "Write a short poem about {0}.",
    "Can you recommend a book about {0}?",
)  # fmt: skip
_OF_VALUES_ROWS = (
    "What is special about {0}?", "Translate '{0}' into French.", "Write a limerick about {0}.",
    "What comes to your mind when you read {0}?", "What kind of thing is {0}?", "How would you read {0} aloud?",
    "To which question is {0} the answer?", "Tell me a story in which {0} matters.",
    "Why do some people write {0} differently?", "Would {0} make a good title for a song?",
)  # fmt: skip
_OF_VALUES_TESTS = (
    "How do you write {0} in words?", "Why would somebody mention {0}?", "Is there anything that rhymes with {0}?",
    "Write one sentence that holds {0}.",
)  # fmt: skip
"""Questions about words and values, to train on and to test with: no form is both."""


def plain_near_misses(spec: Spec, seed: int, *, tests: bool = False) -> list[str]:
    """Near misses that need no model: questions about the behaviour's own words, and about values such as it reads.

    Those of `tests` are put in other forms than those that rows are made of.
    """
    forms = _OF_WORDS_TESTS if tests else _OF_WORDS_ROWS
    words = domain_words(spec)[: 2 * _NEAR_MISS_WORDS]
    if len(words) < 2:
        return []
    made = [
        form.format(word, words[(place + 1) % len(words)])
        for lap in range(4)
        for place, word in enumerate(words)
        for form in (forms[(place * 5 + lap * 3 + place // len(forms)) % len(forms)],)
    ]
    rng = random.Random(seed)
    typed = [attribute for attribute in spec.attributes if attribute.shown and attribute.typed]
    value_forms = _OF_VALUES_TESTS if tests else _OF_VALUES_ROWS
    for number in range((len(made) // 3 if tests else len(made)) if typed else 0):
        attribute = typed[number % len(typed)]
        value = said(attribute, draw_value(attribute, rng), rng)
        made.append(value_forms[number % len(value_forms)].format(value))
    rng.shuffle(made)
    return distinct(made)


def fresh(texts: Sequence[str], known: Sequence[str]) -> list[str]:
    """Texts that are none of `known`, whatever their case and marks."""
    there = {normal(text, digits_count=True) for text in known}
    return [text for text in texts if normal(text, digits_count=True) not in there]
