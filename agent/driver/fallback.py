"""The conversation of a machine whose driver cannot call tools: one sentence, one typed question, order or change.

A question becomes a request of its kind, an order a step at its price, a change of the plan the arguments of its tool.
What is read with too little certainty is answered as a guess or not at all, beside the three nearest questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from rich.console import RenderableType

from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.driver import drafts, kept_apart, plan_words
from tunesmith.agent.driver.manual import meaning, names_of_terms, talk_text
from tunesmith.agent.driver.reads import looking
from tunesmith.agent.driver.state_summary import moment_of, where_things_stand
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import cite, clip, find, ordinary
from tunesmith.agent.queries.facts import Fact, Proposed, Query
from tunesmith.agent.queries.registry import REQUESTS, ask, query_of, tool_of
from tunesmith.agent.queries.settings import SettingQuery
from tunesmith.agent.queries.steps import StepQuery, at_work, goes_on_from
from tunesmith.agent.queries.table import shown_rows, text_of, whole_page
from tunesmith.agent.queries.texts import labels_of
from tunesmith.agent.words.acts import Order, holds_back
from tunesmith.agent.words.head import NoEncoder
from tunesmith.agent.words.lexicon import Names, as_written, words_in
from tunesmith.agent.words.reading import LONGEST, Context, Reading, parted, read, reader
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import PLANNED, RUNNING
from tunesmith.tools.core.format import listed
from tunesmith.tools.data.description import DescriptionDraft
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.following import inherited, lacking_before, next_stages
from tunesmith.tools.pipeline.plan_file import parse_fields
from tunesmith.tools.serving import servers

GUESSED = 0.2
"""From which probability a question is answered, and called a guess: a wrong answer is seen to be one. Of those from
here to 0.4 half are right (tests/heldout/labels.yaml)."""
_LIKELY, _CERTAIN = 0.4, 0.995
"""From which probability a guess stands alone and an order to stop is one where every word says so, and from which it
is one whatever words are in it."""
_REFUSED = ("do.delete", "do.approve", "do.repeat_run")
"""Orders that are answered with why nobody carries them out."""
_OFFERED = 3
_UNREAD = "I did not understand that; nothing was changed or begun."


@dataclass(slots=True)
class Spoken:
    """What the words of a turn may lean on."""

    before: Query | None = None
    """The question that was answered last."""
    page: Callable[[], RenderableType] | None = None
    """The page behind the last answer."""
    listed: Sequence[Fact] = ()
    """The rows of the last answer that the screen shows."""
    proposals: tuple[Proposed, ...] = ()
    """The steps that the last answer proposed."""
    offered: tuple[str, tuple[str, ...]] = ("", ())
    """Words that were not understood, and the labels that were offered for them, by number."""
    drafts: list[DescriptionDraft] = field(default_factory=list)
    """The drafts of the open description before each of its changes."""


def turn(deps: TurnDeps, spoken: Spoken) -> TurnAnswer | Call:
    """What the user's words come to. Errors are told in words."""
    try:
        return _turn(deps, spoken)
    except NoEncoder as error:
        return TurnAnswer(f"No sentence can be read here: {error}. `/help` lists the commands.")
    except TunesmithError as error:
        deps.went_wrong("query_records", error)
        deps.note(str(error))
        return TurnAnswer(str(error))


def _turn(deps: TurnDeps, spoken: Spoken) -> TurnAnswer | Call:
    words, context = deps.prompt.strip(), context_of(deps, spoken)
    (said, labels), spoken.offered = spoken.offered, ("", ())
    if words.isdecimal() and 0 < int(words) <= len(labels):
        deps.prompt = said
        meant = reader().read(said, context, labels[int(words) - 1])
        return _outcome(deps, spoken, meant) or TurnAnswer(_UNREAD)
    agreed = read_answer(words, by="terminal", stage=spoken.proposals[0].stage) if spoken.proposals else None
    if agreed and agreed.yes and deps.draft is None:
        return _agreed(deps, spoken)
    if picked := _picked(deps, spoken):
        return picked
    if both := parted(words, context):
        return _both(deps, spoken, both)
    reading = read(words[:LONGEST], context)
    if len(words) > LONGEST and reading.kind != "want":
        return TurnAnswer(f"That is {len(words):,} characters; a sentence is read up to {LONGEST}. Say it in one.")
    if reading.sure and (outcome := _outcome(deps, spoken, reading)) is not None:
        return outcome
    spoken.offered = words, tuple(one for one in reading.nearest if _is_possible(deps, one))[:_OFFERED]
    offers = ", ".join(f"{n} “{reader().head.offer(label)}”" for n, label in enumerate(spoken.offered[1], 1))
    asks = reading.asks or reading.label in _REFUSED
    likely = _guess(deps, spoken, reading) if asks and reading.probability >= GUESSED else None
    named = {"step": reading.slots.first("step"), "run": reading.slots.first("run")}
    stand = [] if likely and reading.probability >= _LIKELY else where_things_stand(deps, **named)
    if likely is None:
        near = f"{_UNREAD} Did you mean {offers}? A number is enough." if offers else _UNREAD
        return TurnAnswer("\n".join([*stand, near]))
    note = f"(I read that with little certainty. Did you mean something else: {offers}? A number is enough.)"
    return replace(likely, text="\n".join([likely.text, *(one for one in stand if one not in likely.text), note]))


