"""The settings that a sentence gives values to: `rank 8`, `lr=1e-3`, `2k rows`, `one and a half epochs`, `with qlora`.

Every field of every request is within reach, by its name, by its synonyms and as `field=value`; what a value may be is
read from the field's own type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tunesmith.agent.driver.number_words import NUMBER_WORD, value_of
from tunesmith.agent.driver.understanding.fields import known_fields, pattern_of
from tunesmith.tools.pipeline import catalog

Value = object
_DIGITS = r"\d[\d,]*(?:\.\d+)?(?:e[-−+]?\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<digits>(?:(?<=[\s=:])[-−](?=[\d.]))?(?:{_DIGITS}))\s*(?P<unit>k|m|%|thousand|million|"
    rf"percent)?(?![a-z])(?P<half>\s+and a half)?|"
    rf"(?P<word>{NUMBER_WORD.pattern.replace('?P<half>', '')})",
    re.IGNORECASE,
)
_FACTOR = {"k": 1e3, "m": 1e6, "%": 0.01, "thousand": 1e3, "million": 1e6, "percent": 0.01}
_JOIN = re.compile(
    r"\s*(?:=|:)\s*|\s+(?:(?:of|to|is|at|be|should be|from \S+ to|down to|up to|about|only|just|with)\s+)?",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"[\s-]+(?:(?:training|synthetic|test|more|new|extra|additional|full|whole|optimi[sz]er|fresh|"
    r"further|other|of)\s+)*",
    re.IGNORECASE,
)
_REJECTED = re.compile(r"\s*(?:was|is|were|seems?|looks?)\s+(?:far |much |a bit |way )*(?:too|not)\b")
_PAIR = re.compile(r"""(?<![\w-])([a-z][\w-]*)\s*=\s*("[^"]*"|'[^']*'|\[[^\]]*\]|[^\s,;]+)""", re.IGNORECASE)
_EVERYDAY_LETTERS = 5
_CAN_BE_NONE = (
    "warmup_ratio",
    "lora_dropout",
    "rehearsal_rows",
    "rehearsal_weight",
    "near_miss_rows",
    "patience",
    "max_kl",
)
"""Fields whose 0 means without."""
_WITHOUT = r"(?:without|no|do not use|do not do|skip|leave out|disable|turn off|zero)(?: any| the)? "
_SWITCHES = {
    "load_in_4bit": (
        r"\bqlora\b|\bnf4\b|(?:in|at|with|use) (?:4|four)[ -]?bits?|4[ -]?bit (?:training|base|lora)",
        r"(?:no|not|without) qlora|full lora",
    ),
    "fresh": (r"\bafresh\b|ask(?:ed)? (?:them |everything )?again|from scratch|fresh answers", r"$^"),
    "rollback": (
        r"roll(?:ed|ing)? ?back|previous deployment|(?:go|switch|return) back|undo the (?:last "
        r")?deploy\w*|version before|deployed before",
        r"$^",
    ),
}
_SCHEMES = {
    "FP8": r"\bfp8\b|8[ -]?bit floats?",
    "W4A16": r"w4a16|\b(?:4|four)[ -]?bits?\b|\bint4\b|\bq4\b",
    "W8A16": r"w8a16|8[ -]?bit weights? only",
    "W8A8": r"w8a8|\b(?:8|eight)[ -]?bits?\b|\bint8\b|\bq8\b",
}
_ROUNDINGS = {"autoround": r"(?<![\w-])auto[ -]?round(?:ing)?\b"}
_THOUGHT = r"(?:the |its |any )?(?:thinking|thoughts?)(?: mode)?"
_THINKING = {
    "off": rf"\b{_THOUGHT} (?:is |be |should be )?(?:switched |turned )?off\b|"
    rf"\b(?:without|no|skip|(?:switch|turn) off|disable) {_THOUGHT}\b|\bno[ _-]?think\b",
    "on": rf"\b{_THOUGHT} (?:is |be |should be )?(?:switched |turned )?on\b|"
    rf"\b(?:with|(?:switch|turn) on|enable) {_THOUGHT}\b|\blet it think\b",
}
_MOST_HURT = (
    r"\b(?:layers|weights|parts|what|those) (?:that |which )?(?:rounding |quantiz\w+ |it )?"
    r"(?:hurts?|matters?|(?:is |are )?hurt|(?:is |are )?(?:most )?sensitive)\b|"
    r"\bsensitive (?:layers|weights|parts)\b|\bkeep(?:=| )measured\b"
)
ROUNDING_NAMED = "|".join(_ROUNDINGS.values())
"""A way of rounding weights by its name."""


