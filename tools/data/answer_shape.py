"""What answers are made of, as data: templates and the places in them, by the examples alone and in any language.

A template is stated, and fitted here; or it is what the answers have in common, where it is known how many parts
differ. Of JSON it is what lies under each path of keys. Not covered: what a part means, and whether what answers share
is meant or chance. Where a value stands is told from the finished answer, so that an imported row has it too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache

from tunesmith.tools.core.strict_json import json_value
from tunesmith.tools.data.answer_rules import escaped
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.record_values import Values, items_of, json_object
from tunesmith.tools.data.spec import Attribute
from tunesmith.tools.data.typed_values import several_pattern, value_pattern

_PLACE = re.compile(r"(\{\w+\})")


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its places filled; braces in values stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


@lru_cache(maxsize=256)  # more than one behaviour's templates; compiling one takes longer than its matches
def pattern_of(template: str) -> re.Pattern[str]:
    """The template as a pattern with its places as groups; a place that comes again holds the same."""
    segments = _PLACE.split(template)
    places, pattern, seen = sum(map(bool, map(_PLACE.fullmatch, segments))), "", list[str]()
    for part in segments:
        if not _PLACE.fullmatch(part):
            pattern += re.escape(part)
            continue
        name = part[1:-1]
        pattern += f"(?P={name})" if name in seen else f"(?P<{name}>[^\\n]+{'?' if len(seen) + 1 < places else ''})"
        seen.append(name)
    return re.compile(pattern)


_LINE = r"[^\n]+?"


def several(attribute: Attribute, values: Mapping[str, str | None]) -> list[str]:
    """The texts that stand in one place: one, or those of a list."""
    if attribute.many is None:
        return [value] if (value := values.get(attribute.name)) is not None else []
    paths = [f"{attribute.name}[{n}]" for n in range(items_of(attribute.name, values))]
    return [value for path in paths if (value := values[path]) is not None]


def place_expected(attribute: Attribute, record: Values) -> str:
    """What stands in a place of a right answer, as a pattern that JavaScript and Python read alike."""
    if attribute.many is None:
        return value_pattern(attribute, record.get(attribute.name))
    return several_pattern(attribute, several(attribute, record))


def _choices(attribute: Attribute) -> list[str]:
    """What alone may stand in a place, as patterns; nothing where that is any text."""
    if attribute.kind in ("label", "weekday"):
        return [*map(escaped, attribute.values)]
    if attribute.kind == "digits":
        return [f"[0-9]{{{n}}}" for n in attribute.lengths]
    return {"time": ["[0-2][0-9]:[0-5][0-9]"], "date": ["[0-9]{4}-[0-9]{2}-[0-9]{2}"]}.get(attribute.kind, [])


def place_rule(attribute: Attribute) -> str:
    """What may stand in a place of any answer, as JavaScript and Python read it alike."""
    absent = [escaped(attribute.absent_as)] if attribute.absent_as else []
    one = "|".join(_choices(attribute))
    if attribute.many and one:
        one = rf"(?:{one})(?:\s*{escaped(attribute.joined.strip())}\s*(?:{one}))*"
    return f"(?:{'|'.join([one or _LINE, *absent])})"


def place_grammar(attribute: Attribute, behind: str) -> str:
    """What a server lets stand in a place; a free one ends where the fixed text `behind` it begins."""
    if not (choices := _choices(attribute)):
        return rf"[^\n(){escaped(behind.strip()[:1])}]{{1,80}}"
    one = "|".join([*choices, *([escaped(attribute.absent_as)] if attribute.absent_as else [])])
    return f"({one})(({escaped(attribute.joined)})({one}))*" if attribute.many else f"({one})"


_WIDE = r"\u2e80-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_WIDE}]|(?:(?![{_WIDE}])\w)+|\s+|[^\w\s]")
"""Words, but a script without spaces character by character."""
_SLOT = re.compile(r"\{([^\W\d]\w*)\}")
_COMPOSED_TOKENS, _COMPARED_TEXTS, _EACH_LEFT_OUT = 300, 1_000, 40
"""Words, marks and spaces of an answer that may have a template; texts that are looked through for one; texts of which
each in turn is left out: the tries are the product of all three, while a person waits."""


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


def renamed(shape: Shape, names: Mapping[str, str]) -> Shape:
    """The shape with other names for its slots."""
    template = _SLOT.sub(lambda slot: f"{{{names[slot[1]]}}}", shape.template)
    records = tuple(tuple({names[name]: value for name, value in r.items()} for r in of) for of in shape.records)
    return replace(shape, template=template, names=tuple(names[name] for name in shape.names), records=records)


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
    shapes = [shape for form in ("text", "lines") if (shape := _in_form(form, answers, template, pattern))]
    if shapes:  # of several lines that the template gives none is another text
        return min(shapes, key=lambda shape: bool(shape.otherwise)), ""
    lines = [line for answer in answers for line in (answer, *answer.split("\n"))]
    lacking = next((line for line in answers if not pattern.fullmatch(line)), lines[0])
    return None, f"it does not give {lacking!r}"


def _in_form(form: str, answers: Sequence[str], template: str, pattern: re.Pattern[str]) -> Shape | None:
    """The shape of answers that are a template's text or its lines, but for one; None where they are not."""
    line_matches = [
        [pattern.fullmatch(text) for text in (answer.split("\n") if form == "lines" else [answer])]
        for answer in answers
    ]
    odd = {answer for answer, matches in zip(answers, line_matches, strict=True) if not all(matches)}
    fits = len(answers) - sum(answer in odd for answer in answers)
    if len(odd) > 1 or fits < max(2, len(answers) / 2) or (form == "lines" and max(map(len, line_matches)) < 2):
        return None
    records = tuple(tuple(m.groupdict() for m in ms if m) if all(ms) else () for ms in line_matches)
    return Shape(form, template, slots_of(template), records, next(iter(odd), ""))


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
        segments = _unified(group) if len(group) >= 2 else []
        for variant in (segments, _without_chance(segments)):
            fixed = "".join(part for part in variant if part)
            if sum(part is None for part in variant) == len(names) and fixed and "{" not in fixed:
                called = iter(names)
                templates.append("".join(part if part is not None else "{" + next(called) + "}" for part in variant))
    return templates


