"""A sentence read: what it asks or orders, how sure that is, and what of it nothing took. No model is asked here.

What it asks for is a label with its probability, from a sentence embedding and a small trained head: one softmax layer
over the embedding and over which slots are named. `make words` trains the layer, and the matrices of low rank that make
the encoder one of such sentences, from those in tests/words/intents; head.npz holds both, with their fingerprint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.queries.scores import ResultQuery
from tunesmith.agent.words.acts import OWN_SLOTS, Order, order_of, places_of
from tunesmith.agent.words.edits import Edits, edits_of
from tunesmith.agent.words.encoder import Encoder, NoEncoder
from tunesmith.agent.words.head import NOTHING, Guess, Head, Moment, kind_of, kinds, possible
from tunesmith.agent.words.held import on_condition
from tunesmith.agent.words.lexicon import everyday, lexicon, words_of
from tunesmith.agent.words.requests import Asked, followed, request_of
from tunesmith.agent.words.slots import Slots, empty_words, forgetting_of_two, place_in_list, slots_of
from tunesmith.agent.words.spelling import begins_at, canonical, slip_of
from tunesmith.agent.words.unmeant import denied, resolved
from tunesmith.agent.words.unread import idle_places
from tunesmith.memory.records import ASIDE_RUNS, Run
from tunesmith.tools.pipeline import catalog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 600
"""Characters of a sentence; more is a paste, which asks nothing by itself."""
_NEAREST, _LIKELY = 6, 12
_REMEMBERED = 32
"""A turn reads the same words several times, and parts of them."""
_BEHIND_A_YES, _EACH_WORD_READ = 0.5, 0.4
"""From which probability an order is taken, which is priced and asked about; one all of whose words are arguments."""
_FEW, _DOUBTED, _ACTS = 6, 0.6, ("do.", "plan.", "want", "go_on", "accept", "yes", "no")
"""Words that lean on the turn before, and below which probability they do: of 259 follow-ups in eight languages that
nobody was sure of, 161 are read rightly so instead of 152, and of what is told as a guess 48 are wrong instead of 64.
What they lean on makes no order of them, and nothing certain."""
_NEVER = 2.0
"""A probability that nothing has."""
_STOP, _MAY_STOP = "do.stop", 0.2
"""What may be an order to stop is never answered as a question, and no other order: to say what runs does no harm."""
_DESTROYS = ("do.delete", "plan.drop")
"""What takes something away and asks nothing more needs the certainty of an answer."""
_BY_FAR = 20.0
"""How many times likelier than any other order; in six languages it is 50 times and more where a test is meant, and 7
at most where somebody asks whether a model is done."""
_ABOUT_PLANS = tuple(f"plan.{name}" for name in (
    "set", "without", "what_if", "start", "drop", "as_before", "rows", "add"))  # fmt: skip
_SAYS_NOTHING = ("remark", "code", "out_of_scope", "follow", "again", "yes", "no", "accept", "page", NOTHING)
_SMALL_TALK = tuple(f"talk.{name}" for name in (
    "complaint", "calculator", "thanks", "bye", "joke", "weather", "clock", "hello", "how_are_you"))  # fmt: skip
_NOT_OFFERED = (*_SAYS_NOTHING, *_SMALL_TALK)
"""What nobody means who was not understood."""
_FOLLOWS, _ANOTHER_WISH = 2.0, 0.25
"""How many times likelier than its share of all sentences says is what follows on an answer; a new wish in words that
leave out a step of the open plan. Words that name a run speak of the records, and ask for no term."""
_TWO_RUNS = 5.0
"""How many times likelier a comparison is where two runs are named: the moment says only how often it is asked."""
_OF_ITS_ARGUMENTS = 50.0
"""How many times likelier than its words say is what alone takes the arguments that are named."""
_OF_ALL_AHEAD, _OF_A_THING = 1000.0, ("run", "arm", "made", "model", "path", "artifact")
"""How many times likelier all that is ahead is asked for where time and disk or memory are, half-way and of nothing by
name: what is asked of a step that is over stays likelier by far."""
_MEANS_OF_A_PLAN = {"yes": "plan.start", "accept": "plan.start", "go_on": "plan.start", "no": "plan.drop"}
"""What a word means while a plan is proposed, unless it names a run."""
_MEANS_OF_STEPS_AHEAD = {"plan.cost": "run.remaining"}
"""What is asked of a plan means of the steps that a run has ahead, while none is proposed."""
_MEANS_OF_A_DRAFT = {"plan.drop": "describe.drop"}
"""What an example means while a behaviour is described: `drop it` is what its user is told to say."""
_IMAGINED = _ON_A_CARD = "plan.what_if"
"""What is asked of the open plan where a card is named and no model, and so what is asked of a setting there."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a sentence is said in."""

    runs: tuple[Run, ...] = ()
    """Those of the store, the newest first."""
    planned: tuple[str, ...] = ()
    """The stages of the plan that is proposed; empty: none is."""
    describing: bool = False
    """Whether a new behaviour is being described."""
    before: Query | None = None
    """The question that was answered last."""
    said: str = ""
    """The words of the turn before, where those of this one may follow on them."""
    labels: tuple[str, ...] = ()
    """Those of the cases of the run that is talked about."""
    moment: Moment | Literal[""] = ""
    """Where the user stands; empty: not known."""
    now: Mapping[str, object] = field(default_factory=dict)
    """Field → the value that stands: in the price that waits, in the plan, else of the newest training."""

    @property
    def at(self) -> str:
        """The moment that what is said is weighed by."""
        return "" if self.describing else self.moment or ("planned" if self.planned else "")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sentence comes to."""

    label: str
    """Kind, or kind.choice, as tests/words/intents names it; empty: nothing can be told."""
    probability: float
    sure: bool
    """Whether it may be acted on without asking a model."""
    slots: Slots
    request: Query | None = None
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

    @property
    def tells(self) -> bool:
        """Whether the page of what is said (prompts/glossary.yaml) has its answer, and it is no small talk."""
        return self.label.startswith("talk.") and self.label not in _SMALL_TALK


class Reader:
    """The encoder and the head, loaded once. Thread-safe."""

    def __init__(self) -> None:
        """Load both; about 0.2 s. Raises NoEncoder where the package with the weights is not installed."""
        self.head = Head.load()
        self._encoder = Encoder(added=self.head.added)
        self._embedded: Callable[[str], NDArray[np.float32]] = lru_cache(_REMEMBERED)(
            lambda text: self._encoder.embed([text])[0]
        )
        """One sentence in numbers. A turn reads its words several times, each 15 ms and more."""

    def read(self, sentence: str, context: Context, label: str = "") -> Reading:
        """Read a sentence; with a label as what that label means, which is then sure."""
        slots = slots_of(sentence[:LONGEST], context.runs)
        if slots.all("run") and not slots.words:  # nothing but a run's name
            label = "follow" if context.before and _of_another_run(context, context.before, slots) else "run.overview"
            return self._as(Guess(label, 1.0), True, slots, context)
        if not (slots.words or slots.all("pair")) or len(sentence) > LONGEST:
            return Reading("", 0.0, False, slots)
        if label:
            return self._as(Guess(label, 1.0), True, slots, context)
        embedded = self._embedded(canonical(slots, self.head.vocabulary))
        guesses = _possible(self.head.guesses(embedded, slots, context.at), slots, context)
        known = self.head.label_of(sentence) or self.head.label_of(sentence[begins_at(slots) :])
        known = _MEANS_OF_A_DRAFT.get(known, known) if context.describing else known
        if known in {guess.label for guess in guesses}:
            guesses = sorted(guesses, key=lambda guess: guess.label != known)  # what is known to be meant goes first
            guesses = [Guess(known, 1.0), *(replace(one, probability=one.probability * 1e-9) for one in guesses[1:])]
        by_kind = kinds(guesses)
        by_kind[0] = replace(by_kind[0], label=_of_rows(by_kind[0].label, slots, by_kind[:2]))
        stop = next((one for one in by_kind if one.label == _STOP), None)
        reading = self._as(by_kind[0], True, slots, context)
        asks_or_orders = reading.request or reading.label.startswith("do.")
        if stop is not None and stop.probability >= _MAY_STOP and asks_or_orders:
            reading = self._as(stop, True, slots, context)
        else:
            certain = reading.label != NOTHING and reading.probability >= self._least(reading)
            reading = replace(reading, sure=reading.sure and certain)
        follows = context.said and len(slots.words) <= _FEW and not reading.label.startswith(_ACTS)
        of_its_own = bool(context.planned) or bool(getattr(context.before, "path", ""))  # rules of their own read those
        if follows and not of_its_own and not reading.sure and reading.probability < _DOUBTED:
            guesses = self._behind(guesses, sentence, slots, context)
            by_kind = kinds(guesses)
            reading = replace(self._as(by_kind[0], True, slots, context), sure=False)
        reading = _of_its_test(reading, guesses)
        offered = [one.label for one in by_kind if kind_of(one.label) not in _NOT_OFFERED]
        nearest = tuple(self.head.offer(label) for label in offered[:_NEAREST])
        return replace(
            reading,
            likely=tuple(dict.fromkeys(one.label for one in guesses[:_LIKELY] if one.label != NOTHING)),
            nearest=nearest,
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts in numbers, a row each."""
        return self._encoder.embed(texts)

    def examples_near(self, sentence: str, label: str, count: int) -> list[str]:
        """The examples of a label that a sentence is nearest to in meaning, the nearest first."""
        slots = slots_of(sentence[:LONGEST], ())
        return self.head.nearest(self._embedded(canonical(slots, self.head.vocabulary)), label, count)

    def _behind(self, guesses: Sequence[Guess], sentence: str, slots: Slots, context: Context) -> list[Guess]:
        """Few words weighed by what they are read as together with those that they follow on: how much, how long and
        how good mean what was spoken of."""
        together = slots_of(f"{sentence} ({context.said[:LONGEST]})", context.runs)
        read = self.head.guesses(self._embedded(canonical(together, self.head.vocabulary)), slots, context.at)
        likely = {one.label: one.probability for one in reversed(_possible(read, slots, context))}
        return _rescaled([replace(one, probability=(one.probability * likely[one.label]) ** 0.5) for one in guesses])

    def _least(self, reading: Reading) -> float:
        """The probability from which a reading may be acted on."""
        order, edits = reading.order, reading.edits
        destroys = reading.label in _DESTROYS and not (edits and edits.changes)
        if destroys or not reading.label.startswith(("do.", "plan.", "want", "go_on", "accept")):
            return self.head.threshold
        if order and names_no_step(order, reading.slots):
            return _NEVER
        if order and empty_words().issuperset(word.text for word in reading.slots.words):
            return self.head.threshold  # `that one of the other time`: no word of it names what is to be done
        rows_of = reading.label == "plan.rows" and reading.slots.all("run") and "rows" in reading.slots.values("field")
        whole = (
            bool(edits.changes or rows_of) and not edits.unread
            if edits
            else bool(order and order.fields and not order.unread)
        )
        return min(self.head.threshold, _EACH_WORD_READ if whole else _BEHIND_A_YES)

    def _as(self, guess: Guess, sure: bool, slots: Slots, context: Context) -> Reading:
        slots = resolved(slots, context.now)
        guess = replace(guess, label=_of_rows(guess.label, slots, ()))
        label, act = guess.label, guess.label.removeprefix("do.")
        request = self._request(label, slots, context)
        order = order_of(act, slots, self.known(label)) if act != label and act in catalog.ENTRIES else None
        edits = None
        if context.planned and (order or label in _ABOUT_PLANS):
            # a value may be of the step that is added
            planned = (*context.planned, *(slots.values("stage") if label == "plan.add" else ()))
            edits = edits_of(slots, planned, self.known(label), leaves_out=label == "plan.without")
            # one in a remark beside it holds nothing back
            held = (one for one in on_condition(slots) if label != _IMAGINED and one not in " ".join(edits.beside))
            edits = replace(edits, unread=(*edits.unread, *held))
        unnamed = request is None and (kind_of(label) in REQUESTS or label == "follow")
        return Reading(label, guess.probability, sure and not unnamed, slots, request, order, edits)

    def known(self, label: str) -> Callable[[str], bool]:
        """Whether a word belongs to how a thing of this label is said."""
        same = [label, *(one for one, meant in _MEANS_OF_A_PLAN.items() if meant == label)]
        own = frozenset().union(*(self.head.own_words.get(one, ()) for one in same))
        return lambda word: word in own or slip_of(word, own)

    def _request(self, label: str, slots: Slots, context: Context) -> Query | None:
        runs = [run.id for run in context.runs if run.name not in ASIDE_RUNS]
        kind, _, choice = label.partition(".")
        content = content_of(slots, self.known(label))
        asked = Asked(kind, choice, slots, content, context.labels)
        if label == "follow":
            return followed(context.before, asked, runs) if context.before is not None else None
        return _carried(request_of(asked, context.before), context.before, slots) if kind in REQUESTS else None


