"""What a sentence comes to where it is read with certainty: words for the user, or the step that was ordered. No model.

Everything here reads the store or changes the proposed plan; a step that costs something is only named, so that it goes
the one way of all steps: price, approval, worker, record. What is read with less certainty is the driver's to say.
"""

from __future__ import annotations

from dataclasses import replace

from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver import describing, look_ups, named_files, opening, ordering
from tunesmith.agent.driver.choosing import on_the_better
from tunesmith.agent.driver.follow_ups import YES, follow_up
from tunesmith.agent.driver.interview import ASIDE, interviewed
from tunesmith.agent.driver.look_ups import answer_to, looked_up, remember_call, remember_setting, turn_context, why
from tunesmith.agent.driver.parts import Part, is_part
from tunesmith.agent.driver.planning import PlanFineTune, edited_plan, plan_fine_tune, takes_now
from tunesmith.agent.driver.standing import standing
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.driver.unsure import NUMBERS, did_you_mean, guessed_part, naming, there_for, unsure_of
from tunesmith.agent.queries.answer import find
from tunesmith.agent.queries.following import lacking_before
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.words.acts import Order
from tunesmith.agent.words.edits import edits_of
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.lexicon import words_in, words_of
from tunesmith.agent.words.reading import LONGEST, Reading, read, reader
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import PLANNED, RUNNING

_GOES_BACK = "talk.roll_back_how"
_NO_TEXT = "talk.images"
"""What is asked by who wants a model of pictures or sound; beside a wish its likeliest other reading."""
_TEXT_ALONE = 0.97
"""From which probability of a wish that other reading counts for nothing: meeting notes into haikus have .999, what
draws, describes or hears something .83 to .95."""
_TOO_LONG = (
    "That is {:,} characters at once; I read sentences of up to {}. Say in one what you want; rows of your own come "
    "with `/import FILE`."
)
_ACTS, _FEW = ("go_on", "accept"), 5
"""Kinds of words that come to a step and name none; words of a yes."""
_NOTHING = "I did not catch that. Ask about a run, or say what a model should learn."


def decide(deps: TurnDeps) -> TurnAnswer | Call | None:
    """What the user's words come to; None: the driver has to say. Errors are told in words."""
    try:
        answer = _decide(deps)
    except NoEncoder as error:
        if describing.open_interview(deps.store.home) is None:
            deps.show(f"(your words go to the driver unread: {error})")
        return None
    except TunesmithError as error:
        deps.went_wrong("query_records", error)
        deps.note(str(error))
        answer = TurnAnswer(str(error))
    return _not_twice(deps, answer) if isinstance(answer, TurnAnswer) else answer


def _not_twice(deps: TurnDeps, answer: TurnAnswer) -> TurnAnswer:
    """The same answer to other words is said to be the same, so that nobody thinks that he was not heard."""
    if answer.text == deps.last_answer and answer.tool != "describe_behaviour":
        more = " “Show all” gives the whole page." if deps.page is not None else ""
        told = f"(That is all I can say to this; ask for something else of it, or name a run.{more})"
        answer = replace(answer, text=f"{answer.text}\n{told}")
    deps.last_answer = answer.text.partition("\n(That is all I can")[0]
    return answer


def _decide(deps: TurnDeps) -> TurnAnswer | Call | None:
    if not any(letter.isalnum() for letter in deps.prompt):
        return TurnAnswer(_NOTHING)
    if opened := describing.open_interview(deps.store.home):
        return interviewed(deps, opened)
    (words, labels), deps.offered = deps.offered, ("", ())
    if label := dict(zip(NUMBERS, labels, strict=False)).get(deps.prompt.strip()):  # fewer labels than numbers
        return _picked(deps, words, label)
    reading = read(deps.prompt[:LONGEST], replace(turn_context(deps), said="" if deps.most_lines else deps.said))
    of_a_file = deps.draft is None and named_files.means_a_file(deps, reading)
    of_its_own = of_a_file or (reading.sure and reading.kind != "want")
    if deps.draft is None and (
        opening.describes(deps.prompt) or (not of_its_own and opening.may_describe(deps.prompt))
    ):
        return _described(deps)
    if len(deps.prompt) > LONGEST and not (reading.sure and reading.kind == "want"):
        return TurnAnswer(_TOO_LONG.format(len(deps.prompt), LONGEST))
    if _agrees_to_a_proposal(deps, reading):
        return ordering.accepted(deps, reading.slots)
    if reading.label == _GOES_BACK and reading.slots.all("choice.rollback") and not Part("", reading).begins_to_ask:
        reading = reader().read(deps.prompt, turn_context(deps), "do.deploy")
    if deps.most_lines and not reading.sure and is_part(reading):
        reading = replace(reading, sure=True)
    elif deps.most_lines and not reading.sure and (likely := guessed_part(deps, reading)) is not None:
        return likely
    deps.nearest = tuple(one for one in reading.nearest if there_for(deps, one))[: len(NUMBERS)]
    deps.unsure = None if reading.sure else reading
    if of_a_file:
        return named_files.told(deps, named_files.file_in(reading.slots), reading.slots)
    before, outcome = deps.last_query, follow_up(deps, reading)
    if outcome is None:
        outcome = answered(deps, reading) if reading.sure else None
    if deps.last_query is before:
        remember_setting(deps, reading.slots)
    if isinstance(outcome, Call):
        remember_call(deps, outcome)
    return _with_what_is_left(deps, outcome, acts=reading.order is not None or reading.kind in _ACTS)


