"""What a sentence comes to where it is read with certainty: words for the user, or the step that was ordered. No model.

Everything here reads the store or changes the proposed plan; a step that costs something is only named, so that it goes
the one way of all steps: price, approval, worker, record. What is read with less certainty is the driver's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from tunesmith.agent.driver import describing, look_ups, ordering
from tunesmith.agent.driver.interview import interviewed
from tunesmith.agent.driver.look_ups import (
    CAN_ANSWER,
    GUESSED,
    answer_to,
    looked_up,
    moment,
    standing,
    turn_context,
    why,
)
from tunesmith.agent.driver.planning import PlanFineTune, edited_plan, plan_fine_tune, show_draft
from tunesmith.agent.driver.restated import restated
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.machine import JobsQuery, at_work
from tunesmith.agent.words.edits import edits_of
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.lexicon import lexicon, words_of
from tunesmith.agent.words.reading import LONGEST, Reading, read, reader
from tunesmith.agent.words.slots import Slot, slots_of
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import PLANNED, RUNNING
from tunesmith.tools.pipeline import catalog

_LINES_OF_ALL = 6
"""Lines of two answers together: as many as one answer has."""
_MOST_CUTS = 3
"""Each has both parts read, some milliseconds: few places in a sentence may part two questions."""
_SECOND, _CLAUSE = 0.6, 3
"""From which probability and how many words a part behind a question that is read with certainty is one too: what the
question before it is makes another one likely, and one or two words are its end."""
_FEWEST_WORDS = 2
_CHANGES_NOTHING = ("plan.show", "plan.cost", "plan.why", "plan.what_if", "plan.wait")
_SENTENCE_ENDS = "?.!;"
_TOO_LONG = (
    "That is {:,} characters at once; I read sentences of up to {}. Say in one what you want; rows of your own come "
    "with `/import FILE`."
)
_NUMBERS = ("1", "2", "3")
"""Of questions that are offered."""
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


def steps_of(deps: TurnDeps) -> list[str]:
    """The user's words, cut into the things that they ask for one after the other, where each is read with certainty.

    An order changes what a later part would be about, so that only the last one may be one.
    """
    deps.most_lines, deps.rest = 0, ""
    whole = [deps.prompt]
    if deps.draft is not None or describing.open_interview(deps.store.home) or len(deps.prompt) > LONGEST:
        return whole
    try:
        for halves in [*_cut(deps.prompt)][:_MOST_CUTS]:
            if _asks_for_each(deps, halves):
                deps.most_lines = _LINES_OF_ALL // len(halves)
                return halves
    except NoEncoder:  # no encoder: it is read as one
        pass
    return whole


def _cut(text: str) -> Iterator[list[str]]:
    """A sentence in two, at each place where one ends or a word such as `and` joins two things said; not where it joins
    two that are named, as in `r1 and r2`."""
    words, named = words_of(text), slots_of(text).named
    joints = {match.first for match in lexicon()["joints"].find(words)}
    for at, (one, two) in enumerate(pairwise(words)):
        between = text[one.end : two.start]
        ended = one.end + next((i + 1 for i, mark in enumerate(between) if mark in _SENTENCE_ENDS), 0)
        if ended > one.end and text[ended : ended + 1].isspace():
            yield [text[:ended], text[two.start :]]
        elif at + 1 in joints and at not in joints:
            behind = next((word for i, word in enumerate(words) if i > at and i not in joints), None)
            if behind is not None and not _of_one_kind(named, one.end, behind.start):
                yield [text[: one.end], text[behind.start :]]


def _of_one_kind(named: Sequence[Slot], end: int, start: int) -> bool:
    """Whether what is named up to one place is of the kind of what is named from another on."""
    return bool({slot.kind for slot in named if slot.end == end} & {slot.kind for slot in named if slot.start == start})


def _asks_for_each(deps: TurnDeps, halves: list[str]) -> bool:
    """Whether each of two parts asks for something of its own, the first one with certainty; a question behind an order
    goes before it.

    Where the second is too uncertain, and the whole is what the first is, it is kept as the rest that nobody answered.
    """
    if any(len(part.split()) < _FEWEST_WORDS for part in halves):
        return False
    one = read(halves[0], turn_context(deps))
    two = read(halves[1], replace(turn_context(deps), before=one.request))
    if one.sure and one.order and not one.order.unread and two.request and (two.sure or _is_second(two)):
        halves.reverse()  # what is asked of things as they are is answered before an order changes them
        return True
    if not one.sure or one.request is None or one.kind == two.kind:
        return False
    if (two.sure and (two.request or two.order)) or _is_second(two):
        return True
    if not two.sure and (two.request or two.order) and len(two.slots.words) >= _CLAUSE:
        same = read(deps.prompt, turn_context(deps)).kind == one.kind
        deps.rest = deps.rest or (halves[1] if same else "")
    return False


def _is_second(reading: Reading) -> bool:
    """Whether words behind a question that is read with certainty ask a question too: they are short of words, and so
    of certainty."""
    return bool(reading.request) and reading.probability >= _SECOND and len(reading.slots.words) >= _CLAUSE


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
    if deps.most_lines and not reading.sure and _is_second(reading):
        reading = replace(reading, sure=True)
    deps.nearest, deps.unsure = reading.nearest, None if reading.sure else reading
    outcome = answered(deps, reading) if reading.sure else None
    if deps.rest and isinstance(outcome, TurnAnswer):
        outcome, deps.rest = _naming(outcome, deps.rest), ""
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


def _naming(answer: TurnAnswer, rest: str) -> TurnAnswer:
    """An answer that names what of two things it leaves open."""
    return replace(answer, text=f"{answer.text}\n(What “{rest}” asks I am not sure of; ask it by itself.)")


def answered(deps: TurnDeps, reading: Reading) -> TurnAnswer | Call | None:
    """What a reading comes to; None where code cannot carry it out. Raises NotFound, BadInput."""
    if deps.draft is not None and (turned := ordering.turn(deps, reading)) is not None:
        return turned
    if reading.request is not None:
        request = look_ups.of_its_base(deps, reading)
        return _with_what_is_next(deps, request, looked_up(deps, request))
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
        case "yes" | "no":
            return _nothing_waits(deps)
        case "want":
            return _wanted(deps, reading)
        case "out_of_scope" | "code":
            return TurnAnswer(look_ups.PLAIN[kind])
        case "remark":
            return TurnAnswer(" ".join([look_ups.PLAIN[kind], *([did_you_mean(deps)] if reading.nearest else [])]))
    return None


def _with_what_is_next(deps: TurnDeps, request: Query, answer: TurnAnswer) -> TurnAnswer:
    """What is going on, where nothing is: what came last, and what is next; of results the test that still runs."""
    stands = ""
    if request == JobsQuery() and moment(deps) not in ("running", "served"):
        stands = standing(deps)
    elif request.kind in _RESULTS:
        tests = [step for step in deps.store.steps(status=RUNNING) if catalog.ENTRIES[step.stage].load().measures]
        stands = "\n".join(f"{at_work(step)} Its results are not among these." for step in tests)
    return replace(answer, text=f"{answer.text}\n{stands}".strip())


_RESULTS = ("result", "compare", "cases", "findings", "confusion")


def _done(deps: TurnDeps, reading: Reading, act: str) -> TurnAnswer | Call | None:
    """An order: carried out as a call, done at once, or refused."""
    if text := ordering.refused(deps, act):
        return TurnAnswer(text)
    if act == "stop":
        return ordering.stop(deps, reading)
    if act == "report":
        return ordering.report(deps, reading.slots.first("run"))
    return ordering.call_of(deps, reading.order) if reading.order is not None else None


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


def guessed(deps: TurnDeps) -> TurnAnswer | None:
    """The answer to the question that words most likely are, for a turn that no driver can answer; None for an act, and
    where it is too unlikely. What else they may be is offered behind it, and what of two things was not read is named.
    """
    reading = deps.unsure
    if reading is None:
        return None
    try:
        if (half := _half(deps)) is not None:
            return half
        guess = _unsure_answer(deps, reading) if reading.probability >= GUESSED else None
    except TunesmithError:
        return None
    if guess is None:
        return None
    others = f"; or did you mean {_numbered(deps, deps.nearest[1:])}? Type its number" if deps.nearest[1:] else ""
    return replace(guess, text=f"{guess.text}\n(I read that with little certainty{others}.)")


def _numbered(deps: TurnDeps, questions: Sequence[str]) -> str:
    """Questions with numbers; a number alone, in the next turn, means the words of this one so."""
    labels = tuple(reader().head.label_of(question) for question in questions)
    deps.offered = (deps.prompt, labels)
    # fewer questions than numbers
    return ", ".join(f"{number} “{question}”" for number, question in zip(_NUMBERS, questions, strict=False))


def _unsure_answer(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """The answer to what words most likely ask, of the open plan too; None where they may change something."""
    if deps.draft is not None and reading.label in _CHANGES_NOTHING:
        return ordering.turn(deps, reading)
    answer = answer_to(deps, replace(reading, sure=reading.slots.words != ()))
    return _with_what_is_next(deps, reading.request, answer) if answer and reading.request else answer


def _half(deps: TurnDeps) -> TurnAnswer | None:
    """The answer to that one of two questions which is read with certainty; the other is named."""
    for halves in _cut(deps.prompt):
        readings = [(read(part, turn_context(deps)), part) for part in halves]
        sure = [one for one, part in readings if one.sure and one.request and len(part.split()) >= _FEWEST_WORDS]
        if len(sure) == 1 and (answer := answer_to(deps, sure[0])) is not None:
            rest = next(part for one, part in readings if one is not sure[0])
            return _naming(answer, rest) if len(rest.split()) >= _FEWEST_WORDS else answer  # `ugh.` asks nothing
    return None


def did_you_mean(deps: TurnDeps) -> str:
    """Where the user stands, and the questions that the words are nearest to, for a turn that nobody can answer."""
    stands = f"{standing(deps)}\n".lstrip("\n")
    if not deps.nearest:
        return f"{stands}{CAN_ANSWER}"
    return f"{stands}Did you mean: {_numbered(deps, deps.nearest)}? Type its number, or say it in other words."
