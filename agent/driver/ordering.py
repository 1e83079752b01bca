"""Orders in plain words: the step that they name with its fields, and what is done or refused at once."""

from __future__ import annotations

import re

from tunesmith.agent.driver.look_ups import looked_up
from tunesmith.agent.driver.state_summary import next_stages
from tunesmith.agent.driver.turn_answer import Call, TurnAnswer
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding.entities import Sentence
from tunesmith.agent.driver.understanding.orders import UNASKED, Order, order_of, unknown_arm
from tunesmith.agent.driver.understanding.query import Query
from tunesmith.agent.queries.answer import Context, clip, find
from tunesmith.agent.queries.inherit import inherited
from tunesmith.memory.records import FAILED, RUNNING, STOPPED, Run, Step
from tunesmith.tools.pipeline.plan_file import parse_fields

GO_ON = re.compile(
    r"^(?:please |ok(?:ay)?,? |and |now |then |yes,? |alright,? |let us |lets |let's )*(?:go on|continue|carry on|"
    r"proceed|next(?: step| stage| one)?|the next(?: step| one)|go ahead|keep going|move on|and "
    r"now|what is next then|resume|do the next(?: step| one)?|following step|next please)(?: "
    r"(?:please|then|now|with (?:it|the next step|(?:run )?r\d+)|step))*[.!? ]*$"
)
_ACCEPTS = re.compile(
    r"^(?:(?:ok(?:ay)?|yes|yep|sure|good|great|fine|please|then|so|well|and|alright|let us|lets|let's|i agree|agreed|"
    r"sounds (?:good|fine|great))[,.! ]*)*(?:(?:do|try|run|start|take|use|go (?:with|for)|make) "
    r"(?:that|it|this|so|one|them|what you (?:say|said|propose|suggest)|(?:the |your )?"
    r"(?:(?P<which>first|second|third|last) (?:one|step|suggestion|proposal|thing)?|suggestion|proposal))|"
    r"the (?P<alone>first|second|third|last) (?:one|step|suggestion|proposal)|"
    r"(?:^|(?<= ))(?:yes|go ahead|do))(?: (?:then|please|now|instead|for me))*[.! ]*$"
)
_WHICH = {"first": 0, "second": 1, "third": 2, "last": -1}
_TOPIC = r"\b(?:rows|examples|samples) (?:about|mentioning|concerning) (?!r\d)([\w -]{3,})"
_APPROVES = re.compile(
    r"^(?:\W*\w+\W+){0,2}?(?:approve|accept|authori[sz]e|confirm)\b.{0,24}\b(?:all|every\w*|pending|steps?|it|plans?)\b"
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


def accepted(deps: TurnDeps, s: Sentence) -> TurnAnswer | Call | None:
    """`do that`, after an answer that proposed steps: the one that is meant, to be priced and asked about."""
    match = _ACCEPTS.match(s.text) if deps.proposals else None
    if match is None:
        return None
    at = _WHICH.get(match["which"] or match["alone"] or "first", 0)
    if at >= len(deps.proposals):
        return TurnAnswer(f"Only {len(deps.proposals)} was proposed; say “do that” for it.")
    one, deps.proposals = deps.proposals[at], ()
    fields = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in one.fields.items()}
    return call_of(deps, Order(one.stage, fields, one.run))


def ordered(deps: TurnDeps, s: Sentence) -> TurnAnswer | Call | None:
    if (place := where_report(deps, s)) is not None:
        return place
    if _APPROVES.match(s.text) and not s.asks:
        return TurnAnswer(
            "I approve nothing on anybody's word: each price is shown where its step is asked for, and your own "
            "yes there "
            "starts it. “what is running?” tells what waits."
        )
    if GO_ON.match(s.text):
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
    if order is not None and order.stage == "generate" and (topic := re.search(_TOPIC, s.text)):
        return TurnAnswer(
            f"Rows are drawn from the whole behaviour and not by a topic such as “{clip(topic[1], 40)}”: say "
            f"“generate” with "
            f"a number, or add examples of that kind to the behaviour and generate then. Nothing was begun."
        )
    if order is not None and s.has(UNASKED):
        return TurnAnswer(
            f"Nothing that costs something starts without its price and your yes, and I cannot leave that out. Say "
            f"“{order.stage}” and its price is shown; `--yes` on the command line agrees beforehand."
        )
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
        return looked_up(deps, Query(kind="machine"))
    fields = inherited(deps.ws, order.stage, order.fields, order.run, again=order.again, times=order.factors)
    if order.unread:
        was = f"it would be {fields[order.unread]}" if order.unread in fields else "it would be the usual"
        return TurnAnswer(
            f"Which {order.unread}? As things are {was}. Say “{order.stage} with {order.unread}=…” with a value, "
            f"and its price is shown before anything starts."
        )
    checked = parse_fields(order.stage, fields)
    if order.unused and not all(order.foreign):
        return TurnAnswer(
            f"I do not know what the {order.unused} is for, so nothing was begun. Say it with its field, such as "
            f"“{order.stage} with FIELD={order.unused}”; `/help {order.stage}` lists the fields."
        )
    if all(order.foreign):
        name, stage = order.foreign
        return TurnAnswer(
            f"{order.stage} has no {name}; that is set in {stage}. Say “{order.stage}” without it, or “{stage} with "
            f"{name}=…” first; nothing was begun."
        )
    return Call(order.stage, {**checked, **({"run": order.run} if order.run else {})})


def _next(deps: TurnDeps, s: Sentence) -> TurnAnswer | Call:
    run = find(deps.store, s.run) if s.run else deps.current_run()
    if run is not None and (ended_badly := _ended_badly(deps, run)):
        arm = {"arm": ended_badly.request["arm"]} if ended_badly.request.get("arm") else {}
        return call_of(deps, Order(ended_badly.stage, arm, run=s.run, again=True))
    following = next_stages(deps.store, run)
    if not following:
        name = run.id if run else "no run"
        return TurnAnswer(
            f"Every step of {name} is done. Ask “what should I try next?”, or say what another model should learn."
        )
    return call_of(deps, Order(following[0], run=s.run, again=False))


def _ended_badly(deps: TurnDeps, run: Run) -> Step | None:
    """The newest step of a run where it failed or was stopped: it is what goes on."""
    newest = deps.store.steps(run.id)[-1:]
    return newest[0] if newest and newest[0].status in (FAILED, STOPPED) else None


def where_report(deps: TurnDeps, s: Sentence) -> TurnAnswer | None:
    """Where the report lies, for who asks that; None for other words."""
    if not re.search(r"\bwhere\b.{0,16}\breports?\b", s.text):
        return None
    run = find(deps.store, s.run) if s.run else deps.focused_run()
    file = deps.store.home / "runs" / (run.id if run else "") / "report.html"
    if run and file.exists():
        return TurnAnswer(f"The report of {run.id} lies in {file}.")
    return TurnAnswer(f"No report of {run.id if run else 'any run'} is written yet; say “write a report of r1”.")


def _report(deps: TurnDeps, s: Sentence) -> TurnAnswer:
    from tunesmith.agent.commands.summary import write_run_report

    run = Context(deps.ws, deps.focused_run()).run(s.run)
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
