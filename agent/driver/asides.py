"""Words at a question about a price that are neither a yes nor a no: a question back, or other values."""

from __future__ import annotations

from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.driver.look_ups import facts_for
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.assignments import assigned
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.slots import slots_of
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
    """Words that set fields of a step to values, such as `yes but with rank 8 and two epochs`, as `field=value …`."""
    if "=" in words or "?" in words or read_answer(words, by="terminal") is not None:
        return ""
    found = assigned(slots_of(words), (stage,))
    return " ".join(f"{one.field}={one.value}" for one in found if isinstance(one.value, int | float | str))
