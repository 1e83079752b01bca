"""Whether a written message can be a row's: it is a message, says what was drawn, and is nobody else's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.data.computed import number_said, numbers
from tunesmith.tools.data.examples import values_at
from tunesmith.tools.data.json_values import Values, items_of
from tunesmith.tools.data.similarity import Likeness, loops, normal, word_count
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import conflict, holds, ways_to_say

T = TypeVar("T")
LIKE_AN_EXAMPLE = 85.0
"""Similarity, of 100, from which a written message counts as one of the user's examples."""
_WORDS_MAX = 120
_SHORT_LABEL = 3
"""Characters of a label that may stand in a message by chance: "no", "P1", "yes"."""
_NOT_A_MESSAGE = re.compile(
    r"as an ai\b|language model|<\||^(?:sure|certainly|of course)[,!]|\bcan(?:no|')t assist\b|"
    r"how can i (?:help|assist)|"
    r"(?:provide|give) (?:me |us )?(?:more|the necessary) (?:context|information|details|materials)",
    re.IGNORECASE,
)
"""What shows that a writer answered instead of writing."""
_LEFTOVER = re.compile(
    r"\[[^\]]{0,60}\]|\{\{?[^}]{0,60}\}?\}|<[a-z_/]{2,20}>|\b(?:lorem ipsum|your name here|TODO)\b", re.IGNORECASE
)
_NOTE = re.compile(r"^\W*(?:no )?[\w ]{2,20}: [\"“]")


def prompt_problem(spec: Spec, prompt: str) -> str:
    """Why a message cannot be a row's; empty: it can. The first word is the kind."""
    words = word_count(prompt)
    if not 1 <= words <= max(_WORDS_MAX, *(2 * word_count(example.prompt) for example in spec.examples)):
        return f"length: a message of {words} words"
    if odd := _NOT_A_MESSAGE.search(prompt):
        return f"role: the message holds {odd[0]!r}"
    shown = " ".join(example.prompt for example in spec.examples)
    if (odd := _LEFTOVER.search(prompt)) and not _LEFTOVER.search(shown):
        return f"leftover: the message holds {odd[0]!r}"
    if _NOTE.match(prompt) and not _NOTE.match(shown):
        return "leftover: the message is the note that it was to be written for"
    if loops(prompt):
        return "loop: the message repeats itself"
    examples = _examples(tuple(example.prompt for example in spec.examples))
    like = examples.match(prompt, LIKE_AN_EXAMPLE, digits_count=True)
    return f"leak: the message is {like.score:.0f} of 100 like example {like.name}" if like else ""


def names_label(spec: Spec, values: Values, message: str) -> str:
    """The label that a message says by its own name, where people do not: "the decor was neutral"; empty: none.

    Some may ("I want a refund" is a refund), all must not: the name would be what is learned.
    """
    for label in spec.labels:
        value = values.get(label.name)
        if value and says_its_name(spec, label, value) and holds(message, value):
            return value
    return ""


def says_its_name(spec: Spec, label: Attribute, value: str) -> bool:
    """Whether a message that holds a label's name says more than the user's own examples do."""
    named = any(holds(example.prompt, one) for example in spec.examples for one in label.values)
    return len(value) > _SHORT_LABEL and not named


def note_problem(spec: Spec, message: str) -> str:
    """Whether a message repeats the note that it was written for, instead of saying it."""
    shown = " ".join(example.prompt for example in spec.examples)
    if any(set(normal(message).split()) == {normal(value)} for label in spec.labels for value in label.values):
        return "leftover: the message is a label"
    for attribute in spec.attributes:
        named = re.compile(rf"(?<!\w){re.escape(attribute.name)}:\s", re.IGNORECASE)
        if named.search(message) and not named.search(shown):
            return f"leftover: the message holds its note, {attribute.name}:"
    return ""


@lru_cache(maxsize=8)
def _examples(prompts: tuple[str, ...]) -> Likeness:
    return Likeness((str(place), prompt) for place, prompt in enumerate(prompts, 1))


def drawn_problem(spec: Spec, values: Values, surfaces: Mapping[str, str], message: str) -> str:
    """Why a message does not say what was drawn, as far as code can tell; empty: it does."""
    said = list(surfaces.values())
    for path, attribute in spec.leaves(values):
        if path not in values or attribute.kind == "computed":
            continue
        surface = surfaces.get(path, "")
        if attribute.typed:
            if clash := conflict(attribute, surface, message, said):
                return f"value: {clash}"
        elif surface and (attribute.kind == "copied" or numbers(attribute)) and not holds(message, surface):
            return f"value: {path}: {surface!r} is not in the message"
    within = [part for part in spec.parts() if part.typed and (part.many is not None or "." in part.name)]
    for part in within:  # of an empty list, or an object that is absent, there is no leaf
        if not values_at(values, part.name) and (clash := conflict(part, "", message, said)):
            return f"value: {clash}"
    return ""


def said_in(spec: Spec, values: Values, surfaces: Mapping[str, str], message: str) -> dict[str, str]:
    """The surfaces as the message has them: a writer may say a typed value in another of its ways."""
    made = dict(surfaces)
    for path, attribute in spec.leaves(values):
        value, surface = values.get(path), surfaces.get(path, "")
        if attribute.typed and value is not None and surface and not holds(message, surface):
            ways = sorted(ways_to_say(attribute, value), key=len, reverse=True)
            made[path] = next((way for way in ways if holds(message, way)), surface)
        elif surface and numbers(attribute):
            made[path] = number_said(attribute, str(value), surface, message)
    return made


def in_message_order(spec: Spec, drawn: Draw, message: str) -> Draw:
    """The draw with its lists in the order in which the message says them, which is the order of the answer.

    A list with an item that does not stand in the message letter for letter stays as it was drawn.
    """
    values, surfaces = drawn.values, drawn.surfaces[0] if drawn.surfaces else {}
    for attribute in spec.attributes:
        if attribute.many is None or attribute.kind == "label":
            continue
        count = items_of(attribute.name, values)
        starts = [f"{attribute.name}[{number}]" for number in range(count)]
        said = [_first_place(message, [s for p, s in surfaces.items() if p.startswith(start)]) for start in starts]
        if count < 2 or min(said) < 0:
            continue
        order = sorted(range(count), key=lambda number: said[number])
        moved = {starts[old]: starts[new] for new, old in enumerate(order)}
        values, surfaces = _moved(values, moved), _moved(surfaces, moved)
    return replace(drawn, records=(values,), surfaces=(surfaces,)) if values != drawn.values else drawn


def _first_place(message: str, parts: Sequence[str]) -> int:
    places = [place for part in parts if (place := message.lower().find(part.lower())) >= 0]
    return min(places, default=-1)


def _moved(values: dict[str, T], moved: Mapping[str, str]) -> dict[str, T]:
    """Values under their new paths, the items of a list together and in order."""
    made: dict[str, T] = {}
    for path, value in values.items():
        start = next((old for old in moved if path.startswith(old)), "")
        made[moved[start] + path[len(start) :] if start else path] = value
    return made


def verbatim(spec: Spec, values: Values, message: str) -> Values:
    """The values with what is copied written as the message writes it: its case is the message's."""
    made = dict(values)
    for path, attribute in spec.leaves(values):
        value = values.get(path)
        if attribute.kind == "copied" and value and (there := re.search(re.escape(value), message, re.IGNORECASE)):
            made[path] = there[0]
    return made