def names_no_step(order: Order, slots: Slots) -> bool:
    """Whether of the words with a content none is one of this step or of any: `blorp the flurb`."""
    if order.fields or order.factors or slots.all("stage"):
        return False
    said = slots.unread([*places_of(slots, OWN_SLOTS), *idle_places(slots)], lambda word: False)
    unread = {word.written for text in order.unread for word in words_of(text)}
    return bool(said) and all(word.written in unread for word in said)


def _of_its_test(reading: Reading, guesses: Sequence[Guess]) -> Reading:
    """What is asked of a model that is named: what it passes, and not whether the step was done that makes it, where a
    test is named, or of all orders that for one is by far the likeliest."""
    orders = {one.label: one.probability for one in guesses if one.label.startswith("do.")}
    test, named = orders.pop("do.evaluate", 0.0), "evaluate" in reading.slots.values("stage")
    tested = named or test > _BY_FAR * max(orders.values(), default=0.0)
    arm = reading.slots.first("arm") if tested and reading.label == "run.status" else ""
    asked = ResultQuery.model_validate({"arm": arm, "run": reading.slots.first("run")})
    return replace(reading, request=asked) if arm else reading


def _of_another_run(context: Context, before: Query, slots: Slots) -> bool:
    """Whether a run's name asks the question before of it: that has a run, and spoke of another one, the newest where
    it named none."""
    newest = context.runs[0].id if context.runs else ""
    return "run" in type(before).model_fields and slots.values("run") != [getattr(before, "run", "") or newest]


