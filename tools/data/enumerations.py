"""The few values that an answer is one of, told from the user's own words and examples, with what each one means.

"One word: urgent, normal or spam", "the team (SALES, TECH or HR), a slash, and P1 if all are hit, P2 if one is": words
name the values, and the examples say which of the words are values. An answer that is nothing but such values and the
same text around them is composed by code, its labels are drawn and read back. Not covered: values that no word names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_WORD = r"[^\s,;:.()\"“”'`|/]+"
_QUOTED = r"\"[^\"\n]{1,40}\"|“[^”\n]{1,40}”|'[^'\n]{1,40}'|`[^`\n]{1,40}`"
_ITEM = rf"(?:{_QUOTED}|{_WORD}(?: {_WORD}){{0,2}})"
_CHOSEN = "(?:" + _QUOTED.replace(r"\n]", r"\n|/]") + f"|{_WORD})"
_OR = r"\s*(?:,\s*)?\b(?:or|and|oder|und)\s+"
_COMMAS, _SLASHES = re.compile(rf"{_OR}|\s*,\s*"), re.compile(r"\s*[|/]\s*")
_LISTS = (
    (re.compile(rf"{_ITEM}(?:\s*,\s*{_ITEM})*{_OR}{_ITEM}"), _COMMAS),
    (re.compile(rf"(?<=: ){_ITEM}(?:\s*,\s*{_ITEM})+|(?<=one of ){_ITEM}(?:\s*,\s*{_ITEM})+"), _COMMAS),
    (re.compile(rf"{_CHOSEN}(?:\s?[/|]\s?{_CHOSEN})+"), _SLASHES),
)
_CLAUSE = re.compile(r"(?:^|[,;:.(]\s*|\b(?:and|or|otherwise|else|then|with) )(?:(?:and|or|otherwise|else) )?")
_REASON = re.compile(r"\s+(?:if|when|where|for|means|is|are|=|:)\s+", re.IGNORECASE)
_CLAUSE_VALUE = re.compile(rf"({_QUOTED}|{_WORD}(?: {_WORD})??){_REASON.pattern}", re.IGNORECASE)
_OF_ANOTHER = re.compile(rf"{_WORD} (?:if|when|where|for)\b", re.IGNORECASE)
"""In brackets: "low (high when it is urgent)" says nothing of low."""
_REST = re.compile(rf"(?:otherwise|else),?\s+({_ITEM})")
_QUOTES = "\"“”'`"
_NOUN = re.compile(
    r"(?:\b(?:the|its|an?|their|whose|which)\s+([^\W\d_]{3,})(?:\s+(?:in|of|as|with)\s+[^\W\d_]+)?|([^\W\d_]{3,}))"
    r"\s*(?:is|are|=|,|:|\()?\s*(?:one of|either)?\s*[:(]?\s*$",
    re.IGNORECASE,
)
_NO_NAMES = (
    "answer answers reply word words line lines one only with say says exactly just always then and the either text "
    "string nothing else write give output user message following these those values whether"
)
_VALUES_MAX, _VALUE_WORDS_MAX = 20, 4
_AROUND_MAX = 40
"""Characters of fixed text around the values: more is a sentence, and its own words count."""


@dataclass(frozen=True, slots=True)
class Enumeration:
    """Values that exclude each other, spelled as the examples spell them, and a name for what they tell."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Composed:
    """Answers as fixed text with values in it: the template, its values in turn, and those of each example."""

    template: str
    slots: tuple[Enumeration, ...]
    records: tuple[dict[str, str | None] | None, ...]
    otherwise: str = ""
    """What the examples without a record show."""


def listing(text: str, answers: Sequence[str], seen: set[str]) -> list[str]:
    """The fullest list in `text` that holds all values in `seen`; empty where none does."""
    lists = (values for _, values in _lists(text, answers) if seen and seen <= set(values))
    return max(lists, key=len, default=[])


