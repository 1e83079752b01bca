"""What is typed at a price that waits and is no answer to it: a question back, other values, or what nobody understood.

Nothing is ordered here: only facts, terms and what would fit are told, and the price is asked about again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from tunesmith.agent.commands.approvals import (
    SHOW_ALL,
    after_no,
    begins_with_yes,
    holds_back,
    is_no_and_yes,
    read_answer,
)
from tunesmith.agent.commands.price import in_a_sentence
from tunesmith.agent.driver.look_ups import GUESSED, answer_to, looked_up, meaning, turn_context
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.answer import GOES_ON, clip
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.words import reading
from tunesmith.agent.words.acts import assigned, bare_number, known_fields
from tunesmith.agent.words.edits import Edits
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.lexicon import lexicon
from tunesmith.agent.words.slots import Slots, amounts, slots_of
from tunesmith.agent.words.unread import found_as_written
from tunesmith.agent.words.values import numbers_in
from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog

_WORK_CHARACTERS = 100
"""Of each thing that a step does: a price is asked about again right behind it."""
_A_NO, _ASKS_BEHIND_NO = 0.9, 0.75
"""From which probability words without a no are one: it begins nothing. And from which what stands behind a no, and has
no question mark, is a question."""
_IN_BYTES = ("memory", "disk")
_MONEY = "A step on this computer costs no money, and its power is not measured."
_SHORTER_BY = ("epochs", "rows")
"""What the time of a step grows with, nearly."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The step whose price waits; empty where another question does."""

    stage: str = ""
    price: str = "The price stands above."
    """In a line."""
    work: str = ""
    """What its time is spent on."""
    values: Mapping[str, object] = field(default_factory=dict)
    """Field → its value in this price."""
    plan: Plan | None = None

    @classmethod
    def of(cls, plan: Plan | None) -> Waits:
        """What waits of a plan."""
        if plan is None:
            return cls()
        work = f"What takes the time: {'; '.join(clip(step, _WORK_CHARACTERS) for step in plan.steps)}."
        return cls(plan.stage, in_a_sentence(plan), work, plan.request, plan)

    @property
    def stopping(self) -> str:
        """What becomes of it where it is stopped half-way."""
        goes_on = f"“go on” takes it up {GOES_ON[self.stage]}" if self.stage in GOES_ON else "“go on” begins it anew"
        return f"`/stop` ends it half-way, and later {goes_on}."

    def told(self, label: str) -> str:
        """What is said to words about the price, by their label; empty for words about something else."""
        if label in ("price", "plan.cost", "plan.show", "plan.why", "why", "talk.slow", "talk.trust"):
            return " ".join([self.price, self.work, _MONEY, "“why” shows all of it."])
        waits = f"{self.stage} waits: nothing starts without a yes, or by the clock; “{self.stage}” shows it again."
        alone = f"A yes here starts {self.stage} alone: each step after it shows its own price and asks first."
        card = " It uses no graphics card." if self.plan and not self.plan.estimate.peak_vram_bytes else ""
        explained = meaning(slots_of(self.stage)) or self.work  # `in plain words`
        first = {
            "talk.power": _MONEY, "talk.licence": _MONEY, "talk.stop_how": self.stopping, "plan.wait": waits,
            "do.approve": alone, "talk.which_ask": alone,
            "talk.beside": self.plan and f"You can go on, a bit slower. {self._left('memory')}{card} {self.stopping}",
            **dict.fromkeys(("findings.all", "findings.why", "term", "talk.help", "again.shorter"), explained),
        }.get(label)  # fmt: skip
        return f"{first} {self.price}" if first else ""

    @property
    def not_understood(self) -> str:
        """What is always said to words that nobody understood."""
        return (
            f"That is neither a yes nor a no, and I am not sure what it asks. {self.price} {self.shorter} {_MONEY} "
            f"{self.stopping} “why” shows all of it; {self.stage} starts only after a yes."
        )

    @property
    def shorter(self) -> str:
        """What would make it take less time."""
        less = self._less(0.5)
        return (
            f"{less} would take about half as long: type it."
            if less
            else f"No setting is known to shorten {self.stage}."
        )

    def _less(self, share: float) -> str:
        """The setting, with its value, that it takes nearly such a share of the time with; empty: none is known."""
        for name in _SHORTER_BY:
            now = self.values.get(name)
            if _number(now) and (less := round(now * share, 1 if isinstance(now, float) else None)):
                return f"{name}={less:g}"
        return ""

    def limits(self, slots: Slots) -> str:
        """The same with what a yes would do; empty where no words hold it to anything."""
        told = self.held_to(slots)
        return told and f"{told} Yes starts it now; nothing starts by the clock, or before a yes. {self.price}"

    def held_to(self, slots: Slots) -> str:
        """How the price stands to the time, memory or disk that words name, be that the most that it may need or the
        least that it is to leave; empty where they name none of it."""
        if self.plan is None:
            return ""
        found = amounts(slots)
        told = [self._time(most) for what, most in found if what == "time"]
        most = [limit for what, limit in found if what == "size"]
        named = [match.name for match in lexicon()["asked_of"].find(slots.words) if match.name in _IN_BYTES]
        for name in dict.fromkeys(named or (_IN_BYTES if most else ())):
            told += [self._left(name)]
            needs, free = self._needs(name)
            told += [f"It needs {'no more' if needs <= cap else 'more'} than {size(cap)} and leaves "
                     f"{'no less' if free - needs >= cap else 'less'}." for cap in most]  # fmt: skip
        return " ".join(told)

    def _needs(self, name: str) -> tuple[int, int]:
        """What it needs of the disk or the memory, of the card's where it uses one, and how much of that is free."""
        assert self.plan is not None
        plan, cost = self.plan, self.plan.estimate
        of_card = (cost.peak_vram_bytes, plan.free_vram_bytes)
        memory = of_card if cost.peak_vram_bytes else (cost.peak_ram_bytes, plan.free_ram_bytes)
        return (cost.disk_bytes, plan.free_disk_bytes) if name == "disk" else memory

    def _left(self, name: str) -> str:
        """What it needs of the memory or the disk that is free, and what it leaves."""
        needs, free = self._needs(name)
        share, left = needs / free if free else 1.0, max(free - needs, 0)
        return f"Of {size(free)} of {name} that is free it needs {size(needs)} ({share:.1%}), leaving {size(left)}."

    def _time(self, limit: float) -> str:
        """How long it takes, beside a limit in seconds; for a longer one what would be near it."""
        assert self.plan is not None
        cost = self.plan.estimate
        takes, most = f"Its estimate is {duration(cost.seconds)}", max(cost.seconds, cost.most_seconds)
        if cost.seconds <= limit:
            also = "also at its longest" if most <= limit else f"though it may take {duration(most)}"
            return f"{takes}: within {duration(limit)}, {also}."
        if near := self._less(limit / cost.seconds):
            return f"{takes}: over {duration(limit)}. Near it would be {near}: type it, and it is priced."
        return f"{takes}: over {duration(limit)}, and no setting of it is known to bring it near that."


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def aside(deps: TurnDeps, words: str, waits: Waits) -> str:
    """What the records say to a question that is asked while another one waits for its answer; empty for other words.

    What is asked of the price is answered by it. What begins as a no and goes on as a question is one.
    """
    stage = waits.stage
    decided = read_answer(words, by="terminal", stage=stage)
    rest = after_no(words) if decided else ""
    asks = words.rstrip().endswith(("?", "？"))
    if "=" in words or words.strip().lower() in SHOW_ALL or as_answer(words, waits):
        return ""
    pauses = found_as_written("takes_back", slots_of(words).words[:3])  # `no wait` says neither
    if decided and (decided.yes or not decided.reason or not (asks or rest or pauses)):
        return ""
    goes_on = bool(rest) and begins_with_yes(rest, stage) and not holds_back(rest)
    if stage and (goes_on or (decided is None and is_no_and_yes(words, stage))):
        return f"“{words.strip()}” begins as a no and goes on as a yes, so it is asked once more; nothing was started."
    try:
        at_price = _likeliest(deps, rest or words, waits)
        of_a_model = _read(at_price.slots.sentence, turn_context(deps), "result").request
        if pauses and of_a_model is not None and at_price.slots.all("arm"):
            return f"{looked_up(deps, of_a_model).text}\n{waits.price}"
        if decided and at_price.label == "plan.wait":  # `not now, yes?`
            return ""
        if decided and not _asks_behind_no(at_price, words):
            return _to_what(at_price, waits) if stage and at_price.label not in _REASONS else ""
        why_not = at_price.label in ("why", "plan.why") and begins_with_yes(words, stage)  # `yes, why not?`
        if stage and (text := _of_the_price(deps, words, at_price, waits, why_not=why_not)):
            return text
        may_ask = at_price.slots.asks or at_price.tells or bool(rest) or at_price.request is not None
        guessed = not at_price.sure and may_ask and at_price.probability >= GUESSED
        answer = None if why_not else answer_to(deps, replace(at_price, sure=at_price.sure or guessed))
        if answer and guessed:
            return f"{answer.text}\n(I read that with little certainty. {waits.price})"
    except NoEncoder:
        return ""
    except TunesmithError as error:
        return str(error)
    unread = at_price.slots.asks or (decided is None and bool(at_price.slots.words))
    if answer is None and stage and unread and not begins_with_yes(words, stage):
        return waits.not_understood
    return answer.text if answer else ""


