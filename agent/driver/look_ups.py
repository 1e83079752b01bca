"""What is answered without changing anything: questions from the records, terms, talk, and where somebody stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files

from tunesmith.agent.driver.describing import open_interview
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import Answer, cite, find, ordinary, run_of_base, taken_up
from tunesmith.agent.queries.arguments import Query, TabledQuery
from tunesmith.agent.queries.artifacts import release_in_short
from tunesmith.agent.queries.case import CaseQuery
from tunesmith.agent.queries.comparisons import CompareQuery, CompareRunsQuery
from tunesmith.agent.queries.files import FileQuery
from tunesmith.agent.queries.findings import FindingsQuery
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.following import next_stages
from tunesmith.agent.queries.machine import JobsQuery, ServedQuery, at_work
from tunesmith.agent.queries.prices import PriceQuery, not_tested
from tunesmith.agent.queries.registry import answer, tool_of
from tunesmith.agent.queries.rows import RowsQuery
from tunesmith.agent.queries.runs import RunQuery, RunsQuery, StepsQuery
from tunesmith.agent.queries.scores import TUNED, ResultQuery, arms_measured, how_far, passed_by
from tunesmith.agent.queries.settings import SettingQuery, SettingsQuery
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.agent.queries.texts import labels_of
from tunesmith.agent.version import VERSION
from tunesmith.agent.words import reading
from tunesmith.agent.words.head import Moment
from tunesmith.agent.words.lexicon import Names, is_known, words_of
from tunesmith.agent.words.slots import Slots
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import DONE, RUNNING
from tunesmith.tools.core.yaml_file import read_own
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.known_bases import known_base
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.serving import servers

GUESSED = 0.4
"""From which probability a question is answered, and called a guess, where nobody can say what it is: a wrong answer is
seen to be one, and none would leave the person to find other words."""
CAN_ANSWER = (
    "I can answer how long a step took, what passed, which cases failed, why a setting has its value, what would fit "
    "here, what to try next; or say what a model should learn."
)


def looked_up(deps: TurnDeps, request: Query) -> TurnAnswer:
    """The answer to a typed question, as what a turn comes to; what it was about is remembered for the next one.

    Raises NotFound, BadInput.
    """
    deps.last_query = request
    reply = answer(request, deps.records())
    lines = remember(deps, request, reply)
    return TurnAnswer(
        "\n".join(lines[: deps.most_lines or None]),
        for_model=reply.for_model,
        tool=tool_of(request),
        arguments=request.model_dump(mode="json", exclude_defaults=True),
    )


def of_its_base(deps: TurnDeps, understood: reading.Reading) -> Query:
    """The question that was read; where it names a base, of the run that has it.

    Raises NotFound where none has, or the run that is named has another.
    """
    request, models = understood.request, understood.slots.values("model")
    assert request is not None
    fields = type(request).model_fields
    named = [model for model in models if sum(letter.isalpha() for letter in model) > 1]  # a size alone names none
    if not named or "run" not in fields or "model" in fields or isinstance(request, SettingQuery | SettingsQuery):
        return request
    if isinstance(request, FindingsQuery) and request.about == "bigger_base":
        return request
    # not every question has one
    return request.model_copy(update={"run": run_of_base(deps.store, named[0], getattr(request, "run", "")).id})


def remember(deps: TurnDeps, request: Query, reply: Answer) -> tuple[str, ...]:
    """What was asked about, the page behind the answer and the steps that it proposes, for the words after it.

    Returns the lines to be said: where a table was asked for that is shown, and the first line alone is said.
    """
    deps.focused_run_id = getattr(request, "run", "") or reply.run or deps.focused_run_id
    deps.page, deps.proposals, deps.until = reply.page, reply.proposals, reply.until
    deps.facts = tuple(reply.as_json())
    deps.note(reply.for_model)
    if not (isinstance(request, TabledQuery) and request.as_table and reply.page):
        return reply.lines
    deps.show(reply.page())
    return reply.lines[:1]


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


def remember_setting(deps: TurnDeps, slots: Slots) -> None:
    """Keep the one setting of the open plan that words name, whatever they came to: `make that 8` is about it."""
    planned = {name for spec in deps.draft.steps for name in spec.fields} if deps.draft else set()
    fields = [name for name in slots.values("field") if name in planned]
    if len(fields) == 1 and fields[0] not in getattr(deps.last_query, "fields", ()):
        deps.last_query = SettingQuery(fields=(fields[0],))


def why(deps: TurnDeps) -> TurnAnswer:
    """`why?` after an answer: the reason as far as the records hold one."""
    before = deps.last_query
    if not ordinary(deps.store) and (before is None or isinstance(before, _OF_STEPS)):
        return TurnAnswer(f"Nothing was begun in {deps.store.home} so far, and so no run failed there. {CAN_ANSWER}")
    if before is not None and (reason := _WHY.get(type(before))):
        failed = isinstance(before, StepQuery) and before.about in _OF_ITS_END
        about, none = ("failure", "") if failed else reason
        answer = looked_up(deps, before.model_copy(update={"about": about}))
        return replace(answer, text=f"{none}\n{answer.text}".strip())
    if (before is None or isinstance(before, _OF_STEPS)) and (failure := _failure(deps, before)) is not None:
        return looked_up(deps, failure)
    if before is None:
        return TurnAnswer(f"Of what? {CAN_ANSWER}")
    if before.kind in _NO_REASON:
        return TurnAnswer(f"The records hold no reason for what “{deps.said}” asks; nothing was changed. {CAN_ANSWER}")
    of = {name: getattr(before, name, "") for name in ("run", "arm", "block")}
    return looked_up(deps, FindingsQuery.model_validate({**of, "about": "why" if of["block"] else "all"}))


_WHY: Mapping[type, tuple[str, str]] = {
    RowsQuery: ("reasons", ""), CaseQuery: ("wanted", ""), SettingQuery: ("value", ""), CompareRunsQuery: ("why", ""),
    StepQuery: ("estimate", "Why is not recorded; what was expected of it, what it took and what was asked for:"),
    ServedQuery: ("history", "No reason for changing what is served is recorded, only when and by whose yes:"),
}  # fmt: skip
"""Question → what of the same thing holds its reason, and what is said first where none is kept."""
_OF_ITS_END, _NO_REASON = ("outcome", "failure", "log"), ("artifact", "disk_use", "machine", "price")
"""What is asked of a step whose failure is its reason; questions about what no record gives a reason for."""
_OF_STEPS = (RunQuery, RunsQuery, StepsQuery, JobsQuery)
"""Questions about what was done; those about what came of it have findings as their reason."""


def _failure(deps: TurnDeps, before: Query | None) -> StepQuery | None:
    """Why the step broke off that an answer told of: of the run that was asked about, of the newest such run where all
    were; None where nothing broke off."""
    named, run = getattr(before, "run", ""), deps.focused_run()
    everywhere = getattr(before, "about", "") in ("failed", "failures")
    runs = [find(deps.store, named)] if named else ordinary(deps.store) if everywhere else [run] if run else []
    ended = next(filter(None, (deps.store.broken_off(run.id) for run in runs)), None)
    return StepQuery(about="failure", run=ended.run, step=ended.id) if ended else None


def moment(deps: TurnDeps) -> Moment:
    """Where the user stands, the first that holds of: a plan proposed, a step at work, no run, one that broke off, a
    model served, steps left.

    A price that waits is not told by this: its question takes the words itself.
    """
    store, run = deps.store, deps.focused_run()
    if deps.draft is not None:
        return "planned"
    if store.steps(status=RUNNING):
        return "running"
    if run is None and not ordinary(store):
        return "empty"
    if run is not None and store.broken_off(run.id) is not None:
        return "broken_off"
    if servers.list_servers(store.home, role=servers.DEPLOYED):
        return "served"
    return "midway" if run is not None and next_stages(store, run) else "finished"


def turn_context(deps: TurnDeps) -> reading.Context:
    """What the words of this turn are said in."""
    run, told = deps.focused_run(), deps.last_query
    priced = told.values if isinstance(told, PriceQuery) else {}
    return reading.Context(
        runs=tuple(ordinary(deps.store)),
        planned=tuple(dict.fromkeys(spec.stage for spec in deps.draft.steps)) if deps.draft else (),
        describing=open_interview(deps.store.home) is not None,
        before=deps.last_query,
        labels=labels_of(deps.store, run.id) if run else (),
        moment=moment(deps),
        now=values_of(deps.draft) if deps.draft else {**trained_with(deps, ""), **priced},
    )


def trained_with(deps: TurnDeps, run_id: str) -> Mapping[str, object]:
    """What the newest training of a run was given, of the newest where none is named; empty: there was none."""
    run = find(deps.store, run_id) if run_id else deps.current_run()
    done = [step for step in deps.store.steps(run.id, status=DONE) if step.stage == "train"] if run else []
    return done[-1].request if done else {}


def values_of(plan: PipelinePlan | None) -> dict[str, object]:
    """Field → its value in the newest step of a plan that has it."""
    return {name: value for spec in plan.steps for name, value in spec.fields.items()} if plan is not None else {}


def answer_to(deps: TurnDeps, understood: reading.Reading) -> TurnAnswer | None:
    """The answer to a question, from the records or the glossary; nothing is changed or begun. Raises NotFound."""
    if not understood.sure:
        return None
    if understood.request is not None:
        return looked_up(deps, of_its_base(deps, understood))
    kind, _, name = understood.label.partition(".")
    text = talk_text(deps, name, understood.slots.first("run")) if kind == "talk" else ""
    if kind == "term":
        text, run = meaning(understood.slots, both=name == "difference"), deps.focused_run() or deps.current_run()
        text = "\n".join([text, *(how_far(deps.store, run) if run and text == _page()[2]["claim"] else ())])
    if kind == "term" and len(fields := understood.slots.values("field")) == 1:
        deps.last_query = SettingQuery(fields=(fields[0],), about="default")  # `would 8 do for me?`
    return TurnAnswer(text) if text else None


def with_what_is_next(
    deps: TurnDeps, slots: Slots, request: Query, answer: TurnAnswer, standing: Callable[[TurnDeps], str]
) -> TurnAnswer:
    """What is going on, where nothing is: what came last, and what is next, as `standing` tells it; of results the test
    that still runs, and of several models that are named those that were not tested."""
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
    stands += [*_untested(deps, slots, request), *_of_other_runs(deps, slots, request)]
    first = not_measured(slots) if request.kind in _RESULTS else ""
    stands = [line for line in stands if line not in answer.text]
    return replace(answer, text="\n".join(filter(None, [first, answer.text, *stands])).strip())


def not_measured(slots: Slots) -> str:
    """That nothing was measured under a name such as MMLU or HumanEval, which is no word of this trade; empty where
    words hold none."""
    known = {*reading.reader().head.vocabulary, *_page()[1].words()}
    typed = [] if slots.sentence.isupper() else slots.unread([(one.start, one.end) for one in slots.named], is_known)
    names = [slots.sentence[word.start : word.end] for word in typed if word.written not in known]
    named = [one for one in names if len(one) >= _LETTERS and sum(letter.isupper() for letter in one) >= _CAPITALS]
    return f"“{named[0]}” was not measured here: a model is tested on the cases of its own run." if named else ""


_LETTERS, _CAPITALS = 4, 2
"""Of a benchmark's name."""


