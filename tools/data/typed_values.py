"""Values that code can draw, write into a message in many ways, and find again: numbers, times, dates, addresses.

What a message says of them is therefore right by construction, and read back by code: `conflict` finds what was not
drawn. Messages are English; of another language the plain forms (16:30, 2026-03-14) are what is known.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache

from tunesmith.tools.core.arithmetic import NUMERIC, number_of
from tunesmith.tools.core.similarity import UNSPACED
from tunesmith.tools.data.answer_rules import escaped
from tunesmith.tools.data.spec import Attribute

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_HOURS = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
_MINUTES = {5: "five past", 10: "ten past", 15: "quarter past", 20: "twenty past", 30: "half past"}
_MINUTES |= {40: "twenty to", 45: "quarter to", 50: "ten to", 55: "five to"}
_NAMES = ("anna", "lee", "m.roth", "jo_b", "samir", "petra", "office", "info", "k.ito", "nadia", "tom", "e.silva")
_HOSTS = ("example.com", "mail.example", "northwind.example", "fastpost.example", "uni.example.org", "acme.example")
_PATHS = ("orders", "help", "docs/start", "r/118", "img/cat.png", "blog/spring", "a?id=7", "login")
_COUNT = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty"
_PART = r"(?:in the (?:morning|afternoon|evening)|at night|tonight|this (?:morning|afternoon|evening))"
_MONTHS = "|".join(month[:3] for month in MONTHS)
"""As people shorten them: the forms below find "Mar", "March" and "mar." alike."""
_LATER = rf"(?: ?[ap]\.?m\b\.?)?(?: {_PART})?"
"""What may follow a clock time and belongs to it."""
GLUED = rf"[^\W{UNSPACED}]"
"""A character that belongs to the word beside it."""
_FIND: Mapping[str, str] = {
    "number": rf"(?<!{GLUED})(?<![.,])\d+(?:[.,]\d+)?(?!{GLUED}|[.,]\d)",
    "amount": r"[$€£]\s?\d(?:[\d.,]*\d)?|\d(?:[\d.,]*\d)?\s?(?:[$€£]|euros?\b|dollars?\b|pounds?\b|EUR\b|USD\b|GBP\b)"
    r"|\b\d+\.\d\d(?![\d.])",
    "time": rf"\d{{1,2}}[:.]\d\d(?!\d)|\b(?:\d{{1,2}}|{_COUNT})(?::\d\d)? ?(?:[ap]\.?m\b|o'?clock|h\b|uhr\b|{_PART})"
    rf"|\b(?:half|quarter|{_COUNT}|\d{{1,2}})(?: minutes)? (?:past|to) (?:\d{{1,2}}|{_COUNT})\b"
    r"|\bnoon\b|\bmid(?:night|day)\b"
    rf"|\b(?:at|until|till|by|from|before|after) (?:\d{{1,2}}|{_COUNT})\b(?! ?(?:%|{_MONTHS}))",
    "weekday": r"\b(?:mon|tue|wed|thu|fri|sat|sun)(?:s|nes|rs?|ur)?(?:days?)?\b",
    "date": rf"\b\d{{4}}-\d\d-\d\d\b|\b\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}\b|"
    rf"\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? (?:{_MONTHS})[a-z]*\.?(?:,? \d{{4}})?"
    rf"|\b(?:{_MONTHS})[a-z]*\.? \d{{1,2}}\b(?:,? \d{{4}})?",
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]*\w",
    "phone": r"\+?\d[\d /()-]{6,}\d",
    "url": r"\b(?:https?://|www\.)\S+",
}


def draw_value(attribute: Attribute, rng: random.Random) -> str:
    """A value as the answer shows it."""
    if attribute.values:
        names = list(attribute.values)
        return rng.choices(names, [attribute.values[name].weight for name in names])[0]
    return _DRAW[attribute.kind](attribute, rng)


def surface_of(attribute: Attribute, value: str, rng: random.Random) -> str:
    """`value` in one of the ways in which a message says it."""
    if attribute.kind == "weekday":
        ways: Sequence[str] = _weekday_ways(attribute, value)
    else:
        ways = _SAY[attribute.kind](value) if attribute.kind in _SAY else [value]
    text = rng.choice(ways)
    return rng.choice(attribute.forms).format(n=text) if attribute.forms else text


def matches_in(attribute: Attribute, message: str) -> list[str]:
    """What stands in the message of the attribute's kind, as it stands there."""
    if attribute.kind == "digits":
        lengths = attribute.lengths or range(1, 20)  # a payment card has up to 19
        alone = re.findall(rf"(?<!{GLUED})(?<![.,-])\d+(?!{GLUED}|-|[.,]\d)", message)
        return [number for number in alone if len(number) in lengths]
    pattern = f"(?:{_FIND[attribute.kind]})" + (_LATER if attribute.kind == "time" else "")
    matches = (match[0] for match in re.finditer(pattern, message, re.IGNORECASE))
    return [re.sub(r"^(?:at|by|from|until|till|before|after) ", "", text, flags=re.IGNORECASE) for text in matches]


