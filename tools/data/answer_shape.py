"""What the user's answers are made of: their fixed text and their slots, told from the examples in code.

A template is looked for in the user's own words first ("Order NUMBER: We will look into PROBLEM."), else it is what the
examples have in common. Not covered: answers without a common frame; those are written by a model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from tunesmith.tools.data.answer_template import pattern_of
from tunesmith.tools.data.enumerations import composed

_DATES = {"YYYY-MM-DD": "DATE", "DD.MM.YYYY": "DATE", "MM/DD/YYYY": "DATE", "HH:MM": "TIME"}
_DATED = re.compile("|".join(map(re.escape, _DATES)))
_PLACE = re.compile(r"<([^\W\d]\w*)>")
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_BEFORE_NAME, _AFTER_NAME = 60, 60
"""Characters of fixed text that are looked for around the names of a template."""
_FRAME_SHARE = 0.5
"""Of the examples, at least, show the frame; the others are its exceptions."""
_SLOTS_MAX = 6
_COMPOSED_TOKENS, _COMPARED_TEXTS, _EACH_LEFT_OUT = 300, 1_000, 40
"""Words, marks and spaces of an answer that may have a template; texts that are looked through for one; texts of which
each in turn is left out."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the answers are made, and the slots' values in each example."""

    form: str
    """written, json, text or lines, as `Answer.form`."""
    template: str
    names: tuple[str, ...]
    records: tuple[tuple[dict[str, str | None], ...], ...]
    """Of each example its records: one for text and json, some for lines, none where it shows `otherwise`."""
    otherwise: str = ""


WRITTEN = Shape("written", "", (), ())


def shape_of(answers: Sequence[str], what: str, fields: Sequence[str]) -> Shape:
    """The shape of the answers; `fields` are the names that the user gave to what is in them."""
    if (as_json := _json_shape(answers)) is not None:
        return as_json
    if (named := composed(what, answers, fields)) is not None:
        records = tuple((record,) if record is not None else () for record in named.records)
        return Shape("text", named.template, tuple(slot.name for slot in named.slots), records, named.otherwise)
    said = _DATED.sub(lambda match: _DATES[match[0]], what)
    for lines in (False, True):
        template = _stated_template(answers, said, fields or _names_in(said, answers), lines=lines)
        if template and (shape := _fitted(answers, template, lines=lines)):
            return shape
    for lines in (False, True):
        template = _common_template(answers, fields, what, lines=lines)
        if template and (shape := _fitted(answers, template, lines=lines)):
            return shape
    return WRITTEN


def _names_in(what: str, answers: Sequence[str]) -> list[str]:
    """What stands for something: <name> where no answer shows it so, NAME, what follows "NAME:", "name(name): name"."""
    places = [name for name in _PLACE.findall(what) if not any(f"<{name}>" in answer for answer in answers)]
    frames = [word for match in re.findall(r"\b(\w+)\((\w+)\): (\w+)", what) for word in match]
    after = re.findall(r"\b[A-Z]{3,}\w*: ([a-z]\w+)\b(?= \()", what)
    return list(dict.fromkeys([*places, *re.findall(r"\b[A-Z]{3,}\b", what), *after, *frames]))