def enumerations(what: str, answers: Sequence[str]) -> list[Enumeration]:
    """The enumerations of `what` whose values some answer holds, in the order in which they stand there."""
    found: dict[int, tuple[int, list[str]]] = {}
    for start, values in _lists(what, answers):
        held = sum(any(_holds(answer, value) for answer in answers) for value in values)
        if held and 2 <= len(values) <= _VALUES_MAX:
            found[start] = max(found.get(start, (0, [])), (held, values), key=lambda told: told[0])
    made: list[tuple[tuple[int, int], Enumeration]] = []
    for start, (held, values) in sorted(found.items()):
        worth = (held, len(values))  # what the answers show counts; of two readings alike, the fuller one
        low = {value.lower() for value in values}
        same = next((n for n, (_, one) in enumerate(made) if low & {value.lower() for value in one.values}), None)
        if same is None:
            made.append((worth, Enumeration(_name(what[:start], [one.name for _, one in made]), tuple(values))))
        elif worth > made[same][0]:
            made[same] = (worth, Enumeration(made[same][1].name, tuple(values)))
    return [one for _, one in made]


def composed(what: str, answers: Sequence[str], names: Sequence[str] = ()) -> Composed | None:
    """How the answers are composed of the values that `what` lists; None where most of them are not.

    `names` are the user's for what is in an answer, taken where there are as many as values.
    """
    groups = enumerations(what, answers)
    taken = [_taken_apart(answer, groups) for answer in answers]
    frames = Counter(frame for frame, _ in taken if frame)
    if not frames:
        return None
    frame, count = frames.most_common(1)[0]
    others = {answer for answer, (own, _) in zip(answers, taken, strict=True) if own != frame}
    if count < max(2, len(answers) / 2) or len(others) > 1:
        return None
    if len({tuple(values.values()) for own, values in taken if own == frame}) < 2:
        return None
    slots = [groups[n] for n in next(values for own, values in taken if own == frame)]
    if len(names) == len(slots):
        slots = [Enumeration(name, slot.values) for name, slot in zip(names, slots, strict=True)]
    called = iter(slots)
    template = re.sub("\0", lambda _: "{" + next(called).name + "}", frame)
    records: list[dict[str, str | None] | None] = []
    for own, values in taken:
        fits = own == frame
        records.append({slot.name: v for slot, v in zip(slots, values.values(), strict=True)} if fits else None)
    return Composed(template, tuple(slots), tuple(records), next(iter(others), ""))


def meanings(what: str, values: Sequence[str]) -> dict[str, str]:
    """What is said of each value: in brackets behind it, or in a clause that begins with it; "" where nothing is."""
    said = {value: in_brackets(what, value) for value in values}
    places = sorted(
        (match.end(), value)
        for value in values
        for match in _CLAUSE.finditer(what)
        if (rest := what[match.end() :].lstrip(_QUOTES).lower()).startswith(value.lower())
        and not re.match(r"\w", rest[len(value) : len(value) + 1])
    )
    longest = {at: max((v for a, v in places if a == at), key=len) for at, _ in places}
    starts = sorted(longest)
    for at, following in zip(starts, [*starts, len(what)][1:], strict=True):
        value = longest[at]
        text = what[at:following].lstrip(_QUOTES)[len(value) :].lstrip(_QUOTES)
        text = re.split(r"[;.)](?:\s|$)", text)[0]
        reason = re.match(rf"{_REASON.pattern}(.+)|\s+((?:up to|from|until|over|under|\d).+)", text, re.IGNORECASE)
        if reason and not said[value]:
            gloss = re.sub(r"(?:[\s,]+(?:and|or|otherwise)?|,\s*else)\s*$", "", reason[1] or reason[2])
            said[value] = gloss if not any(_holds(gloss, v) for v in values if len(v) > 2) else ""
    rest = next((v for v in values if re.search(rf"(?:otherwise|else),?\s+[{_QUOTES}]?{re.escape(v)}", what)), "")
    return {value: text or ("none of the others" if value == rest else "") for value, text in said.items()}


def in_brackets(what: str, value: str) -> str:
    """What stands in brackets behind a value, as in "positive (only praise)"; empty where nothing does."""
    match = re.search(rf"(?<!\w){re.escape(value)}[{_QUOTES}]? \(([^()]+)\)", what)
    return match[1] if match and not _OF_ANOTHER.match(match[1]) else ""


# Reading the words


