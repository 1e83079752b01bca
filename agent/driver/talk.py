"""What needs neither the store nor a model: who this is, what it can do, what a term means, the last answer again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.version import VERSION
from tunesmith.agent.words.lexicon import Names
from tunesmith.agent.words.slots import Slots

_TWO = ("difference", "vs", "between", "and", "unterschied", "und", "diferencia", "y", "difference", "et")


@dataclass(frozen=True, slots=True)
class _Page:
    """The page of what is said, by label, and of terms."""

    talk: Mapping[str, str]
    terms: Names
    meaning: Mapping[str, str]


@cache
def _page() -> _Page:
    page = yaml.safe_load((files("tunesmith.prompts") / "glossary.yaml").read_text())
    terms = page["terms"]
    return _Page(
        page["talk"], Names({term: one[0] for term, one in terms.items()}), {t: o[1] for t, o in terms.items()}
    )


def said_to(deps: TurnDeps, topic: str) -> str:
    """What is said to a piece of talk; empty for one that is not on the page."""
    text = _page().talk.get(topic, "")
    driver = deps.driver_state() if "{driver}" in text else ""
    values = {"driver": driver, "home": deps.store.home, "version": VERSION, "now": time.strftime("%A, %Y-%m-%d %H:%M")}
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def meaning(slots: Slots) -> str:
    """What the term means that a sentence names, or the two where it asks for both; empty where it names none."""
    found = list(dict.fromkeys(match.name for match in _page().terms.find(slots.words)))
    both = any(word.text in _TWO for word in slots.words)
    return "\n".join(_page().meaning[term] for term in found[: 2 if both else 1])


def page(deps: TurnDeps) -> str:
    """Show the page behind the last answer."""
    if deps.page is None:
        return "There is no longer version of the last answer; ask about a run, its cases, rows or settings."
    deps.show(deps.page())
    return "That is the whole page."


def again(deps: TurnDeps) -> str:
    """What was said last, once more."""
    said, deps.last_answer = deps.last_answer, ""
    return f"Once more: {said}" if said else "I have said nothing yet in this conversation."


def as_answer(text: str) -> TurnAnswer | None:
    """Words as what a turn comes to; None for none."""
    return TurnAnswer(text) if text else None


OUT_OF_SCOPE = (
    "That is not what I am for: I fine-tune models and know this computer and its runs. Ask me about those, or say "
    "what a model should learn."
)
CODE = "That looks like code; I carry out none and did nothing. `/sql SELECT …` reads the records."
REMARK = "Noted; nothing was changed or begun."