def _json_shape(answers: Sequence[str]) -> Shape | None:
    try:
        values = [json.loads(answer) for answer in answers]
    except ValueError:
        return None
    if not all(isinstance(value, dict) and value for value in values):
        return None
    names = tuple(dict.fromkeys(name for value in values for name in value))
    flat = all(v is None or isinstance(v, str | int | float | bool) for value in values for v in value.values())
    named = all(re.fullmatch(r"[^\W\d]\w*", name) for name in names)
    if not flat or not named or any(tuple(value) != names for value in values):
        return WRITTEN
    records = tuple(
        ({name: None if value[name] is None else _as_text(value[name]) for name in names},) for value in values
    )
    return Shape("json", "", names, records)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _stated_template(answers: Sequence[str], what: str, fields: Sequence[str], *, lines: bool) -> str:
    """The part of `what` around the fields' names that fits the most examples, the one with the most fixed text."""
    words = {name: re.escape(name) for name in fields}
    spots = [(name, m) for name, word in words.items() for m in re.finditer(rf"<{word}>|(?<!\w){word}(?!\w)", what)]
    best: tuple[int, int, str] = (0, 0, "")
    texts = [line for answer in answers for line in (answer.split("\n") if lines else [answer])]
    rest = _shared_rest(answers) if not lines else ""
    for first in sorted({m.start() for _, m in spots}):
        order = [(n, m) for n, m in sorted(spots, key=lambda spot: spot[1].start()) if m.start() >= first]
        chosen: list[tuple[str, re.Match[str]]] = []
        for name, match in order:
            if name not in [n for n, _ in chosen] and match.start() - first < _AFTER_NAME * len(fields):
                chosen.append((name, match))
        for count in range(len(chosen), 0, -1):
            left, right = chosen[0][1], chosen[count - 1][1]
            for begin in _starts(what, left.start()):
                for end in _ends(what, right.end()):
                    piece = _template_piece(what, begin, end, chosen[:count]) + rest
                    if not re.search(r"\S", re.sub(r"\{\w+\}", "", piece)):
                        continue  # a name alone fits everything
                    fitting = sum(pattern_of(piece).fullmatch(text) is not None for text in texts)
                    best = max(best, (count * min(fitting, len(texts)), len(piece), piece) if fitting else best)
    template = best[2]
    fits = sum(pattern_of(template).fullmatch(text) is not None for text in texts) if template else 0
    return template if fits >= max(2, _FRAME_SHARE * len(texts)) else ""


def _template_piece(what: str, begin: int, end: int, chosen: Sequence[tuple[str, re.Match[str]]]) -> str:
    piece, at = "", begin
    for name, match in chosen:
        piece += what[at : match.start()] + "{" + name + "}"
        at = match.end()
    return piece + what[at:end]


def _starts(what: str, at: int) -> list[int]:
    return [at, *(m.start() for m in re.finditer(r"\S+", what[:at]) if at - m.start() <= _BEFORE_NAME)]


def _ends(what: str, at: int) -> list[int]:
    return [at, *(at + m.end() for m in re.finditer(r"\S+?(?=[.,;:]|\s|$)|[.,;:)\]]", what[at : at + _AFTER_NAME]))]


def _shared_rest(answers: Sequence[str]) -> str:
    """The last lines that all answers share, with the line end before them."""
    lines = [answer.split("\n") for answer in answers]
    shared: list[str] = []
    while min(map(len, lines)) > len(shared) + 1 and len({tuple(ls[-len(shared) - 1 :]) for ls in lines}) == 1:
        shared = lines[0][-len(shared) - 1 :]
    return "".join("\n" + line for line in shared)


def _common_template(answers: Sequence[str], fields: Sequence[str], what: str, *, lines: bool) -> str:
    """What the answers, or their lines, have in common, with a slot for each part in which they differ."""
    texts = [line for answer in answers for line in (answer.split("\n") if lines else [answer])]
    if not fields and not lines and len(words := {len(text.split()) for text in texts}) == 1 and 2 <= min(words) <= 3:
        return " ".join(f"{{part{n}}}" for n in range(1, min(words) + 1))
    if max(len(_TOKEN.findall(text)) for text in texts) > _COMPOSED_TOKENS or len(texts) > _COMPARED_TEXTS:
        return ""
    groups = [texts, *([t for t in texts if t != odd] for odd in _odd_ones(texts))]
    for group in groups:
        parts = _unified(group, what) if len(group) >= 2 else []
        slots = sum(part is None for part in parts)
        fixed = sum(len(part) for part in parts if part)
        enough = len(fields) == slots if fields else any(p and re.search(r"[^\w\s]", p) for p in parts[:-1])
        if not 1 <= slots <= _SLOTS_MAX or not fixed or not enough or slots == len(parts):
            continue
        names = list(fields) if len(fields) == slots else _keys(parts)
        return "".join(part if part is not None else "{" + names.pop(0) + "}" for part in parts)
    return ""


