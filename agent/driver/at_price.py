"""What is typed at a price that waits and is no answer to it: a question back, other values, or what nobody understood.

Nothing is ordered here: only facts, terms and what would fit are told, and the price is asked about again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tunesmith.agent.commands.approvals import SHOW_ALL, begins_with_yes, is_no_and_yes, read_answer
from tunesmith.agent.commands.price import in_a_sentence
from tunesmith.agent.driver.look_ups import GUESSED, answer_to, looked_up, meaning, turn_context
from tunesmith.agent.driver.restated import in_form
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.answer import GOES_ON, clip
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.words import reading
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.slots import slots_of
from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog

_WORK_CHARACTERS = 100
"""Of each thing that a step does: a price is asked about again right behind it."""


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

    @classmethod
    def of(cls, plan: Plan | None) -> Waits:
        """What waits of a plan."""
        if plan is None:
            return cls()
        work = f"What takes the time: {'; '.join(clip(step, _WORK_CHARACTERS) for step in plan.steps)}."
        return cls(plan.stage, in_a_sentence(plan), work, plan.request)

    @property
    def money(self) -> str:
        """That a step takes none."""
        return "A step on this computer costs no money, and its power is not measured."

    @property
    def stopping(self) -> str:
        """What becomes of it where it is stopped half-way."""
        goes_on = f"“go on” takes it up {GOES_ON[self.stage]}" if self.stage in GOES_ON else "“go on” begins it anew"
        return f"`/stop` ends it half-way, and later {goes_on}."

    def told(self, label: str) -> str:
        """What is said to words about the price, by their label; empty for words about something else."""
        match label:
            case "again" | "again.units" | "again.percent" | "again.shorter":
                return in_form(self.price, label.partition(".")[2])
            case "price" | "plan.cost" | "plan.show" | "plan.why" | "why" | "talk.slow" | "talk.trust":
                return " ".join([self.price, self.work, self.money, "“why” shows all of it."])
            case "findings.all" | "findings.why" | "term" | "talk.help":  # `in plain words`
                return f"{meaning(slots_of(self.stage))} {self.price}".strip()
            case "talk.power" | "talk.licence":
                return f"{self.money} {self.price}"
            case "talk.stop_how":
                return f"{self.stopping} {self.price}"
            case "plan.wait":
                again = f"After a no “{self.stage}” shows it again."
                return f"{self.stage} waits: nothing starts without a yes. {self.price} {again}"
        return ""

    @property
    def not_understood(self) -> str:
        """What is always said to words that nobody understood."""
        return (
            f"That is neither a yes nor a no, and I am not sure what it asks. {self.price} {self.money} "
            f"{self.stopping} “why” shows all of it; {self.stage} starts only after a yes."
        )


def aside(deps: TurnDeps, words: str, waits: Waits) -> str:
    """What the records say to a question that is asked while another one waits for its answer; empty for other words.

    What is asked of the price is answered by it. What begins as a no and is read as a question is one.
    """
    stage = waits.stage
    decided = read_answer(words, by="terminal", stage=stage)
    if (
        "=" in words
        or words.strip().lower() in SHOW_ALL
        or (decided and (not decided.reason or not words.rstrip().endswith(("?", "？"))))
    ):
        return ""
    if decided is None and stage and is_no_and_yes(words, stage):
        return f"“{words.strip()}” begins as a no and goes on as a yes, so it is asked once more; nothing was started."
    context = replace(turn_context(deps), planned=(stage,) if stage else (), moment="price")
    try:
        at_price = reading.read(words, context)
        if decided and at_price.label == "plan.wait":  # `not now, yes?`
            return ""
        why_not = at_price.label in ("why", "plan.why") and begins_with_yes(words, stage)  # `yes, why not?`
        if stage and (text := _of_the_price(deps, words, at_price, waits, why_not=why_not)):
            return text
        asks = at_price.slots.asks or at_price.kind == "talk"
        guessed = not at_price.sure and asks and at_price.probability >= GUESSED
        answer = None if why_not else answer_to(deps, replace(at_price, sure=at_price.sure or guessed))
        if answer and guessed:
            return f"{answer.text}\n(I read that with little certainty. {waits.price})"
    except NoEncoder:
        return ""
    except TunesmithError as error:
        return str(error)
    unread = at_price.slots.asks or (decided is None and bool(at_price.slots.words) and not as_edit(words, stage))
    if answer is None and stage and unread and not begins_with_yes(words, stage):
        return waits.not_understood
    return answer.text if answer else ""


def _of_the_price(deps: TurnDeps, words: str, said: reading.Reading, waits: Waits, *, why_not: bool) -> str:
    """What is said to words about the step whose price waits; empty for others. Raises NotFound, BadInput."""
    stage, asked = waits.stage, said.request
    of_another = isinstance(asked, PriceQuery) and (asked.stage not in ("", stage) or asked.values or asked.times)
    certain = said.sure if said.label == "plan.wait" else said.probability >= GUESSED
    if certain and not (of_another or why_not) and (text := waits.told(said.label)):
        return text
    if said.label in _SETS and not said.slots.asks and (text := _to_what(said, words, waits)):
        return text
    if said.sure and said.label == "plan.what_if":
        asked = reading.reader().read(words, turn_context(deps), "price").request
        if isinstance(asked, PriceQuery) and asked.stage == stage and (asked.values or asked.times):
            return looked_up(deps, asked).text
        return f"Type a value as field=value: {stage} is priced with it then; `/help {stage}` lists the fields."
    return ""


_SETS = ("plan.set", "plan.undo", "plan.what_if", "plan.as_before", "remark")


def _to_what(said: reading.Reading, words: str, waits: Waits) -> str:
    """The present value of a setting that is to be another one and was given no value; empty where none is."""
    fields = catalog.ENTRIES[waits.stage].load().request.model_fields if waits.stage in catalog.ENTRIES else {}
    name = next((name for name in said.slots.values("field") if name in fields and name != "run"), "")
    if not name or said.slots.numbers or as_edit(words, waits.stage):
        return ""
    now = waits.values.get(name)
    others: list[object] = ["…"]
    if isinstance(now, int | float) and not isinstance(now, bool) and now > 0:
        others = [now // 2 or 1 if isinstance(now, int) else now / 2, now * 2]
    such = " or ".join(f"{name}={other}" for other in others if other != now)
    stands = f"{name} is {now} in this price" if now is not None else f"{name} has its usual value in this price"
    return f"{stands}, and nothing was started. To what? Type such as {such}, and it is priced anew."


def as_edit(words: str, stage: str) -> str:
    """Words that set fields of a step to values, such as `yes but with rank 8 and two epochs`, as `field=value …`.

    Empty for every other answer, for one that only speaks of a value, and for one with a word that no field took.
    """
    if (
        "=" in words
        or "?" in words
        or len(words) > reading.LONGEST
        or read_answer(words, by="terminal", stage=stage) is not None
    ):
        return ""
    understood = reading.read_or_not(words, reading.Context(planned=(stage,)))
    edits = understood.edits
    if not understood.sure or understood.label == "plan.what_if" or edits is None:
        return ""
    unread = [
        part for part in edits.unread if not ((answer := read_answer(part, by="terminal", stage=stage)) and answer.yes)
    ]
    if unread or edits.without or edits.model or edits.last or edits.pace or edits.factors or edits.beside:
        return ""
    return " ".join(f"{one.field}={one.value}" for one in edits.values if isinstance(one.value, int | float | str))
