"""Questions on their way to the facts: answered from the records, remembered for what follows them."""

from __future__ import annotations

from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.driver import talk
from tunesmith.agent.driver.describing import open_interview
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import Answer, ordinary
from tunesmith.agent.queries.findings import FindingsQuery
from tunesmith.agent.queries.one_case import CaseQuery
from tunesmith.agent.queries.registry import Request, answer, tool_of
from tunesmith.agent.queries.rows import RowsQuery
from tunesmith.agent.queries.settings import SettingQuery
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.agent.words import reading
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.memory.errors import TunesmithError

CAN_ANSWER = (
    "I can answer how long a step took, what passed, which cases failed, why a setting has its value, what would fit "
    "here, what to try next; or say what a model should learn."
)


def looked_up(deps: TurnDeps, request: Request) -> TurnAnswer:
    """The answer to a typed question, as what a turn comes to. Raises NotFound, BadInput."""
    deps.last_query = request
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


def why(deps: TurnDeps) -> TurnAnswer:
    """`why?` after an answer: the reason as far as the records hold one."""
    before = deps.last_query
    if before is None:
        return TurnAnswer(f"Of what? {CAN_ANSWER}")
    if isinstance(before, StepQuery):
        return looked_up(deps, before.model_copy(update={"about": "failure"}))
    if isinstance(before, RowsQuery):
        return looked_up(deps, before.model_copy(update={"about": "reasons"}))
    if isinstance(before, CaseQuery):
        return looked_up(deps, before.model_copy(update={"about": "wanted"}))
    if isinstance(before, SettingQuery):
        return looked_up(deps, before.model_copy(update={"about": "value"}))
    about = {name: getattr(before, name, "") for name in ("run", "arm", "block")}
    return looked_up(deps, FindingsQuery.model_validate({**about, "about": "why" if about["block"] else "all"}))


def said_in(deps: TurnDeps) -> reading.Context:
    """What the words of this turn are said in."""
    return reading.Context(
        runs=tuple(ordinary(deps.store)),
        planned=tuple(dict.fromkeys(spec.stage for spec in deps.draft.steps)) if deps.draft else (),
        describing=open_interview(deps.store.home) is not None,
        before=deps.last_query,
    )


def facts_for(deps: TurnDeps, words: str) -> TurnAnswer | None:
    """The answer to a question, from the records or the glossary; nothing is changed or begun. Raises NotFound."""
    return told(deps, reading.read(words, said_in(deps)))


def told(deps: TurnDeps, found: reading.Reading) -> TurnAnswer | None:
    """The same of words that were read."""
    if not found.sure:
        return None
    if found.request is not None:
        return looked_up(deps, found.request)
    kind, _, name = found.label.partition(".")
    return talk.as_answer(
        talk.said_to(deps, name) if kind == "talk" else talk.meaning(found.slots) if kind == "term" else ""
    )


# At a question about a price: a question back, or other values


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
    if "=" in words or "?" in words or len(words) > reading.LONGEST or read_answer(words, by="terminal") is not None:
        return ""
    found = reading.read_or_not(words, reading.Context(planned=(stage,)))
    edits = found.edits
    if not found.sure or found.label == "plan.what_if" or edits is None:
        return ""
    if edits.unread or edits.without or edits.model or edits.last or edits.pace:
        return ""
    return " ".join(f"{one.field}={one.value}" for one in edits.values if isinstance(one.value, int | float | str))