def _guess(deps: TurnDeps, spoken: Spoken, reading: Reading) -> TurnAnswer | None:
    """The answer to a question that may have been meant, or why a likely one has none; None where nothing is known."""
    try:
        return told(deps, spoken, reading)
    except TunesmithError as error:
        return TurnAnswer(str(error)) if reading.probability >= _LIKELY else None


def _both(deps: TurnDeps, spoken: Spoken, both: Sequence[Reading]) -> TurnAnswer | Call:
    """The answer to a question and what the other part of the sentence comes to; of two orders the first alone."""
    first = _outcome(deps, spoken, both[0]) or TurnAnswer(_UNREAD)
    if isinstance(first, Call) or not both[0].asks:
        deps.show(prose(f"(One thing at a time is read here: say “{both[1].slots.sentence}” after it.)"))
        return first
    if not both[1].asks:
        deps.show(prose(first.text))
        return _outcome(deps, spoken, both[1]) or TurnAnswer(_UNREAD)
    second = _guess(deps, spoken, both[1]) or TurnAnswer(_UNREAD)
    note = "" if both[0].sure and both[1].sure else "\n(I read that as two questions, with little certainty.)"
    for_model = f"{first.for_model or first.text}\n{second.for_model or second.text}"
    return replace(second, text=f"{first.text}\n{second.text}{note}", for_model=for_model)


def _outcome(deps: TurnDeps, spoken: Spoken, reading: Reading) -> TurnAnswer | Call | None:
    """What a reading comes to; None where nothing can be made of it. Raises NotFound, BadInput."""
    if reading.asks and (answer := told(deps, spoken, reading)) is not None:
        return answer
    if deps.draft is not None and (done := plan_words.changed(deps, reading)) is not None:
        return done
    if reading.order is not None:
        return _ordered(deps, spoken, reading.order, reading.slots)
    kind, _, name = reading.label.partition(".")
    match kind:
        case "do" if name == "stop":
            return _stop(deps, reading)
        case "do" if name == "report":
            return _report(deps, reading.slots.first("run"))
        case "again" if spoken.before:
            found = _looked_up(deps, spoken, spoken.before)
            return replace(found, text=f"Once more:\n{found.text}")
        case "page" if (had := spoken.before) and hasattr(had, "skip") and as_written("more", reading.slots.words):
            skip = had.skip + len(spoken.listed)
            return _looked_up(deps, spoken, had.model_copy(update={"skip": skip}))
        case "page":
            deps.show(spoken.page()) if spoken.page else None
            return TurnAnswer("That is the whole page." if spoken.page else "The last answer has no longer page.")
        case "why":
            return _why(deps, spoken)
        case "accept" | "yes" if spoken.proposals:
            return _agreed(deps, spoken)
        case "go_on":
            return _next(deps, spoken, reading.slots.first("run"))
        case "yes" | "no" | "accept":
            waits = deps.store.steps(status=PLANNED)[-1:]
            open_ = f"{waits[0].stage} waits: say “{waits[0].stage}”" if waits else "no question of mine is open"
            return TurnAnswer(f"Nothing was started: {open_}. “Go on” shows the price of the next step.")
        case "want":
            return plan_words.wanted(deps, reading)
        case "remark":
            return None
    text = talk_text(deps, f"do_{name}" if kind == "do" else kind)
    return TurnAnswer(text) if text else None


# Questions


def told(deps: TurnDeps, spoken: Spoken, reading: Reading) -> TurnAnswer | None:
    """The answer to a question, from the records or the glossary; nothing is changed or begun. Raises NotFound."""
    if reading.request is not None:
        return _looked_up(deps, spoken, reading.request)
    kind, _, name = reading.label.partition(".")
    with suppress(TunesmithError):
        if beside := _BESIDE.get(name):
            found = _looked_up(deps, spoken, beside)
            return replace(found, text=f"{talk_text(deps, name)}\n{found.text}")
    topic = f"do_{name}" if reading.label in _REFUSED else name if kind == "talk" else ""
    text = talk_text(deps, topic) if topic else _meanings(reading.slots, 2 if name else 1)
    return TurnAnswer(text) if text else None


