"""A run that words leave to the results: `deploy whichever is better`, `which is better, and serve that one`."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import find, ordinary
from tunesmith.agent.queries.comparisons import CompareRunsQuery, better_run
from tunesmith.agent.queries.scores import arms_measured
from tunesmith.agent.words.acts import order_of, places_of
from tunesmith.agent.words.lexicon import Word, lexicon
from tunesmith.agent.words.reading import Reading, reader
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
