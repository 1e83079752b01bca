"""Short words behind an answer, which name nothing themselves: what they ask of what that answer was about.

What it was about is kept as the question that was answered, with its run, arm, stage and file, as the steps that it
proposed, and as the place in the list that it came to. Words that name a thing of their own are read for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunesmith.agent.driver import ordering, plan_questions
from tunesmith.agent.driver.look_ups import looked_up, meaning, moment, why
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import ordinary
from tunesmith.agent.queries.arguments import MOST_SHOWN, Query
from tunesmith.agent.queries.cases import CasesQuery
from tunesmith.agent.queries.comparisons import CompareRunsQuery
from tunesmith.agent.queries.files import FileQuery
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.machine import ServedQuery
from tunesmith.agent.queries.prices import ApprovalsQuery, PriceQuery
from tunesmith.agent.queries.rows import RowsQuery
from tunesmith.agent.queries.runs import RunQuery
from tunesmith.agent.queries.scores import ResultQuery, arms_measured
from tunesmith.agent.queries.settings import SettingQuery, SettingsQuery
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.agent.words.lexicon import everyday, lexicon
from tunesmith.agent.words.reading import Reading
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.memory.arms import ARMS
from tunesmith.memory.records import DECLINED

_MOST_WORDS = 10
"""Of what follows on an answer; longer words are about something of their own."""
_LOOSE = frozenset({"pronoun", "unspoken", "not", "only", "again", "order", "figure"})
"""Kinds of slot that name nothing by themselves."""
_NEAR, _FEW = 4, 5
"""Readings among which one counts as likely; words of a yes."""
_YES = ("yes", "accept")
_WHY_LEAST = 0.4
"""From which probability words ask for the reason of what was just told."""
_AGREES = (*_YES, "go_on", "do.approve")


def follow_up(deps: TurnDeps, reading: Reading) -> TurnAnswer | Call | None:
    """What short words behind an answer come to; None: they stand by themselves. Raises NotFound, BadInput."""
    before, slots = deps.last_query, reading.slots
    if not slots.words or len(slots.words) > _MOST_WORDS:
        return None
    if deps.draft is not None:
        return _in_the_plan(deps, before, slots) if isinstance(before, SettingQuery) else None
    if _agrees(deps, reading):
        return ordering.accepted(deps, slots)
    if before is None:
        return None
    rule = _RULES.get(type(before))
    asked = rule(deps, before, reading) if rule else None
    if isinstance(asked, Query):
        answer = looked_up(deps, asked)
        if asked == ServedQuery(about="before"):
            deps.last_query = ServedQuery(about="history")  # `put that back`
        return answer
    asks_why = reading.label == "why" or (reading.label == "step.failure" and _bare(slots))
    if asked is None and asks_why and not reading.sure and reading.probability >= _WHY_LEAST:
        return why(deps)
    return asked


def remember_call(deps: TurnDeps, call: Call) -> None:
    """Keep what a step that was ordered is about, for the words after it."""
    source = str(call.arguments.get("source", ""))
    if call.tool == "import" and source and not source.startswith("hub:"):
        deps.last_query = FileQuery(path=source)


def remember_standing(deps: TurnDeps, slots: Slots) -> None:
    """Keep what a question back told of: where nothing was asked before, or the words name the run, its results, or
    the step that broke off."""
    if (deps.last_query is not None and not slots.all("run")) or (run := deps.focused_run()) is None:
        return
    at = moment(deps)
    if at in ("midway", "finished"):
        deps.last_query = ResultQuery(run=run.id)
    elif at == "broken_off":
        deps.last_query = RunQuery(run=run.id, about="status")


def _agrees(deps: TurnDeps, reading: Reading) -> bool:
    """Whether words that nobody is sure of most likely say yes to the step that an answer proposed: it is priced and
    asked about."""
    likely, words = reading.likely, reading.slots.words
    if reading.sure or not deps.proposals or len(words) > _FEW or reading.slots.all("not"):
        return False
    also = (*_AGREES, *(f"do.{one.stage}" for one in deps.proposals))
    return likely[:1] != () and likely[0] in _YES and likely[1:2] != () and likely[1] in also


def _bare(slots: Slots, *also: str) -> bool:
    """Whether words name nothing, but for slots of these kinds."""
    return {slot.kind for slot in slots.named} <= {*_LOOSE, *also}


def _says(slots: Slots, table: str) -> str:
    """The first thing of a table of the lexicon that words name; empty: none."""
    return next((match.name for match in everyday(table, slots.words)), "")


def _open(reading: Reading, *kinds: str) -> bool:
    """Whether words are read as following on, as one of these kinds, or as nothing with certainty."""
    return not reading.sure or reading.kind in ("follow", *kinds)


_Outcome = Query | TurnAnswer | None


def _of_a_list(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`three more`, `the next ones`: the list goes on behind the last case or row that was shown."""
    slots = reading.slots
    if not deps.until or not _bare(slots, "which_run"):
        return None
    numbers = [int(one.value) for one in slots.numbers if not (one.unit or one.weak) and one.value >= 1]
    more = reading.label == "page" or (not reading.sure and "page" in reading.likely[:_NEAR])
    if not more or not (numbers or _says(slots, "next_ones")):
        return None
    changed: dict[str, object] = {"skip": deps.until, "number": 0, "as_table": False}
    changed |= {"most": min(numbers[0], MOST_SHOWN)} if numbers else {}
    own = type(before).model_fields
    return before.model_copy(update={name: value for name, value in changed.items() if name in own})