def values_named(text: str, stages: Sequence[str], said: str = "") -> dict[str, Value]:
    """Field → the value that a readable sentence gives it, of the fields that these stages have.

    `said` is the sentence as it was typed, for values that are text. A field that is given two different numbers, as in
    `not rank 8 but rank 16`, gets the last one.
    """
    fields = {name: info for stage in stages for name, info in _fields(stage).items()}
    values: dict[str, Value] = dict(_pairs(said or text, fields))
    for name, info in fields.items():
        if name not in values and (value := _value(text, said or text, name, info)) is not None:
            values[name] = value
    return values


def without_negations(text: str) -> str:
    """A readable sentence without the words that only switch a field off, as `don't use warmup` does."""
    text = re.sub(r"(?:,? ?\b(?:and|but) )?\bwithout (?:any )?(?:thinking|thoughts)\b", "", text)
    for name in _CAN_BE_NONE:
        text = re.sub(rf"(?:,? ?\b(?:and|but) )?\b{_WITHOUT}(?:{pattern_of(name).pattern})", "", text)
    return text


@cache
def _fields(stage: str) -> Mapping[str, FieldInfo]:
    return {name: info for name, info in catalog.BY_NAME[stage].load().request.model_fields.items() if name != "run"}


def _pairs(said: str, fields: Mapping[str, FieldInfo]) -> list[tuple[str, Value]]:
    """`field=value` as it is written, and by a field's synonym."""
    pairs: list[tuple[str, Value]] = []
    for name, value in _PAIR.findall(said):
        own = name.replace("-", "_").lower()
        field = own if own in fields else next((f for f in fields if pattern_of(f).fullmatch(name.lower())), "")
        if field:
            pairs.append((field, _as_typed(value.strip("\"'"), fields[field])))
    return pairs


def _as_typed(value: str, info: FieldInfo) -> Value:
    if _kind(info) == "sequence":
        return [part.strip(" '\"") for part in value.strip("[]").split(",") if part.strip()]
    if _kind(info) == "number" and (numbers := [number for number, _, _ in numbers_in(value)]):
        return _fitting(numbers[0], info)
    return value


def _kind(info: FieldInfo) -> str:
    annotation: object = info.annotation
    if get_origin(annotation) is Literal:
        return "choice"
    if annotation is bool:
        return "switch"
    if annotation in (int, float):
        return "number"
    return "sequence" if get_origin(annotation) in (tuple, list) else "text"


def _value(text: str, said: str, name: str, info: FieldInfo) -> Value:
    kind = _kind(info)
    if name in _SWITCHES:
        on, off = _SWITCHES[name]
        return False if re.search(off, text) else True if re.search(on, text) else None
    if name == "scheme":
        return next((scheme for scheme, pattern in _SCHEMES.items() if re.search(pattern, text)), None)
    if name == "rounding" and (ways := [way for way, pattern in _ROUNDINGS.items() if re.search(pattern, text)]):
        return ways[0]
    if kind == "number":
        return _number_of(text, name, info)
    if kind == "choice":
        return _choice(text, name, info)
    if name == "keep":
        layers = [layer for layer in ("down_proj", "o_proj") if re.search(layer.replace("_", "[ _]?"), text)]
        measured = re.search(_MOST_HURT, text)
        return [*layers, *(["measured"] if measured else [])] or None
    if name == "system_prompt" and re.search(r"(?:system )?prompt", text):
        quoted = re.search(r"[\"“]([^\"”]{4,})[\"”]", said)
        return quoted[1] if quoted else None
    return None


