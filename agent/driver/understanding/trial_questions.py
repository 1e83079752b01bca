"""The three things that everybody asks once a model is there: try it, where is it, what did it change."""

from __future__ import annotations

import re

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Query
from tunesmith.agent.driver.understanding.reading import query

_MODEL = r"(?:the|my|our|this) (?:(?:new|tuned|finetuned|trained|finished) )?model"
_POLITE = (
    r"^(?:please |so |and |now |ok |(?:can|could|may) (?:i|we|you) |how (?:do|can|could) i |let me |"
    r"i (?:want|would like) to )*"
)
_TRY = re.compile(rf"{_POLITE}(?:try|talk to|chat with|play with)(?: out)? (?:it|{_MODEL})(?: out)?(?: now)?[?.! ]*$")
_SAYS = re.compile(rf"^(?:and )?what (?:does|would|will) (?:it|{_MODEL}) (?:answer|say|reply)(?: now)?[?.! ]*$")
_WHERE = re.compile(rf"{_POLITE}(?:where (?:is|are|do i find|can i find)|find) {_MODEL}(?: now)?[?.! ]*$")
_CHANGED = re.compile(r"\bbefore(?: and |[-/ ]+(?:vs|versus|and)?[-/. ]*)after\b|\banswers? side by side\b")


def trial(s: Sentence) -> Query | None:
    """A question of this kind: `path` asks where the model is, `changed` what it answered before and after."""
    if _CHANGED.search(s.text) and len(s.text.split()) <= 12:
        return query("trial", s, aspect="changed", arm=s.arm)
    if _WHERE.match(s.text):
        return query("trial", s, aspect="path")
    return query("trial", s) if _TRY.match(s.text) or _SAYS.match(s.text) else None
