"""What words take from the runs: the one that the results choose, as in `deploy whichever is better`, and settings that
another one had, as in `keep r1's rank`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver.look_ups import trained_with, turn_context, values_of
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import find, ordinary
from tunesmith.agent.queries.comparisons import CompareRunsQuery, better_run
from tunesmith.agent.queries.scores import arms_measured
from tunesmith.agent.words.acts import Assigned, Order, order_of, places_of
from tunesmith.agent.words.edits import Edits, as_it_was, settled_in, with_harmless_told
from tunesmith.agent.words.held import on_condition
from tunesmith.agent.words.lexicon import Word, everyday, lexicon, words_in
from tunesmith.agent.words.reading import Reading, reader
from tunesmith.agent.words.slots import Slot, Slots
from tunesmith.agent.words.unmeant import denied, factors
from tunesmith.agent.words.unread import MARKS, found_as_written, part_of, with_article
from tunesmith.agent.words.values import numbers_in
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.suites.case import PRIMARY_BLOCK

_SETS, _NEAR = ("plan.set", "plan.without"), 3
"""What words are read as that may be meant for another change, and among how many labels that is then."""
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
    `everything else` that of the other one. What stays as the plan has it is taken from none, and a value behind such
    as `or else` is for a run that lends nothing."""
    times = {name: by for name, (by, _) in factors(slots).items()}
    stay = {str(one.value): slots.sentence[at:end] for one in slots.all("field")
            for how, at, end in [_keeps(slots, one)] if how == "now"}  # fmt: skip
    own = {one.field for one in edits.values} - set(times) | {*stay}
    fields = [one for one in slots.all("field") if one.value not in own]
    lenders = {str(one.value): _nearest_run(slots, one) for one in fields}
    runs, last = slots.values("run"), max((one.end for one in slots.all("field")), default=0)
    either = (slots.words[one.first].start for one in lexicon()["or_else"].find(slots.words))
    other = next((slots.sentence[at:] for at in either if any(last < at < one.start for one in slots.numbers)), "")
    others = next((run for run in runs if run not in lenders.values()), "")
    named_fields = {name: had[name] for name, run in lenders.items() if name in (had := trained_with(deps, run))}
    rest = not other and (not lenders or found_as_written("the_rest", slots.words))
    all_of_them = {**(trained_with(deps, others) if rest and (others or not runs) else {}), **named_fields}
    names = (name for name in catalog.BY_NAME["train"].load().settable if name not in own and name in all_of_them)
    taken = {name: all_of_them[name] for name in names}
    if not taken or (lenders and not named_fields):
        return None
    values = tuple(Assigned(name, _multiple(value, times.get(name)), ()) for name, value in taken.items())
    values += tuple(one for one in edits.values if one.field in own)
    read = (*(with_article(slots.sentence, one.start, one.end) for one in fields), *stay.values(), other)
    unread = tuple(one for one in edits.unread if not any(one in text for text in read))
    beside = (*(one for one in edits.beside if one not in other), *filter(None, [other]))
    told = with_harmless_told(replace(edits, values=values, stages=("train",), unread=unread, beside=beside))
    return told if lenders else replace(told, beside=beside)  # `take its config`: all of it was taken


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
    given = {one.field for one in edits.values} | {*edits.factors}
    keeps = {str(one.value): _keeps(slots, one)[0] for one in slots.all("field") if one.value not in given}
    unvalued = {name for name, how in keeps.items() if how != "now"}
    kept = [name for name, how in keeps.items() if how == "before"]
    of_run = {*kept} == unvalued and all(before.get(name, now.get(name)) == now.get(name) for name in kept)
    if unvalued and (slots.all("run") or of_run) and reading.label == "plan.set":
        return settings_before(deps, slots, edits) or edits
    return with_harmless_told(edits) if reading.probability >= _CERTAIN_CHANGE and not unvalued else edits


def of_the_plan(reading: Reading, edits: Edits, planned: Sequence[str]) -> str:
    """The label of words about the plan, by what they name: a step that it has not is added to it, and where its own
    rows are denied and a run is named they are that run's."""
    slots, near, label = reading.slots, reading.likely[:_NEAR], reading.label
    if label == "plan.set" and "plan.add" in near[:2] and {*edits.stages} - {*planned}:
        return "plan.add"
    runs, rows = slots.all("run"), [one for one in slots.all("field") if one.value == "rows" and denied(slots, one)]
    joined = {slots.sentence[row.end : run.start].strip().lower() for row in rows for run in runs}  # `no rows from r1`
    theirs = not (joined & (words_in("attaches") | words_in("joins")) or any(denied(slots, run) for run in runs))
    if theirs and rows and runs and label in _SETS and "plan.rows" in near and not edits.unread:
        return "plan.rows"
    return "plan.set" if label == "plan.rows" and not theirs else label


def _keeps(slots: Slots, field: Slot) -> tuple[Literal["", "now", "before"], int, int]:
    """Whether a part of the sentence keeps a setting as the plan has it, `keep the bigger rank`, or as it was, `keep
    the rank we had before`, and where it says so; neither where it denies that, or names a run."""
    begins, end = part_of(slots, field.start, field.end)
    part = slots.between(begins, end)
    keeps = everyday("stays", part)
    others = [word for at, word in enumerate(part) if not any(one.first <= at < one.after for one in keeps)]
    if not keeps or everyday("negation", others) or everyday("denies", others):
        return "", end, end
    before = everyday("before_that", part[keeps[-1].after :])
    if before and keeps[-1].after + before[-1].after == len(part):  # not `before training`
        return "before", begins, end
    at = max((part[one.first].start for one in keeps if part[one.first].start < field.start), default=end)
    named = any(at <= one.start < end for one in (*slots.all("run"), *slots.all("which_run")))
    return "" if at == end or before or named else "now", at, end


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
