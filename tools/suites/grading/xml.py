"""Assertions on XML: well-formed as a whole (expat), or somewhere in the output; with paths that must exist.

No entity is ever expanded: a document type with a body of its own is refused, an external one is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from xml.parsers import expat

from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type
from tunesmith.tools.suites.grading.text import quoted

MAX_CHARS = 500_000
"""Many times the longest answer's; outputs that a person stored may have any length."""
_NAME_START = (
    ":_A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c-\u200d\u2070-\u218f\u2c00-\u2fef"
    "\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
)
# A tag; a quoted value may hold > but an unquoted < ends the attempt. Declarations are skipped as one piece.
_TAG = (
    rf"<!--.*?(?:-->|\Z)|<!\[CDATA\[.*?(?:\]\]>|\Z)|<\?.*?(?:\?>|\Z)|<![^>]*>?"
    rf"|<(?P<close>/?)(?P<name>[{_NAME_START}][{_NAME_START}\-.0-9\xb7\u0300-\u036f\u203f-\u2040]*)"
    r"(?P<rest>(?:\"[^\"]*\"|'[^']*'|[^<>\"'])*)>"
)
_ATTRIBUTE = re.compile(r"([^\s=]+)(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'))?")


@dataclass
class _Element:
    """An element that is open: what its paths can lead to."""

    children: dict[str, object] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def add(self, name: str, value: object) -> None:
        """Enter a child; a name that comes again makes a list of both."""
        known = self.children.get(name)
        if isinstance(known, list):  # only ever one of ours: no element's value is a list
            known.append(value)
        elif name in self.children:
            self.children[name] = [known, value]
        else:
            self.children[name] = value

    def value(self) -> object:
        """Its children by name; its text alone where it has none."""
        text = js.trim("".join(self.texts))
        if not self.children:
            return text
        return {**self.children, **({"#text": text} if text else {})}


def _paths(assertion: Assertion) -> list[str]:
    value = assertion.value
    if isinstance(value, dict):
        value = value.get("requiredElements")
    if isinstance(value, str) and value:
        return [js.trim(path) for path in value.split(",")]
    return [js.as_text(path) for path in value] if isinstance(value, list) else []


def _need_paths(assertion: Assertion) -> None:
    value = assertion.value
    if isinstance(value, dict) and (value.keys() != {"requiredElements"} or not isinstance(_first(value), list)):
        raise ValueError(f"{assertion.type} takes paths: a text with commas, a list, or {{requiredElements: [...]}}")
    if value is not None and not isinstance(value, str | list | dict):
        raise ValueError(f"{assertion.type} takes paths such as root.child, not {js.as_text(value)[:40]!r}")


def _first(value: dict[str, object]) -> object:
    return next(iter(value.values()))


def _missing(tree: object, paths: Sequence[str]) -> str:
    missing = [path for path in paths if not _leads_somewhere(tree, path.split("."))]
    return f"no {', '.join(missing)}" if missing else ""


def _leads_somewhere(value: object, steps: Sequence[str]) -> bool:
    for step in steps:
        if isinstance(value, list):
            if not re.fullmatch("0|[1-9][0-9]*", step) or int(step) >= len(value):
                return False
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return False
    return True


@assertion_type("is-xml", check=_need_paths, needs_value=False)
def is_xml(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The whole output is one well-formed XML document, in which every path of the value exists."""
    text = response.output_text
    if len(text) > MAX_CHARS:
        raise js.CannotGrade(f"is-xml: {len(text)} characters; at most {MAX_CHARS}")
    try:
        tree = parse_xml(text)
    except (expat.ExpatError, ValueError) as error:  # also for what it is refused for: entities, and nesting
        return Finding(False, "be well-formed XML", str(error))
    missing = _missing(tree, _paths(assertion))
    return Finding(not missing, "be well-formed XML that holds every path", missing)


def parse_xml(text: str) -> dict[str, object]:
    """The document as nested names: attributes as `@_name`. Raises ExpatError, or ValueError for what is refused."""
    root = _Element()
    stack = [root]
    parser = expat.ParserCreate("utf-8")
    # A parser of its own: where namespaces are read, names come out as others than they are written.
    checker = expat.ParserCreate("utf-8", namespace_separator=" ")  # prefixes must be bound

    def start(name: str, attributes: dict[str, str]) -> None:
        element = _Element({f"@_{key}": value for key, value in attributes.items()})
        # Deeper is no document, and whoever walks it recurses.
        if len(stack) > 1000:
            raise ValueError("nested over 1000 levels deep")
        stack.append(element)

    def end(name: str) -> None:
        element = stack.pop()
        stack[-1].add(name, element.value())

    def characters(data: str) -> None:
        stack[-1].texts.append(data)

    def doctype(name: str, system: str | None, public: str | None, has_internal_subset: int) -> None:
        if has_internal_subset:
            raise ValueError("a DTD of its own, which is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, doctype
    checker.StartDoctypeDeclHandler = doctype
    checker.Parse(text.encode("utf-8", "surrogatepass"), True)
    parser.Parse(text.encode("utf-8", "surrogatepass"), True)  # half a character is expat's to refuse, not Python's
    if text.startswith("<?xml"):
        root.add("?xml", {})
    return root.children


@assertion_type("contains-xml", check=_need_paths, needs_value=False)
def contains_xml(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """An element, or several in a row, stands somewhere in the output and holds every path of the value.

    Balanced tags are enough, as in promptfoo: entities and attributes are not looked into.
    """
    text, paths = response.output_text, _paths(assertion)
    if len(text) > MAX_CHARS:
        raise js.CannotGrade(f"contains-xml: {len(text)} characters; at most {MAX_CHARS}")
    missing = "no element"
    try:
        for tree in _fragments(text):
            missing = _missing(tree, paths)
            if not missing:
                return Finding(True, "contain XML")
    except TimeoutError:
        raise js.CannotGrade(f"contains-xml took over {js.PATTERN_TIMEOUT_S:g} s: too many unclosed tags") from None
    return Finding(False, "contain XML" + (" that holds every path" if paths else ""), missing or quoted(text))


@lru_cache(maxsize=1)
def _tag_pattern() -> js.Pattern:
    import regex

    compiled: js.Pattern = regex.compile(_TAG, regex.DOTALL)
    return compiled


def _fragments(text: str) -> Iterator[dict[str, object]]:
    """Each run of balanced elements between which no tag is left over; an element left open ends a run."""
    stack: list[tuple[str, _Element]] = []
    runs: list[_Element] = [_Element()]
    at = 0
    for tag in _tag_pattern().finditer(text, timeout=js.PATTERN_TIMEOUT_S):  # a stranger's text may make it slow
        if stack:
            stack[-1][1].texts.append(text[at : tag.start()])
        at = tag.end()
        name = tag["name"]
        if name is None:
            continue
        rest = tag["rest"]
        if tag["close"]:
            if not stack or stack[-1][0] != name:
                stack = []
                runs.append(_Element())
                continue
            _, element = stack.pop()
            (stack[-1][1] if stack else runs[-1]).add(name, element.value())
            continue
        element = _Element({f"@_{match[1]}": "" for match in _ATTRIBUTE.finditer(rest.rstrip("/ \t\r\n"))})
        if rest.rstrip().endswith("/"):
            (stack[-1][1] if stack else runs[-1]).add(name, element.value())
        else:
            stack.append((name, element))
    yield from (run.children for run in runs if run.children)
    # Elements that were closed inside one that never was.
    yield from (element.children for _, element in stack if any(k[:2] != "@_" for k in element.children))
