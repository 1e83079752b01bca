"""What is said in worry or complaint, and asks and orders nothing: it is answered by what the records say of its cause;
who asks how to go back to what was served before is told the same, and a figure that was not measured is refused.

It never begins the description of a behaviour: that takes a sign that something is to do or to learn what it does not.
"""

from __future__ import annotations

from tunesmith.agent.driver.look_ups import GUESSED, looked_up, moment, talk_text
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.comparisons import CompareRunsQuery
from tunesmith.agent.queries.machine import ServedQuery
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.words.lexicon import everyday, lexicon
from tunesmith.agent.words.reading import Reading
from tunesmith.agent.words.slots import Slots
from tunesmith.memory.errors import TunesmithError

_WISH = "want"
_CERTAIN_WISH = 0.9
"""From which probability words are a wish whatever words are in it."""
_PRIVACY = "talk.privacy"
_MOST_LIKELY, _WITH_ONE_BEFORE = 2, 2
_WORRIES = 0.4
"""From which probability a worry about where one's texts go is answered: no fact of a run is told by it."""
_OF_A_CHANGE = ("remark", "served.history", "served.now", "compare_runs.results", "do.deploy", "talk.complaint",
                "result.passed", "trial.before_and_after")  # fmt: skip
"""What a complaint about what is served now is read as."""
_NO_ORDER = ("remark", "served.history", "talk.complaint")
"""Of those what asks for nothing else where it is certain."""
GOES_BACK = "talk.roll_back_how"
_REPORT = "do.report"
_SAY = "Where a model is to learn something, say what it is to do, such as “it should answer mails in one sentence”."


def worry(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """What is said to a worry or a complaint; None for all else. Raises nothing."""
    if deps.draft is not None or not reading.slots.words:
        return None
    wishes = bool(everyday("wishes", reading.slots.words))
    if _is_about_privacy(reading, wishes=wishes):
        return TurnAnswer(talk_text(deps, _PRIVACY.removeprefix("talk.")))
    if (answer := _of_what_is_served(deps, reading) or _of_a_figure(deps, reading)) is not None:
        return answer
    if reading.label == _WISH and reading.sure and not wishes and reading.probability < _CERTAIN_WISH:
        return TurnAnswer(f"{talk_text(deps, 'remark')} {_SAY}")
    return None


def _is_about_privacy(reading: Reading, *, wishes: bool) -> bool:
    """Whether words worry where texts go: most likely, or else a wish that nothing in them is a sign of."""
    if reading.label == _PRIVACY:
        return not reading.sure and reading.probability >= _WORRIES
    doubtful = reading.label == _WISH and not wishes and reading.probability < _CERTAIN_WISH
    return doubtful and _PRIVACY in reading.likely[:_MOST_LIKELY]


def _of_what_is_served(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """To a complaint, or a question how to go back, where a model is served and another one was before it: both, and
    the price of going back."""
    slots, near = reading.slots, {reading.label, *reading.likely[:_MOST_LIKELY]}
    other = (reading.sure and reading.label not in _NO_ORDER) or slots.asks or not {*_OF_A_CHANGE} & near
    complains = everyday("complaints", slots.words) and not other
    if not (complains or (reading.label == GOES_BACK and reading.probability >= GUESSED)):
        return None
    two = len(deps.store.newest_of_kind("deployment")) >= _WITH_ONE_BEFORE
    if moment(deps) != "served" or slots.all("run") or not two:
        return None
    try:
        now = looked_up(deps, ServedQuery()).text.splitlines()[0]
        before = looked_up(deps, ServedQuery(about="before")).text.splitlines()[0]
        price = looked_up(deps, PriceQuery(stage="deploy", values={"rollback": True}, times={})).text.splitlines()[0]
    except TunesmithError:
        return None
    deps.last_query = ServedQuery(about="history")  # `put that back`
    runs = dict.fromkeys(one.run for one in deps.store.newest_of_kind("deployment")[:2])
    compare = f" “Compare {' and '.join(runs)}” sets the two against each other." if len(runs) > 1 else ""
    return TurnAnswer(f"{now}\n{before}\nTo go back: {price} “Roll back” asks for a yes before it.{compare}")


def _counts_as_passed(slots: Slots) -> bool:
    """Whether what failed, or a case by name, is ordered to count as passed: `mark the wrong ones as right`."""
    first = min((one.start for one in (*slots.all("case"), *slots.all("outcome"))), default=0)
    before = [slots.between(first, one.start)[-1:] for one in slots.all("outcome") if one.value == "passed"]
    asks = slots.asks or any(match.first == 0 for match in lexicon()["asking"].find(slots.words))
    return not asks and any(lexicon()["counts_as"].find(one) for one in before)


def _of_a_figure(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """To an order to write a figure into a report: it has none that was not measured; what was of two runs that are
    named. To one to let what failed count as passed: how it honestly comes to that."""
    slots, near = reading.slots, reading.likely[: 1 if reading.sure else _MOST_LIKELY]
    if _counts_as_passed(slots):
        return TurnAnswer(talk_text(deps, "own_checks"))
    if _REPORT not in near or slots.asks or all(one.weak for one in slots.numbers):
        return None
    runs = slots.values("run")
    measured = looked_up(deps, CompareRunsQuery(run=runs[0], other_run=runs[1])).text if len(runs) == 2 else ""
    return TurnAnswer(f"{talk_text(deps, 'no_figure')}\n{measured}".strip())
