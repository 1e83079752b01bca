"""Questions on their way to the facts: read by code, answered from the records, remembered for what follows them."""

from __future__ import annotations

import re

from tunesmith.agent.driver import odd_words
from tunesmith.agent.driver.turn_answer import TurnAnswer
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding import case_questions, machine_questions, small_talk, trial_questions
from tunesmith.agent.driver.understanding.entities import Sentence, sentence_of
from tunesmith.agent.driver.understanding.follow_ups import follow_up
from tunesmith.agent.driver.understanding.query import Query
from tunesmith.agent.driver.understanding.questions import query_of
from tunesmith.agent.driver.understanding.typed import typed
from tunesmith.agent.queries.answer import Answer, Context, ordinary
from tunesmith.agent.queries.registry import Request, answer, tool_of
from tunesmith.agent.queries.settings import SettingQuery
from tunesmith.memory.errors import TunesmithError


def facts_for(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """The answer to a question, from the records or the glossary; nothing is changed or begun. Raises NotFound."""
    return fits(deps, s) or talk(deps, s) or asks(deps, s)


def talk(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    text = small_talk.said_to(s, driver=deps.driver_state, home=str(deps.store.home))
    if text and s.fields and re.search(r"\bthe\b", s.text) and (value := _value_now(deps, s)):
        text = f"{text}\n{value}"
    return TurnAnswer(text) if text else None


def _value_now(deps: TurnDeps, s: Sentence) -> str:
    """The value of a term that is a setting, where a run has it."""
    try:
        return answer(SettingQuery(fields=(s.fields[0],)), Context(deps.ws, deps.focused_run())).lines[0]
    except TunesmithError:
        return ""


def fits(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """Whether a model would fit, and a case by its id: before the terms and the talk that their names hold."""
    found = trial_questions.trial(s) or machine_questions.fits(s) or case_questions.one_case(s)
    return looked_up(deps, found) if found else None


_PRONOUN = re.compile(r"\b(?:it|they|them|that one|this one|those|these)\b", re.IGNORECASE)


def asks(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """The answer to a question that code reads; None for other words."""
    query = _of_what_was_named(deps, s) or query_of(s)
    return looked_up(deps, query) if query else None


def _of_what_was_named(deps: TurnDeps, s: Sentence) -> Query | None:
    """A question about `it` as one about the model or the step that was asked about before; None where that reads no
    other way, or something is named."""
    before = deps.last_query
    if before is None or s.arms or s.runs or s.stages or s.step or s.model or not _PRONOUN.search(s.said):
        return None
    name = before.stage if before.kind in ("step", "setting") else f"the {before.arm} model" if before.arm else ""
    if not name:
        return None
    plain, named = query_of(s), query_of(sentence_of(_PRONOUN.sub(name, s.said, 1), deps.store.runs()))
    return named if named is not None and (plain is None or named.kind == plain.kind) else None


def looked_up(deps: TurnDeps, query: Query) -> TurnAnswer:
    deps.last_query = query
    request = typed(query)
    found = look_up(deps, request)
    return TurnAnswer(
        "\n".join(found.lines[: deps.most_lines or None]),
        told=found.for_model,
        tool=tool_of(request),
        arguments=request.model_dump(mode="json", exclude_defaults=True),
    )


def look_up(deps: TurnDeps, request: Request) -> Answer:
    """Answer a typed question; what it was about is remembered for the next one. Raises NotFound, BadInput."""
    found = answer(request, deps.records())
    remember(deps, request, found)
    return found


def remember(deps: TurnDeps, request: Request, found: Answer) -> None:
    """What was asked about, the page behind the answer and the steps that it proposes, for the words after it."""
    deps.focused_run_id = getattr(request, "run", "") or deps.focused_run_id
    deps.page, deps.proposals = found.page, found.proposals
    deps.note(found.for_model)


_BARE_WHY = re.compile(
    r"^(?:and |but |ok(?:ay)?,? |so |hm+,? )*(?:why(?: is that| so| not| was that)?|how come|"
    r"and|so|really|meaning|explain(?: that| it)?|(?:why|how) do you (?:think|say|know)(?: so| that| this)?|"
    r"what makes you (?:think|say) (?:so|that)|how come you (?:think|say) (?:so|that)|(?:based|going) on what|says who|"
    r"what is (?:that|this|it) based on|what is the evidence|any (?:evidence|proof))[?!. ]+$|"
    r"^(?:and|but) ?(?:why|then)?\?*$"
)


def _why_so(deps: TurnDeps, before: Query | None) -> TurnAnswer:
    """`why?` after an answer: the reason as far as the records hold one."""
    if before is None:
        return TurnAnswer(f"Of what? {odd_words.CAN_ANSWER}")
    about = before.model_copy(update={"aspect": "why"})
    if before.kind not in ("step", "rows", "setting") and not (before.kind == "cases" and before.text):
        about = Query(
            kind="findings", run=before.run, arm=before.arm, block=before.block, aspect="why" if before.block else ""
        )
    return looked_up(deps, about)


def follows(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """A few words that change one thing of the question before, or ask why."""
    before = deps.last_query
    if _BARE_WHY.match(s.text):
        return _why_so(deps, before)
    changed = follow_up(before, s, [run.id for run in ordinary(deps.store)]) if before else None
    return looked_up(deps, changed) if changed else None
