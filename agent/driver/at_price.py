"""What is typed at a price that waits and is no answer to it: other values are priced, a question is answered.

Nothing is ordered here, and the price is asked about again.
"""

from __future__ import annotations

from tunesmith.agent.commands.approvals import SHOW_ALL, after_no, read_answer
from tunesmith.agent.commands.price import in_a_sentence
from tunesmith.agent.driver import fallback
from tunesmith.agent.driver.fallback import GUESSED, Spoken
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.acts import bare_number, holds_back, order_of
from tunesmith.agent.words.head import NoEncoder
from tunesmith.agent.words.reading import LONGEST, Context, read, read_or_not, reader
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog

_ASKS = 0.6
"""From which probability words without a question mark are a question."""
_OF_THE_PRICE = ("price", "plan.cost", "plan.show", "plan.why", "why")


def heard(deps: TurnDeps, spoken: Spoken, words: str, priced: Plan | None) -> tuple[str, str]:
    """What is said to words at a question, empty where they may be its answer; and the answer that they come to.

    `priced` is the plan whose price waits; None: another question does.
    """
    stage = priced.stage if priced else ""
    decided = read_answer(words, by="terminal", stage=stage)
    rest = after_no(words) if decided and not decided.yes else "" if decided else words
    if not rest or "=" in words or words.strip().lower() in SHOW_ALL or len(words) > LONGEST:
        return "", words
    asks = words.rstrip().endswith(("?", "？"))
    if not asks and (edit := _edit(rest, stage)):
        return "", edit
    return ("" if decided and not asks else _answer(deps, spoken, rest, priced)), words


def _edit(words: str, stage: str) -> str:
    """Words as `field=value …`, where they set fields of the step and nothing holds them back; empty for others."""
    if stage not in catalog.BY_NAME:
        return ""
    slots = slots_of(words)
    order = order_of(stage, slots, lambda word: False)
    bare = bare_number(stage, slots.numbers[0]) if len(slots.numbers) == 1 and _is_a_value(stage, slots) else {}
    values = bare or order.fields
    if not values or (order.unread and not bare) or holds_back(slots):
        return ""
    return " ".join(f"{name}={value}" for name, value in values.items())


def _is_a_value(stage: str, slots: Slots) -> bool:
    """Whether the one number of some words is all that they give: `200`, `make it 150 instead`."""
    reading = read_or_not(slots.sentence, Context(planned=(stage,), moment="price"))
    own = slots.unread([(one.start, one.end) for one in slots.numbers], reader().known("plan.set"))
    so = reading.label == "plan.set" and not (own or slots.all("field"))
    return (reading.sure and so) or not slots.words[1:]


def _answer(deps: TurnDeps, spoken: Spoken, words: str, priced: Plan | None) -> str:
    """The answer to a question that is asked meanwhile; empty for other words."""
    try:
        reading = read(words, fallback.context_of(deps, spoken, planned=(priced.stage,) if priced else ()))
        if priced and reading.label in _OF_THE_PRICE and reading.probability >= 2 * GUESSED:
            return in_a_sentence(priced)
        likely = reading.sure or reading.probability >= (GUESSED if reading.slots.asks else _ASKS)
        answer = fallback.told(deps, spoken, reading) if reading.asks and likely else None
    except NoEncoder:
        return ""
    except TunesmithError as error:
        return str(error)
    note = "" if reading.sure else "\n(I read that with little certainty; nothing was started.)"
    return f"{answer.text}{note}" if answer else ""
