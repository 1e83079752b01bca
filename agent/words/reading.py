"""A sentence read: what it asks or orders, how sure that is, and what it names. No model is asked here.

What it asks for is a label with its probability, from a sentence embedding and a small trained head (`head.py`), which
`make words` trains. What it names is typed (`slots.py`). A request or an order is made from both.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Literal

from tunesmith.agent.queries.facts import Query
from tunesmith.agent.words.acts import Edits, Order, edits_of, order_of
from tunesmith.agent.words.head import NOTHING, Guess, Head, Moment, NoEncoder, kind_of, kinds, possible
from tunesmith.agent.words.lexicon import lexicon
from tunesmith.agent.words.requests import Asked, followed, kind_asked, request_of
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.agent.words.spelling import begins_at, canonical
from tunesmith.memory.records import Run
from tunesmith.tools.pipeline import catalog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 600
"""Characters of a sentence; more is a paste, which asks nothing by itself."""
_REMEMBERED = 32
"""A turn reads the same words several times, and parts of them."""
_BEHIND_A_YES = 0.5
"""From which probability an order is taken, which is priced and asked about."""
_STOP, _MAY_STOP = "do.stop", 0.2
"""What may be an order to stop is never answered as a question, and no other order: to say what runs does no harm."""
_DESTROYS = ("do.delete", "plan.drop", "describe.drop")
"""What takes something away and asks nothing more needs the certainty of an answer."""
_ACTS = ("do.", "plan.", "want", "go_on", "accept")
_FOLLOWS = 2.0
"""How many times likelier than its share of all sentences says is what follows on an answer."""
_MEANS_OF_A_PLAN = {"yes": "plan.start", "accept": "plan.start", "go_on": "plan.start", "no": "plan.drop"}
"""What a word means while a plan is proposed, unless it names a run."""
_MEANS_OF_A_DRAFT = {"plan.drop": "describe.drop"}
"""What an example means while a behaviour is described: `drop it` is what its user is told to say."""
_NOT_OFFERED = ("remark", "code", "out_of_scope", "follow", "again", "yes", "no", "accept", "page", NOTHING, *(
    f"talk.{name}" for name in ("complaint", "calculator", "thanks", "bye", "joke", "weather", "clock", "hello",
                                "how_are_you")))  # fmt: skip
"""What nobody means who was not understood."""
_NEAREST = 6


@dataclass(frozen=True, slots=True)
class Context:
    """What a sentence is said in."""

    runs: tuple[Run, ...] = ()
    """Those of the store, the newest first."""
    planned: tuple[str, ...] = ()
    """The stages of the plan that is proposed; empty: none is."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Those that it gives a value to."""
    describing: bool = False
    """Whether a new behaviour is being described."""
    before: Query | None = None
    """The question that was answered last."""
    labels: tuple[str, ...] = ()
    """Those of the cases of the run that is talked about."""
    moment: Moment | Literal[""] = ""
    """Where the user stands; empty: not known."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sentence comes to."""

    label: str
    """Kind, or kind.choice, as tests/words/intents names it; empty: nothing can be told."""
    probability: float
    sure: bool
    """Whether it may be acted on."""
    slots: Slots
    request: Query | None = None
    """A question in its type; None for other words, and where a required argument is not named."""
    order: Order | None = None
    edits: Edits | None = None
    nearest: tuple[str, ...] = ()
    """The labels that are likeliest and may be offered, the best first."""

    @property
    def kind(self) -> str:
        """The label without its choice."""
        return kind_of(self.label) if self.label else ""

    @property
    def asks(self) -> bool:
        """Whether it asks what can be answered, and changes nothing."""
        return self.request is not None or self.kind.startswith(("talk.", "term", "plan.why"))


