"""What answers are made of, as data: their fixed text and their slots, by the examples alone and in any language.

A template is stated, and fitted here; or it is what the answers have in common, where it is known how many parts
differ. Not covered: JSON (`json_examples`), what a part means, and whether what answers share is meant or chance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from tunesmith.tools.data.answer_template import pattern_of

_WIDE = r"\u2e80-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_WIDE}]|(?:(?![{_WIDE}])\w)+|\s+|[^\w\s]")
"""Words, but a script without spaces character by character."""
_SLOT = re.compile(r"\{([^\W\d]\w*)\}")
_COMPOSED_TOKENS, _COMPARED_TEXTS, _EACH_LEFT_OUT = 300, 1_000, 40
"""Words, marks and spaces of an answer that may have a template; texts that are looked through for one; texts of which
each in turn is left out."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the answers are made, and the slots' values in each example."""

    form: str
    """written, text or lines, as `Answer.form`."""
    template: str
    names: tuple[str, ...]
    records: tuple[tuple[dict[str, str | None], ...], ...]
    """Of each example its records: one for text, some for lines, none where it shows `otherwise`."""
    otherwise: str = ""


WRITTEN = Shape("written", "", (), ())


def slots_of(template: str) -> tuple[str, ...]:
    """The names of a template's slots, each once; one that comes again holds the same."""
    return tuple(dict.fromkeys(_SLOT.findall(template)))


# A template that is stated


def fitted(answers: Sequence[str], template: str) -> tuple[Shape | None, str]:
    """The shape of answers by a template, or of their lines; else None, and why not.

    One answer may be another text: it is what is answered where the template's values are missing.
    """
    names = slots_of(template)
    if not names:
        return None, "it has no {name} in it"
    if re.search(r"\}\{", template):
        return None, "two names stand side by side with nothing between them, so nobody can say where one ends"
    pattern = pattern_of(template)
    for form in ("text", "lines"):
        made = [
            [pattern.fullmatch(text) for text in (answer.split("\n") if form == "lines" else [answer])]
            for answer in answers
        ]
        odd = {answer for answer, matches in zip(answers, made, strict=True) if not all(matches)}
        fits = len(answers) - sum(answer in odd for answer in answers)
        if len(odd) > 1 or fits < max(2, len(answers) / 2) or (form == "lines" and max(map(len, made)) < 2):
            continue
        records = tuple(tuple(m.groupdict() for m in ms if m) if all(ms) else () for ms in made)
        return Shape(form, template, names, records, next(iter(odd), "")), ""
    lines = [line for answer in answers for line in (answer, *answer.split("\n"))]
    lacking = next((line for line in answers if not pattern.fullmatch(line)), lines[0])
    return None, f"it does not give {lacking!r}"


# A template that nobody stated


def aligned(answers: Sequence[str], names: Sequence[str]) -> Shape | None:
    """What most answers have in common, or their lines, with a slot for each of `names`; None where that is not so.

    Of several such templates the one that fixes most text in most answers.
    """
    shapes = []
    for lines in (False, True):
        texts = [line for answer in answers for line in (answer.split("\n") if lines else [answer])]
        shapes += [shape for template in _common_templates(texts, names) if (shape := fitted(answers, template)[0])]
    fixed = {shape.template: len(_SLOT.sub("", shape.template)) * sum(map(bool, shape.records)) for shape in shapes}
    return max(shapes, key=lambda shape: fixed[shape.template], default=None)


def _common_templates(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Of all texts, then of all but one of them; first with every common word, then without words that are chance."""
    longest = max(len(_TOKEN.findall(text)) for text in texts)
    if longest > _COMPOSED_TOKENS or len(texts) > _COMPARED_TEXTS:
        return []
    groups = [texts, *([text for text in texts if text != odd] for odd in _odd_ones(texts))]
    templates = []
    for group in groups:
        parts = _unified(group) if len(group) >= 2 else []
        for made in (parts, _without_chance(parts)):
            fixed = "".join(part for part in made if part)
            if sum(part is None for part in made) == len(names) and fixed and "{" not in fixed:
                called = iter(names)
                templates.append("".join(part if part is not None else "{" + next(called) + "}" for part in made))
    return templates


def _odd_ones(texts: Sequence[str]) -> list[str]:
    """Texts that may be the one without what the others have in common; of many, those that are there most often."""
    if len(texts) <= _EACH_LEFT_OUT:
        return list(dict.fromkeys(texts))
    return [text for text, count in Counter(texts).most_common(3) if count > 1]


def _unified(texts: Sequence[str]) -> list[str | None]:
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
    return parts


def _without_chance(parts: Sequence[str | None]) -> list[str | None]:
    """Without words that stand alone between two slots, and with such slots as one where other fixed text is left."""
    inner = range(1, len(parts) - 1)
    lone = {n for n in inner if (part := parts[n]) is not None and re.fullmatch(r"\s*\w*\s*", part)}
    plain = [" " if n in lone else part for n, part in enumerate(parts)]
    if not "".join(part for part in plain if part).strip():
        return plain
    made: list[str | None] = []
    for part in plain:
        if part is None and len(made) >= 2 and made[-1] is not None and not made[-1].strip() and made[-2] is None:
            made.pop()
            continue
        made.append(part)
    return made
