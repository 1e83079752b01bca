"""The product's own pages: what it is, does and sends, how a thing is done, and what the words of the trade mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.answer import matching
from tunesmith.agent.version import VERSION
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.yaml_file import read_own

_SECTIONS = 3
"""That some words are nearest to: a page of them would hide the one."""

_FURTHER = 12
"""Titles of sections that may be meant."""
_TELLING = 0.15
"""A word that more of the sections hold, such as “how” or “are”, tells none of them apart."""


@cache
def _pages() -> tuple[Mapping[str, str], Mapping[str, tuple[str, str]]]:
    """Topic → its text, and term → its names and what it means."""
    page = read_own(files("tunesmith.prompts") / "glossary.yaml")
    return page["talk"], {term: (names, meaning) for term, (names, meaning) in page["terms"].items()}


def names_of_terms() -> Mapping[str, str]:
    """Term → its names, with commas between them."""
    return {term: names for term, (names, _) in _pages()[1].items()}


def meaning(term: str) -> str:
    """What a term means; empty for one that is not on the page."""
    return _pages()[1].get(term, ("", ""))[1]


def talk_text(deps: TurnDeps, topic: str) -> str:
    """What is said of a topic; empty for one that is not on the page."""
    return _filled(topic, deps.store.home, deps.driver_state)


def _filled(topic: str, home: Path, driver: Callable[[], str]) -> str:
    now, text = time.strftime("%A, %Y-%m-%d %H:%M"), _pages()[0].get(topic, "")
    text = text.replace("{home}", str(home)).replace("{now}", now).replace("{version}", VERSION)
    return text.replace("{driver}", driver()) if "{driver}" in text else text


def manual(about: str, home: Path, driver: Callable[[], str]) -> tuple[dict[str, str], list[str]]:
    """The sections that some words are nearest to, and the titles of further ones. Raises BadInput where none is, with
    the topics."""
    talk, terms = _pages()[0], {term: meaning(term) for term in names_of_terms()}
    titles = {f"§ {name}": name.replace("_", " ") for name in {**talk, **terms}}  # a § is no word of anybody's
    texts = {key: f"{title} {talk.get(key[2:]) or terms[key[2:]]}" for key, title in titles.items()}
    held = [*map(str.lower, texts.values())]
    telling = [word for word in about.split() if sum(word.lower() in text for text in held) < _TELLING * len(held)]
    sought = " ".join(telling) or about
    by_title, by_text = (matching(sought, texts_, most=_FURTHER) for texts_ in (titles, texts))
    near = [*dict.fromkeys((*by_title[:1], *by_text[:1], *by_title, *by_text))]
    if near:
        sections = {key[2:]: _filled(key[2:], home, driver) or terms[key[2:]] for key in near[:_SECTIONS]}
        return sections, [titles[key] for key in near[_SECTIONS:]]
    raise BadInput(f"no section is near {about[:60]!r}; there are: {', '.join(titles.values())}")