def _of_a_file(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`any bad ones in there?`, `are they all valid?`, `show me the first`."""
    slots, of_file = reading.slots, isinstance(reading.request, FileQuery)
    if not isinstance(before, FileQuery) or not before.path or (reading.sure and of_file):
        return None
    of_rows = {*slots.values("field")} <= {"limit", "rows"}  # `the first`
    if (
        not of_rows
        or not _bare(slots, "outcome", "decision", "made", "field")
        or not _open(reading, "cases", "confusion", "talk")
    ):
        return None
    about = next((one.partition(".")[2] for one in reading.likely[:2] if one.startswith("file_of_rows.")), "")
    if about or reading.kind in ("rows", "row"):
        return before.model_copy(update={"about": about or "rows"})
    judged = reading.kind in ("cases", "confusion", "across", "result", "findings", "talk", "runs", "steps")
    return before.model_copy(update={"about": "valid"}) if judged and not _steered(reading) else None


def _steered(reading: Reading) -> bool:
    """Whether a piece of talk was asked with certainty."""
    return reading.sure and reading.kind == "talk"


def _of_serving(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`no, the one before that`: what was served before."""
    asks = _open(reading, "served") and "served.history" in (reading.label, *reading.likely[:_NEAR])
    follows = reading.label == "follow" or asks
    if isinstance(before, ServedQuery) and before.about == "now" and follows and _bare(reading.slots, *_BEFORE_THAT):
        return ServedQuery(about="before") if _says(reading.slots, "before_that") else None
    return None


_BEFORE_THAT = ("which_run", "run", "choice.rollback")
"""Kinds of slot that a word such as `before` is."""


def _of_results(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`is that good?`, `how many more would it need?`: against what *learned* takes. `And before?`: the run, or the
    arm, before. The same question in other words asks for the verdict too."""
    slots, run = reading.slots, getattr(before, "run", "") or deps.focused_run_id
    if _says(slots, "before_that") and _open(reading) and _bare(slots, *_BEFORE_THAT):
        alone = len(slots.words) - len(lexicon()["joints"].find(slots.words)) == 1  # `and before?`
        earlier = ARMS[: ARMS.index(arm)] if (arm := getattr(before, "arm", "")) else ARMS[:1] if alone else ()
        of_arm = [one for one in arms_measured(deps.store, run) if one in earlier and one != "prompted"] if run else []
        return before.model_copy(update={"arm": of_arm[-1]}) if of_arm else _of_a_run(deps, before, reading)
    if not _bare(slots, "outcome") or not _open(reading, "result", "talk"):
        return None
    same = isinstance(before, ResultQuery) and reading.request == ResultQuery(about=before.about)
    arm = getattr(before, "arm", "")
    if (same or _says(slots, "enough")) and not getattr(before, "block", "") and not _steered(reading):
        return ResultQuery.model_validate({"about": "enough", "run": run, "arm": arm})
    return None


def _of_a_run(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`and the one before?`: of the run before; `and the longest?` of the steps that are left."""
    slots = reading.slots
    if isinstance(before, RunQuery) and before.about in ("remaining", "steps") and _says(slots, "longest"):
        asks = _bare(slots) and _open(reading, "steps", "run")
        return before.model_copy(update={"about": "longest_left"}) if asks else None
    if not (_says(slots, "before_that") and _open(reading, "run") and _bare(slots, *_BEFORE_THAT)):
        return _of_results(deps, before, reading) if isinstance(before, RunQuery) and _asks_worth(slots) else None
    runs = [run.id for run in ordinary(deps.store)]
    named = getattr(before, "run", "") or deps.focused_run_id or next(iter(runs), "")
    earlier = runs[runs.index(named) + 1 :] if named in runs else []
    if getattr(before, "arm", ""):
        return None
    if not earlier:
        return TurnAnswer(f"There is no run before {named}.")
    return before.model_copy(update={"run": earlier[0]})


def _asks_worth(slots: Slots) -> bool:
    return bool(_says(slots, "enough")) and not _says(slots, "before_that")


def _of_fit(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`then a smaller one`: the largest that would go."""
    slots, likely = reading.slots, reading.likely[:_NEAR]
    which = _says(slots, "which") and reading.label == "follow"
    other = which or slots.all("unspoken") or slots.all("order") or "fits.largest" in likely
    if isinstance(before, FitsQuery) and before.model and other and not reading.sure and _bare(slots, "arm"):
        return before.model_copy(update={"about": "largest", "model": ""})
    return None


def _of_a_price(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`and how much disk?`: that of the price that was told."""
    part = _says(reading.slots, "asked_of")
    if isinstance(before, PriceQuery) and part and _bare(reading.slots, "field") and _open(reading, "price"):
        return before.model_copy(update={"only": part})
    return None


def _of_a_setting(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`and how long did it take?`: the step that had the setting. `Would 8 do?`: whether that value is sensible."""
    slots, stage = reading.slots, getattr(before, "stage", "") or "train"
    time = _says(slots, "asked_of") == "time"
    if not _bare(slots, *["field"] * time) or not _open(reading, "setting"):  # French `temps` is near a field's name
        return None
    if time:
        run = getattr(before, "run", "") or deps.focused_run_id
        return StepQuery(about="time", stage=stage, run=run)
    numbers = [one.value for one in slots.numbers if not (one.unit or one.weak)]
    if isinstance(before, SettingQuery) and len(numbers) == 1:
        return before.model_copy(update={"about": "sensible", "value": numbers[0], "fields": before.fields[:1]})
    return None


def _of_decisions(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`what was that for again?`: what the step is for that was refused last."""
    refused = deps.store.steps(status=DECLINED)
    if not refused or reading.sure or not _bare(reading.slots, "work") or not _says(reading.slots, "purpose"):
        return None
    step = max(refused, key=lambda one: one.created_at)
    text = meaning(slots_of(step.stage))
    return TurnAnswer(f"{text}\n{step.stage} ({step.id} of {step.run}) was refused; “{step.stage}” shows its price "
                      f"again.") if text else None  # fmt: skip


def _of_two_runs(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`which one would you take?`: one of the two that were compared."""
    label = reading.label
    asks = label in ("findings.deploy", "findings.next", "runs.best", "compare_runs.results", "follow", "findings.all")
    if isinstance(before, CompareRunsQuery) and asks and _bare(reading.slots) and _says(reading.slots, "which"):
        return before.model_copy(update={"about": "choice", "as_table": False})
    return None


_RULES: Mapping[type[Query], Callable[[TurnDeps, Query, Reading], _Outcome]] = {
    CasesQuery: _of_a_list, RowsQuery: _of_a_list, FileQuery: _of_a_file, ServedQuery: _of_serving,
    ResultQuery: _of_results, RunQuery: _of_a_run, FitsQuery: _of_fit, PriceQuery: _of_a_price,
    SettingQuery: _of_a_setting, SettingsQuery: _of_a_setting, ApprovalsQuery: _of_decisions,
    CompareRunsQuery: _of_two_runs,
}  # fmt: skip
"""The question that was answered → how short words are read behind it."""


def _in_the_plan(deps: TurnDeps, before: SettingQuery, slots: Slots) -> TurnAnswer | None:
    """`and this time?`, with a plan open: its value of the setting that was asked about."""
    if not _says(slots, "this_time") or not _bare(slots):
        return None
    each = [
        plan_questions.value_and_reason(deps, slots_of(field.replace("_", " ")))
        or f"The plan says nothing of {field}: it is chosen when its step is due. “{field} …” sets it."
        for field in before.fields
    ]
    return TurnAnswer("\n".join(each))
