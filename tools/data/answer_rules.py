"""The form that answers have in common, told from a few of them in code: each rule in plain words and as an assertion.

Conservative on purpose: a rule that is not there costs a check, a wrong one costs good rows. Counts, choices and
lengths become rules only where the user's own words state them; what is left over is told in words, to be dropped.
Not covered: whether an answer is true, or good.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.enumerations import enumerations
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion, Response, asks_model, check_assertion, grade

_BULLET = re.compile(r"(?:([-*•+–])|(\d+)([.)])) +(?=\S)")
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = rf"(\d+|{'|'.join(NUMBER_WORDS)})"
_WORDS_BETWEEN = re.compile(rf"\b{_NUMBER}\s?(?:to|-|–|or)\s?{_NUMBER} (?:\w+ )?words?\b", re.IGNORECASE)
_WORDS_AT_MOST = re.compile(
    rf"(at most|no more than|up to|under|fewer than|less than|maximum(?: of)?) {_NUMBER} words", re.IGNORECASE
)
_NO_FULL_STOP = re.compile(r"\b(?:no|without|never)(?: an?| any)? (?:full stop|period)", re.IGNORECASE)
_ITEM = "bullet|point|item|step|line|row|entr|ingredient|reason|tip"
_CASE_LETTERS = 40
"""Fewer may be of one case by chance."""
ONE_LINE = "the answer is one line"
_QUOTED = re.compile(r"""(?<!\w)["“'‘](?=\S)([^"“”\n]{2,60}?)["”'’](?!\w)""")
_CHOICE = re.compile(r"\b(?:one of|either|only|exactly one of)\b:?\s*([^.;()\n]+)", re.IGNORECASE)
_OTHER_SCRIPTS = r"\u0370-\u1cff\u2e80-\ua4cf\uac00-\ud7ff"
"""Letters beyond Latin: Greek to Georgian and further, Chinese and Japanese, Korean."""


class Rule(Frozen):
    """One thing that holds for every answer."""

    says: str = Field(min_length=1)
    """In plain words, for the user and for the model that writes answers."""
    type: str
    """An assertion type that asks no model."""
    value: object = None
    guessed: bool = Field(default=False, exclude_if=lambda guessed: not guessed)
    """Whether it was concluded from examples and nobody stated it: it keeps no row of a person's out."""

    @property
    def assertion(self) -> Assertion:
        """The rule as suites assert it."""
        return Assertion(type=self.type, value=self.value)

    @model_validator(mode="after")
    def _gradable(self) -> Rule:
        check_assertion(self.assertion)
        if asks_model([self.assertion]):
            raise ValueError(f"{self.type} asks a model; a rule is checked in code")
        return self


def broken_rule(rules: Sequence[Rule], answer: str) -> Rule | None:
    """The first rule that an answer breaks."""
    return next((rule for rule in rules if not _holds(rule, answer)), None)


def _holds(rule: Rule, answer: str) -> bool:
    case = Case(case_id="rule", suite="rules", messages=(), assertions=(rule.assertion,))
    return grade(case, Response(text=answer)).passed


def infer_rules(answers: Sequence[str], *, what: str = "", never: str = "") -> tuple[Rule, ...]:
    """What all of `answers` have in common, and what `what` and `never` state in a way that code can check.

    Every rule holds for every one of the answers.
    """
    json_values = _json_values(answers)
    kinds: tuple[Callable[[Sequence[str], str], list[Rule]], ...] = (_one_line, _never_says(never))
    if json_values is None:
        kinds = (_choices, _one_line, _bullets, _beginning, _closing, _question, _number, _length)
        kinds += (_no_full_stop, _case, _script)
        kinds += (_never_says(never),)
    else:
        kinds = (lambda texts, said: _json_rules(json_values, said), *kinds)
    rules = [rule for kind in kinds for rule in kind(answers, what)]
    return tuple(rule for rule in rules if all(_holds(rule, answer) for answer in answers))


# JSON


def _json_values(answers: Sequence[str]) -> list[Any] | None:
    """The answers as JSON objects or lists; None where any of them is neither."""
    try:
        values = [json.loads(answer) for answer in answers]
    except (ValueError, RecursionError):
        return None
    return values if {type(value) for value in values} in ({dict}, {list}) else None


