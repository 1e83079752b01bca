"""Words that were read with little certainty: their likeliest answer told as a guess, what else they may be, and where
things stand. Nothing is begun or changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.agent.driver import look_ups, ordering
from tunesmith.agent.driver.follow_ups import follow_up
from tunesmith.agent.driver.look_ups import GUESSED, answer_to, moment, turn_context, with_what_is_next
from tunesmith.agent.driver.parts import parted
from tunesmith.agent.driver.standing import standing, while_it_runs
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import find, ordinary
from tunesmith.agent.queries.following import forecast_of, next_stages
from tunesmith.agent.queries.scores import TUNED
from tunesmith.agent.words.head import kind_of
from tunesmith.agent.words.reading import Reading, read, reader
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.memory.errors import NotFound, TunesmithError
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import StepSpec

_CHANGES_NOTHING = (
    "plan.show", "plan.cost", "plan.why", "plan.what_if", "plan.wait", "plan.before", "setting.sensible",
)  # fmt: skip
_BESIDE = 2
"""The first lines of where somebody stands, and the last, are behind a general text that was only guessed."""
_NEAR = 5
"""Readings that words in an empty home may be: what is asked of records has the same answer there."""
_PERHAPS = 0.3
"""From which probability a question is answered beside where things stand: of strangers' sentences between it and
GUESSED half are read rightly."""
NUMBERS = ("1", "2", "3")
"""Of questions that are offered."""
_NOT_UNDERSTOOD = "I did not understand that; nothing was changed or begun."
_ABOUT_THE_LAST = (
    "I take that to be about the last answer, to “{}”, and do not see what it asks of it; nothing was changed or begun."
)

_PERHAPS_THIS = (
    "I am not certain what you ask; nothing was changed or begun. Perhaps this answers it, where things stand:"
)
_OF_RESULTS = ("result", "compare", "compare_runs", "across", "findings", "runs", "run", "steps", "step", "jobs")
_TOLD = {
    "planned": ("plan", "price", "jobs", "run", "steps"),
    "finished": _OF_RESULTS,
    "served": (*_OF_RESULTS, "served"),
}
"""Moment → the kinds of question that where things stand answers there."""


def guessed(deps: TurnDeps, *, doubted: bool = False) -> TurnAnswer | None:
    """The answer to the question that words most likely are, for a turn that no driver can answer; None for an act, and
    where it is too unlikely. What else they may be is offered behind it, and what of two things was not read is named.
    Where it is `doubted`, or hardly likely, it stands beside where things stand.
    """
    reading = deps.unsure
    if reading is None:
        return None
    if missing := _no_such_run(deps, reading.slots):
        return TurnAnswer(missing)
    try:
        if (half := _half(deps)) is not None:
            return half
        perhaps = reading.probability >= _PERHAPS and (reading.request is not None or reading.tells)
        guess = _unsure_answer(deps, reading) if perhaps or reading.probability >= GUESSED else None
    except TunesmithError:
        return None
    if guess is None:
        return None
    if (doubted or reading.probability < GUESSED) and (stands := standing(deps)) not in guess.text:
        guess = replace(guess, text=f"{stands}\nPerhaps you ask for this. {guess.text}")
    else:
        beside = while_it_runs(deps.store, guess.text)  # a guess may miss what matters now
        if not beside and reading.label.startswith("talk.") and moment(deps) not in ("empty", "finished"):
            lines = standing(deps).splitlines()
            beside = [*dict.fromkeys((*lines[:_BESIDE], *lines[-1:]))]
        guess = replace(guess, text="\n".join([guess.text, *beside]))
    others = f"; or did you mean {_numbered(deps, deps.nearest[1:])}? Type its number" if deps.nearest[1:] else ""
    return replace(guess, text=f"{guess.text}\n(I read that with little certainty{others}.)")


def did_you_mean(deps: TurnDeps) -> str:
    """Where the user stands, and the questions that the words are nearest to, for a turn that nobody can answer."""
    before, head, slots = deps.last_query, reader().head, slots_of(deps.prompt, ordinary(deps.store))
    follows = before is not None and deps.unsure is not None and "follow" in (deps.unsure.kind, *deps.unsure.likely[:2])
    if follows and before is not None:  # of the same thing what can be asked
        others = (one for one in head.labels if kind_of(one) == before.kind)
        offers = [head.offer(one) for one in others if one.partition(".")[2] != getattr(before, "about", "")]
        deps.nearest = tuple(dict.fromkeys(offers))[: len(NUMBERS)] or deps.nearest
    kinds = [head.label_of(question).partition(".")[0] for question in deps.nearest]
    at, made = moment(deps), _made_of(deps, slots)
    near = map(kind_of, deps.unsure.likely[:_NEAR]) if deps.unsure and at == "empty" else kinds[:1]
    told = made or {*near} & {*_TOLD.get(at, _TOLD["finished"])}
    begins = _ABOUT_THE_LAST.format(deps.said) if follows else _PERHAPS_THIS if told else _NOT_UNDERSTOOD
    first = _no_such_run(deps, slots) or (look_ups.not_measured(slots) if {*kinds} & {*_OF_RESULTS} else "")
    stands = "\n".join(filter(None, (first, begins, made, standing(deps)))) + "\n"
    look_ups.remember_standing(deps, slots)
    if not deps.nearest:
        return f"{stands}{look_ups.CAN_ANSWER}"
    return f"{stands}Did you mean: {_numbered(deps, deps.nearest)}? Type its number, or say it in other words."


def _no_such_run(deps: TurnDeps, slots: Slots) -> str:
    """That a run which words name is not in the records, with those that are; empty where all are."""
    for name in slots.values("run"):
        try:
            find(deps.store, str(name))
        except NotFound as error:
            return str(error)
    return ""


def _made_of(deps: TurnDeps, slots: Slots) -> str:
    """Whether the run has the tuned model that words name; empty where they name none or several, or a plan is open."""
    run, arms = deps.focused_run(), [arm for arm in slots.values("arm") if arm in TUNED]
    if run is None or len(arms) != 1 or deps.draft is not None:
        return ""
    return f"{run.id} has {'its' if deps.store.artifacts(run.id, arms[0]) else 'no'} {arms[0]} model."


def guessed_part(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """The answer to what a part of a sentence most likely asks, called a guess; None where it is too unlikely."""
    answer = _unsure_answer(deps, reading) if reading.probability >= GUESSED else None
    unsure = f"(I read “{deps.prompt}” with little certainty.)"
    return None if answer is None else replace(answer, text=f"{answer.text}\n{unsure}")


def naming(deps: TurnDeps, answer: TurnAnswer, rest: str) -> TurnAnswer:
    """An answer that names what of two things it leaves open."""
    return replace(answer, text=f"{answer.text}\n{unsure_of(deps, rest)}")


def unsure_of(deps: TurnDeps, rest: str) -> str:
    """What is said of a part that nobody understood, with what it may mean."""
    understood = read(rest, turn_context(deps))
    nearest, slots = understood.nearest, understood.slots
    if slots.all("model") and "train" in (*slots.values("stage"), *slots.values("work")):
        return (f"(“{rest}” was not begun. “train” trains the run's own base; another one is fetched by its whole name "
                f"on the hub: “fetch OWNER/NAME” prices it.)")  # fmt: skip
    meant = f"; did you mean {_numbered(deps, nearest, rest)}? Type its number" if nearest else "; ask it by itself"
    return f"(What “{rest}” asks I am not sure of{meant}.)"


def _numbered(deps: TurnDeps, questions: Sequence[str], words: str = "") -> str:
    """Questions with numbers, and the price of what they order; a number alone, in the next turn, means the words of
    this one so."""
    labels = tuple(reader().head.label_of(question) for question in questions)
    deps.offered = (words or deps.prompt, labels)
    return ", ".join(
        f"{number} “{question}”{_price_beside(deps, label)}"
        for number, question, label in zip(NUMBERS, questions, labels, strict=False)  # fewer questions than numbers
    )


def there_for(deps: TurnDeps, question: str) -> bool:
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
    if (ended := deps.store.broken_off(run.id)) is not None and ended.stage == stage:
        return ""  # where things stand has the price of going on with it
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
    return with_what_is_next(deps, reading.slots, reading.request, answer, standing)


def _half(deps: TurnDeps) -> TurnAnswer | None:
    """The answer to that one of two questions which is read with certainty; the other is named."""
    for parts in parted(deps.prompt, turn_context(deps)):
        sure = [one for one in parts if one.reading.sure and one.reading.request and not parts[0].paused]
        asked = sure[0].reading if len(sure) == 1 else None
        followed = follow_up(deps, asked) if asked else None
        answer = followed if isinstance(followed, TurnAnswer) else answer_to(deps, asked) if asked else None
        if answer is not None:
            return naming(deps, answer, next(one.text for one in parts if one is not sure[0]))
    return None
