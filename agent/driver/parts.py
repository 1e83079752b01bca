"""Two things said at once: where a sentence parts, and what of it is done now.

A sentence parts where it ends, at a comma or where a word such as `and` joins, if each part by itself is read as a
request of another kind than the other; so does each of the parts again. A question is answered before an order changes
what it asks about; of two orders the first is carried out, since what the second is about is what the first makes, and
the second is taken up by itself once the first has ended; so is a question about the results of a test that is only
ordered. An order behind another one is about what that makes, and a condition that it has is the user's to judge at
its own price. Of an act that is plain and words that nobody understood the act is done, and the words are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Literal, get_args

from tunesmith.agent.driver import describing, opening
from tunesmith.agent.driver.choosing import leaves_it_to_results
from tunesmith.agent.driver.look_ups import GUESSED, turn_context
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.acts import Order
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.held import conditions_of
from tunesmith.agent.words.lexicon import everyday, lexicon, words_in, words_of
from tunesmith.agent.words.reading import LONGEST, Context, Reading, read, reader
from tunesmith.agent.words.slots import Slot, slots_of
from tunesmith.memory.arms import ARMS
from tunesmith.tools.pipeline import catalog

_SENTENCE_ENDS, _PAUSES = "?.!;", ",:"
_FEWEST_WORDS, _MOST_CUTS, _MOST_PARTS = 2, 4, 3
"""Of each cut both parts are read, some 30 ms: a paste of many sentences is no order for two things."""
_BOTH, _QUESTIONS = 0.65, 0.75
"""From which probability each of two parts is a request of its own; where both are questions. Of 557 examples for one
thing that could part, 5 do; of 44 strangers' sentences for two things, 32."""
_LEAST_ACT, _BESIDE_AN_ACT, _PLAIN = 0.5, 0.6, 0.9
"""From which probability an order or a change all of whose words were read is a part, and what is read beside it; and
from which such an act stands beside words that nobody understood, or a question and an order at a mere comma."""
_CLAUSE = 3
"""Words at least of what stands behind a question and is told to be left."""
_OF_STEPS = ("stage", "work", "made")
"""Kinds of what names a step."""
_LINES_OF_ALL = 16
_AFTER = ("plan.cost", "plan.show")
"""What is asked of a plan and is told with each change of it."""
_OF_A_PLAN = (*_AFTER, "plan.why", "plan.compare", "plan.before")
_OF_RESULTS = ("compare", "result", "cases", "findings", "confusion")
"""What is asked of a test that is only ordered."""
_OF_ROWS, _MAKES_ROWS = ("rows", "row"), ("rows", "dataset")
"""What is asked of rows that an order makes, and what such an order makes."""
_NO_PART = ("want", "follow", "remark", "describe")
"""Kinds that are read out of the middle of one wish or one question."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a sentence, and what it is read as."""

    text: str
    reading: Reading
    paused: bool = False
    """Whether no more than a comma parts it from the other one."""
    condition: str = ""
    """What an order behind something else is held to, and is not read as part of it: `if that looks good`."""

    @property
    def asks(self) -> Literal["question", "order", "edit", ""]:
        """What of the three it is; empty where nothing that can be carried out was read."""
        one = self.reading
        if one.kind in _NO_PART:
            return ""
        if one.request is not None:
            return "question"
        if one.order is not None or one.kind == "go_on" or (one.label.startswith("do.") and not one.slots.all("not")):
            return "order"
        if one.edits is not None and one.edits.changes:
            return "edit"
        return "question" if one.tells or one.kind in ("term", *_OF_A_PLAN) else ""

    @property
    def begins_to_ask(self) -> bool:
        """Whether it begins as a question or with such as `tell me`."""
        slots = self.reading.slots
        whether = everyday("asks_whether", slots.words) if slots.asks else []
        return any(match.first == 0 for match in (*lexicon()["asking"].find(slots.words), *whether))

    @property
    def whole(self) -> bool:
        """Whether it is an order or a change of which every word was read, and which its own rules let be acted on."""
        one = self.reading
        if one.label == "do.stop":
            return one.sure and one.probability >= _PLAIN
        act = one.order if self.asks == "order" else one.edits if self.asks == "edit" else None
        return one.sure and act is not None and not act.unread and not (one.order and one.order.denied)

    @property
    def weight(self) -> float:
        """How certain it is; what is read whole is taken as it is where it stands alone."""
        probability = self.reading.probability
        return max(probability, _BOTH) if self.whole and probability >= _LEAST_ACT else probability