def _odd_ones(texts: Sequence[str]) -> list[str]:
    """Texts that may be the one without what the others have in common; of many, those that are there most often."""
    if len(texts) <= _EACH_LEFT_OUT:
        return list(dict.fromkeys(texts))
    # an answer that stands for "nothing" comes again; each try compares all texts
    return [text for text, count in Counter(texts).most_common(3) if count > 1]


def _unified(texts: Sequence[str]) -> list[str | None]:
    """Fixed text and None for slots, in turn. Words are fixed only where no answer differs in the words around them."""
    tokens = [_TOKEN.findall(text) for text in texts]
    common = tokens[0]
    for other in tokens[1:]:
        blocks = SequenceMatcher(None, common, other, autojunk=False).get_matching_blocks()
        common = [token for block in blocks for token in common[block.a : block.a + block.size]]
    segments: list[str | None] = []
    places = [0] * len(tokens)
    for token in [*common, None]:
        gap = False
        for number, own in enumerate(tokens):
            at = own.index(token, places[number]) if token is not None else len(own)
            gap |= at > places[number]
            places[number] = at + 1
        if gap:
            segments.append(None)
        if token is not None:
            if segments and segments[-1] is not None:
                segments[-1] += token
            else:
                segments.append(token)
    return segments


def _without_chance(segments: Sequence[str | None]) -> list[str | None]:
    """Without words that stand alone between two slots, and with such slots as one where other fixed text is left."""
    inner = range(1, len(segments) - 1)
    lone = {n for n in inner if (part := segments[n]) is not None and re.fullmatch(r"\s*\w*\s*", part)}
    plain = [" " if n in lone else part for n, part in enumerate(segments)]
    if not "".join(part for part in plain if part).strip():
        return plain
    merged: list[str | None] = []
    for part in plain:
        if (
            part is None
            and len(merged) >= 2
            and merged[-1] is not None
            and not merged[-1].strip()
            and merged[-2] is None
        ):
            merged.pop()
            continue
        merged.append(part)
    return merged


Samples = Sequence[tuple[str, object]]
"""(message, what its answer has under a path); `LACKS` where an object has not the key."""
Leaf = Callable[[str, Samples], Attribute]
"""The attribute of a path with single values. Raises NotExpressed."""
LACKS = object()


class NotExpressed(ValueError):
    """What attributes cannot say, with its path."""


def absent_share(missing: int, examples: int) -> float:
    """Of rows to be drawn, those without a value that so many examples lack; a few examples tell no share for sure."""
    # So three examples without it do not make it missing always, nor three with it never: both have to be learned.
    return round(min(0.35, max(0.15, missing / max(1, examples))), 2)


def json_examples(examples: Sequence[Example]) -> list[tuple[str, dict[str, object]]]:
    """(message, object) of examples whose answers are all JSON objects with something in them; else nothing."""
    given = [(example.prompt, json_object(example.answer)) for example in examples]
    objects = [(message, value) for message, value in given if value]
    return objects if len(objects) == len(examples) else []