def _agrees_to_a_proposal(deps: TurnDeps, reading: Reading) -> bool:
    """Whether words say yes to a step that was told with its price, or proposed and nothing else is read in them, or
    few that nobody is sure of most likely do: its price is asked about then."""
    if deps.draft is not None or not deps.proposals or (reading.sure and not isinstance(deps.last_query, PriceQuery)):
        return False
    answer = read_answer(deps.prompt, by="terminal", stage=deps.proposals[0].stage)
    also = {*YES, "do.approve", *(f"do.{one.stage}" for one in deps.proposals)}
    likely = len(reading.likely) > 1 and reading.likely[0] in YES and reading.likely[1] in also
    few = not reading.sure and len(reading.slots.words) <= _FEW and not reading.slots.all("not")
    return (answer is not None and answer.yes and not answer.reason) or (few and likely)


def _with_what_is_left(deps: TurnDeps, outcome: TurnAnswer | Call | None, *, acts: bool) -> TurnAnswer | Call | None:
    """What comes of the words, with what else they ask for: before a price where that is an order, behind an answer."""
    later = " and ".join(f"“{one}”" for one in deps.later)
    if later and isinstance(outcome, Call):
        come = "comes" if len(deps.later) == 1 else "come"
        deps.show(prose(f"(First {outcome.tool}; {later} {come} after it, at a price of its own{_if_said(deps)}.)"))
    elif later and isinstance(outcome, TurnAnswer) and acts:
        deps.later, outcome = (), replace(outcome, text=f"{outcome.text}\n({later} was not begun either.)")
    elif deps.only_if and isinstance(outcome, Call) and outcome.tool:
        deps.show(prose(f"(The price of {outcome.tool} waits for your yes{_if_said(deps)}.)"))
    elif deps.rest and isinstance(outcome, Call):
        deps.show(prose(unsure_of(deps, deps.rest)))
    elif deps.rest and isinstance(outcome, TurnAnswer):
        outcome = naming(deps, outcome, deps.rest)
    return outcome


def _if_said(deps: TurnDeps) -> str:
    return f"; “{deps.only_if}” is yours to judge there" if deps.only_if else ""


def _picked(deps: TurnDeps, words: str, label: str) -> TurnAnswer | Call:
    """What was not understood, now that its meaning was picked. Of an order or a change of the plan what nobody
    understood is left out; the price or the plan shows what is left, and is asked about."""
    deps.prompt = words
    deps.note(words)
    meant = reader().read(words, turn_context(deps), label)
    if meant.order is not None:
        meant = replace(meant, order=replace(meant.order, unread=()))
    if meant.edits is not None:
        meant = replace(meant, edits=replace(meant.edits, unread=()))
    offered = reader().head.offer(label)
    return answered(deps, meant) or TurnAnswer(f"Say it so: “{offered}”.")


def answered(deps: TurnDeps, reading: Reading) -> TurnAnswer | Call | None:
    """What a reading comes to; None where code cannot carry it out. Raises NotFound, BadInput."""
    if deps.draft is not None and (turned := ordering.turn(deps, reading)) is not None:
        return turned
    if reading.request is not None:
        request = look_ups.of_its_base(deps, reading)
        return look_ups.with_what_is_next(deps, reading.slots, request, looked_up(deps, request), standing)
    kind, _, name = reading.label.partition(".")
    if kind == "do":
        return _done(deps, reading, name)
    if kind in ("talk", "term"):
        return answer_to(deps, reading)
    match kind:
        case "page":
            return TurnAnswer(look_ups.page(deps), for_model="(the page is on the screen)")
        case "why":
            return why(deps)
        case "accept":
            return ordering.accepted(deps, reading.slots)
        case "go_on":
            return ordering.next_step(deps, reading.slots.first("run"))
        case "yes" if deps.proposals:
            return ordering.accepted(deps, reading.slots)
        case "yes" | "no":
            return _nothing_waits(deps)
        case "want":
            return _wanted(deps, reading)
        case "out_of_scope" | "code":
            return TurnAnswer(look_ups.talk_text(deps, kind))
        case "remark" | "again":
            return TurnAnswer(did_you_mean(deps))
    return None


