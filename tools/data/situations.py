"""What happens to the people who write, and how they write of it: of a spec whose messages begin with a fact."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from pydantic import Field

from tunesmith.tools.core.stage import Frozen

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBERS = frozenset({"amount", "date", "count", "small", "year", "phone", "postcode", "card", "model", "code"})
"""What a distractor may hold beside plain words; a number of each kind is drawn."""


class Situation(Frozen):
    """Something that happens to the people who write, with sentences that tell it and what the answer says then."""

    id: str
    sets: dict[str, str] = Field(default_factory=dict)
    """Label → the value that it has here."""
    facts: tuple[str, ...] = Field(min_length=1)
    """What happened, in the first person; `{thing}` is drawn."""
    answers: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Attribute → wordings of it for the answer."""
    mentions: tuple[str, ...] = ()
    """Word beginnings; a message of this situation holds at least one of them."""
    things: tuple[str, ...] = ()
    """What `{thing}` is drawn from here; empty: the spec's own list."""
    allows: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Label → the values that make sense here."""


class Voice(Frozen):
    """A way of writing."""

    name: str
    weight: float = Field(default=1, gt=0)
    typing: tuple[str, ...] = ("as-is",)
    """Drawn from: as-is, lower, caps, no-end (no full stop at the end)."""
    openers: tuple[str, ...] = ("",)


class Frame(Frozen):
    """What stands around a message: a greeting, a signature."""

    weight: float = Field(default=1, gt=0)
    before: str = ""
    after: str = ""


class Writing(Frozen):
    """How messages are written that begin with a fact of a situation: the writer goes on after it."""

    go_on: str
    """What the writer is asked for."""
    joiners: tuple[str, ...] = Field(min_length=1)
    max_tokens: int = Field(default=40, ge=8, le=1024)
    never: tuple[str, ...] = ()
    """What shows that the model answered instead of writing; in lower case."""
    voices: tuple[Voice, ...] = (Voice(name="plain"),)
    frames: tuple[Frame, ...] = (Frame(),)
    things: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()
    """Sentences with numbers that are none of the attributes'."""
    distractor_share: float = Field(default=0.5, ge=0, le=1)


def check_situation(situation: Situation, known: Mapping[str, Collection[str]], words_max: Mapping[str, int]) -> None:
    """Refuse, by ValueError, one that does not fit the labels with their values, and the attributes of the spec."""
    _check_placeholders((*situation.facts, *(t for texts in situation.answers.values() for t in texts)), {"thing"})
    stated = [*((n, (v,)) for n, v in situation.sets.items()), *situation.allows.items()]
    for name, values in stated:
        if name not in known or not set(values) <= set(known[name]):
            raise ValueError(f"situation {situation.id}: {name} may be {list(known.get(name, ()))}, not {list(values)}")
    for fact in situation.facts:
        if situation.mentions and not mentions(fact, situation.mentions):
            raise ValueError(f"situation {situation.id}: {fact!r} holds none of its own mentions")
    for name, texts in situation.answers.items():
        most = words_max.get(name)
        if most is None:
            raise ValueError(f"situation {situation.id}: there is no attribute {name}")
        if any("{thing}" not in f for f in situation.facts) and all("{thing}" in text for text in texts):
            raise ValueError(f"situation {situation.id}: a fact without a thing needs a {name} without one")
        long = next((t for t in texts if most and len(t.split()) + t.count("{thing}") * 2 > most), None)
        if long:
            raise ValueError(f"situation {situation.id}: {name} {long!r} can exceed {most} words")


def check_writing(writing: Writing) -> None:
    """Refuse, by ValueError, distractors with placeholders that nothing fills."""
    _check_placeholders(writing.distractors, _NUMBERS)


def _check_placeholders(texts: tuple[str, ...], known: set[str] | frozenset[str]) -> None:
    for text in texts:
        if odd := set(_PLACEHOLDER.findall(text)) - known:
            raise ValueError(f"{text!r} has the placeholder {sorted(odd)[0]!r}; known are {', '.join(sorted(known))}")


def mentions(text: str, words: tuple[str, ...]) -> bool:
    """Whether any of `words` begins a word of `text`, whatever the case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}", text, re.IGNORECASE) for word in words)
