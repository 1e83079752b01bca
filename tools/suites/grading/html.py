"""Assertions on HTML. `is-html` builds the tree that a browser would build (html5lib); `contains-html` counts signs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type
from tunesmith.tools.suites.grading.text import quoted

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_CHARS = 500_000
MAX_TAGS = 10_000
"""The tree of hostile markup costs the square of its tags: so many take three seconds at worst."""

_WRAPPERS = ("html", "head", "body")
_NAMES = """
    html head title base link meta style body article section nav aside h1 h2 h3 h4 h5 h6 header footer address p hr
    pre blockquote ol ul li dl dt dd figure figcaption main div a em strong small s cite q dfn abbr ruby rt rp data time
    code var samp kbd sub sup i b u mark bdi bdo span br wbr img iframe embed object param picture source video audio
    track map area svg math script noscript canvas ins del table caption colgroup col tbody thead tfoot tr td th form
    label input button select datalist optgroup option textarea output progress meter fieldset legend details summary
    dialog menu slot template
"""
_ELEMENTS = frozenset(_NAMES.split())
_OPENING = r"<[a-zA-Z][a-zA-Z0-9-]*(?:\s[^>]*)?>"
_CLOSING = r"</[a-zA-Z][a-zA-Z0-9-]*\s*>"
# Pattern, and how much of a sign of HTML it is; two make HTML.
_SIGNS = (
    (r"<[a-zA-Z][a-zA-Z0-9-]*(?:\s[^>]*)?/>", 1),
    (r"&(?:[a-zA-Z]+|#[0-9]+|#x[0-9a-fA-F]+);", 1),
    (r"<!(?:[Dd][Oo][Cc][Tt][Yy][Pp][Ee])\s+(?:[Hh][Tt][Mm][Ll])", 2),
    (r"<!--[^-]*(?:-[^-]+)*-->", 1),
    (r"\s[a-zA-Z-]+=\s*[\"'][^\"']*[\"']", 1),
)
_COMMON = re.compile(
    r"<(html|head|body|div|span|p|a|img|h[1-6]|ul|ol|li|table|tr|td|th|form|input|button|script|style|link|meta|br|hr)\b",
    re.IGNORECASE | re.ASCII,
)


@assertion_type("contains-html", needs_value=False)
def contains_html(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """Signs of HTML: a pair of tags, a common element, a doctype, or two weaker ones."""
    text = response.output_text
    pair = js.matches(_OPENING, text) + js.matches(_CLOSING, text)
    signs = pair + sum(weight for pattern, weight in _SIGNS if js.matches(pattern, text))
    signs += 2 if _COMMON.search(text) else 0
    return Finding(signs >= 2, "contain HTML", quoted(text))


@assertion_type("is-html", needs_value=False)
def is_html(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The whole output is HTML: an element that HTML knows, and no bare text outside of elements."""
    broken = wrong_html(js.trim(response.output_text))
    return Finding(not broken, "be HTML", broken)


def wrong_html(text: str) -> str:
    """Why `text` is not HTML; empty when it is. Raises CannotGrade for one that is too long."""
    if not text:
        return "nothing"
    if len(text) > MAX_CHARS or text.count("<") > MAX_TAGS:
        raise js.CannotGrade(f"is-html: over {MAX_CHARS} characters or {MAX_TAGS} tags")
    if js.matches(r"^\s*<\?[xX][mM][lL]", text):
        return "XML"
    document, opened = _parse(text)
    body = next((e for e in document.iter() if e.tag == "body"), None)
    if body is not None and "body" not in opened and _bare_text(body):
        return "text outside of elements"
    # An element that stands in the text, not one that the parser had to imagine.
    known = any(
        isinstance(e.tag, str) and (e.tag in opened if e.tag in _WRAPPERS else _is_known(e.tag))
        for e in document.iter()
    )
    return "" if known else "no element that HTML knows"


def _is_known(tag: str) -> bool:
    name = tag.rpartition("}")[2]  # elements of SVG and MathML stand in their namespace
    return name in _ELEMENTS or "-" in name


def _bare_text(body: Element) -> bool:
    return any(js.trim(part or "") for part in (body.text, *(child.tail for child in body)))


def _parse(text: str) -> tuple[Element, set[str]]:
    """The tree, and which of html, head and body the text itself opened."""
    import html5lib
    from html5lib.treebuilders import getTreeBuilder

    opened: set[str] = set()

    # Ignored: to mypy what html5lib returns is no class.
    class Builder(getTreeBuilder("etree")):  # type: ignore[misc]
        """Remembers which elements were made from a tag that stands in the text: only those carry this key."""

        def insertRoot(self, token: dict[str, object]) -> None:  # noqa: N802  # html5lib's own names
            opened.update({"html"} if "selfClosingAcknowledged" in token else ())
            super().insertRoot(token)

        def insertElementNormal(self, token: dict[str, object]) -> object:  # noqa: N802
            opened.update({str(token["name"])} if "selfClosingAcknowledged" in token else ())
            return super().insertElementNormal(token)

    return html5lib.HTMLParser(Builder, namespaceHTMLElements=False).parse(text), opened
