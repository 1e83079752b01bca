"""What a sentence comes to where code can tell: words for the user at once, or the step that was ordered. No model.

Everything here reads the store or changes the proposed plan; a step that costs something is only named, so that it goes
the one way of all steps: price, approval, worker, record.
"""

from __future__ import annotations

import re

from tunesmith.agent.driver import describing, draft_editing, interview, odd_words, plan_words, turn_errors
from tunesmith.agent.driver.look_ups import asks, facts_for, fits, follows, talk
from tunesmith.agent.driver.ordering import GO_ON, accepted, ordered, where_report
from tunesmith.agent.driver.planning import PlanFineTune, plan_fine_tune
from tunesmith.agent.driver.turn_answer import Call, TurnAnswer
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding.entities import Sentence, sentence_of
from tunesmith.agent.driver.understanding.orders import order_of, pace_of, quantizes, wants_a_behaviour
from tunesmith.agent.driver.understanding.parts import parts_of
from tunesmith.agent.driver.understanding.questions import query_of
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.tools.data.description import missing


def decide(deps: TurnDeps) -> TurnAnswer | Call | None:
    """What the user's words come to; None: the driver has to say. Errors are told in words."""
    s = sentence_of(deps.prompt, deps.store.runs())
    try:
        answer = _decide(deps, s)
    except TunesmithError as error:
        turn_errors.went_wrong(deps, "query_records", error)
        deps.note(str(error))
        answer = TurnAnswer(str(error))
    return _not_twice(deps, answer) if isinstance(answer, TurnAnswer) else answer


_IT = re.compile(r"\bit\b", re.IGNORECASE)
_OF_THE_FIRST = re.compile(r"\b(?:it|its|they|them|their|those|these|that|this|he|one|ones)\b")


_LINES_OF_ALL = 6


def steps_of(deps: TurnDeps) -> list[str]:
    """The user's words, cut into the things that they ask for one after the other, where code can carry out each."""
    deps.most_lines = 0
    parts = parts_of(deps.prompt)
    if len(parts) == 1 or deps.draft is not None or describing.open_interview(deps.store.home):
        return [deps.prompt]
    parts = _with_names(parts, [sentence_of(part, deps.store.runs()) for part in parts])
    read = [sentence_of(part, deps.store.runs()) for part in parts]
    plain = all(query_of(s) or order_of(s) or GO_ON.match(s.text) for s in read)
    orders = [order_of(s) is not None for s in read]
    if any(not order and _OF_THE_FIRST.search(s.text) for s, order in zip(read[1:], orders[1:], strict=True)):
        return [deps.prompt]  # “…, and what did it answer?” asks more of the same
    # An order changes what a later part would be about, so that only the last one may be one.
    if not plain or any(orders[:-1]):
        return [deps.prompt]
    deps.most_lines = _LINES_OF_ALL // len(parts)
    return parts


def _with_names(parts: list[str], read: list[Sentence]) -> list[str]:
    """The parts with `it` as the model or the step that the first one names, where they ask for other kinds of facts.

    Of the same kind, as in `which cases failed and what did it answer`, the first answer holds the second.
    """
    first = query_of(read[0])
    name = f"the {read[0].arm} model" if read[0].arm else read[0].stage
    if not (first and name):
        return parts
    later = [(part, query_of(s)) for part, s in zip(parts[1:], read[1:], strict=True)]
    return [
        parts[0],
        *(_IT.sub(name, part) if asked and asked.kind != first.kind else part for part, asked in later),
    ]


def _not_twice(deps: TurnDeps, answer: TurnAnswer) -> TurnAnswer:
    """The same answer to other words is said to be the same, so that nobody thinks that he was not heard."""
    if answer.text == deps.last_answer and answer.tool != "describe_behaviour":
        more = " “Show all” gives the whole page." if deps.page is not None else ""
        answer = TurnAnswer(
            f"{answer.text}\n(That is all I can say to this; ask for something else of it, or name a run.{more})",
            answer.told,
            answer.tool,
            answer.arguments,
        )
    deps.last_answer = answer.text.partition("\n(That is all I can")[0]
    return answer


def _decide(deps: TurnDeps, s: Sentence) -> TurnAnswer | Call | None:
    if not re.search(r"\w", s.text):
        return TurnAnswer("I did not catch that. Ask about a run, or say what a model should learn.")
    if opened := describing.open_interview(deps.store.home):
        return _interview(deps, opened, s)
    for reads in (_around, _draft, accepted, _wants, follows, fits, talk, ordered, asks, _odd):
        if (answer := reads(deps, s)) is not None:
            return answer
    return None


# A description that is open


def _interview(deps: TurnDeps, opened: describing.Interview, s: Sentence) -> TurnAnswer:
    def aside(words: str) -> str | None:
        answer = facts_for(deps, s) or where_report(deps, s)
        return answer.text if answer else None

    try:
        if draft_editing.ASKS_FOR_IT.match(s.text):
            after, words = _edited(deps, opened)
        else:
            after, words = interview.turn(deps.store.home, opened, s, aside, deps.drafts_before)
    except BadInput as error:
        return TurnAnswer(str(error), tool="describe_behaviour")
    if after is None or missing(after.draft) or words:
        return TurnAnswer(
            words,
            told="(the description goes on)",
            tool="describe_behaviour",
            arguments={"act": "answer" if after else "drop"},
        )
    deps.show(interview.draft_table(after))
    result = plan_words.finish_description(deps, after)
    return TurnAnswer(result, tool="describe_behaviour", arguments={"act": "answer"})


def _edited(deps: TurnDeps, opened: describing.Interview) -> tuple[describing.Interview | None, str]:
    """The draft after the user's editor, and what is asked next. Raises BadInput."""
    if deps.edit is None:
        raise BadInput(f"there is no terminal to open an editor on. {opened.question}")
    after = draft_editing.taken_from(deps.edit(draft_editing.as_text(opened)), deps.store.home, opened)
    deps.show(interview.draft_table(after))
    return after, after.question if missing(after.draft) else ""


def _around(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """The page behind the last answer, or that answer once more."""
    if (words := odd_words.page(deps, s)) is not None:
        return TurnAnswer(words, told="(the page is on the screen)")
    return TurnAnswer(words) if (words := odd_words.again(deps, s)) is not None else None


def _odd(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    return TurnAnswer(words) if (words := odd_words.odd(deps, s)) is not None else None


# The plan that is proposed


def _draft(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    if deps.draft is None:
        return None
    turned = plan_words.turn(deps, s)
    return TurnAnswer(turned.text, tool=turned.tool, arguments=turned.arguments) if turned else None


# Something new


def _wants(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    if not wants_a_behaviour(s):
        return None
    args = PlanFineTune(goal=deps.prompt, pace=pace_of(s.text), quantize=quantizes(s.text))  # type: ignore[arg-type]
    plan_fine_tune(deps, args, None)
    text, deps.say_next = deps.say_next, ""
    text = text or "The plan is on your screen, with every step's price."
    return TurnAnswer(text, tool="plan_fine_tune", arguments=args.model_dump())