def _json_rules(values: list[Any], what: str) -> list[Rule]:
    if isinstance(values[0], list):
        items = _type_of([item for value in values for item in value])
        schema = {"type": "array", **({"items": items} if items else {})}
        return [Rule(says=f"the answer is a JSON list{_words_of(items, ' of ')}", type="is-json", value=schema)]
    first, *rest = [set(value) for value in values]
    keys, always = list(dict.fromkeys(k for value in values for k in value)), first.intersection(*rest)
    required = [key for key in keys if key in always]
    shape = {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": {key: {} for key in keys},
    }
    optional = [key for key in keys if key not in always]
    beside = f", and sometimes {', '.join(optional)}" if optional else ""
    sentence = f"the answer is one JSON object with the keys {', '.join(required)}{beside}, and no other text"
    rules = [Rule(says=sentence, type="is-json", value=shape)] if required else []
    for key in keys:
        present = [value[key] for value in values if key in value]
        if kind := _type_of(present):
            says = f"{key} is {_words_of(kind)}"
            rules.append(Rule(says=says, type="is-json", value={"type": "object", "properties": {key: kind}}))
        allowed = _stated_for(key, what) or _listed_for(present, what)
        if allowed and all(value in allowed for value in present):
            schema = {"type": "object", "properties": {key: {"enum": allowed}}}
            rules.append(Rule(says=f"{key} is one of {', '.join(allowed)}", type="is-json", value=schema))
    return rules


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_JSON_WORDS = {"string": "text", "boolean": "true or false", "integer": "a whole number", "number": "a number"}
_JSON_WORDS |= {"array": "a list", "object": "an object", "null": "null"}


def _type_of(values: Sequence[object]) -> dict[str, str | list[str]]:
    """The JSON Schema type that all values have; empty where they differ in more than null, or there are none."""
    kinds = {_JSON_TYPES.get(type(value), "null") for value in values}
    if "number" in kinds:
        kinds.discard("integer")
    plain = kinds - {"null"}
    if len(plain) != 1:
        return {}
    name = plain.pop()
    return {"type": [name, "null"] if "null" in kinds else name}


def _words_of(schema: Mapping[str, str | list[str]], before: str = "") -> str:
    if not schema:
        return ""
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return before + " or ".join(_JSON_WORDS[name] for name in names)


def _stated_for(key: str, what: str) -> list[str]:
    """The values that `what` allows for a key, as in "urgency is one of low, normal or high"."""
    place = re.search(rf"(?<!\w){re.escape(key)}(?!\w)[^.;\n]*", what, re.IGNORECASE)
    stated = _CHOICE.search(place[0]) if place else None
    return listed(stated[1]) if stated else []


def _listed_for(present: Sequence[object], what: str) -> list[str]:
    """The values that `what` lists and that hold what a key shows in the examples, where it shows several."""
    shown = {value for value in present if isinstance(value, str)}
    if len(shown) < 2 or len(shown) < len(set(map(str, present))):
        return []
    groups = enumerations(what, sorted(shown))
    return next((list(group.values) for group in groups if shown <= set(group.values)), [])


def listed(text: str) -> list[str]:
    """The parts of "a, b or c"; empty where they are no short names, or not several."""
    ended = re.match(r".*?\s(?:or|and)\s+[^,]+", text)
    text = ended[0] if ended else text
    parts = [part.strip(" \"'`“”()") for part in re.split(r",\s*(?:or|and)\s|\s(?:or|and)\s|[,|/]", text)]
    parts = [part for part in parts if part]
    return parts if 2 <= len(parts) <= 20 and all(len(part.split()) <= 3 for part in parts) else []


# Text


def _choices(answers: Sequence[str], what: str) -> list[Rule]:
    stated = next((s for match in _CHOICE.finditer(what) if (s := listed(match[1])) and set(answers) <= set(s)), [])
    pattern = f"^(?:{'|'.join(map(js_escape, stated))})$"
    return [Rule(says=f"the answer is one of {', '.join(stated)}", type="regex", value=pattern)] if stated else []


def _one_line(answers: Sequence[str], what: str) -> list[Rule]:
    if any("\n" in answer for answer in answers):
        return []
    return [Rule(says=ONE_LINE, type="regex", value=r"^\s*[^\n]+\s*$")]


def _bullets(answers: Sequence[str], what: str) -> list[Rule]:
    """A list, perhaps below a heading that all share; how many items only where `what` states it."""
    listed = [[line for line in answer.split("\n") if line.strip()] for answer in answers]
    headed = len({lines[0] for lines in listed}) == 1 and not _BULLET.match(listed[0][0])
    items = [lines[1:] if headed else lines for lines in listed]
    marks = [_BULLET.match(line) for lines in items for line in lines]
    if not marks or not all(items) or not all(marks) or max(map(len, items)) < 2:
        return []
    bullets = [mark for mark in marks if mark]
    signs = {mark[1] or f"1{mark[3]}" for mark in bullets}
    if len(signs) != 1:
        return []
    sign = signs.pop()
    start = rf"\d+{js_escape(sign[1:])} +" if sign[0] == "1" else f"{js_escape(sign)} +"
    heading, below = (r"^\s*[^\n]+\n+", "below the heading every") if headed else (r"^\s*", "every")
    rules = [
        Rule(
            says=f"{below} line is a list item that begins with {sign!r}",
            type="regex",
            value=rf"{heading}{start}[^\n]+(?:\n+{start}[^\n]+)*\s*$",
        )
    ]
    counts = {len(lines) for lines in items}
    if len(counts) == 1 and (count := counts.pop()) in _stated_counts(what):
        pattern = rf"{heading}{start}[^\n]+(?:\n+{start}[^\n]+){{{count - 1}}}\s*$"
        rules.append(Rule(says=f"the list has exactly {count} items", type="regex", value=pattern))
    return rules