def _untested(deps: TurnDeps, slots: Slots, request: Query) -> list[str]:
    """Beside what came of a run, that its newest model was not tested, where that is and none is being tested."""
    asked, about = getattr(request, "run", ""), getattr(request, "about", "")
    run = find(deps.store, asked) if asked else deps.focused_run()
    of_run = request.kind == "run" and about in ("overview", "status", "remaining")
    if run is None or not (request.kind in _RESULTS or of_run):
        return []
    at_test = any(catalog.ENTRIES[step.stage].load().measures for step in deps.store.steps(run.id, status=RUNNING))
    measured = arms_measured(deps.store, run.id)
    newest = [arm for arm in TUNED if deps.store.artifacts(run.id, arm)][-1:]
    others = {*slots.values("arm")} - {getattr(request, "arm", "")}  # which are told of for themselves
    told = [arm for arm in newest if measured and arm not in (*measured, *others)]
    return [not_tested(deps.ws, run.id, arm) for arm in told if not at_test]


def _of_other_runs(deps: TurnDeps, slots: Slots, request: Query) -> list[str]:
    """The same of the other runs that are named, where the question takes one; of settings in what they differ. Of
    results of no named run which model is served."""
    runs, asked, context = slots.values("run"), getattr(request, "run", ""), deps.records()
    if isinstance(request, ResultQuery) and not runs and moment(deps) == "served":
        return [*answer(ServedQuery(), context).lines[:2]]  # which of the models it is that answers now
    others = [run for run in runs if run not in (asked, getattr(request, "other_run", ""))]
    if isinstance(request, CompareRunsQuery) and request.about in ("results", "suites"):  # which two runs have here
        request = ResultQuery(block=request.block)
    elif request.kind not in _OF_ONE_RUN or asked not in runs:
        return []
    replies = [answer(request.model_copy(update={"run": run}), context).lines for run in others]
    lines = [line for reply in replies for line in reply[: deps.most_lines or None]]
    if isinstance(request, SettingsQuery) and len(others) == 1:
        both = CompareRunsQuery(about="settings", run=asked, other_run=others[0])
        lines += answer(both, context).lines[:1]
    return [line for line in lines if line]