def content_of(slots: Slots, known: Callable[[str], bool]) -> str:
    """The words that tell a case or a row: what is left without the run, the arm and how such a thing is asked."""
    places = [(slot.start, slot.end) for slot in slots.named if slot.kind in _AROUND]
    return " ".join(word.written for word in slots.unread(places, known))


_AROUND = ("run", "arm", "block", "verdict", "origin", "case", "row", "which_run")


def _possible(guesses: Sequence[Guess], slots: Slots, context: Context) -> list[Guess]:
    """The guesses that this moment allows."""
    if context.planned and not context.describing and not slots.all("run"):
        of_the_plan = bool(slots.all("card") or slots.all("card_gib")) and not slots.all("model")
        means = _MEANS_OF_A_PLAN | ({"plan.cost": _ON_A_CARD} if of_the_plan else {})
        means |= {"fits.fit": _ON_A_CARD} if of_the_plan and slots.all("field") else {}
        if slots.numbers and slots.asks and all(one.kind == "pronoun" for one in slots.named):
            means |= dict.fromkeys(("term", "plan.show"), "plan.why")  # `what does the 16 mean?`
    else:
        means = _MEANS_OF_STEPS_AHEAD if context.moment == "midway" else {}
    guesses = [replace(guess, label=means.get(guess.label, guess.label)) for guess in guesses]
    moment = {"planned": bool(context.planned), "describing": context.describing, "follows": context.before is not None}
    leaves_out = any(slots.negated(slot) for slot in slots.all("stage") if slot.value in context.planned)
    prior = {"follow": _FOLLOWS, "want": _ANOTHER_WISH if leaves_out else 1.0, "term": 0.0 if slots.all("run") else 1.0}
    prior |= dict.fromkeys(("compare_runs", "across"), _TWO_RUNS if len(slots.values("run")) == 2 else 1.0)
    several = len({match.name for match in everyday("asked_of", slots.words)}) > 1
    if several and context.at in ("midway", "broken_off") and not any(slots.all(kind) for kind in _OF_A_THING):
        prior["run.remaining"] = _OF_ALL_AHEAD
    prior |= dict.fromkeys(_settled(slots), _OF_ITS_ARGUMENTS)
    open_ = [
        replace(guess, probability=guess.probability * prior.get(guess.label, prior.get(kind_of(guess.label), 1.0)))
        for guess in guesses
        if possible(guess.label, **moment)
    ]
    return _rescaled(open_)