def _stated_counts(what: str) -> set[int]:
    """Numbers of items, lines or steps that `what` names: "exactly three short bullet points"."""
    names = "|".join((*NUMBER_WORDS, r"\d{1,2}"))
    counts = re.findall(rf"\b({names})\b(?:[\s-]+\w+){{0,3}}?[\s-]+(?:{_ITEM})", what, re.IGNORECASE)
    return {NUMBER_WORDS.index(word.lower()) + 1 if word.lower() in NUMBER_WORDS else int(word) for word in counts}


def _beginning(answers: Sequence[str], what: str) -> list[Rule]:
    """A first line, or first words with a colon, that all share; other shared words only where `what` states them."""
    first, last = min(answers), max(answers)  # what these two share, all share
    same = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    shared = first[:same]
    heading = shared.split("\n")[0] if "\n" in shared else ""
    colon = shared[: shared.rfind(":") + 1]
    stated = next((quote for quote in _QUOTED.findall(what) if shared.startswith(quote)), "")
    begins = next((text for text in (heading, stated, colon) if text.strip() and not _BULLET.match(text)), "")
    if not begins or len(set(answers)) == 1:
        return []
    return [Rule(says=f"the answer begins with {begins!r}", type="regex", value=rf"^\s*{js_escape(begins)}")]


def _closing(answers: Sequence[str], what: str) -> list[Rule]:
    """Words in quotes in `what` that all answers end with."""
    ends = next((q for q in _QUOTED.findall(what) if all(a.endswith(q) and a != q for a in answers)), "")
    return [Rule(says=f"the answer ends with {ends!r}", type="regex", value=rf"{js_escape(ends)}\s*$")] if ends else []


def _question(answers: Sequence[str], what: str) -> list[Rule]:
    if not all(answer.endswith("?") for answer in answers):
        return []
    return [Rule(says="the answer ends with a question mark", type="regex", value=r"\?\s*$")]


def _number(answers: Sequence[str], what: str) -> list[Rule]:
    pattern = r"^\s*-?\d+(?:[.,]\d+)*\s*$"
    if not all(re.search(pattern, answer) for answer in answers):
        return []
    return [Rule(says="the answer is a number and nothing else", type="regex", value=pattern)]


def _length(answers: Sequence[str], what: str) -> list[Rule]:
    """The words that `what` allows; else twice the longest example and ten more."""
    longest = max(len(answer.split()) for answer in answers)
    if stated := _WORDS_BETWEEN.search(what):
        least, most = number_of(stated[1]), number_of(stated[2])
        return [Rule(says=f"{least} to {most} words", type="word-count", value={"min": least, "max": most})]
    if stated := _WORDS_AT_MOST.search(what):
        most = number_of(stated[2]) - (stated[1].lower() in ("under", "fewer than", "less than"))
        return [Rule(says=f"at most {most} words", type="word-count", value={"max": most})]
    most = longest * 2 + 10
    says = f"at most {most} words (your longest example has {longest})"
    return [Rule(says=says, type="word-count", value={"max": most})]


def _no_full_stop(answers: Sequence[str], what: str) -> list[Rule]:
    if not _NO_FULL_STOP.search(what):
        return []
    return [Rule(says="no full stop at the end", type="regex", value=r"[^.\s]\s*$")]


def number_of(word: str) -> int:
    """A number as figures or as a word up to twelve."""
    return int(word) if word.isdigit() else NUMBER_WORDS.index(word.lower()) + 1


def _case(answers: Sequence[str], what: str) -> list[Rule]:
    letters = [c for answer in answers for c in answer if c.isascii() and c.isalpha()]
    if len(letters) < _CASE_LETTERS:
        return []
    if all(c.islower() for c in letters):
        return [Rule(says="no capital letters", type="regex", value="^[^A-Z]*$")]
    return (
        [Rule(says="capital letters only", type="regex", value="^[^a-z]*$")] if all(map(str.isupper, letters)) else []
    )


def _script(answers: Sequence[str], what: str) -> list[Rule]:
    """Latin letters alone: a model that slips into another script is the usual way in which a language is lost."""
    if not any(c.isascii() and c.isalpha() for answer in answers for c in answer):
        return []
    return [Rule(says="Latin letters, no other script", type="regex", value=f"^[^{_OTHER_SCRIPTS}]*$")]


def _never_says(never: str) -> Callable[[Sequence[str], str], list[Rule]]:
    """What stands in quotes in `never` is never said."""
    phrases = list(dict.fromkeys(text.strip() for text in _QUOTED.findall(never) if text.strip()))
    phrases += ["!"] if re.search(r"\bexclamation (?:mark|point)", never, re.IGNORECASE) else []
    rules = [Rule(says=f"never says {text!r}", type="not-icontains", value=text) for text in phrases]
    return lambda answers, what: rules


def js_escape(text: str) -> str:
    """`text` as a regex that JavaScript and Python read alike, and in which no template begins."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", lambda match: "\\" + match[0], text)
