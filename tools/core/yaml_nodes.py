"""YAML that is data and nothing else, at a bounded price, with the line of every mapping and list.

Built from libyaml's events, so a bomb is refused while it is being read: before any node exists twice. Scalars
mean what they mean to js-yaml, which promptfoo uses: `no` and `12:30` are text. Not covered: timestamps (kept as
text), several documents, tags other than the core ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

MAX_NODES = 300_000
"""Values of a file: each is an object of some hundred bytes here, whatever its size in the file."""
MAX_DEPTH = 60
"""Below Python's limit of recursion: what walks the document afterwards takes several calls a level."""
MAX_KEY_CHARS = 10_000  # an endless one is refused as it is read
MAX_ALIASED_NODES = 50_000
"""Nodes that aliases may add once they are written out: what adds more is a bomb (“billion laughs”)."""

_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0b[01_]*[01]|0o[0-7_]*[0-7]|0x[0-9a-fA-F_]*[0-9a-fA-F]|[0-9](?:[0-9_]*[0-9])?)")
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9_]+(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


_BEGUN_BEFORE = {
    "could not find expected ':'": "expected 'key: value'",
    "found unexpected end of stream": "a quote that opens here is not closed",
}
"""A parser's words for what it notices lines behind the fault → plain words, of the line where it begins."""


class YamlRefused(ValueError):
    """The text is not YAML, or not the harmless kind; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Document:
    """A parsed document, and the line on which each mapping and list in it begins."""

    plain: object = None
    lines: dict[int, int] = field(default_factory=dict)
    """id() of a dict or list → line. Good for as long as the document itself is kept."""


@dataclass
class _Open:
    """A mapping or list that is still being read."""

    value: dict[str, object] | list[object]
    line: int
    anchor: str | None
    size: int = 1
    key: str | None = None
    waits_for_key: bool = True
    merged: list[dict[str, object]] = field(default_factory=list)


def parse_yaml(text: str, name: str, *, lenient: bool = False) -> Document:
    """Parse one document of plain data. Raises YamlRefused.

    `lenient` lets a later duplicate key win, as JSON does, instead of refusing it.
    """
    builder = _Builder(name, lenient)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.YAMLError as error:
        problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
        plain = _BEGUN_BEFORE.get(problem)
        mark = getattr(error, "context_mark" if plain else "problem_mark", None)  # a reader's error has none
        line = min(mark.line, text.rstrip().count("\n")) + 1 if mark else 1  # what is never closed ends behind the text
        hint = "; a text with a colon in it needs quotes" if "mapping values" in problem else ""
        raise YamlRefused(plain or f"not valid YAML: {problem}{hint}", line) from None
    return builder.document


def _events(text: str) -> Iterator[yaml.Event]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)  # libyaml's is much faster, and not everywhere
    try:
        while (event := loader.get_event()) is not None and not isinstance(event, yaml.StreamEndEvent):
            yield event
    finally:
        loader.dispose()


def plain_scalar(text: str) -> object:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    # no number is longer: texts of a suite mostly leave here, before two patterns
    if len(text) > 40 or not (text[0].isdigit() or text[0] in "+-."):
        return text
    if text[0] in "123456789" and text.isdigit() and text.isascii():
        return int(text)
    digits = text.replace("_", "")
    if _INT.fullmatch(text):
        bare = digits.lstrip("+-").lower()
        base = {"0b": 2, "0o": 8, "0x": 16}.get(bare[:2], 10)
        number = int(bare[2:] if base != 10 else bare, base)
        return -number if digits.startswith("-") else number
    return float(digits) if _FLOAT.fullmatch(text) else text


class _Builder:
    """Turns events into plain values, counting as it goes."""

    def __init__(self, name: str, lenient: bool) -> None:
        self.document = Document()
        self._name, self._lenient = name, lenient
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[object, int]] = {}  # anchor → (value, nodes in it)
        self._documents = self._nodes = self._aliased = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.ScalarEvent):  # first, as most are
            self._scalar(event, line)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event, line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, line)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise YamlRefused("holds several YAML documents; keep one a file", line)

    def _count(self, line: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise YamlRefused(f"over {MAX_NODES} values; split the suite into several files", line)

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> None:
        self._count(line)
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        if event.tag not in (None, "!", _CORE + kind):
            raise _tag_refused(event.tag, line)
        if len(self._open) >= MAX_DEPTH:
            raise YamlRefused(f"nested over {MAX_DEPTH} levels deep; flatten it", line)
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].waits_for_key:
            raise YamlRefused(
                "a key is a mapping or a list; keys are text, and a template such as '{{name}}' stands in quotes", line
            )
        if event.anchor:
            # Defined anew: inside itself neither its old value nor its unfinished one can be meant.
            self._anchors.pop(event.anchor, None)
        self._open.append(_Open({} if kind == "map" else [], line, event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done.value, dict):
            for source in done.merged:
                for key, value in source.items():
                    # YAML's merge: a mapping's own key goes before, and the first source before the others.
                    done.value.setdefault(key, value)
        self.document.lines[id(done.value)] = done.line
        if done.anchor:
            self._anchors[done.anchor] = done.value, done.size
        self._place(done.value, done.size, done.line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        self._count(line)
        value: object = event.value
        tag = event.tag
        if self._open and self._open[-1].waits_for_key and isinstance(self._open[-1].value, dict):
            if tag is not None and tag not in ("!", _CORE + "str"):
                raise _tag_refused(tag, line)
            self._key(event.value, line)
        else:
            if tag is None and not event.style:
                value = plain_scalar(event.value)
            elif tag is not None and tag not in ("!", _CORE + "str"):
                value = _tagged(tag, event.value, line)
            self._place(value, 1, line)
        if event.anchor:
            self._anchors[event.anchor] = value, 1

    def _alias(self, anchor: str | None, line: int) -> None:
        if anchor is None or anchor not in self._anchors:
            raise YamlRefused(f"*{anchor} names no finished &{anchor}: unknown, or a value inside itself", line)
        value, size = self._anchors[anchor]
        self._aliased += size
        if self._aliased > MAX_ALIASED_NODES:
            raise YamlRefused(f"aliases unfold to over {MAX_ALIASED_NODES} values; write the text out once", line)
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].waits_for_key:
            self._key(str(value), line)
        else:
            self._place(value, size, line)

    def _key(self, key: str, line: int) -> None:
        top = self._open[-1]
        if len(key) > MAX_KEY_CHARS:
            raise YamlRefused(f"a key of {len(key)} characters; at most {MAX_KEY_CHARS}", line)
        if key in top.value and not self._lenient:
            raise YamlRefused(f"the key {key[:60]!r} stands twice in one mapping; keep one", line)
        top.key, top.waits_for_key = key, False
        top.size += 1

    def _place(self, value: object, size: int, line: int) -> None:
        if not self._open:
            self.document.plain = value
            return
        top = self._open[-1]
        top.size += size
        if isinstance(top.value, list):
            top.value.append(value)
            return
        if top.key == "<<":
            for source in value if isinstance(value, list) else [value]:
                if not isinstance(source, dict):
                    raise YamlRefused("<< merges mappings only", line)
                top.merged.append(source)
        elif top.key is not None:
            top.value[top.key] = value
        top.key, top.waits_for_key = None, True


def _tag_refused(tag: str, line: int) -> YamlRefused:
    short_tag = tag.replace(_CORE, "!!")
    return YamlRefused(f"the YAML tag {short_tag} is refused: a suite is plain data; remove the tag", line)


def _tagged(tag: str, text: str, line: int) -> object:
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
    kind = kinds.get(tag.removeprefix(_CORE)) if tag.startswith(_CORE) else None
    if kind is None:
        raise _tag_refused(tag, line)
    value = plain_scalar(text)
    if not isinstance(value, kind):
        raise YamlRefused(f"{text[:40]!r} is not what its tag {tag.replace(_CORE, '!!')} says", line)
    return value