def _odd_ones(texts: Sequence[str]) -> list[str]:
    """Texts that may be the one without what the others have in common; of many, those that are there most often."""
    if len(texts) <= _EACH_LEFT_OUT:
        return list(dict.fromkeys(texts))
    return [text for text, count in Counter(texts).most_common(3) if count > 1]


def _keys(parts: Sequence[str | None]) -> list[str]:
    """A name for each slot: the word before a colon or an equals sign in front of it, else its number."""
    names: list[str] = []
    for place, part in enumerate(parts):
        if part is None:
            key = re.search(r"([^\W\d]\w*)\"?\s*[:=]\s*\"?$", (parts[place - 1] or "") if place else "")
            name = key[1] if key and key[1].isascii() and key[1] not in names else f"part{len(names) + 1}"
            names.append(name)
    return names


def _unified(texts: Sequence[str], what: str) -> list[str | None]:
    """Fixed text and None for slots, in turn. Words are fixed only where no answer differs in the words around them."""
    tokens = [_TOKEN.findall(text) for text in texts]
    common = tokens[0]
    for other in tokens[1:]:
        blocks = SequenceMatcher(None, common, other, autojunk=False).get_matching_blocks()
        common = [token for block in blocks for token in common[block.a : block.a + block.size]]
    parts: list[str | None] = []
    places = [0] * len(tokens)
    for token in [*common, None]:
        gap = False
        for number, own in enumerate(tokens):
            at = own.index(token, places[number]) if token is not None else len(own)
            gap |= at > places[number]
            places[number] = at + 1
        if gap:
            parts.append(None)
        if token is not None:
            if parts and parts[-1] is not None:
                parts[-1] += token
            else:
                parts.append(token)
    return _merged([part if part is None else _without_chance(part, what) for part in parts])


def _without_chance(part: str, what: str) -> str:
    """Fixed text without a word that stands alone in it and that `what` does not say: it belongs to what differs."""
    if re.fullmatch(r"\s*\w+\s*", part):
        return " "
    alone = re.fullmatch(r"\s+([^\W\d_]+)([^\w\s].*)", part)
    return alone[2] if alone and alone[1].lower() not in what.lower() else part


def _merged(parts: list[str | None]) -> list[str | None]:
    """Two slots with a space or a lone word between them are one, unless spaces are all that there is."""
    fixed = "".join(part for part in parts if part)
    if not fixed.strip():
        return parts
    made: list[str | None] = []
    for part in parts:
        if part is None and len(made) >= 2 and made[-1] is not None and not made[-1].strip() and made[-2] is None:
            made.pop()
            continue
        made.append(part)
    return made


def _fitted(answers: Sequence[str], template: str, *, lines: bool) -> Shape | None:
    """The shape with what each example says; None where the examples that do not fit differ among themselves."""
    pattern = pattern_of(template)
    records: list[tuple[dict[str, str | None], ...]] = []
    others: list[str] = []
    for answer in answers:
        matches = [pattern.fullmatch(text) for text in (answer.split("\n") if lines else [answer])]
        if all(matches):
            records.append(tuple(dict(m.groupdict()) for m in matches if m))
        else:
            records.append(())
            others.append(answer)
    fits = len(answers) - len(others)
    if fits < max(2, _FRAME_SHARE * len(answers)) or len(set(others)) > 1:
        return None
    if lines and max(map(len, records)) < 2:
        return None
    names = tuple(re.findall(r"\{(\w+)\}", template))
    return Shape("lines" if lines else "text", template, names, tuple(records), others[0] if others else "")