def leaves(samples: Samples, at: str = "") -> Iterator[tuple[str, Samples]]:
    """Every path with single values, and these."""
    for name in _names(samples):
        path, own = f"{at}{name}", [item for message, value in samples for item in _under(message, value, name)]
        if any(isinstance(value, dict) for _, value in own):
            yield from leaves([one for one in own if isinstance(one[1], dict)], f"{path}.")
        else:
            yield path, own


def object_paths(samples: Samples) -> frozenset[str]:
    """Every path under which there is an object, or a list of objects, with anything in it."""
    paths = (path.split(".") for path, _ in leaves(samples))
    return frozenset(".".join(path[:depth]) for path in paths for depth in range(1, len(path)))


def _names(samples: Samples) -> list[str]:
    return list(dict.fromkeys(name for _, value in samples if isinstance(value, dict) for name in value))


def _under(message: str, value: object, name: str) -> Samples:
    """What an object has under a key; of a list each item."""
    inner = value.get(name, LACKS) if isinstance(value, dict) else LACKS
    return [(message, item) for item in inner] if isinstance(inner, list) else [(message, inner)]


def tree(samples: Samples, leaf: Leaf, at: str = "") -> list[Attribute]:
    """The attributes of some objects. Raises NotExpressed for what they cannot say."""
    attributes = []
    for name in _names(samples):
        if not re.fullmatch(r"[^\W\d]\w*", name):
            raise NotExpressed(f"the key {name!r} is no name of letters, digits and _")
        own = [(message, value.get(name, LACKS)) for message, value in samples if isinstance(value, dict)]
        attributes.append(_one(f"{at}{name}", own, leaf).model_copy(update={"name": name}))
    return attributes


def _one(path: str, samples: Samples, leaf: Leaf) -> Attribute:
    """The attribute of a path by its samples: an object, a list of whatever its items are, or a single value."""
    there = [(message, value) for message, value in samples if value is not None and value is not LACKS]
    lacking = [value is LACKS for _, value in samples if value is None or value is LACKS]
    if len(set(lacking)) > 1:
        raise NotExpressed(f"{path} is null in one example and lacking in another")
    kinds = {dict if isinstance(v, dict) else list if isinstance(v, list) else str for _, v in there}
    if len(kinds) > 1:
        raise NotExpressed(f"{path} is a list or an object in one example and a single value in another")
    if kinds == {dict}:
        attribute = Attribute(name="object", kind="object", attributes=tuple(tree(there, leaf, f"{path}.")))
    else:
        attribute = _several(path, there, leaf) if kinds == {list} else leaf(path, there)
    if not lacking:
        return attribute
    share = absent_share(len(lacking), len(samples))
    return attribute.model_copy(update={"absent_share": share, "left_out": lacking[0]})


def _several(path: str, samples: Samples, leaf: Leaf) -> Attribute:
    items = [(message, item) for message, value in samples if isinstance(value, list) for item in value]
    if any(isinstance(item, list) or item is None for _, item in items):
        raise NotExpressed(f"{path} has a list or null among its items")
    if not items:
        raise NotExpressed(f"{path} is an empty list in every example, so nothing shows what it holds")
    counts = [len(value) for _, value in samples if isinstance(value, list)]
    return _one(path, items, leaf).model_copy(update={"many": (min(counts), max(counts))})


def as_text(value: object) -> str:
    """A single value as a text."""
    return value if isinstance(value, str) else json.dumps(value)


Span = tuple[int, int]
_JSON_PART = re.compile(r"""("(?:[^"\\]|\\.)*")(\s*:)?|\[\s*\]|\{\s*\}|[^\s\[\]{}:,"]+""")
"""A key with its colon, or a value: a string, an empty list or object, a number or a literal."""


def json_values_at(text: str) -> tuple[Span, ...]:
    """Of an object or a list, whatever it holds; nothing in any other text."""
    tokens = _JSON_PART.finditer(text) if isinstance(json_value(text), dict | list) else ()
    return tuple(part.span() for part in tokens if not part[2])


def places_at(template: str, lines: Sequence[str]) -> tuple[Span, ...]:
    """Of lines behind each other that a template makes; nothing where one is made otherwise.

    A range ends behind the character after its value, which says where that ends: after the last, behind the answer.
    """
    spans: list[Span] = []
    start = 0
    for line in lines:
        match = pattern_of(template).fullmatch(line)
        if match is None:
            return ()
        spans += [(start + match.start(name), start + match.end(name) + 1) for name in match.groupdict()]
        start += len(line) + 1
    return tuple(spans)