_OF_ONE_RUN = ("settings", "setting", "result", "run", "step", "steps", "curve", "findings", "artifact", "disk_use")
"""Questions about one run whose answers are short enough to stand below one another."""
_RESULTS = ("result", "compare", "cases", "findings", "confusion")


def whether_it_fits(deps: TurnDeps, model: str) -> str:
    """Whether a model can be trained here, in a sentence; empty for a packaged one, and where that is not known."""
    if model in BUNDLED:
        return ""
    try:
        return answer(FitsQuery(model=model, work="train"), deps.records()).lines[0]
    except TunesmithError:
        return ""


@cache
def _page() -> tuple[Mapping[str, str], Names, Mapping[str, str]]:
    """The page of what is said, by label; the terms in all their words, and what each means."""
    page = read_own(files("tunesmith.prompts") / "glossary.yaml")
    names, meanings = ({term: one[at] for term, one in page["terms"].items()} for at in (0, 1))
    return page["talk"], Names(names), meanings


def talk_text(deps: TurnDeps, topic: str, run: str = "") -> str:
    """What is said to a piece of talk, with what the records say of `run` where it asks for that; empty for one that is
    not on the page."""
    text = _page()[0].get(topic, "")
    driver = deps.driver_state() if "{driver}" in text else ""
    values = {"driver": driver, "home": deps.store.home, "version": VERSION, "now": time.strftime("%A, %Y-%m-%d %H:%M")}
    values["running"] = "".join(f"{at_work(step)} " for step in deps.store.steps(status=RUNNING))
    values["released"] = _released(deps) if "{released}" in text else ""
    ended = deps.store.broken_off(focused.id) if (focused := deps.focused_run()) else None
    values["broken"] = f"{cite(ended)} would go on {taken_up(deps.store, ended)}." if ended else ""
    values["licence"] = _licence(deps, run) if "{licence}" in text else ""
    values["rows"] = _rows_for_a_plan(deps, run) if "{rows}" in text else ""
    ahead = next_stages(deps.store, deps.current_run())[:1] if "{next}" in text else ()
    values["next"] = "".join(f" Next comes {one}: “go on” shows its price." for one in ahead)
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _released(deps: TurnDeps) -> str:
    """Where the newest GGUF lies, or how one is made, with a space behind it."""
    for one in deps.store.newest_of_kind("release"):
        if one.meta.get("format") == "gguf" and one.path.exists():
            return f"{release_in_short(one)}. "
    return "There is no GGUF yet: “export the merged model as a GGUF” prices one. "


