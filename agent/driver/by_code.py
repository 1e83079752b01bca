"""What a sentence comes to where it is read with certainty: words for the user, or the step that was ordered. No model.

Everything here reads the store or changes the proposed plan; a step that costs something is only named, so that it goes
the one way of all steps: price, approval, worker, record. What is read with less certainty is the driver's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver import describing, look_ups, named_files, ordering
from tunesmith.agent.driver.choosing import on_the_better
from tunesmith.agent.driver.follow_ups import follow_up, remember_call, remember_standing
from tunesmith.agent.driver.interview import interviewed
from tunesmith.agent.driver.look_ups import (
    CAN_ANSWER,
    GUESSED,
    answer_to,
    looked_up,
    moment,
    turn_context,
    why,
)
from tunesmith.agent.driver.parts import is_part, parted
from tunesmith.agent.driver.planning import PlanFineTune, edited_plan, plan_fine_tune, show_draft
from tunesmith.agent.driver.restated import restated
from tunesmith.agent.driver.standing import standing, while_it_runs
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.driver.worries import worry
from tunesmith.agent.queries.answer import find, ordinary
from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.comparisons import CompareQuery, CompareRunsQuery
from tunesmith.agent.queries.following import forecast_of, lacking_before, next_stages
from tunesmith.agent.queries.machine import JobsQuery, at_work
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.queries.registry import answer as query_answer
from tunesmith.agent.queries.scores import arms_measured, passed_by
from tunesmith.agent.queries.settings import SettingsQuery
from tunesmith.agent.words.acts import Order
from tunesmith.agent.words.edits import edits_of
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.reading import LONGEST, Reading, read, reader
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import PLANNED, RUNNING
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import StepSpec

_CHANGES_NOTHING = (
    "plan.show", "plan.cost", "plan.why", "plan.what_if", "plan.wait", "plan.before", "setting.sensible",
)  # fmt: skip
_NO_TEXT = "talk.images"
"""What is asked by who wants a model of pictures or sound; beside a wish its likeliest other reading."""
_BESIDE = 2
"""The first lines of where somebody stands, and the last, are behind a general text that was only guessed."""
_TOO_LONG = (
    "That is {:,} characters at once; I read sentences of up to {}. Say in one what you want; rows of your own come "
    "with `/import FILE`."
)
_PERHAPS = 0.3
"""From which probability a question is answered beside where things stand: of strangers' sentences between it and
GUESSED half are read rightly."""
_ACTS = ("go_on", "accept")
"""Kinds of words that come to a step and name none."""
_NUMBERS = ("1", "2", "3")
"""Of questions that are offered."""
_NOT_UNDERSTOOD = "I did not understand that; nothing was changed or begun."
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
        answer = TurnAnswer(
            f"{answer.text}\n(That is all I can say to this; ask for something else of it, or name a run.{more})",
            answer.for_model,
            answer.tool,
            answer.arguments,
        )
    deps.last_answer = answer.text.partition("\n(That is all I can")[0]
    return answer


def _decide(deps: TurnDeps) -> TurnAnswer | Call | None:
    if not any(letter.isalnum() for letter in deps.prompt):
        return TurnAnswer(_NOTHING)
    if opened := describing.open_interview(deps.store.home):
        return interviewed(deps, opened)
    (words, labels), deps.offered = deps.offered, ("", ())
    if label := dict(zip(_NUMBERS, labels, strict=False)).get(deps.prompt.strip()):  # fewer labels than numbers
        return _picked(deps, words, label)
    reading = read(deps.prompt[:LONGEST], turn_context(deps))
    if len(deps.prompt) > LONGEST and not (reading.sure and reading.kind == "want"):
        return TurnAnswer(_TOO_LONG.format(len(deps.prompt), LONGEST))
    if _agrees_to_a_proposal(deps, reading):
        return ordering.accepted(deps, reading.slots)
    if deps.most_lines and not reading.sure and is_part(reading):
        reading = replace(reading, sure=True)
    elif deps.most_lines and not reading.sure and (likely := _guessed_part(deps, reading)) is not None:
        return likely
    deps.nearest = tuple(one for one in reading.nearest if _there_for(deps, one))[: len(_NUMBERS)]
    deps.unsure = None if reading.sure else reading
    if deps.draft is None and named_files.means_a_file(deps, reading):
        return named_files.told(deps, named_files.file_in(reading.slots), reading.slots)
    outcome = worry(deps, reading) or follow_up(deps, reading)
    if outcome is None:
        outcome = answered(deps, reading) if reading.sure else None
    if isinstance(outcome, Call):
        remember_call(deps, outcome)
    return _with_what_is_left(deps, outcome, acts=reading.order is not None or reading.kind in _ACTS)


def _guessed_part(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """The answer to what a part of a sentence most likely asks, called a guess; None where it is too unlikely."""
    answer = _unsure_answer(deps, reading) if reading.probability >= GUESSED else None
    unsure = f"(I read “{deps.prompt}” with little certainty.)"
    return None if answer is None else replace(answer, text=f"{answer.text}\n{unsure}")


def _agrees_to_a_proposal(deps: TurnDeps, reading: Reading) -> bool:
    """Whether words say yes to a step that was told with its price, or proposed and nothing else is read in them: its
    price is asked about then."""
    if deps.draft is not None or not deps.proposals or (reading.sure and not isinstance(deps.last_query, PriceQuery)):
        return False
    answer = read_answer(deps.prompt, by="terminal", stage=deps.proposals[0].stage)
    return answer is not None and answer.yes and not answer.reason


def _with_what_is_left(deps: TurnDeps, outcome: TurnAnswer | Call | None, *, acts: bool) -> TurnAnswer | Call | None:
    """What comes of the words, with what else they ask for: before a price where that is an order, behind an answer."""
    later = " and ".join(f"“{one}”" for one in deps.later)
    if later and isinstance(outcome, Call):
        come = "comes" if len(deps.later) == 1 else "come"
        deps.show(prose(f"(First {outcome.tool}; {later} {come} after it, at a price of its own.)"))
    elif later and isinstance(outcome, TurnAnswer) and acts:
        deps.later, outcome = (), replace(outcome, text=f"{outcome.text}\n({later} was not begun either.)")
    elif deps.rest and isinstance(outcome, Call):
        deps.show(prose(_unsure_of(deps, deps.rest)))
    elif deps.rest and isinstance(outcome, TurnAnswer):
        outcome = _naming(deps, outcome, deps.rest)
    return outcome


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


def _naming(deps: TurnDeps, answer: TurnAnswer, rest: str) -> TurnAnswer:
    """An answer that names what of two things it leaves open."""
    return replace(answer, text=f"{answer.text}\n{_unsure_of(deps, rest)}")


def _unsure_of(deps: TurnDeps, rest: str) -> str:
    """What is said of a part that nobody understood, with what it may mean."""
    understood = read(rest, turn_context(deps))
    nearest, slots = understood.nearest, understood.slots
    if slots.all("model") and "train" in (*slots.values("stage"), *slots.values("work")):
        return (f"(“{rest}” was not begun. “train” trains the run's own base; another one is fetched by its whole name "
                f"on the hub: “fetch OWNER/NAME” prices it.)")  # fmt: skip
    meant = f"; did you mean {_numbered(deps, nearest, rest)}? Type its number" if nearest else "; ask it by itself"
    return f"(What “{rest}” asks I am not sure of{meant}.)"


def answered(deps: TurnDeps, reading: Reading) -> TurnAnswer | Call | None:
    """What a reading comes to; None where code cannot carry it out. Raises NotFound, BadInput."""
    if deps.draft is not None and (turned := ordering.turn(deps, reading)) is not None:
        return turned
    if reading.request is not None:
        request = look_ups.of_its_base(deps, reading)
        return _with_what_is_next(deps, reading.slots, request, looked_up(deps, request))
    kind, _, name = reading.label.partition(".")
    if kind == "do":
        return _done(deps, reading, name)
    if kind in ("talk", "term"):
        return answer_to(deps, reading)
    match kind:
        case "page":
            return TurnAnswer(look_ups.page(deps), for_model="(the page is on the screen)")
        case "again":
            return TurnAnswer(restated(deps, name), for_model="(the last answer, once more, is on the screen)")
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
            return TurnAnswer(look_ups.PLAIN[kind])
        case "remark":
            return TurnAnswer(did_you_mean(deps) if reading.nearest else look_ups.PLAIN[kind])
    return None


def _with_what_is_next(deps: TurnDeps, slots: Slots, request: Query, answer: TurnAnswer) -> TurnAnswer:
    """What is going on, where nothing is: what came last, and what is next; of results the test that still runs, and
    of several models that are named those that were not tested."""
    stands: list[str] = []
    if request == JobsQuery() and moment(deps) not in ("running", "served"):
        stands = [standing(deps)]
    elif request.kind in _RESULTS:
        tests = [step for step in deps.store.steps(status=RUNNING) if catalog.ENTRIES[step.stage].load().measures]
        stands = [f"{at_work(step)} Its results are not among these." for step in tests]
        run, named = deps.focused_run(), slots.values("arm")
        measured = arms_measured(deps.store, run.id) if run and len(named) > 1 else named
        stands += [f"{run.id} has no answers of the {arm} arm." for arm in named if run and arm not in measured]
        if run and isinstance(request, CompareQuery) and len(named) > 2:  # two are compared
            more = [arm for arm in named if arm in measured and f" {arm} " not in answer.text]
            stands += [f"{arm}: {passed}." for arm in more if (passed := passed_by(deps.store, run.id, arm))]
    stands += _of_other_runs(deps, slots, request)
    return replace(answer, text="\n".join([answer.text, *filter(None, stands)]).strip())


def _of_other_runs(deps: TurnDeps, slots: Slots, request: Query) -> list[str]:
    """The same of the other runs that are named, where the question takes one; of settings in what they differ."""
    runs, asked = slots.values("run"), getattr(request, "run", "")
    if request.kind not in _OF_ONE_RUN or asked not in runs:
        return []
    others, context = [run for run in runs if run != asked], deps.records()
    replies = [query_answer(request.model_copy(update={"run": run}), context).lines for run in others]
    lines = [line for told in replies for line in told[: deps.most_lines or None]]
    if isinstance(request, SettingsQuery) and len(others) == 1:
        both = CompareRunsQuery(about="settings", run=asked, other_run=others[0])
        lines += query_answer(both, context).lines[:1]
    return [line for line in lines if line]


_OF_ONE_RUN = ("settings", "setting", "result", "run", "step", "steps", "curve", "findings", "artifact", "disk_use")
"""Questions about one run whose answers are short enough to stand below one another."""
_RESULTS = ("result", "compare", "cases", "findings", "confusion")


def _done(deps: TurnDeps, reading: Reading, act: str) -> TurnAnswer | Call | None:
    """An order: carried out as a call, done at once, or refused."""
    if text := ordering.refused(deps, act):
        return TurnAnswer(text)
    if act == "stop":
        return ordering.stop(deps, reading)
    if act == "report":
        return ordering.report(deps, reading.slots.first("run"))
    chosen = on_the_better(deps, reading)
    if isinstance(chosen, TurnAnswer):
        return chosen
    if chosen.order is None:
        return None
    return _after_what_runs(deps, chosen.order) or ordering.call_of(deps, chosen.order)


def _after_what_runs(deps: TurnDeps, order: Order) -> TurnAnswer | None:
    """An order that needs what a step at work is making is taken up once that has ended; None for others."""
    run = find(deps.store, order.run) if order.run else deps.current_run()
    if deps.end is None or run is None or order.unread or order.denied or order.fields.get("rollback"):
        return None
    lacking, before = lacking_before(deps.store, run, order.stage, str(order.fields.get("arm", "")))
    makes = {stage.split()[0] for stage in before}
    running = next((step for step in deps.store.steps(run.id, status=RUNNING) if step.stage in makes), None)
    if not lacking or running is None or len(makes) > 1:
        return None
    deps.kept[running.id] = (*deps.kept.get(running.id, ()), deps.prompt)
    return TurnAnswer(
        f"{order.stage} needs what {running.stage} ({running.id}) is making. Once that has ended its price is shown by "
        f"itself, and asked about; nothing was begun."
    )


def _nothing_waits(deps: TurnDeps) -> TurnAnswer:
    """A yes or a no to nothing."""
    waits = deps.store.steps(status=PLANNED)[-1:]
    open_ = (
        f"{waits[0].stage} ({waits[0].id}) waits for a yes: say “{waits[0].stage}” and its price is shown again."
        if waits
        else "No question of mine is open, so nothing was started."
    )
    return TurnAnswer(f"{open_} Say what to do, or “go on” for the next step.")


def _wanted(deps: TurnDeps, reading: Reading) -> TurnAnswer:
    """A new behaviour: its plan, with every value that the words give to a setting, or the first question about it."""
    slots = reading.slots
    pace = "fast" if slots.first("pace") == "fast" else "full"
    no_quantizing = any(slots.negated(slot) for slot in slots.all("stage") if slot.value == "quantize")
    # pydantic checks it: a pace is one of two words
    args = PlanFineTune(goal=deps.prompt, pace=pace, quantize=not no_quantizing)  # type: ignore[arg-type]
    plan_fine_tune(deps, args)
    text, deps.say_next = deps.say_next, ""
    text = text or "The plan is on your screen, with every step's price."
    if deps.draft is not None:
        text = _with_values(deps, reading) or text
    if reading.likely[1:2] == (_NO_TEXT,):  # `something that draws cats`: nobody should describe it for nothing
        text = f"{look_ups.talk_text(deps, _NO_TEXT.removeprefix('talk.'))}\n{text}"
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
        deps.change(plan)
        summary = show_draft(deps)
        lines.append(f"The plan has what you said: {', '.join(changes)}; about {summary['estimated_in_all']} in all. "
                     f"Start it, or change something?")  # fmt: skip
    if limits or edits.unread:
        lines.append(ordering.unread_notice((*limits, *edits.unread), "the plan goes without it"))
    return "\n".join(lines)


def guessed(deps: TurnDeps, *, doubted: bool = False) -> TurnAnswer | None:
    """The answer to the question that words most likely are, for a turn that no driver can answer; None for an act, and
    where it is too unlikely. What else they may be is offered behind it, and what of two things was not read is named.
    Where it is `doubted`, or hardly likely, it stands beside where things stand.
    """
    reading = deps.unsure
    if reading is None:
        return None
    try:
        if (half := _half(deps)) is not None:
            return half
        perhaps = reading.probability >= _PERHAPS and (reading.request is not None or reading.kind == "talk")
        guess = _unsure_answer(deps, reading) if perhaps or reading.probability >= GUESSED else None
    except TunesmithError:
        return None
    if guess is None:
        return None
    stands = standing(deps)
    if (doubted or reading.probability < GUESSED) and stands not in guess.text:
        guess = replace(guess, text=f"{stands}\nPerhaps you ask for this. {guess.text}")
    else:
        beside = while_it_runs(deps.store, guess.text)  # a guess may miss what matters now
        if not beside and reading.label.startswith("talk.") and moment(deps) not in ("empty", "finished"):
            beside = [*dict.fromkeys((*stands.splitlines()[:_BESIDE], *stands.splitlines()[-1:]))]
        guess = replace(guess, text="\n".join([guess.text, *beside]))
    others = f"; or did you mean {_numbered(deps, deps.nearest[1:])}? Type its number" if deps.nearest[1:] else ""
    return replace(guess, text=f"{guess.text}\n(I read that with little certainty{others}.)")


def _numbered(deps: TurnDeps, questions: Sequence[str], words: str = "") -> str:
    """Questions with numbers, and the price of what they order; a number alone, in the next turn, means the words of
    this one so."""
    labels = tuple(reader().head.label_of(question) for question in questions)
    deps.offered = (words or deps.prompt, labels)
    return ", ".join(
        f"{number} “{question}”{_price_beside(deps, label)}"
        for number, question, label in zip(_NUMBERS, questions, labels, strict=False)  # fewer questions than numbers
    )


def _there_for(deps: TurnDeps, question: str) -> bool:
    """Whether a question that may be offered orders nothing, or a step for which the run has what it needs."""
    entry = catalog.ENTRIES.get(reader().head.label_of(question).removeprefix("do."))
    if entry is None:
        return True
    run = deps.focused_run()
    kinds = {artifact.kind for artifact in deps.store.artifacts(run.id)} if run else set()
    return kinds.issuperset((*entry.needs, *entry.load().usually_after))


def _price_beside(deps: TurnDeps, label: str) -> str:
    """What a step that is offered will probably take, in brackets; empty where nobody can tell."""
    stage, run = label.removeprefix("do."), deps.focused_run()
    if stage == label or run is None or stage not in next_stages(deps.store, run):
        return ""
    try:
        [ahead] = forecast_of(deps.records(), run, [StepSpec(stage=stage)])
    except TunesmithError:
        return ""
    return f" (about {ahead.price})" if ahead.seconds is not None else ""


def _unsure_answer(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """The answer to what words most likely ask, of the open plan too; None where they may change something."""
    if deps.draft is not None and reading.label in _CHANGES_NOTHING:
        return ordering.turn(deps, reading)
    answer = answer_to(deps, replace(reading, sure=reading.slots.words != ()))
    if answer is None or reading.request is None:
        return answer
    return _with_what_is_next(deps, reading.slots, reading.request, answer)


def _half(deps: TurnDeps) -> TurnAnswer | None:
    """The answer to that one of two questions which is read with certainty; the other is named."""
    for parts in parted(deps.prompt, turn_context(deps)):
        sure = [one for one in parts if one.reading.sure and one.reading.request and not parts[0].paused]
        if len(sure) == 1 and (answer := answer_to(deps, sure[0].reading)) is not None:
            return _naming(deps, answer, next(one.text for one in parts if one is not sure[0]))
    return None


def did_you_mean(deps: TurnDeps) -> str:
    """Where the user stands, and the questions that the words are nearest to, for a turn that nobody can answer."""
    stands = f"{_NOT_UNDERSTOOD}\n{standing(deps)}".rstrip() + "\n"
    remember_standing(deps, slots_of(deps.prompt, ordinary(deps.store)))
    if not deps.nearest:
        return f"{stands}{CAN_ANSWER}"
    return f"{stands}Did you mean: {_numbered(deps, deps.nearest)}? Type its number, or say it in other words."
