"""A sentence read: what it asks or orders, how sure that is, and what of it nothing took. No model is asked here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from tunesmith.agent.queries.registry import REQUESTS, Request
from tunesmith.agent.words.acts import Edits, Order, edits_of, order_of
from tunesmith.agent.words.encoder import Encoder, NoEncoder
from tunesmith.agent.words.intent import Guess, Head, canonical, kind_of, kinds, possible
from tunesmith.agent.words.requests import Asked, followed, request_of
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.memory.records import ASIDE_RUNS, Run

LONGEST = 600
"""Characters of a sentence; more is a paste, which asks nothing by itself."""
_NEAREST, _LIKELY = 3, 12
_BEHIND_A_YES, _EACH_WORD_TAKEN = 0.7, 0.5
"""From which probability an order is taken, which is priced and asked about; one all of whose words are arguments."""
_STOP, _MAY_STOP = "do.stop", 0.2
"""What may be an order to stop is never answered as a question, and no other order: to say what runs does no harm."""
_ABOUT_PLANS = ("plan.set", "plan.without", "plan.what_if", "plan.start", "plan.drop")
_SAYS_NOTHING = ("remark", "code", "out_of_scope", "follow", "again", "yes", "no", "accept", "page")
"""What nobody means who was not understood."""
_PRIOR = {"plan": 3.0, "follow": 2.0}
"""How many times likelier such words are at their moment, with a plan proposed or a question answered, than their share
of all sentences says; words that name a run speak of the records."""
_MEANS_OF_A_PLAN = {"yes": "plan.start", "accept": "plan.start", "go_on": "plan.start", "no": "plan.drop"}
"""What a word means while a plan is proposed, unless it names a run."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a sentence is said in."""

    runs: tuple[Run, ...] = ()
    """Those of the store, the newest first."""
    planned: tuple[str, ...] = ()
    """The stages of the plan that is proposed; empty: none is."""
    describing: bool = False
    """Whether a new behaviour is being described."""
    before: Request | None = None
    """The question that was answered last."""
    labels: tuple[str, ...] = ()
    """The labels of the behaviour."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sentence comes to."""

    label: str
    """Kind, or kind.choice, as intents/ names it; empty: nothing can be told."""
    probability: float
    sure: bool
    """Whether it may be acted on without asking a model."""
    slots: Slots
    request: Request | None = None
    """A question in its type; None for other words, and where a required argument is not named."""
    order: Order | None = None
    edits: Edits | None = None
    likely: tuple[str, ...] = ()
    """The likeliest labels, the best first."""
    nearest: tuple[str, ...] = field(default=())
    """The example questions that the sentence is nearest to."""

    @property
    def kind(self) -> str:
        """The label without its choice."""
        return kind_of(self.label) if self.label else ""