class Reader:
    """The encoder and the head, loaded once. Thread-safe."""

    def __init__(self) -> None:
        """Load both; about 0.2 s. Raises NoEncoder where the package with the weights is not installed."""
        from tunesmith.agent.words.encoder import Encoder  # numpy is no module of the prompt's

        self.head = Head.load()
        self._encoder = Encoder(added=self.head.added)
        self._embedded: Callable[[str], NDArray[np.float32]] = lru_cache(_REMEMBERED)(
            lambda text: self._encoder.embed([text])[0]
        )
        """One sentence in numbers: 15 ms and more."""

    def read(self, sentence: str, context: Context, label: str = "") -> Reading:
        """Read a sentence; with a label as what that label means, which is then sure."""
        slots = slots_of(sentence[:LONGEST], context.runs)
        if slots.all("run") and not slots.words:  # nothing but a run's name
            label = "follow" if hasattr(context.before, "run") else "run.overview"
        if not (label or slots.words or slots.all("pair")) or len(sentence) > LONGEST:
            return Reading("", 0.0, False, slots)
        if label:
            return self._as(Guess(label, 1.0), slots, context)
        embedded = self._embedded(canonical(slots, self.head.vocabulary))
        moment = "" if context.describing else context.moment
        guesses = open_ = _possible(self.head.guesses(embedded, slots, moment), slots, context)
        known = self.head.label_of(sentence) or self.head.label_of(sentence[begins_at(slots) :])
        known = _MEANS_OF_A_DRAFT.get(known, known) if context.describing else known
        if known in {guess.label for guess in guesses}:
            guesses = [Guess(known, 1.0), *(replace(one, probability=0.0) for one in guesses if one.label != known)]
        by_kind = kinds(guesses)
        reading = self._as(by_kind[0], slots, context)
        if reading.label == "follow" and reading.request is None:  # it follows on nothing
            by_kind = kinds(_shares([one for one in open_ if one.label != "follow"]))
            reading = replace(self._as(by_kind[0], slots, context), sure=False)
        stop = next((one for one in by_kind if one.label == _STOP), None)
        asks_or_orders = reading.request or reading.label.startswith("do.")
        if stop is not None and stop.probability >= _MAY_STOP and asks_or_orders:
            reading = self._as(stop, slots, context)
        else:
            certain = reading.label != NOTHING and reading.probability >= self._least(reading)
            reading = replace(reading, sure=reading.sure and certain)
        nearest = (one.label for one in by_kind if kind_of(one.label) not in _NOT_OFFERED)
        return replace(reading, nearest=tuple(nearest)[:_NEAREST])

    def _least(self, reading: Reading) -> float:
        """The probability from which a reading may be acted on."""
        destroys = reading.label in _DESTROYS and not (reading.edits and reading.edits.changes)
        if destroys or not reading.label.startswith(_ACTS) or _asks_what(reading.slots):
            return self.head.threshold
        return self.head.threshold if names_no_step(reading) else min(self.head.threshold, _BEHIND_A_YES)

    def _as(self, guess: Guess, slots: Slots, context: Context) -> Reading:
        label, act = guess.label, guess.label.removeprefix("do.")
        by_number = label == "term" and not slots.named
        kind, before = kind_asked("plan.why" if by_number else label, len(context.runs)), context.before
        runs = tuple(run.id for run in context.runs)
        asked = Asked(kind, slots, content_of(slots, self.known(label)), context.labels, runs, context.settings)
        request = request_of(label, asked, before) if kind else None
        if label == "follow" and before is not None:
            request = followed(before, asked)
        if label == "price" and request is None and not context.planned:  # of no step: of what lies ahead
            request = request_of("run", replace(asked, kind="run"))
        order = order_of(act, slots, self.known(label)) if act != label and act in catalog.ENTRIES else None
        edits = None
        if context.planned and (order or label.startswith("plan.")):
            edits = edits_of(slots, context.planned, leaves_out=label == "plan.without")
        unnamed = request is None and (kind or label == "follow") and label not in ("price", "plan.why", "term")
        return Reading(label, guess.probability, not unnamed, slots, request, order, edits)

    def known(self, label: str) -> Callable[[str], bool]:
        """Whether a word belongs to how a thing of this label is said."""
        own = self.head.own_words.get(label, frozenset())
        return lambda word: word in own


def _asks_what(slots: Slots) -> bool:
    """Whether a question begins with what, which, when: such a one is rarely an order."""
    return slots.asks and slots.words[0].written in lexicon()["asking"].single_words()


