"""Messages that look like a behaviour's and want an ordinary answer: the user's own, and edits of kept messages.

An edit changes as little as it can; it is taken where the reader is surer of it being another kind than of any of the
user's examples. Questions in fixed forms about the behaviour's own words need no model: they are a fifth at most.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from tunesmith.tools.data.answer_log import Asker
from tunesmith.tools.data.draw import in_turn
from tunesmith.tools.data.example_values import STOP
from tunesmith.tools.data.similarity import Likeness, word_count
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.typed_values import draw_value, said
from tunesmith.tools.data.writer_requests import distinct, prompt_text, written_message
from tunesmith.tools.serving.client import ChatRequest

_ALIKE = 88.0
_SPARE = 1.6
"""Edits that are asked for, for each that is wanted: the reader takes some for the kind still."""
FORMED_SHARE = 0.2
"""Of the near misses, those that templates give, at most."""
_WORDS_MAX, _TOKENS_MIN = 60, 60
_TEMPERATURE = 0.8
_LAPS, _OF_VALUES_SHARE = 4, 3
_ODD = re.compile(r"[\[\]{}<>|`]|^\(")


def near_misses(
    spec: Spec,
    asker: Asker,
    count: int,
    seed: int,
    kept: Sequence[str],
    other_kinds: Callable[[Sequence[str]], list[str]],
) -> list[str]:
    """`count` near misses, fewer where the writer finds none; `other_kinds` says which texts are none of the kind."""
    own = list(spec.near_misses)[:count]
    formed = formed_near_misses(spec, seed)[: round(FORMED_SHARE * count)]
    wanted = max(0, count - len(own) - len(formed))
    turns = [in_turn(kept, f"{seed}/edited", turn) for turn in range(round(_SPARE * wanted) if kept else 0)]
    requests = [edit_request(text, asker.model, f"near/{n}", n, seed) for n, text in enumerate(turns)]
    answers = asker.ask(requests, "editing messages into near misses")
    seen = Likeness((text, text) for text in (*(example.prompt for example in spec.examples), *own, *kept))
    edited = []
    for request in requests:
        text = _usable(answers[request.id].text) if request.id in answers else ""
        whole = request.id in answers and answers[request.id].finish_reason != "length"
        if text and whole and not seen.match(text, _ALIKE, digits_count=True, contained=False):
            seen.add(text, text)
            edited.append(text)
    return distinct([*own, *other_kinds(edited)[:wanted], *formed])


def edit_request(message: str, model: str, identity: str, turn: int, seed: int) -> ChatRequest:
    """Asks for a message with as few changes as make it one of another kind."""
    turns = [{"role": "system", "content": prompt_text("write-near-misses")}]
    for before, change, after in _data()["shots"]:
        turns += [{"role": "user", "content": _asked(before, change)}, {"role": "assistant", "content": after}]
    change = in_turn(_data()["changes"], f"{seed}/change", turn)
    turns.append({"role": "user", "content": _asked(message, change)})
    return ChatRequest(identity, model, turns, max(_TOKENS_MIN, len(message)), _TEMPERATURE, extra={"top_k": 40})


def _asked(message: str, change: str) -> str:
    return f"Message: {message}\nIt becomes: {change}"


def _usable(answered: str) -> str:
    """The first line of an answer where it can be a message."""
    line = written_message(answered.strip().split("\n")[0])
    return line if 2 <= word_count(line) <= _WORDS_MAX and not _ODD.search(line) and line[-1:] not in ":：" else ""


# Without a model


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load((files("tunesmith.prompts") / "near-misses.yaml").read_text("utf-8"))
    return document


def _forms(spec: Spec) -> Mapping[str, Mapping[str, list[str]]]:
    """Those of the behaviour's language; English where there are none."""
    known: Mapping[str, Any] = _data()["forms"]
    return known[next((name for name in known if name in spec.language), "English")]  # type: ignore[no-any-return]


def formed_near_misses(spec: Spec, seed: int, *, tests: bool = False) -> list[str]:
    """Near misses in fixed forms: about the behaviour's own words, and about values such as it reads.

    Those of `tests` have other forms than those that rows are made of.
    """
    of_words, of_values = (_forms(spec)[of]["tests" if tests else "rows"] for of in ("words", "values"))
    words = domain_words(spec)
    if len(words) < 2:
        return []
    made = [
        form.format(word, words[(place + 1) % len(words)])
        for lap in range(_LAPS)
        for place, word in enumerate(words)
        for form in (of_words[(place * 5 + lap * 3 + place // len(of_words)) % len(of_words)],)
    ]
    rng = random.Random(seed)
    typed = [attribute for attribute in spec.attributes if attribute.shown and attribute.typed]
    for number in range((len(made) // _OF_VALUES_SHARE if tests else len(made)) if typed else 0):
        attribute = typed[number % len(typed)]
        value = said(attribute, draw_value(attribute, rng), rng)
        made.append(of_values[number % len(of_values)].format(value))
    rng.shuffle(made)
    return distinct(made)


_WORDS = 48
_COMMON = (
    "message messages user users sends send sent says said writes write wrote asks ask what which when where while "
    "about something somebody someone anything again after before until every past first also just only other more "
    "most into over under them were your ours like want wants need needs"
)
_PLAIN_WORDS = STOP | frozenset(_COMMON.split())


def domain_words(spec: Spec) -> list[str]:
    """The words that give a behaviour away: of its labels, its fields and the user's messages; the commonest first."""
    text = " ".join([spec.when, *(e.prompt for e in spec.examples), *(e.prompt for e in spec.examples)])
    named = [name for a in spec.attributes if a.shown for name in (a.name, *(a.values if a.kind == "label" else ()))]
    words = (word.lower() for word in re.findall(r"[^\W\d_]{4,}", text))
    counts = Counter(word for word in words if word not in _PLAIN_WORDS)
    counted = [word for word, _ in counts.most_common()]
    named = [name.lower() for name in named if re.fullmatch(r"[^\W\d_]{2,}", name) and word_count(name) == 1]
    return distinct([*named, *counted])[:_WORDS]
