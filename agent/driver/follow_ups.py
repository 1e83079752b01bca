"""Short words behind an answer, which name nothing themselves: what they ask of what that answer was about.

What it was about is kept as the question that was answered, with its run, arm, stage and file, as what it listed, as
the steps that it proposed, and as the place in the list that it came to. What the words leave unnamed is read as if
they named that. Words that name a thing of their own are read for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tunesmith.agent.commands.approvals import is_yes
from tunesmith.agent.driver import ordering, plan_questions
from tunesmith.agent.driver.choosing import settings_before
from tunesmith.agent.driver.look_ups import GUESSED, looked_up, meaning, talk_text, values_of, why, with_what_is_next
from tunesmith.agent.driver.standing import standing
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import ordinary
from tunesmith.agent.queries.arguments import MOST_SHOWN, Query
from tunesmith.agent.queries.files import FileQuery
from tunesmith.agent.queries.machine import ServedQuery
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.queries.runs import RunQuery
from tunesmith.agent.queries.scores import ResultQuery, arms_measured
from tunesmith.agent.queries.settings import SettingQuery
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.agent.words.acts import Assigned, Order
from tunesmith.agent.words.carried import PARTS, REASONS, alike, another_value, flips_of, meant
from tunesmith.agent.words.edits import Edits, settled_in
from tunesmith.agent.words.head import kind_of
from tunesmith.agent.words.lexicon import everyday, lexicon
from tunesmith.agent.words.reading import Reading, reader
from tunesmith.agent.words.requests import Asked, followed, request_of
from tunesmith.agent.words.slots import Slot, Slots, slots_of
from tunesmith.memory.arms import ARMS
from tunesmith.memory.records import DECLINED
from tunesmith.tools.core.format import listed, size
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan

_MOST_WORDS = 10
"""Of what follows on an answer; longer words are about something of their own."""
_LOOSE = frozenset({"pronoun", "unspoken", "not", "only", "again", "order", "figure", "until"})
"""Kinds of slot that name nothing by themselves."""
_CLOSE, _NEAR, _FEW = 2, 5, 5
"""Readings among which one counts as nearly as likely as the first, and as likely; those that ask for a reason."""
YES, _DOUBTFUL = ("yes", "accept", "go_on"), 0.6
"""Below which probability words rather ask the same kind of question once more than what they are read as."""
_ITEMS = {"step": "step", "stage": "price", "artifact": "artifact", "case": "case", "run": "run"}
"""What tells a thing that an answer listed, the most telling first → the kind of question that is asked of it."""
_IN_A_LIST = ("which_run", "run", "field", "pace", "choice.rollback")
_CARRIED = (*_ITEMS, "arm", "block", "made")
_AGAIN = {"result": "enough", "compare": "where", "compare_runs": "results"}
"""Kind of a question → what is wanted of its answer by who asks the same again."""


def follow_up(deps: TurnDeps, reading: Reading) -> TurnAnswer | Call | None:
    """What short words behind an answer come to; None: they stand by themselves. Raises NotFound, BadInput."""
    before, slots = deps.last_query, reading.slots
    if not slots.words or len(slots.words) > _MOST_WORDS:
        return None
    if deps.draft is not None:
        return _in_the_plan(deps, deps.draft, before, reading) if before is not None else None
    if before is None:
        return None
    rules = (_at_a_place, _of_the_one_before, *_RULES.get(before.kind, ()), _vague, _reason, _of_the_same, _another)
    asked = next((one for rule in rules if (one := rule(deps, before, reading)) is not None), None)
    if not isinstance(asked, Query):
        return asked
    answer = with_what_is_next(deps, slots, asked, looked_up(deps, asked), standing)
    if asked == ServedQuery(about="before"):
        deps.last_query = ServedQuery(about="history")  # `put that back`
    told = reading.probability >= _DOUBTFUL and (reading.sure or reading.label == "follow")
    note = "" if told or deps.most_lines else f"\n(I take that to be about “{deps.said}”.)"
    return replace(answer, text=f"{answer.text}{note}")


def _bare(slots: Slots, *also: str) -> bool:
    """Whether words name nothing, but for slots of these kinds."""
    return {slot.kind for slot in slots.named} <= {*_LOOSE, *also}


def _says(slots: Slots, table: str) -> str:
    """The first thing of a table of the lexicon that words name; empty: none."""
    return next((match.name for match in everyday(table, slots.words)), "")


def _open(reading: Reading, *kinds: str) -> bool:
    """Whether words are read as following on, as one of these kinds, or as nothing with certainty."""
    return not reading.sure or reading.kind in ("follow", *kinds)


def _acts(reading: Reading) -> bool:
    """Whether words are most likely an order, or an answer to a question."""
    return reading.kind in (*YES, "no", "page", "again", "why", "want") or reading.label.startswith("do.")


# What was told, and one thing of it


def _items(deps: TurnDeps) -> tuple[str, list[Mapping[str, object]]]:
    """What the last answer listed, each thing once, and what tells one from another. Of a score that is its run."""
    for name in _ITEMS:
        if of_name := [one for one in deps.facts if one.get(name) and (name == "run" or "judged" not in one)]:
            return name, [*{str(one[name]): one for one in reversed(of_name)}.values()][::-1]
    return "", []


def _asked_of(
    deps: TurnDeps, label: str, slots: Slots, item: Mapping[str, object] | None, *, needs: bool = True
) -> Query | None:
    """What words ask as that label where all that they leave unnamed is what the last answer was about; `item`: of
    that thing in it. None where the question takes nothing of it and `needs` to."""
    kind, _, choice = label.partition(".")
    part, step = _says(slots, "asked_of"), str((item or {}).get("step", ""))
    if kind == "price" and step and part in ("time", "memory"):  # of a step that was told of its own, and no new one's
        return StepQuery.model_validate({"about": part, "step": step})
    if kind not in REQUESTS:
        return None
    about = {name: (item or {}).get(name) or getattr(deps.last_query, name, "") for name in _CARRIED}
    given = {name: str(value) for name, value in about.items() if value and not slots.all(name)}
    named = (Slot(name, value, 0, 0) for name, value in given.items())
    asked = request_of(Asked(kind, choice, replace(slots, named=(*slots.named, *named)), ""))
    takes = any(getattr(asked, name, "") == value for name, value in given.items() if name != "run")
    return asked if takes or not needs else None


_Outcome = Query | TurnAnswer | Call | None


def _at_a_place(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`the second one`, `show the first in full`, of what was listed: what the words ask else, of that thing; of what
    failed, the newest first, `and the one before that?` is the second."""
    slots, (key, items) = reading.slots, _items(deps)
    places, runs = lexicon()["ordinals"].find(slots.words), len(slots.all("run")) - len(slots.all("which_run"))
    failed = getattr(before, "about", "") == "failures" and _open(reading, "steps", "step")
    earlier = not places and failed and bool(_says(slots, "before_that"))
    if len(places) + earlier != 1 or runs > 0 or not _bare(slots, *_IN_A_LIST):
        return None
    ordered = reading.label.startswith(("do.", "go_on", "plan."))
    place = 0 if ordered else 2 if earlier else int(places[0].name)
    if place and before.kind == "cases" and deps.until:
        listed = place == -1 and not getattr(before, "number", 0)  # `the last one` of those that are on the screen
        place = deps.until if listed else place
        return before.model_copy(update={"number": place, "skip": 0, "as_table": False})
    if not place or not -len(items) <= place <= len(items) or len(items) < 2:
        return None
    newest = place == -1 and key in ("step", "artifact", "run")  # `the last one`, however they were listed
    item = max(items, key=lambda one: (len(str(one[key])), str(one[key]))) if newest else items[place - (place > 0)]
    slots = replace(slots, named=tuple(slot for slot in slots.named if slot.kind in _LOOSE))
    of_its_kind = [label for label in reading.likely[:_NEAR] if kind_of(label) == _ITEMS[key] and not earlier]
    return _asked_of(deps, (*of_its_kind, _ITEMS[key])[0], slots, item, needs=key != "run")