def _likeliest(deps: TurnDeps, words: str, waits: Waits) -> reading.Reading:
    """The words read at this price; where they are not read with certainty, the question that they end with, if that
    is."""
    planned = (waits.stage,) if waits.stage else ()
    context = replace(turn_context(deps), planned=planned, moment="price", now=waits.values)
    whole = _read(words, context)
    last = re.split(r"(?<=[,.!;…])\s+", words.strip())[-1]
    if whole.sure or last == words.strip() or not last.endswith(("?", "？")):
        return whole
    return max(whole, reading.read(last, context), key=lambda one: one.probability)


def _read(words: str, context: reading.Context, label: str = "") -> reading.Reading:
    """The words read; a number alone gives a value. Raises NoEncoder."""
    alone = [(one.start, one.end) for one in numbers_in(words)] == [(0, len(words))]
    return reading.reader().read(words, context, label or ("plan.set" if alone else ""))


def _asks_behind_no(said: reading.Reading, words: str) -> bool:
    """Whether what stands behind a no is a question, and no reason for it."""
    begins = any(match.first == 0 for match in lexicon()["asking"].find(said.slots.words))
    asks = begins or said.slots.asks or words.lower().startswith("wait")
    of_records = said.request is not None or said.kind == "term"
    return said.slots.asks or (of_records and said.probability >= (GUESSED if asks else _ASKS_BEHIND_NO))