def steps_of(deps: TurnDeps) -> list[str]:
    """The user's words, in the things that they ask for, in the order in which those are done; what is not done now is
    left in `deps.rest`, or in `deps.later` where it rests on what an order makes."""
    deps.most_lines, deps.rest, deps.later, deps.only_if, deps.by_result = 0, "", (), "", None
    whole = [deps.prompt]
    describes = deps.draft is None and opening.describes(deps.prompt)
    if describing.open_interview(deps.store.home) or describes or len(deps.prompt) > LONGEST:
        return whole
    try:
        context = turn_context(deps)
        slots = slots_of(deps.prompt)
        if reader().head.label_of(deps.prompt) or (slots.all("path") and slots.all("model")):
            return whole  # rows of a file for a base: the answer about the file tells of both
        deps.by_result = tuple(slots.values("arm")) if leaves_it_to_results(slots.words) else None
        parts = _parts(deps.prompt, context)
        return (_in_turn(deps, parts) if parts else _beside_a_certain_part(deps, context)) or whole
    except NoEncoder:
        pass
    return whole


def _parts(text: str, context: Context) -> list[Part]:
    """The parts of a sentence, three at most; none where it asks for one thing."""
    if (two := _likeliest(text, context)) is None:
        return []
    parts = [*two]
    for at in (1, 0):
        if len(parts) < _MOST_PARTS and (more := _likeliest(parts[at].text, context)) is not None:
            parts[at : at + 1] = more
    return parts


def _likeliest(text: str, context: Context) -> tuple[Part, Part] | None:
    """The two parts of a sentence of which the less certain one is most certain; None where it asks for one thing."""
    best, parts = 0.0, None
    for one, two in parted(text, context):
        least = min(one.weight, two.weight)
        enough = _PLAIN if one.paused else _BESIDE_AN_ACT if one.whole or two.whole else _BOTH
        if one.paused and not (one.whole or two.whole):
            continue  # `of r1 and r2, which needed the most memory`
        if any(len(part.text.split()) < _FEWEST_WORDS and part.asks != "order" for part in (one, two)):
            continue
        if any(
            part.reading.order and part.reading.order.unread and part.reading.slots.all("only") for part in (one, two)
        ):
            continue  # `import rows.jsonl and train only if there are 500` may hold back both
        if one.paused and "edit" in (one.asks, two.asks):
            continue  # `and with rank 8, how long`
        if one.asks == two.asks == "question":
            # what begins to ask behind a question is one more, also where it is hardly understood, and then said so
            answered = two.reading.request is not None or two.reading.tells
            begins = one.reading.sure and two.begins_to_ask and answered
            enough = GUESSED if begins else _BOTH if two.begins_to_ask else _QUESTIONS
        another = two.begins_to_ask and one.reading.request != two.reading.request
        differ = one.reading.kind != two.reading.kind or (another and one.asks == two.asks == "question")
        if one.asks and two.asks and differ and least >= max(best, enough):
            best, parts = least, (one, two)
    return parts


def _in_turn(deps: TurnDeps, parts: Sequence[Part]) -> list[str]:
    """What of the parts is done, in its order; empty where all are one change of the plan, made or imagined, or an
    order stands beside an open plan, which its own answer tells."""
    kinds = {one.asks for one in parts}
    if kinds == {"edit"} or (deps.draft is not None and "order" in kinds):
        return []
    orders = [one for one in parts if one.asks == "order"]
    first = orders[0].reading.order if orders else None
    following = parts[parts.index(orders[0]) + 1 :] if orders else ()
    behind = [one for one in following if one.asks == "order" or _rests_on(one, first)]
    run = _run_of_all(deps, parts)
    # what an import made is told as it ends
    waits = [one for one in behind if one.asks == "order" or (first is not None and first.stage != "import")]
    deps.later = tuple(_in_run(one, run, _made_before(one, parts)) for one in waits)
    deps.only_if = "".join(one.condition for one in parts[1:])
    now = [one for one in parts if one not in behind and one not in orders]
    if "edit" in kinds:
        changed = ", ".join(one.text.rstrip(",;.!") for one in now if one.asks == "edit")
        now = [one for one in now if one.asks == "edit" or one.reading.label not in _AFTER]
        edit = next(one for one in now if one.asks == "edit")
        texts = [changed if one is edit else one.text for one in now if one is edit or one.asks != "edit"]
    else:
        makes = catalog.BY_NAME[first.stage].makes if first is not None else ""
        texts = [_of_what_is_made(deps, one, makes) if makes in ARMS else one.text for one in now]
    deps.most_lines = _LINES_OF_ALL // (len(texts) + len(orders[:1])) if len(texts) + len(orders[:1]) > 1 else 0
    request = now[0].reading.request if now else None
    if first is not None and request is not None and getattr(request, "path", None) == "":
        # `import FILE and tell me if a row is twice in it`
        deps.last_query = request.model_copy(update={"path": str(first.fields.get("source", ""))})
    return [*texts, *(_in_run(one, run) for one in orders[:1])]


