"""What a sentence comes to where code can tell: words for the user at once, or the step that was ordered. No model.

Everything here reads the store or changes the proposed plan; a step that costs something is only named, so that it goes
the one way of all steps: price, approval, worker, record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.agent.driver import describing, draft_editing, interview, odd_words, plan_words, turn_errors
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, find
from tunesmith.agent.driver.facts.lookup import answer
from tunesmith.agent.driver.inherit import inherited
from tunesmith.agent.driver.planning import PlanFineTune, plan_fine_tune
from tunesmith.agent.driver.state_summary import next_stages
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding import machine_questions, result_questions, small_talk
from tunesmith.agent.driver.understanding.entities import Sentence, sentence_of
from tunesmith.agent.driver.understanding.orders import (
    Order,
    order_of,
    pace_of,
    quantizes,
    unknown_arm,
    wants_a_behaviour,
)
from tunesmith.agent.driver.understanding.parts import parts_of
from tunesmith.agent.driver.understanding.query import Query
from tunesmith.agent.driver.understanding.questions import query_of
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.records import RUNNING
from tunesmith.tools.data.description import missing
from tunesmith.tools.pipeline.plan_file import parse_fields


@dataclass(frozen=True, slots=True)
class TurnAnswer:
    """Words that answer the turn; `told` is what a model may read of them later."""

    text: str
    told: str = ""
    tool: str = ""
    """The tool that did it, for the events of a script; empty: none."""
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A step that was ordered, with its fields."""

    tool: str
    arguments: Mapping[str, object]


def decide(deps: TurnDeps) -> TurnAnswer | Call | None:
    """What the user's words come to; None: the driver has to say. Errors are told in words."""
    s = sentence_of(deps.prompt, deps.store.runs())
    try:
        answer = _decide(deps, s)
    except TunesmithError as error:
        turn_errors.went_wrong(deps, "look_up", error)
        deps.note(str(error))
        answer = TurnAnswer(str(error))
    return _not_twice(deps, answer) if isinstance(answer, TurnAnswer) else answer


_OF_THE_FIRST = re.compile(r"\b(?:it|its|they|them|their|those|these|that|this|he|one|ones)\b")


def steps_of(deps: TurnDeps) -> list[str]:
    """The user's words, cut into the things that they ask for one after the other, where code can carry out each."""
    parts = parts_of(deps.prompt)
    if len(parts) == 1 or deps.draft is not None or describing.open_interview(deps.store.home):
        return [deps.prompt]
    read = [sentence_of(part, deps.store.runs()) for part in parts]
    plain = all(query_of(s) or order_of(s) or _GO_ON.match(s.text) for s in read)
    orders = [order_of(s) is not None for s in read]
    if any(not order and _OF_THE_FIRST.search(s.text) for s, order in zip(read[1:], orders[1:], strict=True)):
        return [deps.prompt]  # “…, and what did it answer?” asks more of the same
    # An order changes what a later part would be about, so that only the last one may be one.
    return parts if plain and not any(orders[:-1]) else [deps.prompt]


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
    for reads in (_around, _draft, _wants, _fits, _talk, _ordered, _asks, _follows, _odd):
        if (answer := reads(deps, s)) is not None:
            return answer
    return None


# A description that is open


def _interview(deps: TurnDeps, opened: describing.Interview, s: Sentence) -> TurnAnswer:
    def aside(words: str) -> str | None:
        answer = facts_for(deps, s)
        return answer.text if answer else None

    try:
        if draft_editing.ASKS_FOR_IT.match(s.text):
            after, words = _edited(deps, opened)
        else:
            after, words = interview.turn(deps.store.home, opened, s, aside)
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