def conflict(attribute: Attribute, surface: str, message: str, beside: Sequence[str] = ()) -> str:
    """Why the message does not say just what was drawn (`surface`; empty: nothing); empty: it does.

    `beside` is what the message says of all attributes: what is drawn for several stands there as often.
    """
    if surface and not holds(message, surface):
        return f"{attribute.name}: {surface!r} is not in the message"
    rest = message
    for part in sorted({*beside, surface}, key=len, reverse=True):
        for _ in range(max(1, list(beside).count(part))):
            if part and part == surface and not holds(rest, part):
                return f"{attribute.name}: {part!r} was drawn more often than the message says it"
            rest = _without(rest, part)
    if others := matches_in(attribute, rest):
        return f"{attribute.name}: {others[0]!r} was not drawn"
    return ""


def holds(message: str, part: str) -> bool:
    """Whether `part` stands in the message, whatever the case, and not inside a longer word."""
    return _place(message, part) >= 0


def _place(message: str, part: str) -> int:
    """Where a part begins in a message, not inside a longer word; -1: nowhere."""
    text, wanted = message.lower(), part.lower()  # no pattern: one for each value would be compiled for each row
    at = text.find(wanted)
    while at >= 0:
        inside_left = _ends_word(wanted[:1]) and _in_word(text[at - 1 : at])
        inside_right = _ends_word(wanted[-1:]) and _in_word(text[at + len(wanted) : at + len(wanted) + 1])
        if not inside_left and not inside_right:
            break
        at = text.find(wanted, at + 1)
    return at


def _ends_word(character: str) -> bool:
    """Whether a word could go on beside it: in a script without spaces none does, digits beside it included."""
    return character.isalnum() and _in_word(character)


def _in_word(character: str) -> bool:
    return re.match(GLUED, character) is not None


def _without(message: str, part: str) -> str:
    at = _place(message, part) if part else -1
    return message if at < 0 else f"{message[:at]} {message[at + len(part) :]}"


# Drawing


def _digits(attribute: Attribute, rng: random.Random) -> str:
    count = rng.choice(attribute.lengths or (5,))  # nothing says how many: as an order's number has
    return str(rng.randrange(10 ** (count - 1), 10**count))


def _time(attribute: Attribute, rng: random.Random) -> str:
    # By day and on the hour oftener, as people write.
    hour = rng.choice((7, 8, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 0, 6))
    return f"{hour:02d}:{0 if hour == 0 else rng.choice((0, 0, 0, 0, 15, 30, 30, 45, 10, 20, 40, 50, 5, 55)):02d}"


def _date(attribute: Attribute, rng: random.Random) -> str:
    # Of nearly four years, so that the year has to be read too.
    return (date(2024, 1, 1) + timedelta(days=rng.randrange(1400))).isoformat()


def _weekday_ways(attribute: Attribute, value: str) -> list[str]:
    names = list(attribute.values) or list(WEEKDAYS)
    place = names.index(value) if value in names else 0
    full = WEEKDAYS[place % 7]  # a label may have names of its own, in the week's order
    return [full, full, full.lower(), full.lower(), full[:3], full[:3].lower(), f"{full}s", full.upper()]


_DRAW: Mapping[str, Callable[[Attribute, random.Random], str]] = {
    "digits": _digits,
    # Each size as often: drawn evenly, nine of ten numbers would have three digits.
    "number": lambda attribute, rng: str(rng.choice((rng.randint(2, 12), rng.randint(13, 99), rng.randint(100, 999)))),
    # Prices end as in shops.
    "amount": lambda attribute, rng: f"{rng.randint(3, 900)}.{rng.choice((0, 50, 90, 95, 99)):02d}",
    "date": _date,
    "time": _time,
    "weekday": lambda attribute, rng: rng.choice(WEEKDAYS),
    "email": lambda attribute, rng: f"{rng.choice(_NAMES)}{rng.choice(('', rng.randint(1, 99)))}@{rng.choice(_HOSTS)}",
    "phone": lambda attribute, rng: (
        f"{rng.choice(('0', '+44 ', '+1 '))}{rng.randint(100, 999)} {rng.randint(1000000, 9999999)}"
    ),
    "url": lambda attribute, rng: f"https://{rng.choice(_HOSTS)}/{rng.choice(_PATHS)}",
}