_BESIDE: dict[str, Query] = {
    "ollama_how": REQUESTS["artifact"].model_validate({"made": "release"}),
    "call_model": REQUESTS["served"](),
}
"""What the records hold of a thing is told beside how it is done."""


def _meanings(slots: Slots, most: int) -> str:
    """What the terms mean that a sentence names."""
    named = [match.name for match in Names(names_of_terms()).find(slots.words)] + slots.values("stage")
    meant = dict.fromkeys(_TERM_OF_STAGE.get(one, one) for one in named)
    return "\n".join([*filter(None, map(meaning, meant))][:most])


_TERM_OF_STAGE = {"evaluate": "evaluation", "quantize": "quantization", "train": "fine-tuning"}


def _looked_up(deps: TurnDeps, spoken: Spoken, request: Query) -> TurnAnswer:
    result = ask(request, deps.records(), strict=False)  # a word in passing is no argument that somebody gave
    spoken.before, spoken.page, spoken.proposals = request, whole_page(result), result.proposals
    spoken.listed = shown_rows(result)
    deps.focused_run_id = str(result.of.get("run", "") or getattr(request, "run", "") or deps.focused_run_id)
    deps.reads.results.append((looking(request), result))
    deps.note(told := result.for_model())
    arguments = request.model_dump(mode="json", exclude_defaults=True)
    return TurnAnswer("\n".join(text_of(result)), told, tool_of(request), arguments)


def _picked(deps: TurnDeps, spoken: Spoken) -> TurnAnswer | None:
    """What a few words point at by its place in the list that was shown: `the first`, `why that last one?`"""
    slots = slots_of(deps.prompt)
    places = [int(one.name) for one in as_written("ordinals", slots.words)]
    pointing = words_in("asking") | words_in("ordinals") | words_in("one_of_a_list")
    if len(places) != 1 or len(spoken.listed) < max(2, *places) or slots.unread((), pointing.__contains__):
        return None
    one = spoken.listed[places[0] - (places[0] > 0)]
    return _looked_up(deps, spoken, query_of(one))


def _why(deps: TurnDeps, spoken: Spoken) -> TurnAnswer:
    """`why?` after an answer: why a step broke off, where it told of steps; what the rule says of a setting; else what
    the results show."""
    if isinstance(before := spoken.before, SettingQuery):
        value = ask(before, deps.records(), strict=False).facts[0].get("value")
        given = {"value": value} if isinstance(value, int | float) else {}
        return _looked_up(deps, spoken, before.model_copy(update=given))
    of_steps = spoken.before is None or spoken.before.kind in ("run", "runs", "step", "steps", "jobs")
    runs = [run for run in (deps.focused_run(), *ordinary(deps.store)) if run]
    ended = next(filter(None, (deps.store.broken_off(run.id) for run in runs)), None) if of_steps else None
    if ended is not None:
        return _looked_up(deps, spoken, StepQuery.model_validate({"run": ended.run, "step": ended.id}))
    return _looked_up(deps, spoken, REQUESTS["findings"].model_validate({"run": getattr(spoken.before, "run", "")}))


# Orders


def _ordered(deps: TurnDeps, spoken: Spoken, order: Order, slots: Slots) -> TurnAnswer | Call:
    """The call that carries an order out, its price shown first; or why it begins nothing. Raises BadInput."""
    stage = order.stage
    if stage == "inspect":
        return _looked_up(deps, spoken, REQUESTS["machine"]())
    if refusal := kept_apart.refused(order, slots, context_of(deps, spoken)):
        return TurnAnswer(refusal)
    if held := holds_back(slots) or listed([f"{one}" for one in order.unread], 4):
        return TurnAnswer(f"“{held}” I cannot hold a step to, so nothing was begun. Say “{stage}”, with a setting's "
                          f"name and value where you want one, and its price is shown.")  # fmt: skip
    run = find(deps.store, order.run) if order.run else deps.current_run()
    lacking, before = lacking_before(deps.store, run, stage, order.fields) if run else ([], [])
    if lacking and before and run and not order.fields.get("rollback"):
        spoken.proposals = (Proposed(run.id, before[0].split()[0], {}),)
        return TurnAnswer(f"{stage} needs {listed(lacking, 4)}, which {run.id} does not have yet; before it come "
                          f"{listed(before, 9)}. “Do that” shows the price of the first.")  # fmt: skip
    fields = inherited(deps.ws, stage, order.fields, run.id if run else "", again=order.again, times=order.factors)
    if order.loose:
        deps.show(prose(f"(About {listed([f'“{one}”' for one in order.loose], 4)} nothing was done.)"))
    return Call(stage, {**parse_fields(stage, fields), **({"run": order.run} if order.run else {})})


