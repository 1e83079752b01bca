"""What needs neither the store nor a model: greetings, who this is, what it can do, what a term means."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.version import VERSION

_ASKS_A_TERM = re.compile(
    r"^(?:(?:and|so|but|ok|okay|please|sorry|hm+|hey|hi|btw|by the way|quick question|can you|"
    r"could you|would you)[,:]? )*"
    r"(?:what (?:is|are|does|do|means)|what was .{0,8}again|explain(?: to me)?(?: what)?|define|"
    r"tell me (?:what|about)|(?:tell me |explain )?how (?=(?:the |a )?[\w -]{3,30} works?\b)|"
    r"meaning of|how (?:does|do|would you explain)|describe|what exactly (?:is|are)|(?:i (?:do not|"
    r"never) (?:know|understand|get)|remind me) what|why (?:would|do|does|should) (?:one|people|"
    r"anybody|anyone|somebody|we|you|i)|"
    r"(?:what|which) is the (?:idea|point|purpose|meaning|difference)|difference between|in (?:one|"
    r"a) sentence|is a (?:higher|lower|larger|bigger)|whats)\b"
)
_OF_THIS_RUN = re.compile(
    r"\b(?:r\d+|s\d+|our|my|we|last|latest|newest|current|used|here|was|were|did|took|run|this|"
    r"these|if|eta|scores?|gets?|retrain|in the plan|in the end|at the end|peak|default|usual|ratio|share|say|"
    r"says|passed|"
    r"block)\b|\bthe (?:value|"
    r"adapter|merged|quantized|final|best)\b"
)


@dataclass(frozen=True, slots=True)
class _Talk:
    """Words, and what is said to them."""

    words: re.Pattern[str]
    says: str


@cache
def _page() -> tuple[tuple[_Talk, ...], tuple[_Talk, ...]]:
    page = yaml.safe_load((files("tunesmith.prompts") / "glossary.yaml").read_text())
    talk = tuple(_Talk(re.compile(entry["words"]), entry["says"]) for entry in page["small_talk"])
    terms = tuple(_Talk(re.compile(words), says) for words, says in page["terms"].values())
    return talk, terms


def said_to(s: Sentence, *, driver: Callable[[], str], home: str) -> str:
    """What is said to small talk or to a term; empty for other words."""
    for one in _page()[0] if not (s.runs or s.step) else ():
        if one.words.search(s.text):
            return (
                one.says.replace("{driver}", driver() if "{driver}" in one.says else "")
                .replace("{home}", home)
                .replace("{version}", VERSION)
                .replace("{now}", time.strftime("%A, %Y-%m-%d %H:%M"))
            )
    return term(s)


def term(s: Sentence) -> str:
    """What the terms mean that are asked for; empty where none is, or a run's own value is meant."""
    asks = _ASKS_A_TERM.match(s.text)
    if re.match(r"what (?:is|are|was) (?:in|inside|on)\b", s.text) or (
        re.search(r"[\"“”]", s.said) and not re.search(r"\bmeans?\b", s.text)
    ):
        return ""
    if asks is None or s.runs or (len(s.arms) > 1 and s.blocks):
        return ""
    if _OF_THIS_RUN.search(s.text.replace("mean here", "mean")):
        return ""
    rest = s.text[asks.end() :]
    if len(rest.split()) > 14:
        return ""
    matches = [
        (match.start(), -len(match[0]), one.says) for one in _page()[1] for match in [one.words.search(rest)] if match
    ]
    if not matches:
        return ""
    matches.sort()
    two = bool(re.search(r"difference|between|\bvs\b|\band\b", s.text))
    chosen: list[str] = []
    end = -1
    for start, length, says in matches:
        if start >= end:
            chosen.append(says)
            end = start - length
    return "\n".join(chosen[: 2 if two else 1])
