"""Words at a question about a price that are neither a yes nor a no: a question back, or other values."""

from __future__ import annotations

from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.driver.look_ups import facts_for
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.reading import LONGEST, Context, read_or_not
from tunesmith.memory.errors import TunesmithError


def aside(deps: TurnDeps, words: str) -> str:
    """What the records say to a question that is asked while another one waits for its answer; empty for other words.

    Nothing is ordered here: only facts, terms and what would fit are told.
    """
    if "=" in words or read_answer(words, by="terminal") is not None:
        return ""
    try:
        answer = facts_for(deps, words)
    except NoEncoder:
        return ""
    except TunesmithError as error:
        return str(error)
    return answer.text if answer else ""


def as_edit(words: str, stage: str) -> str:
    """Words that set fields of a step to values, such as `yes but with rank 8 and two epochs`, as `field=value …`.

    Empty for every other answer, for one that only speaks of a value, and for one with a word that no field took.
    """
    if "=" in words or "?" in words or len(words) > LONGEST or read_answer(words, by="terminal") is not None:
        return ""
    found = read_or_not(words, Context(planned=(stage,)))
    edits = found.edits
    if not found.sure or found.label == "plan.what_if" or edits is None:
        return ""
    if edits.unread or edits.without or edits.model or edits.last or edits.pace:
        return ""
    return " ".join(f"{one.field}={one.value}" for one in edits.values if isinstance(one.value, int | float | str))