def _agreed(deps: TurnDeps, spoken: Spoken) -> TurnAnswer | Call:
    """The step that the last answer proposed, at its price."""
    one, spoken.proposals = spoken.proposals[0], ()
    return _ordered(deps, spoken, Order(one.stage, dict(one.fields), one.run), _NOTHING_SAID)


def _next(deps: TurnDeps, spoken: Spoken, run_id: str) -> TurnAnswer | Call:
    """The step that comes next in a run: the one that broke off, else the first that is missing."""
    run = find(deps.store, run_id) if run_id else deps.current_run()
    ended = deps.store.broken_off(run.id) if run else None
    if ended is not None:
        deps.show(prose(f"{cite(ended)} ({ended.stage}) ended: {clip(ended.error or 'no reason is recorded', 200)}; it "
                        f"goes on from {goes_on_from(deps.store, ended)}."))  # fmt: skip
        arm = {"arm": ended.request["arm"]} if ended.request.get("arm") else {}
        return _ordered(deps, spoken, Order(ended.stage, arm, run_id, again=True), _NOTHING_SAID)
    if following := sorted(next_stages(deps.store, run), key=lambda stage: stage == "import"):  # needs a file's name
        return _ordered(deps, spoken, Order(following[0], run=run_id), _NOTHING_SAID)
    return TurnAnswer(f"Every step of {run.id if run else 'no run'} is done. Ask “what should I try next?”.")


_NOTHING_SAID = Slots("", (), (), ())


def _report(deps: TurnDeps, run_id: str) -> TurnAnswer:
    """Write a run's report."""
    from tunesmith.agent.commands.summary import write_run_report

    run = deps.records().run(run_id)
    written = write_run_report(deps.store, run.id)
    return TurnAnswer(f"The report of {run.id} is written: {written.path}. {written.verdict or ''}", tool="report",
                      arguments={"run": run.id})  # fmt: skip


def _stop(deps: TurnDeps, reading: Reading) -> TurnAnswer:
    """What could be stopped, and how; who orders it beyond doubt is asked whether it is to end."""
    loose = reading.slots.unread([(one.start, one.end) for one in reading.slots.named], reader().known(reading.label))
    certain = reading.probability >= (_CERTAIN if loose else _LIKELY)
    running = deps.store.steps(status=RUNNING)
    named = {*reading.slots.values("step"), *reading.slots.values("stage")}
    step = next((one for one in running if {one.id, one.stage} & named), next(iter(running), None))
    if step is None or "serve" in reading.slots.values("work"):
        served = servers.list_servers(deps.store.home, role=servers.DEPLOYED)
        if deps.end and certain and served:
            deps.end("")
        return TurnAnswer("`/serve stop` ends what is served." if served else "Nothing runs and nothing is served.")
    if deps.end and certain:
        deps.end(step.id)
    again = f"“go on” begins with {goes_on_from(deps.store, step)}"
    return TurnAnswer(f"{at_work(step)} `/stop {step.id}` ends it, after one more question; {again}.")


# Where the words are said


def context_of(deps: TurnDeps, spoken: Spoken, planned: tuple[str, ...] = ()) -> Context:
    """What the words of this turn are said in; `planned`: the step whose price waits."""
    run = deps.focused_run()
    stages = tuple(dict.fromkeys(spec.stage for spec in deps.draft.steps)) if deps.draft else ()
    return Context(
        runs=tuple(ordinary(deps.store)),
        planned=planned or stages,
        settings=plan_words.settings_of(deps.draft),
        describing=drafts.open_interview(deps.store.home) is not None,
        before=spoken.before,
        labels=labels_of(deps.store, run.id) if run else (),
        moment="price" if planned else moment_of(deps),
    )


def _is_possible(deps: TurnDeps, label: str) -> bool:
    """Whether a label may be offered: a step only where its run has what it needs."""
    stage, run = label.removeprefix("do."), deps.current_run()
    return stage == label or stage not in catalog.BY_NAME or (
        run is not None and not lacking_before(deps.store, run, stage, {})[0])  # fmt: skip