def _choice(text: str, name: str, info: FieldInfo) -> Value:
    options = [str(option) for option in get_args(info.annotation)]
    if name == "arm":
        from tunesmith.agent.driver.understanding.entities import ARMS

        matches = [
            (m.start(), arm) for arm, pattern in ARMS.items() if arm in options for m in [re.search(pattern, text)] if m
        ]
        return min(matches)[1] if matches else None
    if name == "writer":
        return (
            "teacher"
            if re.search(r"\bteacher\b|larger model|big(?:ger)? model|driver (?:write|shall|should)", text)
            else (
                "base"
                if re.search(r"base (?:model )?(?:writ|shall write|should write)|written by the base", text)
                else None
            )
        )
    if name == "thinking":
        return next((way for way, pattern in _THINKING.items() if re.search(pattern, text)), None)
    if name == "role":
        return next((role for role in ("teacher", "driver") if re.search(rf"as (?:a |the )?{role}", text)), None)
    said = [option for option in options if re.search(rf"(?<![\w-]){re.escape(option.lower())}(?![\w-])", text)]
    named = pattern_of(name).search(text)
    # `on` in “go on” and `drop` in “drop it” choose nothing; such a word counts beside its field's name.
    return next((option for option in said if named or len(option) > _EVERYDAY_LETTERS or not option.isalpha()), None)


def _number_of(text: str, name: str, info: FieldInfo) -> Value:
    """The number that stands beside a field's name; of two the last, which corrects the first."""
    spans = [match.span() for match in pattern_of(name).finditer(text)]
    candidates: list[tuple[int, float]] = []
    if name in _CAN_BE_NONE and (off := re.search(rf"\b{_WITHOUT}(?:{pattern_of(name).pattern})", text)):
        candidates.append((off.start(), 0.0))
    all_numbers = numbers_in(text)
    for value, start, end in all_numbers:
        if _REJECTED.match(text, end):  # `rank 8 was too low, take 16`
            instead = [later for later, at, _ in all_numbers if at > end]
            if instead and any(right <= start and _JOIN.fullmatch(text[right:start]) for _, right in spans):
                candidates.append((end, instead[0]))
            continue
        for left, right in spans:
            after, before = text[right:start], text[end:left]
            if (right <= start and _JOIN.fullmatch(after)) or (
                end <= left and _BEFORE.fullmatch(before) and not _belongs_elsewhere(text, name, start)
            ):
                candidates.append((start, value))
    return _fitting(candidates[-1][1], info) if candidates else None


def _belongs_elsewhere(text: str, name: str, start: int) -> bool:
    """Whether the number at a place follows the name of another field: in `rank 8, 3 epochs` the 8 is no epochs'."""
    before = text[:start]
    return any(
        other != name and re.search(rf"(?:{pattern_of(other).pattern})\s*(?:=|:|of|to|is|at)?\s*$", before)
        for other in known_fields()
    )


def numbers_in(text: str) -> list[tuple[float, int, int]]:
    """Every number of a text with its place: digits with their units, and those spelt out."""
    numbers = []
    for match in _NUMBER.finditer(text):
        if match["digits"]:
            value = float(match["digits"].replace(",", "").replace("−", "-")) * _FACTOR.get(
                (match["unit"] or "").lower(), 1.0
            )
            numbers.append((value + (0.5 if match["half"] else 0.0), match.start(), match.end()))
        elif word := NUMBER_WORD.match(text, match.start()):
            counts = re.match(r"\s+(?:epoch|row|step|and a half)", text[word.end() :])
            if word.group().lower() != "one" or counts:
                numbers.append((value_of(word), word.start(), word.end()))
    return numbers


def _fitting(value: float, info: FieldInfo) -> Value:
    """A number in the type of its field: a whole one where it counts, a percentage as a share or of a hundred."""
    most = next((limit.le for limit in info.metadata if hasattr(limit, "le")), None)
    if most == 100 and 0 < value <= 1 and info.annotation is float:
        value *= 100
    elif most is not None and most <= 1 < value <= 100:
        value /= 100
    return int(value) if info.annotation is int and value == int(value) else value