class Reader:
    """The encoder and the head, loaded once. Thread-safe."""

    def __init__(self) -> None:
        """Load both; about 0.2 s. Raises NoEncoder where the package with the weights is not installed."""
        self.head = Head.load()
        self._encoder = Encoder()

    def read(self, said: str, context: Context, label: str = "") -> Reading:
        """Read a sentence; with a label as what that label means, which is then sure."""
        slots = slots_of(said[:LONGEST], context.runs)
        if slots.all("run") and not slots.words:  # nothing but a run's name
            return self._as(Guess("run.overview", 1.0), True, slots, context)
        if not slots.words or len(said) > LONGEST:
            return Reading("", 0.0, False, slots)
        if label:
            return self._as(Guess(label, 1.0), True, slots, context)
        embedded = self._encoder.embed([canonical(slots, self.head.vocabulary)])[0]
        guesses = _possible(self.head.guesses(embedded, slots), slots, context)
        if (known := self.head.label_of(said)) in {guess.label for guess in guesses}:
            guesses = sorted(guesses, key=lambda guess: guess.label != known)
            guesses = [Guess(known, 1.0), *(replace(guess, probability=0.0) for guess in guesses[1:])]
        by_kind = kinds(guesses)
        stop = next((one for one in by_kind if one.label == _STOP), None)
        found = self._as(by_kind[0], True, slots, context)
        asks_or_orders = found.request or found.order or found.label == _STOP
        if stop is not None and stop.probability >= _MAY_STOP and asks_or_orders:
            found = self._as(stop, True, slots, context)
        else:
            found = replace(found, sure=found.sure and found.probability >= self._least(found))
        offered = [one.label for one in by_kind if one.label not in _SAYS_NOTHING]
        nearest = tuple(self.head.examples[label][0] for label in offered[:_NEAREST])
        return replace(found, likely=tuple(dict.fromkeys(one.label for one in guesses[:_LIKELY])), nearest=nearest)

    def _least(self, found: Reading) -> float:
        """The probability from which a reading may be acted on."""
        if not found.label.startswith(("do.", "plan.", "want", "go_on", "accept")):
            return self.head.threshold
        order, edits = found.order, found.edits
        whole = edits.changes and not edits.unread if edits else bool(order and order.fields and not order.unread)
        return min(self.head.threshold, _EACH_WORD_TAKEN if whole else _BEHIND_A_YES)

    def _as(self, guess: Guess, sure: bool, slots: Slots, context: Context) -> Reading:
        label, act = guess.label, guess.label.removeprefix("do.")
        request = self._request(label, slots, context)
        order = order_of(act, slots, self.known(label)) if act != label and act in _stages() else None
        edits = None
        if context.planned and (order or label in _ABOUT_PLANS):
            edits = edits_of(slots, context.planned, self.known(label), leaves_out=label == "plan.without")
        unnamed = request is None and (kind_of(label) in REQUESTS or label == "follow")
        return Reading(label, guess.probability, sure and not unnamed, slots, request, order, edits)

    def known(self, label: str) -> Callable[[str], bool]:
        """Whether a word belongs to how a thing of this label is said."""
        same = [label, *(one for one, meant in _MEANS_OF_A_PLAN.items() if meant == label)]
        own = frozenset().union(*(self.head.own_words.get(one, ()) for one in same))
        return lambda word: word in own

    def _request(self, label: str, slots: Slots, context: Context) -> Request | None:
        runs = [run.id for run in context.runs if run.name not in ASIDE_RUNS]
        kind, _, choice = label.partition(".")
        content = content_of(slots, self.known(label))
        asked = Asked(kind, choice, slots, content, context.labels)
        if label == "follow":
            return followed(context.before, asked, runs) if context.before is not None else None
        return _carried(request_of(asked), context.before, slots) if kind in REQUESTS else None


def content_of(slots: Slots, known: Callable[[str], bool]) -> str:
    """The words that tell a case or a row: what is left without the run, the arm and how such a thing is asked."""
    places = [(slot.start, slot.end) for slot in slots.found if slot.kind in _AROUND]
    return " ".join(word.written for word in slots.unread(places, known))


_AROUND = ("run", "arm", "block", "verdict", "origin", "case", "row", "which_run")


@cache
def _stages() -> frozenset[str]:
    from tunesmith.tools.pipeline import catalog

    return frozenset(catalog.ENTRIES)


def _possible(guesses: Sequence[Guess], slots: Slots, context: Context) -> list[Guess]:
    """The guesses that this moment allows."""
    if context.planned and not context.describing and not slots.all("run"):
        guesses = [replace(guess, label=_MEANS_OF_A_PLAN.get(guess.label, guess.label)) for guess in guesses]
    moment = {"planned": bool(context.planned), "describing": context.describing, "follows": context.before is not None}
    prior = _PRIOR if not slots.all("run") else {}
    open_ = [
        replace(guess, probability=guess.probability * prior.get(guess.label.partition(".")[0], 1.0))
        for guess in guesses
        if possible(guess.label, **moment)
    ]
    total = sum(guess.probability for guess in open_) or 1.0
    found = (Guess(guess.label, guess.probability / total) for guess in open_)
    return sorted(found, key=lambda guess: -guess.probability)


def _carried(request: Request | None, before: Request | None, slots: Slots) -> Request | None:
    """The request about what was talked about, where a word such as `it` stands for the model or the step."""
    if request is None or before is None or not slots.all("pronoun"):
        return request
    given: dict[str, str] = {}
    for name in ("arm", "stage"):
        had = getattr(before, name, "")
        if had and name in type(request).model_fields and not getattr(request, name) and not _names_one(slots):
            given[name] = had
    return request.model_copy(update=given) if given else request


def _names_one(slots: Slots) -> bool:
    return any(slots.all(kind) for kind in ("arm", "stage", "step", "model", "run"))


_LOCK = threading.Lock()
_reader: list[Reader] = []


def reader() -> Reader:
    """The reader of this process. Raises NoEncoder."""
    with _LOCK:
        if not _reader:
            _reader.append(Reader())
        return _reader[0]


def read(said: str, context: Context | None = None) -> Reading:
    """Read a sentence in its context. Raises NoEncoder."""
    return reader().read(said, context or Context())


def read_or_not(said: str, context: Context) -> Reading:
    """The same; with nothing but what the sentence names where it cannot be read."""
    try:
        return read(said, context)
    except NoEncoder:
        return Reading("", 0.0, False, slots_of(said[:LONGEST], context.runs))
