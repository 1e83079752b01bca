"""What the readers of questions share."""

from __future__ import annotations

import re

from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.query import Query


def query(kind: str, s: Sentence, **more: object) -> Query:
    """A question of a kind, about the run and the step that the sentence names."""
    given = {"run": s.run, "step": s.step, **more}
    return Query.model_validate(
        {"kind": kind, **{name: value for name, value in given.items() if value not in (None, "")}}
    )


def quoted(text: str) -> str:
    """The words between quotation marks; empty where none are."""
    match = re.search(r"[\"“”«»]([^\"“”«»]{3,})[\"“”«»]|(?:^|\s)'([^']{4,})'(?=\s|$|[?.,])", text)
    return (match[1] or match[2]).strip() if match else ""