# Saying


def _time_ways(value: str) -> list[str]:
    """24-hour HH:MM in the ways people write it; of the afternoon only ways that say so."""
    hour, minute = map(int, value.split(":"))
    if value == "12:00":
        return ["noon", "12 noon", "12:00", "12 pm", "noon"]
    if value == "00:00":
        return ["midnight", "midnight", "12 am"]
    half = "am" if hour < 12 else "pm"
    twelve, next_hour = hour % 12 or 12, (hour + 1) % 12 or 12
    clock = f"{twelve}:{minute:02d}" if minute else str(twelve)
    # To the hour the next one is named: its part of the day must be this one's, or the words say another time.
    to_next = minute > 30
    part = _part_of_day((hour + 1) % 24 if to_next else hour)
    ways = [f"{clock} {half}", f"{clock}{half}", f"{hour:02d}:{minute:02d}", f"{clock} {_part_of_day(hour)}"]
    if hour < 10:  # from ten on it is the one above
        ways.append(f"{hour}:{minute:02d}")
    if minute:
        ways += [f"{twelve}.{minute:02d} {half}", f"{twelve}.{minute:02d}{half}"]
    else:
        ways += [f"{_HOURS[twelve % 12]} {part}", f"{_HOURS[twelve % 12]} {half}", f"{twelve} o'clock {part}"]
    # "Ten to twelve in the morning": the hour that is named must be of the half that the minutes are in.
    same_half = (hour < 11) or (12 <= hour < 23)
    if minute in _MINUTES and (not to_next or same_half):
        named = _HOURS[(next_hour if to_next else twelve) % 12]
        ways += [f"{_MINUTES[minute]} {named} {part}", f"{_MINUTES[minute]} {named} {half}"]
    return ways


def _part_of_day(hour: int) -> str:
    if hour < 12:
        return "in the morning"
    return "in the afternoon" if hour < 18 else "in the evening" if hour < 22 else "at night"


def _date_ways(value: str) -> list[str]:
    when = date.fromisoformat(value)
    month = MONTHS[when.month - 1]
    return [
        value, f"{when.day} {month} {when.year}", f"{month} {when.day}, {when.year}",
        f"{when.day:02d}.{when.month:02d}.{when.year}",
        f"{when.day} {month[:3]} {when.year}", f"the {_ordinal(when.day)} of {month} {when.year}",
    ]  # fmt: skip


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"  # 11th, 12th and 13th


_SAY: Mapping[str, Callable[[str], Sequence[str]]] = {"time": _time_ways, "date": _date_ways}


def ways_to_say(attribute: Attribute, value: str) -> list[str]:
    """Every way in which a message may say a converted value; none for kinds that are said as they are."""
    if attribute.kind == "weekday" and value in (attribute.values or WEEKDAYS):
        day = _weekday_ways(attribute, value)
        return [*day, day[0][:4], day[0][:5], f"{day[0][:3]}s", f"{day[0]}'s"]  # Tues, Thurs
    try:
        return list(_SAY[attribute.kind](value)) if attribute.kind in _SAY else []
    except ValueError:  # no value of the kind after all: 25:00
        return []


def value_of(attribute: Attribute, text: str) -> str | None:
    """The value that a message says with `text`, the other way round; None where that is not one value for sure."""
    if attribute.kind in ("digits", "number", "email", "phone", "url"):
        return text
    if attribute.kind == "weekday":
        days = [v for v in attribute.values if text.lower() in {way.lower() for way in ways_to_say(attribute, v)}]
        return days[0] if len(days) == 1 else None
    if attribute.kind == "time":
        return _times().get(text.lower())
    if attribute.kind == "date":
        return _date_in(text)
    return text if attribute.kind == "amount" and re.fullmatch(r"\d+\.\d\d", text) else None


@lru_cache(maxsize=1)
def _times() -> dict[str, str]:
    """Every way to say a time of the day that says no other one."""
    times = [f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in range(60)]
    ways = [(way.lower(), value) for value in times for way in set(_time_ways(value))]
    counts = Counter(way for way, _ in ways)
    return {way: value for way, value in ways if counts[way] == 1}


