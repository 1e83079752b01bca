"""What of a small model's arguments the user really said.

A number that stands nowhere in the user's words is the model's own invention: it is left out, so that the step is
priced as usual, and what it ran with is told. Which runs are meant is read from the words themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?(?:e[-−+]?\d+)?|\.\d+)\s*(k|m|%)?(?![a-z])", re.IGNORECASE)
_SPELT = {
    word: float(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
} | {"a dozen": 12.0, "twenty": 20.0, "fifty": 50.0, "hundred": 100.0, "thousand": 1000.0}
_FACTOR = {"k": 1e3, "m": 1e6, "%": 0.01}
_RUN_ID = re.compile(r"\br(?:un )?#?(\d+)\b", re.IGNORECASE)
_RUN_TIME = re.compile(r"\b(yesterday|today|this morning|(?:last|this) week)", re.IGNORECASE)


def as_said(arguments: Mapping[str, Any], words: str) -> dict[str, Any]:
    """The arguments without the numbers that `words` do not hold."""
    said = set(numbers(words))
    return {
        name: value
        for name, value in arguments.items()
        if _number(value) is None or any(_same(_number(value), number) for number in said)
    }


def numbers(words: str) -> Iterator[float]:
    """Every number in the user's words: digits, `2e-4`, `1.5k`, and the small ones spelt out."""
    for match in _NUMBER.finditer(words):
        yield float(match[1].replace(",", "").replace("−", "-")) * _FACTOR.get((match[2] or "").lower(), 1.0)
        yield float(match[1].replace(",", "").replace("−", "-"))
    lower = words.lower()
    for word, value in _SPELT.items():
        if re.search(rf"\b{word}\b", lower):
            yield value


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _same(one: float | None, two: float) -> bool:
    return one is not None and abs(one - two) <= 1e-9 * max(abs(one), abs(two), 1e-9)


def runs_said(words: str, known_runs: Sequence[str] = ()) -> list[str]:
    """The runs that the user named, in order: by id (`r3`, `run 3`), by a time, or by a whole name of `known_runs`."""
    found = [(match.start(), f"r{match[1]}") for match in _RUN_ID.finditer(words)]
    if known_runs:
        found += [(match.start(), match[1].lower()) for match in _RUN_TIME.finditer(words)]
    for name in {name for name in known_runs if len(name) > 3}:
        match = re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", words, re.IGNORECASE)
        found += [(match.start(), name)] if match else []
    return list(dict.fromkeys(run for _, run in sorted(found)))