def _of_the_price(deps: TurnDeps, words: str, said: reading.Reading, waits: Waits, *, why_not: bool) -> str:
    """What is said to words about the step whose price waits; empty for others. Raises NotFound, BadInput."""
    stage, asked, agrees = waits.stage, said.request, begins_with_yes(words, waits.stage)
    of_another = isinstance(asked, PriceQuery) and (asked.stage not in ("", stage) or asked.values or asked.times)
    certain = said.sure if said.label == "plan.wait" else said.probability >= GUESSED
    others = [one for one in said.slots.all("stage") if one.value != stage]
    as_typed = (all(w.text == w.written for w in said.slots.between(one.start, one.end)) for one in others)
    if agrees and any(as_typed):  # `yes, but don't deploy it`; `morgen` is no slip of `merge`
        return waits.told("talk.which_ask")
    faster = said.slots.first("pace") == "fast" or (
        said.label == "plan.what_if" and "least" in said.slots.values("order")
    )
    if faster and said.slots.asks and not (agrees or of_another or said.slots.all("field") or said.kind == "again"):
        return f"{waits.shorter} {waits.limits(said.slots) or waits.price}"
    if (agrees or said.label in _OF_A_LIMIT) and not of_another and (text := waits.limits(said.slots)):
        return f"{waits.work} {text}" if said.label in _OF_ITS_PRICE else text  # `ten minutes of what?`
    if certain and not (of_another or why_not) and (text := waits.told(said.label)):
        return text
    if said.label in _SETS and not said.slots.asks and (text := _to_what(said, waits)):
        return text
    if agrees and "plan.wait" in said.likely[:2]:  # `do it tonight`
        return waits.told("plan.wait")
    if said.sure and said.label == "plan.what_if":
        asked = reading.reader().read(words, replace(turn_context(deps), now=waits.values), "price").request
        if isinstance(asked, PriceQuery) and asked.stage == stage and (asked.values or asked.times):
            return looked_up(deps, asked).text
        return f"Type a value as field=value: {stage} is priced with it then; `/help {stage}` lists the fields."
    return ""


_SETS = ("plan.set", "plan.undo", "plan.what_if", "plan.as_before", "remark")
_REASONS = ("remark", "plan.drop", "no")
"""What a value behind a no is only spoken of in."""
_OF_ITS_PRICE = ("price", "plan.cost")
_OF_A_LIMIT = (*_OF_ITS_PRICE, "plan.wait", "plan.start", "plan.set", "plan.what_if", "remark")