def _rests_on(part: Part, order: Order | None) -> bool:
    """Whether a question is about what an order makes, and so is answered once that has ended."""
    if order is None:
        return False
    entry, arms = catalog.BY_NAME[order.stage], {*part.reading.slots.values("arm")}
    arms -= {"base"} if part.reading.kind == "compare" else set()  # `quantize it and set it against the base`
    makes_it = entry.makes in ARMS and arms <= {entry.makes}
    tests_it = bool(entry.load().measures) and not (arms and order.fields.get("arm", "") not in ("", *arms))
    of_results = part.reading.kind in _OF_RESULTS and (makes_it or tests_it)
    return of_results or (part.reading.kind in _OF_ROWS and entry.makes in _MAKES_ROWS)


def after_a_no(deps: TurnDeps) -> tuple[str, ...]:
    """Of what was wanted with an order that is declined what does not rest on it: other orders, on no condition."""
    later = () if deps.only_if else deps.later
    return tuple(one for one in later if Part(one, read(one, turn_context(deps))).asks == "order")


def _run_of_all(deps: TurnDeps, parts: Sequence[Part]) -> str:
    """The only run that the parts name, where it is not the newest one, which is meant anyway; else empty."""
    named = {run for one in parts for run in one.reading.slots.values("run")}
    newest = deps.current_run()
    return next(iter(named)) if len(named) == 1 and newest is not None and newest.id not in named else ""


def _in_run(part: Part, run: str, arm: str = "") -> str:
    """The words of an order, with what was named beside it: `how did r1 do, and serve it`, `quantize and serve it`."""
    named = [run] if run and part.asks == "order" and not part.reading.slots.all("run") else []
    named += [arm] if arm else []
    return f"{part.text.rstrip('.!')} ({', '.join(named)})" if named else part.text


def _of_what_is_made(deps: TurnDeps, part: Part, arm: str) -> str:
    """The words of a question beside an order, with the model that is made where they name nothing and ask something
    of that: `quantize it, and how big will that be?`."""
    told, slots = _in_run(part, "", arm), part.reading.slots
    named = part.reading.sure or any(slots.all(kind) for kind in ("run", "arm", "stage", "made", "block", "model"))
    so = part if named else Part(told, read(told, turn_context(deps)))
    return told if so.text == told and so.asks == "question" and so.reading.probability >= GUESSED else part.text


def _made_before(part: Part, parts: Sequence[Part]) -> str:
    """The arm that an order is about which names none: that which the orders before it make, or are about."""
    slots, order = part.reading.slots, part.reading.order
    if order is None or order.fields.get("arm") or not (slots.all("pronoun") or len(slots.words) <= _FEWEST_WORDS):
        return ""
    if order.stage == "release":  # a GGUF of a quantized run is made from its merged model
        return ""
    info = catalog.BY_NAME[order.stage].load().request.model_fields.get("arm")
    before = [one.reading.order for one in parts[: parts.index(part)] if one.reading.order is not None]
    made = [str(one.fields.get("arm") or catalog.BY_NAME[one.stage].makes) for one in reversed(before)]
    return next((one for one in made if info is not None and one in get_args(info.annotation)), "")


def _beside_a_certain_part(deps: TurnDeps, context: Context) -> list[str]:
    """What is done where one part of a sentence is beyond doubt and the other was hardly understood and does not hold
    it back: that is answered as it is most likely meant, or left in `deps.rest`. Empty where the whole is answered."""
    whole = Part(deps.prompt, read(deps.prompt, context))
    answers = whole.reading.sure and whole.asks == "question" and deps.by_result is None
    for one, two in parted(deps.prompt, context):
        act = next((part for part in (one, two) if part.whole and part.reading.probability >= _PLAIN), None)
        other = one if act is two else two
        denies = one.reading.label.startswith("do.") and one.reading.slots.all("not") and not one.begins_to_ask
        if denies and two.asks == "question" and (two.reading.sure or is_part(two.reading)) and deps.draft is None:
            return [two.text]  # `don't delete r2, but is r3 better than r1?`
        orders, slots = act is not None and act.asks == "order", other.reading.slots
        if one.paused or _holds_back(other) or (orders and deps.draft is not None):
            continue
        asks_beside = two.begins_to_ask and whole.reading.order is not None and whole.reading.order.beside
        if act is not None and not (answers or (whole.whole and not asks_beside)):
            if not (slots.asks or other.begins_to_ask or (orders and slots.all("stage"))):
                continue
            if other.asks == "question" and other.reading.probability >= GUESSED and deps.by_result is None:
                return _in_turn(deps, (one, two))
            # a choice that is left to the results is told with what it rests on
            deps.rest = "" if deps.by_result is not None and orders and other.begins_to_ask else other.text
            return [act.text]
        more = two.begins_to_ask or (two.reading.order is not None and not two.reading.sure)
        if one.asks == "question" and one.reading.sure and more and whole.reading.kind == one.reading.kind:
            deps.rest = two.text
            return []  # the whole is read as the first question too: nobody would answer the second
    return []