def _of_the_one_before(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`and the one before?`: what was served before; the arm before, of results; else the run before."""
    slots, arm = reading.slots, getattr(before, "arm", "")
    if not _says(slots, "before_that") or not _bare(slots, "which_run", "run", "choice.rollback"):
        return None
    if before == ServedQuery():
        asks = _open(reading, "served") and "served.history" in (reading.label, *reading.likely[:_NEAR])
        return ServedQuery(about="before") if asks or reading.label == "follow" else None
    if before.kind not in ("result", "run") or not _open(reading, before.kind):
        return None
    runs = [run.id for run in ordinary(deps.store)]
    run = getattr(before, "run", "") or deps.focused_run_id or next(iter(runs), "")
    alone = len(slots.words) - len(lexicon()["joints"].find(slots.words)) == 1  # `and before?`
    until = ARMS.index(arm) if arm else 1 if alone and before.kind == "result" else 0
    if of_arm := [one for one in arms_measured(deps.store, run) if one in ARMS[:until] and one != "prompted"]:
        return before.model_copy(update={"arm": of_arm[-1]})
    earlier = runs[runs.index(run) + 1 :] if run in runs else []
    if arm or earlier:
        return None if arm else before.model_copy(update={"run": earlier[0]})
    return TurnAnswer(f"There is no run before {run}.")


def _reason(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`why?`, also where nobody is sure of what the reason is asked."""
    likely, bare, label = reading.probability >= GUESSED, _bare(reading.slots), reading.label
    several = bare and label in REASONS and len({*reading.likely[:_FEW]} & {*REASONS}) > 1
    asks = several or (likely and (label == "why" or (bare and label == "step.failure")))
    return why(deps) if asks and not reading.sure else None


def _vague(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`is that good?`, `how much is left?`, `what can I do about it?`: what that asks behind a question of its kind."""
    label = meant(before, reading.likely[: _CLOSE if reading.probability < GUESSED else 1])
    asks = label and _bare(reading.slots, "verdict", "field")
    if asks and (label, getattr(before, "made", "")) == ("trial.how", "release"):
        return TurnAnswer(talk_text(deps, "ollama_how"))
    return _asked_of(deps, label, reading.slots, None, needs=False) if asks else None


def _another(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """What names one thing that the question before takes, and may follow on it: that question of this thing."""
    if reading.sure or _acts(reading) or "follow" not in reading.likely[:_NEAR] or _bare(reading.slots):
        return None
    changed = followed(before, Asked(before.kind, "", reading.slots, ""), [run.id for run in ordinary(deps.store)])
    return changed if changed != before else None


def _of_the_same(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """Words that leave out what they are about, or are read with little certainty: asked of what was told last, of its
    first thing where that was a list, `when was that?`. Of the likely readings the one of the kind of the question
    before counts first."""
    slots, likely, follows = reading.slots, reading.likely, reading.label == "follow"
    points_at_it = slots.all("pronoun") and reading.kind in _ITEMS.values()
    held = reading.kind == before.kind and any(getattr(before, name, "") for name in _CARRIED)
    own = points_at_it or held or (before.kind in _AGAIN and alike(before, reading.label))
    if not _bare(slots, "outcome") or _acts(reading) or (reading.sure and reading.request is not None and not own):
        return None
    near = [label for label in likely[:_NEAR] if alike(before, label)]
    top = [label for label in likely[: 1 + follows] if reading.probability >= GUESSED]
    name = next((name for name in ("about", "part") if name in type(before).model_fields), "kind")
    doubted = reading.probability < _DOUBTFUL or (slots.all("pronoun") and not reading.sure)
    for label in (*(near if follows or doubted else ()), *top):
        same = alike(before, label)
        asked = _asked_of(deps, label, slots, next(iter(_items(deps)[1]), None), needs=not same)
        if asked is not None and asked.kind == before.kind and getattr(asked, name) != getattr(before, name):
            return before.model_copy(update={name: getattr(asked, name)})
        if same and before.kind in _AGAIN and not follows:
            return before.model_copy(update={"about": _AGAIN[before.kind]})
        if not same and asked and not (slots.all("outcome") and "outcome" in type(asked).model_fields):
            return asked
    return None


def _of_a_list(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`three more`, `the next ones`, `others`: the list goes on behind the last that was shown; `next one`: the next in
    full, where one was. `What should it have said?`: the first one in full."""
    slots = reading.slots
    of_one = reading.kind == "case" and reading.probability >= GUESSED and getattr(before, "number", None) == 0
    if not deps.until or not _bare(slots, "which_run", *["outcome"] * of_one):
        return None
    if of_one:
        return before.model_copy(update={"number": 1, "skip": 0, "as_table": False})
    left, one_more = slots.all("unspoken"), reading.label == "page" and not getattr(before, "number", 0)
    numbers = [int(n.value) for n in slots.numbers if not (n.unit or (n.weak and not one_more)) and n.value >= 1]
    more = reading.label == "page" or (not reading.sure and (left or "page" in reading.likely[:_NEAR]))
    most = {"most": min(numbers[0], MOST_SHOWN)} if numbers else {}
    if not (more and (numbers or left or _says(slots, "next_ones"))):
        return None
    in_full = int(getattr(before, "number", 0) != 0 and not numbers)
    changed = {"skip": deps.until, "number": in_full, "as_table": False} | most
    return before.model_copy(update={name: changed[name] for name in type(before).model_fields if name in changed})


def _of_a_file(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`any bad ones in there?`, `are they all valid?`, `show me the first`."""
    slots, of_rows = reading.slots, {*reading.slots.values("field")} <= {"limit", "rows"}  # `the first`
    if not getattr(before, "path", "") or (reading.sure and isinstance(reading.request, FileQuery)) or not of_rows:
        return None
    if not (_bare(slots, "outcome", "decision", "made", "field") and _open(reading, "cases", "confusion")):
        return None
    about = next((one.partition(".")[2] for one in reading.likely[:2] if one.startswith("file_of_rows.")), "")
    if about or reading.kind in ("rows", "row"):
        return before.model_copy(update={"about": about or "rows"})
    judges = ("cases", "confusion", "across", "result", "findings", "runs", "steps", *["talk"] * (not reading.sure))
    return before.model_copy(update={"about": "valid"}) if reading.kind in judges else None


def _of_results(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`is that good?`, `how many more would it need?`: against what *learned* takes; the same question in other words
    asks for the verdict too. `And what do I do now?`: what the findings propose."""
    slots, ahead = reading.slots, getattr(before, "about", "") in ("remaining", "steps")
    if reading.label == "run.remaining" and not ahead and _bare(slots):
        finding = next((label for label in reading.likely[:_CLOSE] if label.startswith("findings.")), "")
        return _asked_of(deps, finding, slots, None, needs=False)
    if not _bare(slots, "outcome") or not _open(reading, "result") or _acts(reading):
        return None
    same = isinstance(before, ResultQuery) and reading.request == ResultQuery(about=before.about)
    if (same or _says(slots, "enough")) and getattr(before, "block", "") in ("", "target"):
        run = getattr(before, "run", "") or deps.focused_run_id
        return ResultQuery.model_validate({"about": "enough", "run": run, "arm": getattr(before, "arm", "")})
    return None


def _of_a_fit(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`then a smaller one`: the largest that would go."""
    slots, likely = reading.slots, {*reading.likely[:_NEAR]}
    other = slots.all("unspoken") or slots.all("order") or {"fits.largest", "follow"} & likely
    asks = getattr(before, "model", "") and other and not reading.sure and _bare(slots, "arm")
    return before.model_copy(update={"about": "largest", "model": ""}) if asks else None


def _of_a_part(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`and how much disk?`, `and the longest?`: that of the price, the machine or the steps ahead that were told of."""
    argument, table, parts = PARTS[before.kind]
    part = parts.get(_says(reading.slots, table), "")
    ahead = part and getattr(before, "about", "remaining") in ("remaining", "steps")
    asks = ahead and _bare(reading.slots, "field") and _open(reading, "price", "run", "steps")
    return before.model_copy(update={argument: part}) if asks else None


def _of_a_setting(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`and how long did it take?`: the step that had the setting. `Would 8 do?`: whether that value is sensible."""
    slots, time = reading.slots, _says(reading.slots, "asked_of") == "time"
    if not _bare(slots, *["field"] * time) or not _open(reading, "setting"):  # French `temps` is near a field's name
        return None
    if time:
        run = getattr(before, "run", "") or deps.focused_run_id
        return StepQuery(about="time", stage=getattr(before, "stage", "") or "train", run=run)
    numbers = [one.value for one in slots.numbers if not (one.unit or one.weak)]
    if reading.label == "setting.sensible" and not numbers:  # `is that high?`
        numbers = [value for one in deps.facts[:1] if isinstance(value := one.get("value"), int | float)]
    asks = isinstance(before, SettingQuery) and len(numbers) == 1
    return before.model_copy(update=another_value(before, numbers[0])) if asks else None


def _of_a_step(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`tokens per second?`: what was recorded while that step ran."""
    recorded = _bare(reading.slots, "metric") and reading.slots.all("metric") and "curve" in reading.likely[:_NEAR]
    return _asked_of(deps, "curve", reading.slots, None, needs=False) if recorded else None


def _of_decisions(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """Of the step that was refused last `what was that for again?`, and `put that back`, at its price. `And the rest?`
    of what was approved: what was refused, and what was not asked about yet."""
    slots, refused = reading.slots, deps.store.steps(status=DECLINED)
    if _says(slots, "the_rest") and _bare(slots) and getattr(before, "decision", "") in ("any", "yes"):
        both = before.model_copy(update={"decision": "no"}), RunQuery(run=getattr(before, "run", ""), about="remaining")
        return TurnAnswer("\n".join(looked_up(deps, one).text for one in both))
    if not refused or any(not one.weak for one in slots.numbers) or not _bare(slots, "work"):
        return None
    step = max(refused, key=lambda one: one.created_at)
    orders = reading.order is not None or reading.label in ("do.repeat_run", "do.approve")
    if orders and not slots.all("not") and slots.all("pronoun") and getattr(before, "decision", "") == "no":
        return ordering.call_of(deps, Order(step.stage, step.request, step.run))
    again = f"{step.stage} ({step.id} of {step.run}) was refused; “{step.stage}” shows its price again."
    asks = not reading.sure and _says(slots, "purpose") and (text := meaning(slots_of(step.stage)))
    return TurnAnswer(f"{text}\n{again}") if asks else None


def _of_files(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`throw that one away`: which file that is, the largest of several, and what works on such a one."""
    asks = reading.label == "do.delete" or (reading.label == "talk.delete" and reading.slots.all("pronoun"))
    files = [deps.store.artifact(str(one["artifact"])) for one in deps.facts if "artifact" in one]
    if not asks or not files or not _bare(reading.slots, "verdict", "made", "arm"):
        return None
    one = max(files, key=lambda file: file.bytes)
    users = listed([entry.name for entry in catalog.STAGES if one.kind in entry.needs], 12) or "no step"
    which = f"I take that to be the {one.kind} {one.id} of {one.run}, {size(one.bytes)}, {one.path}"
    return TurnAnswer(f"{which} ({users} would lack it). {talk_text(deps, 'do_delete')}")


def _of_two_runs(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:
    """`which one would you take?`: one of the two that were compared."""
    likely = {kind_of(label) for label in reading.likely[:_NEAR]}
    asks = likely & {"findings", "runs", "compare_runs", "follow"} and _says(reading.slots, "which")
    return before.model_copy(update={"about": "choice", "as_table": False}) if asks and _bare(reading.slots) else None


def _of_flips(deps: TurnDeps, before: Query, reading: Reading) -> _Outcome:  # `which of them flipped?`
    return flips_of(before, reading.request, deps.focused_run_id) if _bare(reading.slots, "outcome") else None


_RULES: Mapping[str, tuple[Callable[[TurnDeps, Query, Reading], _Outcome], ...]] = {
    "approvals": (_of_decisions,), "artifact": (_of_files,), "disk_use": (_of_files,), "cases": (_of_a_list,),
    "rows": (_of_a_list,), "file_of_rows": (_of_a_file,), "findings": (_of_results,), "fits": (_of_a_fit,),
    "compare_runs": (_of_two_runs,), "machine": (_of_a_part,), "price": (_of_a_part,),
    "result": (_of_flips, _of_results), "compare": (_of_flips,), "run": (_of_a_part, _of_results),
    "setting": (_of_a_setting,), "settings": (_of_a_setting,), "step": (_of_a_step,),
}  # fmt: skip
"""The kind of the question that was answered → how short words are read behind it."""


def _in_the_plan(deps: TurnDeps, plan: PipelinePlan, before: Query, reading: Reading) -> TurnAnswer | None:
    """What short words come to with a plan open: its value of the setting that was asked about, `and this time?`;
    another one for it, `make that 8`; the rows or the settings of the run that was told of, `use those`."""
    slots, fields = reading.slots, before.fields if isinstance(before, SettingQuery) else ()
    if not _bare(slots, "factor", "work") or (reading.edits and reading.edits.changes):
        return None
    numbers, factors = [one for one in slots.numbers if not one.weak], slots.all("factor")
    if reading.label == "plan.set" and reading.sure and len(fields) == 1 and len(numbers) + len(factors) == 1:
        values = tuple(Assigned(fields[0], number.value, ()) for number in numbers)
        by = dict(zip(fields, (float(str(factor.value)) for factor in factors), strict=False))
        return ordering.changed(deps, settled_in(values_of(plan), Edits(values=values, factors=by)))
    if factors or is_yes(deps.prompt) or (reading.label == "plan.undo" and deps.draft_before is not None):
        return None
    run, doubted = getattr(before, "run", ""), reading.probability < reader().head.threshold
    takes_over = {reading.label, *(label for label in reading.likely[:_NEAR] if label in _LIKE_A_RUN)}
    if run and doubted and slots.all("pronoun") and not numbers and takes_over & {*_TAKES_OVER, *_LIKE_A_RUN}:
        if before.kind == "rows":
            return plan_questions.with_rows_of(deps, run)
        had = settings_before(deps, slots_of(" ".join((run, *fields)).replace("_", " ")), Edits())
        return ordering.changed(deps, had) if had else None
    if not (_says(slots, "this_time") or reading.label == "follow" or (doubted and reading.label in _ASKS)):
        return None
    each = {field: plan_questions.value_and_reason(deps, slots_of(field.replace("_", " "))) for field in fields}
    unset = "The plan says nothing of {0}: it is chosen when its step is due. “{0} …” sets it."
    return TurnAnswer("\n".join(told or unset.format(field) for field, told in each.items())) if each else None


_LIKE_A_RUN = ("plan.as_before", "plan.rows")
_TAKES_OVER = ("plan.start", "plan.undo", "plan.set", "plan.add", "plan.compare")
"""What an order is read as that points back at what a run had."""
_ASKS = ("plan.show", "plan.cost", "plan.compare", "plan.why")
