"""Words at a question about a price that are neither a yes nor a no: a question back, or other values."""

from __future__ import annotations

import re

from tunesmith.agent.driver.look_ups import facts_for
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding.entities import sentence_of
from tunesmith.agent.driver.understanding.values import values_named
from tunesmith.agent.driver.understanding.words import readable
from tunesmith.memory.errors import TunesmithError

_REFUSES = re.compile(r"\W*(?:no|nope|not|don'?t|do not|never|stop|cancel|too|nein)\b", re.IGNORECASE)


def aside(deps: TurnDeps, words: str) -> str:
    """What the records say to a question that is asked while another one waits for its answer; empty for other words.

    Nothing is ordered here: only facts, terms and what would fit are told.
    """
    s = sentence_of(words, deps.store.runs())
    if _REFUSES.match(words) or not s.asks or "=" in words:
        return ""
    try:
        answer = facts_for(deps, s)
    except TunesmithError as error:
        return str(error)
    return answer.text if answer else ""


def as_edit(words: str, stage: str) -> str:
    """Words that set fields of a step to values, such as `yes but with rank 8 and two epochs`, as `field=value …`."""
    if _REFUSES.match(words) or "=" in words or "?" in words:
        return ""
    values = values_named(readable(words), (stage,), words)
    return " ".join(f"{name}={value}" for name, value in values.items() if isinstance(value, int | float | str))
