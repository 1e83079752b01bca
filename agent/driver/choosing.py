"""What words take from the runs: the one that the results choose, as in `deploy whichever is better`, and settings that
another one had, as in `keep r1's rank`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver.look_ups import trained_with, turn_context, values_of
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import find, ordinary
from tunesmith.agent.queries.comparisons import CompareRunsQuery, better_run
from tunesmith.agent.queries.scores import arms_measured
from tunesmith.agent.words.acts import Assigned, Order, order_of, places_of
from tunesmith.agent.words.edits import Edits, as_it_was, settled_in, with_harmless_told
from tunesmith.agent.words.held import end_of_part, on_condition
from tunesmith.agent.words.lexicon import Word, everyday, lexicon
from tunesmith.agent.words.reading import Reading, reader
from tunesmith.agent.words.slots import Slot, Slots
from tunesmith.agent.words.unmeant import factors
from tunesmith.agent.words.unread import MARKS, found_as_written
from tunesmith.agent.words.values import numbers_in
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.suites.case import PRIMARY_BLOCK

_TUNED = 2
"""Arms that were measured where something beside the base was."""


def leaves_it_to_results(words: tuple[Word, ...]) -> bool:
    """Whether words such as `the better one` stand in them."""
    return bool(lexicon()["better"].find(words))


def on_the_better(deps: TurnDeps, reading: Reading) -> Reading | TurnAnswer:
    """The order on the run whose newest model is better by an exact paired test, which is said; or words that ask back,
    where no test tells them apart or arms are meant. An order that leaves nothing to the results stays as it is."""
    slots, order = reading.slots, reading.order
    found = lexicon()["better"].find(slots.words)
    named = slots.values("run")
    if order is None or deps.by_result is None or not (found or slots.all("pronoun")) or slots.values("artifact"):
        return reading
    if len(deps.by_result) > 1 and "arm" in catalog.BY_NAME[order.stage].load().request.model_fields:
        each = " or ".join(f"“{order.stage} the {arm} model”" for arm in deps.by_result)
        return TurnAnswer(f"Which of them it is to be is yours to say, and nothing was begun: {each}.")
    if len(named) == 1 or deps.by_result:
        return reading
    runs = _candidates(deps, named)
    if len(runs) != 2:  # a pair is compared
        return reading
    one, two = (find(deps.store, run) for run in runs)
    winner, told = better_run(deps.store, one, two, slots.first("block") or PRIMARY_BLOCK)
    told = f"{told[0].upper()}{told[1:]}"
    if not winner:
        return TurnAnswer(
            f"{told} So the results choose neither, and nothing was begun: say “{order.stage} {one.id}” or "
            f"“{order.stage} {two.id}”."
        )
    deps.show(prose(f"{told} So it is {winner}:"))
    taken = [(slots.words[one.first].start, slots.words[one.after - 1].end) for one in found]
    taken += places_of(slots, ("block",)) if found else []
    read_again = order_of(order.stage, slots, reader().known(reading.label), taken)
    return replace(reading, order=replace(order, run=winner, unread=read_again.unread, beside=read_again.beside))


def _candidates(deps: TurnDeps, named: list[str]) -> list[str]:
    """The two runs that may be meant: those that are named, were compared last, or are the only ones with results."""
    before = deps.last_query
    if named:
        return named
    if isinstance(before, CompareRunsQuery) and before.run and before.other_run:
        return [before.run, before.other_run]
    return [run.id for run in ordinary(deps.store) if len(arms_measured(deps.store, run.id)) >= _TUNED]


# Values of another run


def settings_before(deps: TurnDeps, slots: Slots, edits: Edits) -> Edits | None:
    """The values that the newest training of a run was given, those of the settings that are named or all, and what
    else a sentence sets; None: there was none. Of several runs each setting is that of the run named nearest to it, and
    `everything else` that of the other one."""
    times = {name: by for name, (by, _) in factors(slots).items()}
    own = {one.field for one in edits.values} - set(times)
    lenders = {str(one.value): _nearest_run(slots, one) for one in slots.all("field") if one.value not in own}
    runs = slots.values("run")
    others = next((run for run in runs if run not in lenders.values()), "")
    named_fields = {name: had[name] for name, run in lenders.items() if name in (had := trained_with(deps, run))}
    rest = not lenders or found_as_written("the_rest", slots.words)
    all_of_them = {**(trained_with(deps, others) if rest and (others or not runs) else {}), **named_fields}
    names = (name for name in catalog.BY_NAME["train"].load().settable if name not in own and name in all_of_them)
    taken = {name: all_of_them[name] for name in names}
    if not taken or (lenders and not named_fields):
        return None
    values = tuple(Assigned(name, _multiple(value, times.get(name)), ()) for name, value in taken.items())
    values += tuple(one for one in edits.values if one.field in own)
    said = " ".join(slots.sentence[one.start : one.end] for one in slots.all("field"))
    edits = replace(edits, unread=tuple(one for one in edits.unread if one not in said))
    told = with_harmless_told(replace(edits, values=values, stages=("train",)))
    return told if lenders else replace(told, beside=edits.beside)  # `take its config`: all of it was taken


def _nearest_run(slots: Slots, field: Slot) -> str:
    """The run that is named nearest to a setting; empty: none is."""
    runs = sorted(slots.all("run"), key=lambda run: max(run.start - field.end, field.start - run.end))
    return str(runs[0].value) if runs else ""


def of_other_run(deps: TurnDeps, order: Order, slots: Slots) -> Order:
    """An order to train with those values of another run that its words take from it: `train r1 again with r2's rank`;
    the run that lends none is the one to train in."""
    lenders = {str(one.value): _nearest_run(slots, one) for one in slots.all("field") if one.value not in order.fields}
    meant = next((run for run in slots.values("run") if run not in lenders.values()), "")
    had = {name: trained_with(deps, run) for name, run in lenders.items() if run and meant}
    taken = {name: values[name] for name, values in had.items() if name in values}
    if order.stage != "train" or not taken:
        return order
    return replace(order, run=meant, fields={**order.fields, **taken}, unvalued="")


def _multiple(value: object, by: float | None) -> object:
    return value * by if by is not None and isinstance(value, int | float) else value


_CERTAIN_CHANGE = 0.96
"""From which probability of a change a word that nobody knows keeps it back no more, and is named: of statements about
a value none with such a word was read as so likely, of orders with one of endearment all were."""


def edits_in(deps: TurnDeps, reading: Reading, edits: Edits) -> Edits:
    """The edits against what the plan has now, with the values that words take from a run or from before the last
    change; a word that nobody knows in a change that is beyond doubt told beside it."""
    assert deps.draft is not None
    now, before, slots = values_of(deps.draft), values_of(deps.draft_before), reading.slots
    edits = as_it_was(settled_in(now, _bare_numbers(deps, now, edits, slots.sentence)), now, before)
    unvalued = {*slots.values("field")} - {one.field for one in edits.values} - {*edits.factors}
    kept = [str(one.value) for one in slots.all("field") if one.value in unvalued and _kept_from_before(slots, one)]
    of_run = {*kept} == unvalued and all(before.get(name, now.get(name)) == now.get(name) for name in kept)
    if unvalued and (slots.all("run") or of_run) and reading.label == "plan.set":
        return settings_before(deps, slots, edits) or edits
    return with_harmless_told(edits) if reading.probability >= _CERTAIN_CHANGE and not unvalued else edits


def _kept_from_before(slots: Slots, field: Slot) -> bool:
    """Whether a part of the sentence keeps a setting that there was, `keep the rank we had before`, and denies nothing;
    `as before` may be as the plan has it."""
    begins = max(slots.sentence.rfind(mark, 0, field.start) for mark in MARKS) + 1
    part = slots.between(begins, end_of_part(slots, field.end))
    found = [one for one in everyday("before_that", part) if one.after == len(part)]  # not `before training`
    keeps = [one.after for one in everyday("stays", part)]
    denies = everyday("negation", part) or everyday("denies", part)
    return bool(found and keeps and not denies) and found[-1].first >= max(keeps)


def _bare_numbers(deps: TurnDeps, now: Mapping[str, object], edits: Edits, sentence: str) -> Edits:
    """The edits, the one number of a part of the sentence apart from the words around it, where the reader takes that
    part by itself for a change; and alone where it judges a value that the plan has: `400 is stingy, make it 700`."""
    left, beside = list(edits.unread), list(edits.beside)
    for part in re.split(rf"[{MARKS}]\s", sentence) if numbers_in(" ".join(left)) else ():
        own, numbers = [one for one in left if one in part], numbers_in(part)
        if len(numbers) != 1 or numbers[0].unit or not numbers_in(" ".join(own)):
            continue
        said, number = reader().read(part, turn_context(deps)), part[numbers[0].start : numbers[0].end]
        judges = said.label == "remark" and said.probability >= _JUDGES and numbers[0].value in now.values()
        orders = said.sure and said.label in ("plan.set", "plan.as_before", "plan.undo") and not said.slots.all("run")
        if judges or (orders and not on_condition(said.slots)):
            beside += [] if judges else [piece.strip() for one in own for piece in one.split(number) if piece.strip()]
            left = [one for one in left if one not in own] + [number]
    return replace(edits, unread=tuple(left), beside=tuple(beside))


_JUDGES = 0.5
"""From which probability words with the number that a setting has only speak of it: of the few parts tried that order
something with such a number none was read as a remark."""