def _licence(deps: TurnDeps, run: str) -> str:
    """Under which licence the base of a run is, as its card has it; empty where no run is."""
    of = run or next((one.id for one in (deps.focused_run(), *ordinary(deps.store)) if one), "")
    base = next(reversed(deps.store.artifacts(of, "base")), None)
    if base is None:
        return ""
    title = str(base.meta.get("name", "")) or str(deps.store.step(base.step).request.get("model", "")) or base.id
    known = known_base(title)
    licence = str(base.meta.get("license", "")) or (known.license if known else "")
    told = f"is under {licence} by its card" if licence else "has none in the records; its card on the hub names it"
    return f"The base of {of}, {title}, {told}."


def _rows_for_a_plan(deps: TurnDeps, run: str) -> str:
    """Which rows another plan would train on, before what is said of that anywhere; empty where there are none yet."""
    try:
        return f"{looked_up(deps, RowsQuery(about='for_a_plan', run=run)).text.splitlines()[0]} "
    except TunesmithError:
        return ""


def meaning(slots: Slots, *, both: bool = False) -> str:
    """What the term means that a sentence names, or the two that it sets against each other; empty: it names none."""
    _, names, meanings = _page()
    stages = [_TERM_OF_STAGE.get(stage, stage) for stage in slots.values("stage")]
    words = [*slots.words, *(word for quote in slots.values("quote") for word in words_of(quote))]
    named = dict.fromkeys([*(match.name for match in names.find(words)), *stages])
    return "\n".join([meanings[term] for term in named if term in meanings][: 2 if both else 1])


_TERM_OF_STAGE = {"evaluate": "evaluation", "quantize": "quantization", "train": "fine-tuning"}


def page(deps: TurnDeps) -> str:
    """Show the page behind the last answer."""
    if deps.page is None:
        return "There is no longer version of the last answer; ask about a run, its cases, rows or settings."
    deps.show(deps.page())
    return "That is the whole page."