def _to_what(said: reading.Reading, waits: Waits) -> str:
    """What is typed for a setting that is to be another one, where words name no value, a bare number that one of
    several may be meant by, or a value beside what nobody understood; empty where they name none of this step."""
    fields = catalog.ENTRIES[waits.stage].load().request.model_fields if waits.stage in catalog.ENTRIES else {}
    named = [name for name in said.slots.values("field") if name in fields and name != "run"]
    foreign = [one for one in assigned(said.slots) if one.field not in fields]
    if foreign and not named and said.label == "plan.set":
        name, owner = foreign[0].field, known_fields()[foreign[0].field][0]
        order = f"{owner} {name}={foreign[0].value}"
        return f"{name} is no setting of {waits.stage}: “{order}” prices {owner} with it. {waits.price}"
    numbers = [one for one in said.slots.numbers if not one.unit]
    values = {one.field: one.value for one in assigned(said.slots, (waits.stage,))} if numbers else {}
    if len(numbers) == 1 and not named and said.label == "plan.set":
        named = [name for name in _settable(waits) if float(str(waits.values[name])) >= 1]  # no learning rate of 2
        values = dict.fromkeys(named, f"{numbers[0].value:g}")
    if not named or (numbers and not values):
        return ""
    others, now = [f"{name}={value}" for name, value in values.items()], waits.values.get(named[0])
    if not values:
        more = [now // 2 or 1 if isinstance(now, int) else now / 2, now * 2] if _number(now) and now > 0 else ["…"]
        others = [f"{named[0]}={other}" for other in more if other != now]
    stands = f"is {now}" if now is not None else "has its usual value"
    such = f"Type such as {' or '.join(others)}, and it is priced anew."
    return f"{named[0]} {stands} in this price, and nothing was started. To what? {such}"


def _settable(waits: Waits) -> list[str]:
    """The settings with a number that people give to a step, as its price has them."""
    settable = catalog.ENTRIES[waits.stage].load().settable if waits.stage in catalog.ENTRIES else ()
    return [name for name in settable if _number(waits.values.get(name))]


def as_answer(words: str, waits: Waits) -> str:
    """What words that the gate itself cannot read come to: `field=value …` of those that set fields of the step, such
    as `yes but with rank 8`, or behind a no; and a no with them where they are certainly read as one.

    Empty for every other answer, for one that only speaks of a value, and for one with a word that no field took.
    """
    stage = waits.stage
    decided = read_answer(words, by="terminal", stage=stage)
    rest = after_no(words) if decided and not decided.yes and decided.reason else ""
    if "=" in words or "?" in words or len(words) > reading.LONGEST or (decided and not rest) or not stage:
        return ""
    try:
        understood = _read(rest or words, reading.Context(planned=(stage,), now=waits.values))
        sets = understood.sure and understood.edits and understood.label != "plan.what_if"
        if sets and (values := _values(understood, waits)):
            return " ".join(f"{name}={value}" for name, value in values.items())
        if decided or begins_with_yes(words, stage) or is_no_and_yes(words, stage):
            return ""
        refused = _read(words, reading.Context(planned=(stage,), moment="price", now=waits.values))
    except NoEncoder:
        return ""
    certain = refused.sure and refused.probability >= _A_NO and refused.label in ("plan.drop", "no")
    return f"no, {words.strip()}" if certain and not refused.slots.numbers else ""


def _values(said: reading.Reading, waits: Waits) -> dict[str, object]:
    """The values that edits set, a multiple of what the price has worked out; a bare number, or `half as many`, is
    meant for the one number that people give to this step. Empty where anything else is in them."""
    edits, slots = said.edits or Edits(), said.slots
    answers = ((part, read_answer(part, by="terminal", stage=waits.stage)) for part in edits.unread)
    unread = [part for part, answer in answers if not (answer and answer.yes)]
    given = (one for one in edits.values if isinstance(one.value, int | float | str))
    values: dict[str, object] = {one.field: one.value for one in given}
    times, own = dict(edits.factors), _settable(waits)
    if not values and not times and not slots.all("field") and len(own) == 1:
        if bare := bare_number(waits.stage, unread):
            values, unread = bare, []
        elif not unread and len(factors := slots.all("factor")) == 1:
            times = {own[0]: float(str(factors[0].value))}
    for name, factor in times.items():
        now = waits.values.get(name)
        if not _number(now):
            return {}
        values[name] = type(now)(now * factor)
    if unread or edits.without or edits.model or edits.last or edits.pace or edits.beside:
        return {}
    return values