def _done(deps: TurnDeps, reading: Reading, act: str) -> TurnAnswer | Call | None:
    """An order: carried out as a call, done at once, or refused."""
    if text := look_ups.talk_text(deps, f"do_{act}"):  # what is never carried out
        return TurnAnswer(text)
    if act == "stop":
        return ordering.stop(deps, reading)
    if act == "report":
        return ordering.report(deps, reading.slots.first("run"))
    chosen = on_the_better(deps, reading) if deps.by_result is not None else reading
    if isinstance(chosen, TurnAnswer):
        return chosen
    if chosen.order is None:
        return None
    order = chosen.order
    known, before = reader().known(_GOES_BACK), tuple(words_in("before_that"))
    points_back = not order.run and any(word.written.startswith(before) for word in reading.slots.words)
    if act == "deploy" and not order.fields and points_back and _GOES_BACK in reading.likely[1:3]:  # `das von davor`
        said = ((text, words_of(text)) for text in order.unread)
        unread = (text for text, words in said if not all(known(w.text) or w.written.startswith(before) for w in words))
        order = replace(order, fields={"rollback": True}, unread=tuple(unread))
    newest = deps.current_run()
    if newest is not None and not order.run and deps.focused_run_id not in ("", newest.id):
        deps.show(
            prose(f"(This is of {newest.id}, the newest run; name {deps.focused_run_id} to have it of that one.)")
        )
    return _after_what_runs(deps, order) or ordering.call_of(deps, order)


def _after_what_runs(deps: TurnDeps, order: Order) -> TurnAnswer | None:
    """An order that needs what a step at work is making is taken up once that has ended; None for others."""
    run = find(deps.store, order.run) if order.run else deps.current_run()
    if deps.end is None or run is None or order.unread or order.denied or order.fields.get("rollback"):
        return None
    lacking, before = lacking_before(deps.store, run, order.stage, order.fields)
    makes = {stage.split()[0] for stage in before}
    running = next((step for step in deps.store.steps(run.id, status=RUNNING) if step.stage in makes), None)
    if not lacking or running is None or len(makes) > 1:
        return None
    deps.kept[running.id] = tuple(dict.fromkeys((*deps.kept.get(running.id, ()), deps.prompt)))
    return TurnAnswer(
        f"{order.stage} needs what {running.stage} ({running.id}) is making. Once that has ended its price is shown by "
        f"itself, and asked about; nothing was begun."
    )


def _nothing_waits(deps: TurnDeps) -> TurnAnswer:
    """A yes or a no to nothing."""
    open_ = "No question of mine is open, so nothing was started."
    for one in deps.store.steps(status=PLANNED)[-1:]:
        open_ = f"{one.stage} ({one.id}) waits for a yes: say “{one.stage}” and its price is shown again."
    return TurnAnswer(f"{open_} Say what to do, or “go on” for the next step.")


def _described(deps: TurnDeps) -> TurnAnswer:
    """A behaviour told in some sentences: its first question, behind the answers to what is asked beside it."""
    asides = []
    for asked in opening.questions_beside(deps.prompt):
        reading = read(asked, turn_context(deps))
        likely = replace(reading, sure=reading.sure or reading.probability >= ASIDE)
        asides += [found.text] if (found := answer_to(deps, likely)) else []
    wish = reader().read(opening.beside(deps.prompt)[:LONGEST], turn_context(deps), "want")
    answer = _wanted(deps, wish)
    return replace(answer, text="\n".join((*asides, answer.text)))


def _wanted(deps: TurnDeps, reading: Reading) -> TurnAnswer:
    """A new behaviour: its plan, with every value that the words give to a setting, or the first question about it."""
    # `something that draws cats`: nobody should describe it for nothing
    if reading.likely[1:2] == (_NO_TEXT,) and reading.probability < _TEXT_ALONE:
        deps.offered = (deps.prompt, (reading.label,))
        limit = look_ups.talk_text(deps, _NO_TEXT.removeprefix("talk."))
        return TurnAnswer(f"{limit} Type 1 if text is what the model is to answer with: its description begins then.")
    slots = reading.slots
    pace = "fast" if slots.first("pace") == "fast" else "full"
    said = {slots.negated(slot) for slot in slots.all("stage") if slot.value == "quantize"}
    # pydantic checks it: a pace is one of two words
    args = PlanFineTune(goal=deps.prompt, pace=pace, quantize="no" if True in said else "yes" if said else "auto")  # type: ignore[arg-type]
    plan_fine_tune(deps, args)
    text, deps.say_next = deps.say_next, ""
    text = text or "The plan is on your screen, with every step's price."
    if deps.draft is not None:
        text = _with_values(deps, reading) or text
    return TurnAnswer(text, tool="plan_fine_tune", arguments=args.model_dump())


def _with_values(deps: TurnDeps, reading: Reading) -> str:
    """The plan with the values that the wish named; what is said of it. Empty: it named none."""
    assert deps.draft is not None
    planned = tuple(dict.fromkeys(spec.stage for spec in deps.draft.steps))
    edits = edits_of(reading.slots, planned, lambda word: True, leaves_out=False)
    limits = tuple(
        reading.slots.sentence[n.start : n.end] for n in reading.slots.numbers if n.unit in ("min", "h", "day")
    )
    plan, changes = edited_plan(deps, deps.draft, edits)
    lines = []
    if changes and plan != deps.draft:
        takes = takes_now(deps, plan)
        lines.append(f"The plan has what you said: {', '.join(changes)}; about {takes} in all. "
                     f"Start it, or change something?")  # fmt: skip
    if limits or edits.unread:
        lines.append(ordering.unread_notice((*limits, *edits.unread), "the plan goes without it"))
    return "\n".join(lines)
