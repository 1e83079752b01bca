"""Words around the questions: the page behind an answer, the answer once more, and words that ask nothing at all."""

from __future__ import annotations

import re

from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.queries.answer import clip
from tunesmith.memory.records import PLANNED

# The page behind the last answer

_PAGE = re.compile(
    r"^(?:please )?(?:show|list|give|print|see|tell)?(?: me)?(?: the)?(?: whole)? ?(?:all|"
    r"everything|every one|full|whole|the rest|more|page|full page|whole page|details?|long "
    r"version|full list|whole list|all of (?:them|it))(?: of (?:it|them|that))?(?: please)?[.! "
    r"?]*$"
)


def page(deps: TurnDeps, s: Sentence) -> str | None:
    """Show the page behind the last answer, where it is asked for."""
    if not _PAGE.match(s.text):
        return None
    if deps.page is None:
        return "There is no longer version of the last answer; ask about a run, its cases, rows or settings."
    deps.show(deps.page())
    return "That is the whole page."


_SAY_AGAIN = re.compile(
    r"^(?:please |can you |could you |sorry,? |what,? )*(?:what did you (?:just )?say|(?:say|"
    r"repeat|tell me) (?:that|it|this|yourself|the last (?:answer|one|thing))"
    r"(?: again| please)*|come again|once more|pardon(?: me)?|say again|your last answer|repeat(?: please)?)[?.! ]*$"
)


def again(deps: TurnDeps, s: Sentence) -> str | None:
    """What was said last, once more."""
    if not _SAY_AGAIN.match(s.text):
        return None
    said, deps.last_answer = deps.last_answer, ""
    return f"Once more: {said}" if said else "I have said nothing yet in this conversation."


# What is no question and no order

_CODE = re.compile(
    r"^\s*(?:[{<\[]|select\b.+\bfrom\b|(?:sudo|rm|ls|cd|cat|git|pip|python3?|bash|sh|curl|"
    r"drop table|import)\s+[-\w/.~*])",
    re.I | re.S,
)
_ANSWERS_NOTHING = re.compile(
    r"^(?:yes|no|y|n|yep|yeah|nope|sure|nah|do it|go ahead|ja|nein|agreed|i agree|approved?)[ .!]*$"
)
_TO_US = re.compile(
    r"\b(?:are|were) (?:you|there any \w+ in you)\b|\b(?:can|could|will) you\b|\bdo you (?:have|know|live|sleep|eat)\b|"
    r"\byour (?:favou?rite|mother|name|age|hobby)|\bslept\b|how old are|where (?:are|do) you|"
    r"^(?:good|happy|merry) (?:morning|evening|day|christmas|birthday|weekend)\b"
)
_FEW = 9
_LONE = re.compile(r"^(?:[\d.,%+-]+|[^\W\d_]+)[.!? ]*$")


def odd(deps: TurnDeps, s: Sentence) -> str | None:
    """Words that ask and order nothing: told as what they are, with what can be said instead."""
    if _ANSWERS_NOTHING.match(s.text):
        waits = [step for step in deps.store.steps(status=PLANNED) if deps.draft is None][-1:]
        open_ = (
            f"{waits[0].stage} ({waits[0].id}) waits for a yes: say “{waits[0].stage}” and its price is shown again."
            if waits
            else "No question of mine is open, so nothing was started."
        )
        return f"{open_} Say what to do, or “go on” for the next step."
    if _TO_US.search(s.text) and len(s.text.split()) <= _FEW and not _of_trade(s):
        return OUT_OF_SCOPE
    if _CODE.match(s.said) or re.search(r"(?:run|execute|type|eval)\b.{0,16}(?:`[^`]+`|\brm -|\bsudo\b)", s.text):
        sql = " `/sql SELECT …` reads the records." if re.match(r"\s*(?:select|with)\b", s.said, re.I) else ""
        return f"That looks like code; I carry out none and did nothing.{sql} {CAN_ANSWER}"
    if _LONE.match(s.text) and not s.asks and not (s.stages or s.arms or s.blocks or s.fields or s.model):
        return f"I do not know what to do with “{clip(s.said, 40)}” alone. {CAN_ANSWER}"
    return None


def _of_trade(s: Sentence) -> bool:
    """Whether a sentence names anything of the trade."""
    return bool(s.stages or s.arms or s.blocks or s.fields or s.model or s.runs or s.step or s.outcome)


OUT_OF_SCOPE = (
    "That is not what I am for: I fine-tune models and know this computer and its runs. Ask me about those, or say "
    "what a model should learn."
)
CAN_ANSWER = (
    "I can answer how long a step took, what passed, which cases failed, why a setting has its value, what would fit "
    "here, what to try next; or say what a model should learn."
)