def _holds_back(part: Part) -> bool:
    """Whether words may be a condition, a limit or an argument of the act beside them."""
    slots = part.reading.slots
    limits = any(slots.all(kind) for kind in ("not", "only", "instead", "until", "pair"))
    first = slots.words[:1]
    return bool(limits or lexicon()["conditions"].find(slots.words) or lexicon()["contrast"].find(slots.words)
                or lexicon()["attaches"].find(first) or len(slots.words) < _CLAUSE)  # fmt: skip


def parted(text: str, context: Context) -> Iterator[tuple[Part, Part]]:
    """A sentence in two parts, of two words or a step's name at least, at each of the first places to part it."""
    for one, two, paused in islice(_cut(text), _MOST_CUTS):
        if all(len(text.split()) >= _FEWEST_WORDS or slots_of(text).all("stage") for text in (one, two)):
            first = Part(one, read(one, context), paused)
            behind = replace(context, before=first.reading.request)
            yield first, _unconditional(Part(two, read(two, behind)), behind)


def _unconditional(part: Part, context: Context) -> Part:
    """An order that is priced and asked about, without the condition before or behind it, which has no number; any
    other part as it is: `if it holds up deploy it`, `quantisiere es, falls es gut ist`."""
    slots = part.reading.slots
    if part.whole or slots.all("only") or slots.numbers:
        return part
    for start, end in conditions_of(slots):
        stages = [slot.start for slot in slots.all("stage") if start < slot.start]
        cuts = [(at, len(part.text)) for at in stages] if not slots.between(0, start) else []
        cuts += [(0, start)] if not slots.between(end, len(part.text)) else []
        for cut in cuts:
            left = part.text[slice(*cut)].strip(" ,;.!")
            one = Part(left, read(left, context))
            if one.whole and one.reading.order and catalog.BY_NAME[one.reading.order.stage].expensive:
                return replace(one, condition=part.text.replace(left, "").strip(" ,;.!?"))
    return part


def _cut(text: str) -> Iterator[tuple[str, str, bool]]:
    """A sentence in two, at each place where one ends, pauses, or a word such as `and` joins two things said, that word
    left out, and whether it only pauses; not where it joins two that are named, as in `r1 and r2`."""
    words, named = words_of(text), slots_of(text).named
    joining = {*lexicon()["joints"].words()}
    joints = {at for at, word in enumerate(words) if word.text in joining}
    pauses = []
    for at, (one, two) in enumerate(pairwise(words)):
        between = text[one.end : two.start]
        ended = one.end + next((i + 1 for i, mark in enumerate(between) if mark in _SENTENCE_ENDS), 0)
        behind = next((word for i, word in enumerate(words) if i > at and i not in joints), None)
        if behind is None or at in joints:
            continue
        if ended > one.end and text[ended : ended + 1].isspace():
            yield text[:ended], text[behind.start :], False
        elif _of_one_kind(named, one.end, behind.start):
            continue
        elif at + 1 in joints:
            yield text[: one.end], text[behind.start :], False
            if at and two.written in words_in("behind_verb"):
                yield text[: words[at - 1].end], text[one.start :], False
        elif any(mark + " " in between for mark in _PAUSES):
            pauses.append((text[: one.end], text[behind.start :], True))
    yield from pauses


def _of_one_kind(named: Sequence[Slot], end: int, start: int) -> bool:
    """Whether what is named up to one place is of the kind of what is named from another on; not of two steps where one
    begins the sentence: `quantize and deploy`, `export it as gguf and serve it`."""
    begins = any(slot.kind in _OF_STEPS and slot.start == 0 for slot in named)
    before = {slot.kind for slot in named if slot.end == end and not (slot.kind in _OF_STEPS and begins)}
    return bool(before & {slot.kind for slot in named if slot.start == start})


def is_part(reading: Reading) -> bool:
    """Whether words that a sentence was parted into are acted on: they are short, and so read with less certainty."""
    return bool(Part("", reading).asks) and reading.probability >= _BOTH
