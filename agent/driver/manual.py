"""The product's own pages for the driver: what it is, does and sends, how a thing is done, and what terms mean."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from tunesmith.agent.driver.look_ups import talk_text
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.answer import matching
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.yaml_file import read_own

_SECTIONS = 3
"""That some words are nearest to: a page of them would hide the one."""


@cache
def _pages() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Topic → its text, and term → what it means."""
    page = read_own(files("tunesmith.prompts") / "glossary.yaml")
    return page["talk"], {term: meaning for term, (_, meaning) in page["terms"].items()}


def manual(deps: TurnDeps, about: str) -> dict[str, str]:
    """The sections that some words are nearest to. Raises BadInput where none is, with the topics."""
    talk, terms = _pages()
    texts = {name: f"{name.replace('_', ' ')} {text}" for name, text in {**talk, **terms}.items()}
    if found := matching(about, texts, most=_SECTIONS):
        return {name: talk_text(deps, name) if name in talk else terms[name] for name in found}
    topics = ", ".join(name.replace("_", " ") for name in texts)
    raise BadInput(f"no section is near {about[:60]!r}; there are: {topics}")