def names_no_step(reading: Reading) -> bool:
    """Whether an order names no step, no argument and nothing else that is known: `blorp the flurb`."""
    order, slots = reading.order, reading.slots
    if order is None or order.fields or order.factors or slots.all("stage"):
        return False
    content = slots.unread([(one.start, one.end) for one in slots.named], lambda word: False)
    said = {slots.sentence[one.start : one.end] for one in content}
    return bool(said) and said <= {*order.loose}


def content_of(slots: Slots, known: Callable[[str], bool]) -> str:
    """The words that tell a case or a row: what is left without the run, the arm and how such a thing is asked."""
    places = [(slot.start, slot.end) for slot in slots.named if slot.kind in _AROUND]
    return " ".join(word.written for word in slots.unread(places, known))


_AROUND = ("run", "arm", "block", "verdict", "origin", "case", "row", "which_run")


def _possible(guesses: Sequence[Guess], slots: Slots, context: Context) -> list[Guess]:
    """The guesses that this moment allows, as shares of one, the likeliest first."""
    of_the_plan = context.planned and not context.describing and not slots.all("run")
    means = _MEANS_OF_A_PLAN if of_the_plan else {}
    moment = {"planned": bool(context.planned), "describing": context.describing, "follows": context.before is not None}
    open_ = [
        Guess(means.get(one.label, one.label), one.probability * (_FOLLOWS if one.label == "follow" else 1.0))
        for one in guesses
        if possible(means.get(one.label, one.label), **moment)
    ]
    return _shares(open_)


def _shares(guesses: Sequence[Guess]) -> list[Guess]:
    """Guesses as shares of one, the likeliest first."""
    total = sum(one.probability for one in guesses) or 1.0
    return sorted((Guess(one.label, one.probability / total) for one in guesses), key=lambda one: -one.probability)


_LOCK = threading.Lock()
_reader: list[Reader] = []


def reader() -> Reader:
    """The reader of this process. Raises NoEncoder."""
    with _LOCK:
        if not _reader:
            _reader.append(Reader())
        return _reader[0]


def read(sentence: str, context: Context | None = None) -> Reading:
    """Read a sentence in its context. Raises NoEncoder."""
    return reader().read(sentence, context or Context())


def parted(sentence: str, context: Context) -> tuple[Reading, ...]:
    """The two things that a sentence asks for, each read with certainty by itself, a question before an act, else in
    their order; empty: it asks for one."""
    named = slots_of(sentence[:LONGEST], context.runs).named
    for match in islice(_joint().finditer(sentence[:LONGEST]), _JOINTS):
        before = {slot.kind for slot in named if slot.end == match.start()}
        if before & {slot.kind for slot in named if slot.start == match.end()}:  # `r1 and r2` are asked together
            continue
        parts = sentence[: match.start()], sentence[match.end() :]
        if min(len(part.split()) for part in parts) < _LEAST_WORDS:
            continue
        first = read(parts[0], context)
        second = read(parts[1], replace(context, before=first.request or context.before))
        both = sorted((first, second), key=lambda one: not one.asks)
        heard = [one.asks or one.order or (one.edits and both[0].asks) or one.kind in _HEARD for one in both]
        sure = [one.sure or (one.asks and one.probability >= _LIKELY) for one in both]
        whole = (first.sure and second.sure) or not read(sentence, context).sure
        if all(sure) and whole and first.kind != second.kind and all(heard):
            return tuple(both)
    return ()


_JOINTS, _LEAST_WORDS = 3, 2
"""Places at which a sentence is parted, and words of a part."""
_HEARD, _LIKELY = ("go_on", _STOP), 0.6
"""Acts that are no step; from which probability a part is a question, where the whole sentence is not understood."""


@cache
def _joint() -> re.Pattern[str]:
    words = "|".join(sorted(lexicon()["joints"].single_words()))
    return re.compile(rf"[.;!?…]+\s+|(?:,\s*|\s+)(?:{words}),?\s+(?:(?:{words})\s+)?", re.IGNORECASE)


def read_or_not(sentence: str, context: Context) -> Reading:
    """The same; with nothing but what the sentence names where it cannot be read."""
    try:
        return read(sentence, context)
    except NoEncoder:
        return Reading("", 0.0, False, slots_of(sentence[:LONGEST], context.runs))
