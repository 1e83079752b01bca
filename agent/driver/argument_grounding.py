"""What of a small model's arguments the user really said.

A number that stands nowhere in the user's words is the model's own invention: it is left out, so that the step is
priced as usual, and what it ran with is told. What words name outright, `rank 8` or `3 epochs`, is read from them, and
so is which runs are meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tunesmith.agent.driver.bundled_behaviour import wishes
from tunesmith.agent.driver.number_words import NUMBER_WORD, value_of
from tunesmith.tools.core.format import as_number

_NUMBER = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?(?:e[-−+]?\d+)?|\.\d+)\s*(k|m|%)?(?![a-z])", re.IGNORECASE)
_FACTOR = {"k": 1e3, "m": 1e6, "%": 0.01}
_NAMED = {
    "lora_rank": r"(?:lora[ _-]?)?rank",
    "learning_rate": r"lr|learning[ _-]?rate",
    "epochs": r"epochs?",
    "rows": r"rows?|examples?|samples?",
    "cases_per_block": r"cases",
}
"""Field → how people name it beside its number."""
_FIELD_OR_NUMBER = re.compile(
    "|".join(rf"(?P<{field}>\b(?:{name})\b)" for field, name in _NAMED.items())
    + rf"|(?P<number>{_NUMBER.pattern}|{NUMBER_WORD.pattern})",
    re.IGNORECASE,
)
_TO = re.compile(r"\s*[=:]\s*|\s+(?:(?:of|to|is|at|be|should be)\s+)?", re.IGNORECASE)
_KIND = re.compile(r"[\s-]+(?:(?:training|synthetic|test|more|new)\s+)?", re.IGNORECASE)
_THING = (
    "(?:epoch|row|case|step|example|sample|time|test|iteration|round|batche|passe|token|bit|second|minute|hour|day|seed|"
    f"trial|repeat|repetition|attempt|prompt|question|{wishes().noun}|run|model)"
)
_SORT = r"(?:(?:more|additional|extra|further|other|full|whole|training|warm-?up|synthetic|test|new|target|general)\s+)"
# In the plural, for `did run 3 pass` counts nothing; in the singular where the words leave no doubt.
_COUNTED = (
    r"[.,]\d|\s*%|\s\d|\s+more\s*(?:$|[.,;!?])|(?:\s*(?:to|or|and|-|–)\s*\d+)?"
    rf"(?:\s+{_SORT}*{_THING}s\b|\s+{_SORT}+{_THING}\b|-{_THING}\b|\s+(?:epoch|row|bit|hour|minute)\b)"
)
"""What follows a number that is no run's, as in `run 5 epochs`, `run 3 more times` and `run 1,000 rows`."""
_RUN_ID = re.compile(rf"\b(?:r#?|run #|run (?=\d+\b(?!{_COUNTED})))(\d+)\b", re.IGNORECASE)
_RUN_TIME = re.compile(r"\b(yesterday|today|this morning|(?:last|this) week)", re.IGNORECASE)


def grounded(arguments: Mapping[str, object], words: str) -> dict[str, object]:
    """The arguments without the numbers that `words` do not hold."""
    spoken = set(numbers(words))
    return {
        name: value
        for name, value in arguments.items()
        if as_number(value) is None or any(_same(as_number(value), number) for number in spoken)
    }


def numbers(words: str) -> Iterator[float]:
    """Every number in the user's words: digits, `2e-4`, `1.5k`, and those spelt out, as `thirty-two` is."""
    for match in _NUMBER.finditer(words):
        yield float(match[1].replace(",", "").replace("−", "-")) * _FACTOR.get((match[2] or "").lower(), 1.0)
        yield float(match[1].replace(",", "").replace("−", "-"))
    for match in NUMBER_WORD.finditer(words):
        yield value_of(match)


def named_numbers(words: str) -> dict[str, float]:
    """The fields that the words give one number to by name, as `rank 8`, `lr=1e-3`, `3 epochs` and `two epochs` do.

    Read from left to right, a name and a number beside each other belong together. A field that is given two numbers,
    as in `not rank 8 but rank 16`, is given none.
    """
    return {field: values[0] for field, values in _pairs(words)[0].items() if len(set(values)) == 1}


def named_outright(words: str) -> dict[str, float]:
    """The same, where that leaves no number over: `rank 8 was too low, take 16` names nothing outright."""
    pairs, left_over = _pairs(words)
    return {} if left_over or any(len(set(values)) > 1 for values in pairs.values()) else named_numbers(words)


def _pairs(words: str) -> tuple[dict[str, list[float]], int]:
    """Every field with the numbers beside its name, and how many numbers stand beside none."""
    values: dict[str, list[float]] = {}
    left_over, waiting = 0, None
    for token in _FIELD_OR_NUMBER.finditer(words):
        if waiting is not None and (pair := _pair(waiting, token, words)):
            field, number = pair
            values.setdefault(field, []).append(next(numbers(number)))
            waiting = None
            continue
        left_over += waiting is not None and _counts(waiting)
        waiting = token
    left_over += waiting is not None and _counts(waiting)
    return values, left_over


def _pair(one: re.Match[str], two: re.Match[str], words: str) -> tuple[str, str] | None:
    """The field and the words of its number, where of two neighbours one is a name and the other a number."""
    between = words[one.end() : two.start()]
    if one["number"] and not two["number"] and _KIND.fullmatch(between):
        pronoun = one["number"].lower() == "one" and two.lastgroup != "epochs"
        return None if pronoun else (str(two.lastgroup), one["number"])
    if two["number"] and not one["number"] and _TO.fullmatch(between):
        return str(one.lastgroup), two["number"]
    return None


def _counts(token: re.Match[str]) -> bool:
    """Whether a token that stands alone is a number; `one` seldom is."""
    return bool(token["number"]) and token["number"].lower() != "one"


def _same(one: float | None, two: float) -> bool:
    return one is not None and abs(one - two) <= 1e-9 * max(abs(one), abs(two), 1e-9)


def runs_named(words: str, known_runs: Sequence[str] = ()) -> list[str]:
    """The runs that the user named, in order: by id (`r3`, `run 3`), by a time, or by a whole name of `known_runs`."""
    ids = [(match.start(), f"r{match[1]}") for match in _RUN_ID.finditer(words)]
    if known_runs:
        ids += [(match.start(), match[1].lower()) for match in _RUN_TIME.finditer(words)]
    for name in {name for name in known_runs if len(name) > 3}:
        match = re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", words, re.IGNORECASE)
        ids += [(match.start(), name)] if match else []
    return list(dict.fromkeys(run for _, run in sorted(ids)))