def _rescaled(guesses: Sequence[Guess]) -> list[Guess]:
    """Guesses as shares of one, the likeliest first."""
    total = sum(guess.probability for guess in guesses) or 1.0
    rescaled = (replace(guess, probability=guess.probability / total) for guess in guesses)
    return sorted(rescaled, key=lambda guess: -guess.probability)


def _of_rows(label: str, slots: Slots, near: Sequence[Guess]) -> str:
    """The label, where a change of the plan takes the rows of a run that is named: `no new rows, reuse r1's`, or words
    that are nearly read as that, deny no rows and want neither more nor fewer."""
    rows = [slot for slot in slots.all("field") if slot.value == "rows"]
    if not slots.all("run") or not rows:
        return label
    other = slots.numbers or slots.all("unspoken") or any(denied(slots, one) for one in rows)
    nearly = not other and "plan.rows" in [guess.label for guess in near]
    reuses = nearly or lexicon()["reuses"].find(slots.words)
    return "plan.rows" if reuses and label in ("plan.set", "plan.without", "plan.as_before") else label


def _settled(slots: Slots) -> tuple[str, ...]:
    """The kinds of question that what is named settles: a place among cases, two of which one forgot more."""
    if place_in_list(slots).of_cases:
        return ("cases",)
    return ("compare_runs", "across") if forgetting_of_two(slots) else ()


def _carried(request: Query | None, before: Query | None, slots: Slots) -> Query | None:
    """The request about what was talked about, where a word such as `it` stands for the model or the step; a question
    about a file that names none is about the one before."""
    if request is None or before is None:
        return request
    if getattr(request, "path", None) == "" and (path := getattr(before, "path", "")):  # not every question has one
        return request.model_copy(update={"path": path})
    if not slots.all("pronoun"):
        return request
    given: dict[str, str] = {}
    names_one = any(slots.all(kind) for kind in ("arm", "stage", "step", "model", "run", "made", "artifact"))
    for name in ("arm", "stage", "made", "model"):
        had = getattr(before, name, "")
        if had and name in type(request).model_fields and not (getattr(request, name) or names_one):
            given[name] = had
    return request.model_copy(update=given) if given else request


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


def read_or_not(sentence: str, context: Context) -> Reading:
    """The same; with nothing but what the sentence names where it cannot be read."""
    try:
        return read(sentence, context)
    except NoEncoder:
        return Reading("", 0.0, False, slots_of(sentence[:LONGEST], context.runs))