def _date_in(text: str) -> str | None:
    """The date that a text says, in whichever order of day and month makes it one that is said so; None: unsure."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    month = next((n for n, name in enumerate(MONTHS, 1) if name[:3].lower() in text.lower()), 0)
    year = next((number for number in numbers if number > 31), 0)  # no day or month is so high
    rest = [number for number in numbers if number <= 31]
    orders = [(month, *rest)] if month else [tuple(rest), tuple(reversed(rest))]
    for order in orders:
        if len(order) == 2 and 1 <= order[0] <= 12 and 1 <= order[1] <= 31:
            value = f"{year:04d}-{order[0]:02d}-{order[1]:02d}"
            with contextlib.suppress(ValueError):  # 31 April is no date
                if text.lower() in (way.lower() for way in _date_ways(value)):
                    return value
    return None


_COPIED_WORDS = 3
"""Of a copied text with more words, where it begins and ends is a matter of taste."""
_RUN_MOST, _RUNS_MOST = 8, 32
"""Words in a row of a long text, and about so many of its stretches: a pattern of more is slow to read."""
_ANYTHING = r"[^\n]+?"


def is_decided(attribute: Attribute, value: str | None) -> bool:
    """Whether a right answer holds this very value: all but what an answer says in words of its own."""
    return value is None or attribute.kind != "text" or is_number(value)


def is_number(text: str) -> bool:
    """Whether a text is figures and marks alone."""
    return any(c.isdigit() for c in text) and not any(c.isalpha() for c in text)


def value_pattern(attribute: Attribute, value: str | None) -> str:
    """What a text holds where this value is right."""
    if value is None:
        return escaped(attribute.absent_as or "")
    if not is_decided(attribute, value):
        return _ANYTHING
    if _by_taste(attribute, value):
        return rf"(?=[^\n]*{_run_pattern(value)}){_ANYTHING}"
    if attribute.kind in NUMERIC and (number := number_of(value)) is not None:
        return number_pattern(number)
    return any_case(value) if attribute.kind == "copied" else escaped(value)


def several_pattern(attribute: Attribute, values: Sequence[str]) -> str:
    """What a text holds where these values are right: a list in its order, a set in any."""
    mark = escaped(attribute.joined.strip()) or "\\s"
    between = rf"\s*{mark}\s*"
    if not values:
        return escaped(attribute.absent_as or "")
    if attribute.kind != "label":
        return between.join(value_pattern(attribute, value) for value in values)
    one = f"(?:{'|'.join(escaped(value) for value in sorted(values, key=len, reverse=True))})"
    others = len(values) - 1  # as many items as values, and each value among them: none comes twice
    each = "".join(rf"(?=(?:{one}{between}){{0,{others}}}{escaped(value)}(?!\w))" for value in values)
    return rf"{each}{one}(?:{between}{one}){{{others}}}"


def value_schema(attribute: Attribute, value: object) -> tuple[dict[str, object], bool]:
    """The schema of one value that is right in JSON, and whether that is its whole meaning."""
    text = value if isinstance(value, str) else None
    if text is None:
        return {"const": value}, True
    if not is_decided(attribute, text):
        return {"type": "string", "minLength": 1}, False
    if _by_taste(attribute, text):
        return {"type": "string", "pattern": literal(_run_pattern(text))}, True
    if attribute.kind in NUMERIC and (number := number_of(text)) is not None:
        return {"type": "string", "pattern": f"^{number_pattern(number)}$"}, True
    return {"const": literal(text)}, True


def number_pattern(number: Decimal) -> str:
    """A number with or without zeros at its end."""
    whole, _, places = format(number, "f").partition(".")
    places = places.rstrip("0")
    return rf"{whole}\.{places}0*" if places else rf"{whole}(?:\.0+)?"


def _by_taste(attribute: Attribute, value: str) -> bool:
    return attribute.kind == "copied" and len(value.split()) > _COPIED_WORDS


def _run_pattern(value: str) -> str:
    """A pattern of what holds at least half of a copied text, its words in a row; of a long one eight of them."""
    words = value.split()
    run = min(_RUN_MOST, max(2, -(-len(words) // 2)))
    starts = range(0, len(words) - run + 1, 1 + len(words) // _RUNS_MOST)
    runs = dict.fromkeys(r"\s+".join(map(any_case, words[n : n + run])) for n in starts)
    return f"(?:{'|'.join(runs)})"


def any_case(text: str) -> str:
    """A text whatever its case; a pattern of a suite has no flag for it."""
    both = ((c.lower(), c.upper()) for c in text)
    return "".join(
        f"[{low}{up}]" if low != up and len(low) == len(up) == 1 else escaped(c)
        for (low, up), c in zip(both, text, strict=True)
    )


def literal(value: object) -> object:
    """A text that is read as it is: where a template or a file's name could begin, it is printed by a template."""
    if isinstance(value, Mapping):
        return {name: literal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [literal(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if re.search(r"\{[{%#]", value):
        value = value.replace("{", '{{ "{" }}')
    return '{{ "file:" }}' + value.removeprefix("file:") if value.startswith("file://") else value
