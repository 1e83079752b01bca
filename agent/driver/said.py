"""What of a small model's arguments the user really said.

A number that stands nowhere in the user's words is the model's own invention: it is left out, so that the step is
priced as usual, and what it ran with is told. What words name outright, `rank 8` or `3 epochs`, is read from them, and
so is which runs are meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.agent.driver.figures import SPELT_NUMBERS

_NUMBER = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?(?:e[-−+]?\d+)?|\.\d+)\s*(k|m|%)?(?![a-z])", re.IGNORECASE)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELT = {word: float(value) for value, word in enumerate(SPELT_NUMBERS)}
_SPELT |= {word: 10.0 * value for value, word in enumerate(_TENS, 2)} | {"dozen": 12.0}
_TIMES = {"hundred": 100.0, "thousand": 1000.0}
_SPELT_NUMBER = re.compile(
    rf"\b(?:(?:{'|'.join([*_SPELT, *_TIMES])})\b(?:(?:[\s-]|\s+and\s+)(?={'|'.join([*_SPELT, *_TIMES])}))?)+"
    r"(?P<half>\s+and\s+a\s+half\b)?",
    re.IGNORECASE,
)
_FACTOR = {"k": 1e3, "m": 1e6, "%": 0.01}
_NAMED = {
    "lora_rank": r"(?:lora[ _-]?)?rank",
    "learning_rate": r"lr|learning[ _-]?rate",
    "epochs": r"epochs?",
    "rows": r"rows?|examples?|samples?",
    "cases_per_block": r"cases",
}
"""Field → how people name it beside its number."""
_WORDS_NUMBER = rf"(?:{_NUMBER.pattern}|{_SPELT_NUMBER.pattern.replace('(?P<half>', '(?:')})"
_TO = r"(?:\s*[=:]\s*|\s+(?:(?:of|to|is|at|be|should be)\s+)?)"
_KIND = r"\s+(?:(?:training|synthetic|test|more|new)\s+)?"
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
    """Every number in the user's words: digits, `2e-4`, `1.5k`, and those spelt out, as `thirty-two` is."""
    for match in _NUMBER.finditer(words):
        yield float(match[1].replace(",", "").replace("−", "-")) * _FACTOR.get((match[2] or "").lower(), 1.0)
        yield float(match[1].replace(",", "").replace("−", "-"))
    for match in _SPELT_NUMBER.finditer(words):
        yield _spelt(match.group().lower()) + (0.5 if match["half"] else 0.0)


def _spelt(words: str) -> float:
    """The value of `two hundred and fifty`: what a multiplier follows is multiplied, the rest is added."""
    total, last = 0.0, 0.0
    for word in re.findall(r"[a-z]+", words):
        if word in _TIMES:
            total, last = total + (last or 1.0) * _TIMES[word], 0.0
        else:
            last += _SPELT.get(word, 0.0)
    return total + last


def named_numbers(words: str) -> dict[str, float]:
    """The fields that the words give a number to by name, as `rank 8`, `lr=1e-3`, `3 epochs` and `two epochs` do."""
    found = {}
    for field, name in _NAMED.items():
        behind = re.search(rf"\b(?:{name}){_TO}(?P<said>{_WORDS_NUMBER})", words, re.IGNORECASE)
        before = re.search(rf"(?P<said>{_WORDS_NUMBER}){_KIND}(?:{name})\b", words, re.IGNORECASE)
        if match := behind or before:
            found[field] = next(numbers(match["said"]))
    return found


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