def _lists(what: str, answers: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(place, values) of everything that reads as a list, each value once and spelled as the answers do."""
    for start, items in _groups(what, answers):
        yield start, list(dict.fromkeys(filter(None, (_spelled(item, answers) for item in items))))


def _groups(what: str, answers: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(place, items) of everything in `what` that reads as a list of alternatives."""
    plain = re.sub(r" \([^()]*\)", lambda m: m[0] if _is_list(m[0]) else " " * len(m[0]), what)
    for text in dict.fromkeys((plain, what)):
        for pattern, between in _LISTS:
            for match in pattern.finditer(text):
                yield match.start(), _trimmed([item.strip() for item in between.split(match[0])], answers)
    clauses = [
        (match.end(), word[1]) for match in _CLAUSE.finditer(what) if (word := _CLAUSE_VALUE.match(what, match.end()))
    ]
    if len(clauses) >= 2:
        rest = _REST.search(what)
        yield clauses[0][0], _trimmed([word for _, word in clauses] + ([rest[1]] if rest else []), answers)


def _is_list(text: str) -> bool:
    return bool(re.search(r"\bor\b|/|\|", text))


def _trimmed(items: list[str], answers: Sequence[str]) -> list[str]:
    """The items without the words of the sentence that stand before the first and behind the last."""
    items = [item for item in items if item]
    if sum(item[0] in _QUOTES for item in items) >= 2:
        items = [item for item in items if item[0] in _QUOTES]
    bare = [" ".join(item.strip(_QUOTES).split()) for item in items]
    made = []
    for place, item in enumerate(bare):
        words = item.split()
        if items[place][:1] in _QUOTES or len(words) < 2:
            made.append(item)
            continue
        if place == 0:
            options = [" ".join(words[n:]) for n in range(len(words))]
        elif place == len(bare) - 1:
            options = [" ".join(words[:n]) for n in range(len(words), 0, -1)]
        else:
            options = [item]
        shown = next((o for o in options if any(_holds(answer, o) for answer in answers)), None)
        made.append(shown or options[-1])
    return made


def _spelled(item: str, answers: Sequence[str]) -> str:
    """The item as the answers write values: its own letters where one shows it, else in their case."""
    if not item or len(item.split()) > _VALUE_WORDS_MAX:
        return ""
    for answer in answers:
        if match := re.search(_bounded(item), answer, re.IGNORECASE):
            return match[0]
    letters = [answer for answer in answers if re.search(r"[^\W\d_]", answer)]
    for change in (str.upper, str.lower, str.capitalize):
        if letters and all(answer == change(answer) for answer in letters):
            return change(item)
    return item


def _bounded(value: str) -> str:
    if not re.search(r"\w", value):  # the ">" of "/>" is no value, a star or an emoji by itself may be one
        return rf"(?<!\S){re.escape(value)}(?!\S)"
    before = r"(?<!\w)" if re.match(r"\w", value) else ""
    after = r"(?!\w)" if re.search(r"\w$", value) else ""
    return before + re.escape(value) + after


def _holds(text: str, value: str) -> bool:
    return re.search(_bounded(value), text, re.IGNORECASE) is not None


def _name(before: str, taken: Sequence[str]) -> str:
    """The noun that stands before an enumeration, as an identifier; else `label`."""
    match = _NOUN.search(re.sub(rf"[{_QUOTES}]", "", before[-80:]))
    word = (match[1] or match[2] or "").lower() if match else ""
    name = word if word.isascii() and word.isidentifier() and word not in _NO_NAMES.split() else "label"
    return name if name not in taken else next(f"{name}{n}" for n in range(2, 99) if f"{name}{n}" not in taken)


def _taken_apart(answer: str, groups: Sequence[Enumeration]) -> tuple[str, Mapping[int, str]]:
    """(the answer with NUL for each value, group → value); nothing where it holds other words than a few fixed ones."""
    frame, values, at = "", dict[int, str](), 0
    options = sorted(((v, n) for n, group in enumerate(groups) for v in group.values), key=lambda o: -len(o[0]))
    while at < len(answer):
        here = next(
            ((value, n) for value, n in options if n not in values and re.compile(_bounded(value)).match(answer, at)),
            None,
        )
        if here is None:
            frame += answer[at]
            at += 1
            continue
        value, number = here
        frame, at = frame + "\0", at + len(value)
        values[number] = value
    fixed = frame.replace("\0", "")
    return (frame, values) if values and len(fixed) <= _AROUND_MAX and "{" not in fixed else ("", {})