def facts_for(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """The answer to a question, from the records or the glossary; nothing is changed or begun. Raises NotFound."""
    return _fits(deps, s) or _talk(deps, s) or _asks(deps, s)


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


# Small talk, terms


def _talk(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    text = small_talk.said_to(s, driver=deps.driver_name, home=str(deps.store.home))
    if text and s.fields and re.search(r"\bthe\b", s.text) and (value := _value_now(deps, s)):
        text = f"{text}\n{value}"
    return TurnAnswer(text) if text else None


def _value_now(deps: TurnDeps, s: Sentence) -> str:
    """The value of a term that is a setting, where a run has it."""
    try:
        return answer(Question(Query(kind="setting", field=s.fields[0]), deps.ws, deps.focused_run())).lines[0]
    except TunesmithError:
        return ""


def _fits(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """Whether a model would fit, and a case by its id: before the terms and the talk that their names hold."""
    found = machine_questions.fits(s) or result_questions.one_case(s)
    return _look_up(deps, found) if found else None


# Orders

_GO_ON = re.compile(
    r"^(?:please |ok(?:ay)?,? |and |now |then |yes,? |alright,? |let us |lets |let's )*(?:go on|continue|carry on|"
    r"proceed|next(?: step| stage| one)?|the next(?: step| one)|go ahead|keep going|move on|and "
    r"now|what is next then|resume|do the next(?: step| one)?|following step|next please)(?: "
    r"(?:please|then|now|with (?:it|the next step|(?:run )?r\d+)|step))*[.!? ]*$"
)
_REPORT = re.compile(
    r"\b(?:write|make|create|generate|give|export|produce|build|open|show|need|want)\b.{0,24}\breports?\b|^report\b"
)
_STOP = re.compile(
    r"^(?:please |can you |could you |now )*(?:stop|cancel|kill|abort|end|halt|interrupt)(?: "
    r"(?:the|this|that|it|all|every|my|job|jobs|training|step|run|running|everything|current|"
    r"evaluation|generation|s\d+|r\d+|now|please))*[.! ]*$"
)
_WHOLE_RUN = re.compile(
    r"^(?:please |can you |could you )*(?:run|repeat|redo|copy|clone|rename|duplicate) (?:run "
    r")?r\d+\b"
)
_DELETE = re.compile(
    r"\b(?:delete|erase|wipe|remove|rm|destroy|drop)\b.{0,24}\b(?:runs?|r\d+|everything|all|"
    r"database|store|models?|files?|tables?|history|artifacts?|home|disk)\b"
)


def _ordered(deps: TurnDeps, s: Sentence) -> TurnAnswer | Call | None:
    if re.search(r"\bwhere\b.{0,16}\breports?\b", s.text):
        return _where_report(deps, s)
    if _GO_ON.match(s.text):
        return _next(deps, s)
    if _REPORT.search(s.text) and not re.search(r"what .{0,20}report|report (?:says|said)", s.text):
        return _report(deps, s)
    if _WHOLE_RUN.match(s.text):
        return TurnAnswer(
            "A whole run is not repeated, copied or renamed: its steps are done again one "
            "by one, such as “train again in "
            "r1”, and another run begins with saying what a model should learn."
        )
    if _STOP.match(s.text):
        return _stop(deps, s)
    if _DELETE.search(s.text) and not s.asks and not re.search(r"\brows?\b|duplicat", s.text):
        return TurnAnswer(
            "I delete nothing: runs, models and rows stay as they are, since later steps and answers rest "
            "on them. Files lie in "
            f"{deps.store.home} if you want to remove some yourself."
        )
    order = order_of(s)
    if order is None or (deps.draft is not None and order.stage != "inspect"):
        return None
    if wrong := unknown_arm(s, order.stage):
        there = (
            "adapter, merged, quantized" if order.stage == "deploy" else "base, prompted, adapter, merged, quantized"
        )
        return TurnAnswer(f"There is no “{clip(wrong, 30)}” model to {order.stage}; there are: {there}.")
    return call_of(deps, order)


def call_of(deps: TurnDeps, order: Order) -> TurnAnswer | Call:
    """The call that carries an order out, its fields checked and the run's own ways taken over. Raises BadInput."""
    if order.stage == "inspect":
        return _look_up(deps, Query(kind="machine"))
    fields = inherited(deps.ws, order)
    if order.unread:
        was = f"it would be {fields[order.unread]}" if order.unread in fields else "it would be the usual"
        return TurnAnswer(
            f"Which {order.unread}? As things are {was}. Say “{order.stage} with {order.unread}=…” with a value, "
            f"and its price is shown before anything starts."
        )
    checked = parse_fields(order.stage, fields)
    return Call(order.stage, {**checked, **({"run": order.run} if order.run else {})})


def _next(deps: TurnDeps, s: Sentence) -> TurnAnswer | Call:
    run = find(deps.store, s.run) if s.run else deps.current_run()
    following = next_stages(deps.store, run)
    if not following:
        name = run.id if run else "no run"
        return TurnAnswer(
            f"Every step of {name} is done. Ask “what should I try next?”, or say what another model should learn."
        )
    return call_of(deps, Order(following[0], run=s.run, again=False))


def _where_report(deps: TurnDeps, s: Sentence) -> TurnAnswer:
    run = find(deps.store, s.run) if s.run else deps.focused_run()
    file = deps.store.home / "runs" / (run.id if run else "") / "report.html"
    if run and file.exists():
        return TurnAnswer(f"The report of {run.id} lies in {file}.")
    return TurnAnswer(f"No report of {run.id if run else 'any run'} is written yet; say “write a report of r1”.")


def _report(deps: TurnDeps, s: Sentence) -> TurnAnswer:
    from tunesmith.agent.commands.summary import write_run_report

    run = Question(Query(kind="run", run=s.run), deps.ws, deps.focused_run()).run()
    written = write_run_report(deps.store, run.id)
    verdict = f" {clip(written.verdict, 300)}" if written.verdict else ""
    text = f"The report of {run.id} is written: {written.path}.{verdict}"
    return TurnAnswer(text, tool="report", arguments={"run": run.id})


def _stop(deps: TurnDeps, s: Sentence) -> TurnAnswer:
    running = deps.store.steps(status=RUNNING)
    if not running:
        return TurnAnswer("Nothing is running, so there is nothing to stop.")
    step = next((one for one in running if one.id == s.step or one.stage in s.stages), running[0])
    return TurnAnswer(
        f"{step.stage} ({step.id} of {step.run}) is running; `/stop {step.id}` ends it, after one more question."
    )


# Questions


def _asks(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    query = query_of(s)
    return _look_up(deps, query) if query else None


def _look_up(deps: TurnDeps, query: Query) -> TurnAnswer:
    answer = look_up(deps, query)
    return TurnAnswer(
        "\n".join(answer.lines), told=answer.facts, tool="look_up", arguments=query.model_dump(exclude_defaults=True)
    )


def look_up(deps: TurnDeps, query: Query) -> Answer:
    """Answer a typed question; what it was about is remembered for the next one. Raises NotFound, BadInput."""
    deps.last_query = query
    reply = answer(Question(query, deps.ws, deps.focused_run(), deps.draft))
    if query.run:
        deps.focused_run_id = query.run
    deps.page = reply.page
    deps.note(reply.facts)
    return reply


_FOLLOWS = re.compile(
    r"^(?:and|what about|how about|same for|same with|also|but|or|ok and|now|then|so|the same "
    r"(?:for|in|of))\b|^(?:in |for |of |the )?(?:r\d+|adapter|merged|quantized|base|general|target|"
    r"tools|adversarial)\b"
)


_BARE_WHY = re.compile(
    r"^(?:and |but |ok(?:ay)?,? |so |hm+,? )*(?:why(?: is that| so| not| was that)?|how come|"
    r"and|so|really|meaning|explain(?: that| it)?)[?!. ]+$|^(?:and|but) ?(?:why|then)?\?*$"
)


def _why_so(deps: TurnDeps, before: Query | None) -> TurnAnswer:
    """`why?` after an answer: the reason as far as the records hold one."""
    if before is None:
        return TurnAnswer(f"Of what? {odd_words.CAN_ANSWER}")
    about = before.model_copy(update={"aspect": "why"})
    if before.kind not in ("step", "rows", "setting"):
        about = Query(
            kind="findings", run=before.run, arm=before.arm, block=before.block, aspect="why" if before.block else ""
        )
    return _look_up(deps, about)


def _follows(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """A few words that change one thing of the question before: `and in r1?`, `what about the general block?`"""
    before = deps.last_query
    if _BARE_WHY.match(s.text):
        return _why_so(deps, before)
    if before is None or len(s.text.split()) > 9 or not _FOLLOWS.match(s.text):
        return None
    changed = {
        "run": s.run,
        "arm": s.arm,
        "block": s.block,
        "stage": s.stage,
        "outcome": s.outcome,
        "field": next(iter(s.fields), ""),
        "step": s.step,
        "model": s.model,
    }
    given = {name: value for name, value in changed.items() if value}
    if not given:
        return None
    if len(s.runs) > 1:
        given["other_run"] = s.runs[1]
    return _look_up(deps, before.model_copy(update={**given, "text": ""}))
